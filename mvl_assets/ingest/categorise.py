"""The category tables: a source's current samples, with what standardising will do to their images.

No image is decoded: the sizes stored with the images decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mvl_assets.common.batches import iter_batches
from mvl_assets.common.sample_facts import get_image_group_id
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.errors import SourceError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.tables import CATEGORY
from mvl_assets.lake_queries.views import iter_current_samples
from mvl_assets.media.image import compute_standard_size

BATCH_ROWS = 1024
_COLUMNS = ("sample_id", "version_id", "conversations", "image_ids", "video", "license", "holdout_hash")
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
    samples = iter_current_samples(lake, source.slug, _COLUMNS, BATCH_ROWS)
    for batch in iter_batches(samples, BATCH_ROWS):
        properties = lake.get_images(source.slug).read_properties(
            {name for sample in batch for name in sample["image_ids"]}
        )
        action_by_image_id = {
            name: compute_standard_size(image.width, image.height).action for name, image in properties.items()
        }
        rows = [_build_row(sample, source, run_id, action_by_image_id) for sample in batch]
        action_counts.update(str(row["image_action"]) for row in rows)
        yield pa.Table.from_pylist(rows, schema=CATEGORY.columns)


def _build_row(
    sample: dict[str, Any], source: SourceSpec, run_id: str, action_by_image_id: Mapping[str, str]
) -> dict[str, object]:
    image_ids = sample["image_ids"]
    return {
        "sample_id": sample["sample_id"],
        "version_id": sample["version_id"],
        "source": source.slug,
        "category": source.category,
        "group": source.group,
        "family": source.family,
        "modality": _infer_modality(sample),
        "image_group_id": get_image_group_id(sample["sample_id"], image_ids),
        "holdout_hash": sample["holdout_hash"],
        "license": sample["license"],
        "n_images": len(image_ids),
        "n_turns": len(sample["conversations"]),
        "n_chars": sum(len(turn["value"]) for turn in sample["conversations"]),
        "image_action": max(
            (action_by_image_id[name] for name in image_ids), key=_ACTIONS_BY_SEVERITY.index, default="as_is"
        ),
        "run_id": run_id,
    }


def _infer_modality(sample: dict[str, Any]) -> str:
    """Return the modality of the row itself: sources declared as single-image hold text and multi-image rows too."""
    if sample["video"] is not None:
        return "video"
    return ("text", "single_image")[len(sample["image_ids"])] if len(sample["image_ids"]) < 2 else "multi_image"
