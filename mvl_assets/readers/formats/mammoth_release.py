r"""The rows that the authors released: LLaVA's JSON arrays beside numbered archives of pictures and videos.

    [{"id": "1", "source": "...", "image": "Cambrian-10M/arxivqa/images/1.jpg", "conversations": [...]},
     {"id": "2", "source": "...", "image": ["M4-Instruct-Data/HQ-Edit/images/3.jpg", ...], "conversations": [...]},
     {"id": "3", "source": "...", "video": "LLaVA-Video-178K/...mp4", "conversations": [...]}, ...]

`mammoth_si_10M.json` and `mammoth_ov_2M.json` are arrays; `image` is a path, a list or absent, and rows without it and
`video` are text; `source` becomes the sample's `origin`. What they name lies in `single_image_data/*.tar.gz`,
`multi_image_data/shard_1.tar.gz`, ... and `video_data/*.tar.gz`, under the same paths. Dataset card, file list and
viewer: MAmmoTH-VL/MAmmoTH-VL-Instruct-12M.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.readers.files import files_below, relative
from mvl_assets.readers.formats.llava_json import items, sample_of
from mvl_assets.readers.rows import Row, built, is_text, rows_of
from mvl_assets.readers.sample import Broken, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

IMAGES = ("", "single_image_data", "multi_image_data")
VIDEOS = ("", "video_data")


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    make = partial(_sample, root)
    for row in rows(source, root):
        yield built(row, make)


def rows(source: SourceSpec, root: Path) -> Iterator[Row | Broken]:
    """The rows as the files have them; no picture is looked for."""
    for path in files_below(source.slug, root, "*.json"):
        yield from rows_of(relative(root, path), items(path), "id")


def _sample(root: Path, row: Row) -> Sample:
    told = row.value.get("source")
    origin = told if isinstance(told, str) and told and is_text(told) else None
    return replace(sample_of(root, row, images=IMAGES, videos=VIDEOS), origin=origin)
