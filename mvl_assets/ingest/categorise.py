"""The category tables: a source's current samples, with what standardising will do to their images.

Neither text nor images are read: the columns of `samples` say all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.errors import SourceError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CATEGORY
from mvl_assets.lake_queries.current_samples import CurrentSamples
from mvl_assets.media.image import compute_standard_size, is_standard_size

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
)
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
        "image_action": _compute_image_actions(samples.column("image_properties")),
        "run_id": run_id,
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
