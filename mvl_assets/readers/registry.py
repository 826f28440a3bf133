"""Which module reads which format. Readers are imported when they are asked for.

A module of a format has `read(source, root)`, a reader as `sample.Reader` says. Where rows can be named without looking
for their pictures it also has `rows(source, root)`, which `read` makes its samples of; where they can be named without
reading them (Parquet), `keys(source, root)`, which yields the same rows' keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from mvl_assets.errors import SourceError
from mvl_assets.readers.sample import Broken, Reader, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec
    from mvl_assets.readers.rows import Row

_MODULES = {
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
FORMATS = tuple(_MODULES)


class RowKey(NamedTuple):
    """What names a row without its content."""

    file: str
    position: int
    native_id: str | None


Keys = Callable[["SourceSpec", Path], Iterator[RowKey]]


def reader_for(format: str | None) -> Reader:
    """The reader of a format. Raises `SourceError` for a format that has none."""
    return cast(Reader, _module(format).read)  # type: ignore[attr-defined]


def keys_for(format: str | None) -> Keys:
    """Names the rows that `reader_for(format)` reads, in the same order, as cheaply as the format allows.

    The rows of a file come together and count from 0. A `broken_file` row at the end of a file may be missing.
    """
    module = _module(format)
    special = getattr(module, "keys", None)
    if special is not None:
        return cast(Keys, special)
    return _keys_by_reading(getattr(module, "rows", None) or module.read)  # type: ignore[attr-defined]


def _module(format: str | None) -> object:
    name = _MODULES.get(format or "")
    if name is None:
        raise SourceError(
            f"format {format}",
            "there is no reader for it yet",
            hint=f"declare the source as `records` with a field map, or convert it to one of {', '.join(FORMATS)}",
        )
    return import_module(f"mvl_assets.readers.formats.{name}")


def _keys_by_reading(read: Callable[[SourceSpec, Path], Iterator[Row | Sample | Broken]]) -> Keys:
    def keys(source: SourceSpec, root: Path) -> Iterator[RowKey]:
        for row in read(source, root):
            yield RowKey(row.file, row.position, row.native_id)

    return keys
