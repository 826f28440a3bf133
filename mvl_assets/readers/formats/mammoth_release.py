r"""The rows that the authors released: LLaVA's JSON arrays next to numbered archives of images and videos.

    [{"id": "1", "source": "...", "image": "Cambrian-10M/arxivqa/images/1.jpg", "conversations": [...]},
     {"id": "2", "source": "...", "image": ["M4-Instruct-Data/HQ-Edit/images/3.jpg", ...], "conversations": [...]},
     {"id": "3", "source": "...", "video": "LLaVA-Video-178K/...mp4", "conversations": [...]}, ...]

`mammoth_si_10M.json` and `mammoth_ov_2M.json` are arrays; `image` is a path, a list or absent, and rows without it and
`video` are text; `source` becomes the sample's `upstream_dataset`. What they name is in `single_image_data/*.tar.gz`,
`multi_image_data/shard_1.tar.gz`, ... and `video_data/*.tar.gz`, under the same paths. Dataset card, file list and
viewer: MAmmoTH-VL/MAmmoTH-VL-Instruct-12M.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from mvl_assets.readers.files import format_relative_path, list_data_files
from mvl_assets.readers.format import ARCHIVE_FILES, Format, make_key_reader
from mvl_assets.readers.formats.llava_json import iter_items, to_llava_sample
from mvl_assets.readers.rows import Row, build_sample, is_utf8_encodable, to_rows
from mvl_assets.readers.sample import RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

IMAGE_FOLDERS = ("", "single_image_data", "multi_image_data")
VIDEO_FOLDERS = ("", "video_data")


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    to_sample = partial(_to_sample, root)
    for row in read_rows(source, root):
        yield build_sample(row, to_sample)


def read_rows(source: SourceSpec, root: Path) -> Iterator[Row | RejectedRow]:
    """Yield the rows as the files have them; no image is looked for."""
    for path in list_data_files(source.slug, root, "*.json"):
        yield from to_rows(format_relative_path(root, path), iter_items(path), "id")


def _to_sample(root: Path, row: Row) -> Sample:
    source_name = row.value.get("source")
    upstream_dataset = (
        source_name if isinstance(source_name, str) and source_name and is_utf8_encodable(source_name) else None
    )
    return replace(
        to_llava_sample(root, row, image_folders=IMAGE_FOLDERS, video_folders=VIDEO_FOLDERS),
        upstream_dataset=upstream_dataset,
    )


FORMAT = Format(
    row_files=("*.json",),
    media_files=ARCHIVE_FILES,
    description="the *.json files and the media tars",
    read=read,
    read_keys=make_key_reader(read_rows),
)
