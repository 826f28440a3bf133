"""A few duplicates with the content of both samples, for a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake

_COLUMNS = ("sample_id", "source", "revision", "conversations", "image_ids")


@dataclass(frozen=True, slots=True)
class DuplicateExample:
    """A row of `curation/duplicates` and the two samples that it names, as rows of `samples`."""

    duplicate: dict[str, Any]
    dropped: dict[str, Any]
    kept: dict[str, Any]


def read_duplicate_examples(lake: Lake, per_rule: int = 2) -> list[DuplicateExample]:
    """Return the first duplicates of each rule, near ones first; without those whose samples are gone."""
    table = lake.get_table("curation/duplicates")
    examples = []
    for rule in ("copied_images", "copied_images_similar_text", "similar_text", "exact"):
        for n_read, duplicate in enumerate(table.iter_rows(filter=sql.equals("rule", rule))):
            dropped = read_newest_version(lake, duplicate["source"], duplicate["sample_id"])
            kept = read_newest_version(lake, duplicate["canonical_source"], duplicate["canonical_sample_id"])
            if dropped is not None and kept is not None:
                examples.append(DuplicateExample(duplicate, dropped, kept))
            if n_read + 1 == per_rule:
                break
    return examples


def read_newest_version(lake: Lake, source: str, sample_id: str) -> dict[str, Any] | None:
    """Return what a page shows of a sample; None if it is gone."""
    rows = list(lake.get_table("samples").iter_rows(_COLUMNS, sql.equals("sample_id", sample_id), partition_key=source))
    return max(rows, key=lambda row: row["revision"], default=None)
