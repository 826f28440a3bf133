r"""Cambrian-10M: LLaVA rows that say which of its sub-datasets they are from, with pictures in tars.

    {"id": "1", "source": "arxivqa_100k.json", "image": "arxivqa/images/1.jpg", "conversations": [...]}
    {"id": "2", "source": "idefics375k.json", "image": "hfdata/robut_wtq/2.png", "conversations": [...]}

Files are `*.jsonl` or `*.json`, in the source's folder or in `jsons/`: one of a sub-dataset, or all of them together
(`jsons/Cambrian10M.jsonl`). Of the latter a source whose `hub.config` is `arxivqa_100k` takes the rows of its own
`source`, counted from 0; rows without one are taken by everybody. Rows without `image` are text. Pictures lie in
`arxivqa.tar.gz`, in parts (`allava.tar.gz_part1`, ...) or unpacked; of a path `hfdata/<name>/...` the second folder
names the archive, too. Two rows are known to have malformed conversations; they become rejects as others do.
Checked against the file list of nyu-visionx/Cambrian-10M, its merge_tars.py, and published scripts that split its rows
by (`source`, first folder).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.readers.files import files_below, relative
from mvl_assets.readers.formats.llava_json import items, own_rows, sample_of
from mvl_assets.readers.rows import Row, built, rows_of
from mvl_assets.readers.sample import Broken, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    make = partial(sample_of, root)
    for row in rows(source, root):
        yield built(row, make)


def rows(source: SourceSpec, root: Path) -> Iterator[Row | Broken]:
    """The rows as the files have them; no picture is looked for."""
    config = source.hub.config if source.hub is not None else None
    for path in files_below(source.slug, root, "*.json", "*.jsonl", "jsons/*.json", "jsons/*.jsonl"):
        found = items(path) if config is None else own_rows(items(path), partial(_is_of, config))
        yield from rows_of(relative(root, path), found, "id")


def _is_of(config: str, row: Mapping[str, Any]) -> bool:
    return row.get("source") in (f"{config}.json", None)
