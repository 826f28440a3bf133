"""Whether a LLaVA export is what a trainer can read: read again from its files, after they were written."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from mvl_assets.common.batches import iter_batches
from mvl_assets.common.markers import IMAGE_MARKER
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_stage import ExportResult

MAX_PROBLEMS = 10
"""Problems that are named; the others are counted."""

ENTRIES_PER_BATCH = 2048


def check_export(folder: ExportFolder, export: ExportResult) -> list[str]:
    """Return what is wrong with one exported mixture.

    Its files have as many entries as the mixture has rows. Each entry begins with a question and has as many markers as
    it names images. These are in the folder or, where there are shards, each has its tar, which is not opened.

    Args:
        folder: Folder of the export.
        export: What was written.
    """
    all_problems = _iter_problems(folder, export)
    problems = list(islice(all_problems, MAX_PROBLEMS))
    n_more = sum(1 for _ in all_problems)
    return [*problems, f"and {n_more:,} more"] if n_more else problems


def _iter_problems(folder: ExportFolder, export: ExportResult) -> Iterator[str]:
    files, has_shards = [export.name], not export.name.endswith(".json")
    if has_shards:
        files = sorted(name for name in folder.list_files(export.name) if name.endswith(".jsonl"))
        tars = (f"{export.name}-images/{name.rpartition('/')[2].removesuffix('.jsonl')}.tar" for name in files)
        yield from (f"{name} is missing" for name in sorted(folder.find_missing(tars)))
    n_entries = 0
    for file in files:
        for batch in iter_batches(_iter_entries(folder, file), ENTRIES_PER_BATCH):
            n_entries += len(batch)
            yield from (f"{file}: {entry['id']} {problem}" for entry in batch if (problem := _check_entry(entry)))
            if not has_shards:
                missing_images = folder.find_missing(path for entry in batch for path in _list_images(entry))
                yield from (f"{file}: {path} is missing" for path in sorted(missing_images))
    if n_entries != export.rows:
        yield f"{export.name} has {n_entries:,} entries, the mixture {export.rows:,} rows"


def _iter_entries(folder: ExportFolder, file: str) -> Iterator[dict[str, Any]]:
    """Yield the entries of a file: both layouts have one in each line."""
    with folder.open_file(file) as stream, io.TextIOWrapper(stream, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("{"):
                yield json.loads(line.rstrip(",\n"))


def _check_entry(entry: Mapping[str, Any]) -> str | None:
    turns = entry["conversations"]
    if not turns or turns[0]["from"] != "human":
        return "does not begin with a question"
    n_images = len(_list_images(entry))
    n_markers = sum(turn["value"].count(IMAGE_MARKER) for turn in turns if turn["from"] == "human")
    return None if n_markers == n_images else f"has {n_markers} markers for {n_images} images"


def _list_images(entry: Mapping[str, Any]) -> Sequence[str]:
    return entry.get("image", [])  # type: ignore[no-any-return]  # of our own file
