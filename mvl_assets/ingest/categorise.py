"""The category tables: which samples of a source are in use now, and what standardising will do to their pictures.

Nothing is decoded: the verdict is computed from the sizes stored with the pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.errors import SourceError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import CATEGORY
from mvl_assets.lake_queries.views import samples_now
from mvl_assets.media.image import standard_size

BATCH = 1024
_COLUMNS = ("sample_id", "version_id", "conversations", "image_ids", "video", "license")
_SEVERITY = ("as_is", "resized", "padded")


@dataclass(frozen=True, slots=True)
class CategoriseReport:
    """What a categorise did. `standardised` counts samples by what happens to their pictures."""

    rows: int
    added: int
    changed: int
    removed: int
    standardised: dict[str, int]
    data_version: str

    @property
    def facts(self) -> dict[str, int]:
        """What is worth showing beside the table."""
        verdicts = {f"pictures_{name}": self.standardised.get(name, 0) for name in _SEVERITY}
        return {"added": self.added, "changed": self.changed, "removed": self.removed, **verdicts}


def categorise_source(lake: Lake, source: SourceSpec, *, run_id: str) -> CategoriseReport:
    """Makes the newest versions of a source's samples its part of `category/<c>`, in one commit.

    Raises `SourceError` for a source of group C or without a group: those enter no category table (paper §2.1).
    """
    if source.group not in ("A", "B"):
        raise SourceError(
            source.slug,
            f"a source of group {source.group} enters no category table",
            hint=source.reason or "give it group A or B in the catalog",
        )
    verdicts: Counter[str] = Counter()
    published = lake.table(f"category/{source.category}").publish(_batches(lake, source, run_id, verdicts), source.slug)
    return CategoriseReport(
        rows=published.rows,
        added=published.added,
        changed=published.changed,
        removed=published.removed,
        standardised=dict(verdicts),
        data_version=published.data_version,
    )


def _batches(lake: Lake, source: SourceSpec, run_id: str, verdicts: Counter[str]) -> Iterator[pa.Table]:
    samples = samples_now(lake, source.slug, _COLUMNS, BATCH)
    while batch := list(islice(samples, BATCH)):
        sizes = lake.images.describe({name for sample in batch for name in sample["image_ids"]})
        verdict_of = {name: standard_size(info.width, info.height).verdict for name, info in sizes.items()}
        rows = [_row(sample, source, run_id, verdict_of) for sample in batch]
        verdicts.update(str(row["standardised"]) for row in rows)
        yield pa.Table.from_pylist(rows, schema=CATEGORY.columns)


def _row(sample: dict[str, Any], source: SourceSpec, run_id: str, verdict_of: Mapping[str, str]) -> dict[str, object]:
    image_ids = sample["image_ids"]
    return {
        "sample_id": sample["sample_id"],
        "version_id": sample["version_id"],
        "source": source.slug,
        "category": source.category,
        "group": source.group,
        "family": source.family,
        "modality": _modality(sample),
        "picture_key": image_ids[0] if image_ids else sample["sample_id"],
        "license": sample["license"],
        "n_images": len(image_ids),
        "n_turns": len(sample["conversations"]),
        "n_chars": sum(len(turn["value"]) for turn in sample["conversations"]),
        "standardised": max((verdict_of[name] for name in image_ids), key=_SEVERITY.index, default="as_is"),
        "run_id": run_id,
    }


def _modality(sample: dict[str, Any]) -> str:
    """Of the row itself: sources that are called single-picture hold text rows and several pictures too."""
    if sample["video"] is not None:
        return "video"
    return ("text", "single_image")[len(sample["image_ids"])] if len(sample["image_ids"]) < 2 else "multi_image"
