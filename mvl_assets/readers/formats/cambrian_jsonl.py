r"""Cambrian-10M: LLaVA rows that say which of its sub-datasets they are from, with images in tars.

    {"id": "1", "source": "arxivqa_100k.json", "image": "arxivqa/images/1.jpg", "conversations": [...]}
    {"id": "2", "source": "idefics375k.json", "image": "hfdata/robut_wtq/2.png", "conversations": [...]}

Files are `*.jsonl` or `*.json`, in the source's folder or in `jsons/`: one of a sub-dataset, or all of them together
(`jsons/Cambrian10M.jsonl`). Of the latter a source whose `hub.config` is `arxivqa_100k` takes the rows of its own
`source`, counted from 0; rows without one are taken by every source. Rows without `image` are text. Images are in
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

from mvl_assets.readers.files import format_relative_path, list_source_files
from mvl_assets.readers.format import ARCHIVE_FILES, JSON_FILES, Format, make_key_reader
from mvl_assets.readers.formats.llava_json import filter_shared_file, iter_items, to_llava_sample
from mvl_assets.readers.rows import Row, build_sample, to_rows
from mvl_assets.readers.sample import RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    to_sample = partial(to_llava_sample, root)
    for row in read_rows(source, root):
        yield build_sample(row, to_sample)


def read_rows(source: SourceSpec, root: Path) -> Iterator[Row | RejectedRow]:
    """Yield the rows as the files have them; no image is looked for."""
    config = source.hub.config if source.hub is not None else None
    for path in list_source_files(source, root, "*.json", "*.jsonl", "jsons/*.json", "jsons/*.jsonl"):
        file_items = (
            iter_items(path)
            if config is None
            else filter_shared_file(iter_items(path), partial(_matches_config, config))
        )
        yield from to_rows(format_relative_path(root, path), file_items, "id")


def _matches_config(config: str, row: Mapping[str, Any]) -> bool:
    return row.get("source") in (f"{config}.json", None)


FORMAT = Format(
    row_files=JSON_FILES,
    media_files=ARCHIVE_FILES,
    description="the *.jsonl of all subsets or of this one and its image tars, or their folders",
    read=read,
    read_keys=make_key_reader(read_rows),
)
