"""Which module reads which format. Readers are imported when they are asked for.

A module of a format has `read_rows(source, root)`, a reader as `sample.Reader` says. Where rows can be named without looking
for their pictures it also has `rows(source, root)`, which `read_rows` makes its samples of; where they can be named without
reading them (Parquet), `read_keys(source, root)`, which yields the same rows' keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from mvl_assets.errors import SourceError
from mvl_assets.readers.sample import Reader, RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec
    from mvl_assets.readers.rows import Row

_FORMAT_MODULES = {
    "llava_json": "llava_json",
    "cambrian_jsonl": "cambrian_jsonl",
    "llava_parquet": "llava_parquet",
    "cauldron_parquet": "cauldron_parquet",
    "coco_captions": "coco_captions",
    "m4_instruct": "m4_instruct",
    "llava_video": "llava_video",
    "records": "records",
    # A row of HuggingFaceM4/FineVision is The Cauldron's with ratings of every turn, which no table of ours holds.
    "finevision_parquet": "cauldron_parquet",
    "vqa_v2": "vqa_v2",
    "coco": "coco_instances",
    "gqa": "gqa",
    "visual_genome": "visual_genome",
    "doc_vqa": "doc_vqa",
    "ocr_vqa": "ocr_vqa",
    "icdar_text": "icdar_text",
    "science_qa": "science_qa",
    "wit": "wit",
    "localized_narratives": "localized_narratives",
    "ref_coco": "ref_coco",
    "url_captions": "url_captions",
    "video_choice": "video_mcq",
    "video_instruct": "video_instruct",
    # LLaVA-Hound is published among LLaVA-Video-178K's files, in their rows.
    "frame_folders": "llava_video",
    "table_text": "table_text",
    "screenshot_html": "screenshot_html",
    "mammoth_release": "mammoth_release",
}
FORMATS = tuple(_FORMAT_MODULES)


class RowKey(NamedTuple):
    """What names a row without its content."""

    file: str
    position: int
    native_id: str | None


KeyReader = Callable[["SourceSpec", Path], Iterator[RowKey]]


def get_reader(format_name: str | None) -> Reader:
    """The reader of a format. Raises `SourceError` for a format that has none."""
    return cast(Reader, _import_format(format_name).read)  # type: ignore[attr-defined]


def get_key_reader(format_name: str | None) -> KeyReader:
    """Names the rows that `get_reader(format)` reads, in the same order, as cheaply as the format allows.

    The rows of a file come together and count from 0. A `broken_file` row at the end of a file may be missing.
    """
    module = _import_format(format_name)
    read_keys = getattr(module, "read_keys", None)
    if read_keys is not None:
        return cast(KeyReader, read_keys)
    return _build_key_reader(getattr(module, "read_rows", None) or module.read)  # type: ignore[attr-defined]


def _import_format(format_name: str | None) -> object:
    module_name = _FORMAT_MODULES.get(format_name or "")
    if module_name is None:
        raise SourceError(
            f"format {format_name}",
            "there is no reader for it yet",
            hint=f"declare the source as `records` with a field map, or convert it to one of {', '.join(FORMATS)}",
        )
    return import_module(f"mvl_assets.readers.formats.{module_name}")


def _build_key_reader(read_rows: Callable[[SourceSpec, Path], Iterator[Row | Sample | RejectedRow]]) -> KeyReader:
    def read_keys(source: SourceSpec, root: Path) -> Iterator[RowKey]:
        for row in read_rows(source, root):
            yield RowKey(row.file, row.position, row.native_id)

    return read_keys
