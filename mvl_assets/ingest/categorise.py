"""The category tables: a source's current samples, with what standardising will do to their images.

Neither text nor images are read: the columns of `samples` say all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.errors import SourceError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CATEGORY, TEXT_FACTS
from mvl_assets.lake_queries.current_samples import CurrentSamples
from mvl_assets.media.image import compute_standard_size, is_standard_size
from mvl_assets.media.tiles import TileGrid, compute_anyres_layout

BATCH_ROWS = 8192
_COLUMNS = (
    "sample_id",
    "version_id",
    "image_ids",
    "image_properties",
    "video",
    "license",
    "holdout_hash",
    "n_turns",
    "n_chars",
    "sharpness",
    *(name for name, _ in TEXT_FACTS),
)
ONE_VISION_GRID = TileGrid(384, 14, tuple((rows, columns) for rows in range(1, 7) for columns in range(1, 7)), 9)
"""The grid of the released model (recipe `paper-7b`); with another one tiles differ, but in the same order."""

_ACTIONS_BY_SEVERITY = ("as_is", "resized", "padded")


@dataclass(frozen=True, slots=True)
class CategoriseReport:
    """Result of categorising a source; `image_action_counts` counts samples by what happens to their images."""

    n_rows: int
    n_added: int
    n_changed: int
    n_removed: int
    image_action_counts: dict[str, int]
    data_version: str

    @property
    def metadata(self) -> dict[str, int]:
        """Counts to show with the table."""
        action_counts = {f"images_{name}": self.image_action_counts.get(name, 0) for name in _ACTIONS_BY_SEVERITY}
        return {"added": self.n_added, "changed": self.n_changed, "removed": self.n_removed, **action_counts}


def categorise_source(lake: Lake, source: SourceSpec, *, run_id: str) -> CategoriseReport:
    """Publish the newest versions of a source's samples as its partition of `category/<c>`, in one commit.

    Raises:
        SourceError: The source is of group C or has no group; those enter no category table (paper §2.1).
    """
    if source.group not in ("A", "B"):
        raise SourceError(
            source.slug,
            f"a source of group {source.group} enters no category table",
            hint=source.reason or "give it group A or B in the catalog",
        )
    action_counts: Counter[str] = Counter()
    published = lake.get_table(f"category/{source.category}").publish(
        _iter_tables(lake, source, run_id, action_counts), source.slug
    )
    return CategoriseReport(
        n_rows=published.n_rows,
        n_added=published.n_added,
        n_changed=published.n_changed,
        n_removed=published.n_removed,
        image_action_counts=dict(action_counts),
        data_version=published.data_version,
    )


def _iter_tables(lake: Lake, source: SourceSpec, run_id: str, action_counts: Counter[str]) -> Iterator[pa.Table]:
    for batch in CurrentSamples(lake, source.slug).scan(_COLUMNS, BATCH_ROWS):
        table = _build_table(batch, source, run_id)
        for counted in table.column("image_action").value_counts():
            action_counts[counted["values"].as_py()] += counted["counts"].as_py()
        yield table


def _build_table(samples: pa.RecordBatch, source: SourceSpec, run_id: str) -> pa.Table:
    image_ids = samples.column("image_ids")
    n_images = pc.fill_null(pc.list_value_length(image_ids), 0)
    has_images = pc.greater(n_images, 0)
    first_images = image_ids.values.take(image_ids.offsets[:-1].filter(has_images))
    columns: dict[str, pa.Array | str | None] = {
        "sample_id": samples.column("sample_id"),
        "version_id": samples.column("version_id"),
        "source": source.slug,
        "category": source.category,
        "group": source.group,
        "family": source.family,
        "modality": _infer_modalities(samples.column("video"), n_images),
        "image_group_id": pc.replace_with_mask(samples.column("sample_id"), has_images, first_images),
        "holdout_hash": samples.column("holdout_hash"),
        "license": samples.column("license"),
        "n_images": n_images,
        "n_turns": samples.column("n_turns"),
        "n_chars": samples.column("n_chars"),
        **{name: samples.column(name) for name, _ in TEXT_FACTS},
        "n_tiles": _count_tiles(samples.column("image_properties"), samples.column("video")),
        "image_action": _compute_image_actions(samples.column("image_properties")),
        "run_id": run_id,
        "sharpness": samples.column("sharpness"),
    }
    arrays = [
        pa.repeat(pa.scalar(columns[field.name], field.type), len(samples))
        if isinstance(columns[field.name], str | None)
        else columns[field.name]
        for field in CATEGORY.columns
    ]
    return pa.Table.from_arrays(arrays, schema=CATEGORY.columns)


def _infer_modalities(videos: pa.StructArray, n_images: pa.Int32Array) -> pa.StringArray:
    """Return the modality of each row itself: sources declared as single-image hold text and multi-image rows too."""
    by_count = pa.array(["text", "single_image", "multi_image"]).take(pc.min_element_wise(n_images, 2))
    return pc.if_else(videos.is_valid(), "video", by_count)


def _count_tiles(properties: pa.ListArray, videos: pa.StructArray) -> pa.Int32Array:
    """Return the tiles of each row: of its only image the whole one and those of its grid, else one per image."""
    n_images = pc.fill_null(pc.list_value_length(properties), 0).to_numpy(zero_copy_only=False)
    n_tiles = n_images.astype(np.int32)
    images = properties.flatten()
    sizes = [images.field(name).to_numpy(zero_copy_only=False) for name in ("height", "width")]
    is_still = ~videos.is_valid().to_numpy(zero_copy_only=False)
    row_indices = pc.list_parent_indices(properties).to_numpy()
    for row, height, width in zip(row_indices, *sizes, strict=True):
        if n_images[row] == 1 and is_still[row]:
            n_tiles[row] = _count_grid_tiles(int(height), int(width))
    return pa.array(n_tiles)


@lru_cache(maxsize=65_536)
def _count_grid_tiles(height: int, width: int) -> int:
    standard_width, standard_height = compute_standard_size(width, height).canvas
    return compute_anyres_layout(standard_height, standard_width, ONE_VISION_GRID).n_tiles


def _compute_image_actions(properties: pa.ListArray) -> pa.StringArray:
    """Return what standardising does to the images of each row: of several, the most that it does to one."""
    images = properties.flatten()
    widths, heights = (images.field(name).to_numpy(zero_copy_only=False) for name in ("width", "height"))
    row_indices = pc.list_parent_indices(properties).to_numpy()
    severity = np.zeros(len(properties), dtype=np.int64)
    for index in np.flatnonzero(~is_standard_size(widths, heights)):
        action = compute_standard_size(int(widths[index]), int(heights[index])).action
        row = row_indices[index]
        severity[row] = max(severity[row], _ACTIONS_BY_SEVERITY.index(action))
    return pa.array(_ACTIONS_BY_SEVERITY).take(pa.array(severity))
