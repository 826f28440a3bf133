r"""M4-Instruct: interleaved multi-picture JSON, with one folder or one zip of pictures per top folder of their paths.

    [{"sample_id": "0", "image": ["nlvr2/1.png", "nlvr2/2.png"], "metadata": {"dataset": "nlvr2", "split": "train"},
      "conversations": [{"from": "human", "value": "<image>\n<image>\nAlike?"}, {"from": "gpt", "value": "No."}]}, ...]

`nlvr2/1.png` is a file, or the member `nlvr2/1.png` or `1.png` of `nlvr2.zip`. Rows whose roles are swapped are known
and become `swapped_roles`. A zip that comes in parts has to be joined first. Dataset card: lmms-lab/M4-Instruct-Data.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.readers.files import files_below, relative, zipped_picture_at
from mvl_assets.readers.json_stream import elements
from mvl_assets.readers.rows import Row, built, rows_of, turns_of, with_markers
from mvl_assets.readers.sample import Broken, Sample

if TYPE_CHECKING:
    from mvl_assets.catalog import SourceSpec


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    for path in files_below(source.slug, root, "*.json"):
        for row in rows_of(relative(root, path), elements(path), "sample_id", "id"):
            yield built(row, partial(_sample, root))


def _sample(root: Path, row: Row) -> Sample:
    turns = turns_of(row.value.get("conversations"))
    image = row.value.get("image")
    names = image if isinstance(image, list) else [image] if image else []
    turns = with_markers(turns, len(names))
    pictures = tuple(zipped_picture_at(root, name) for name in names)
    return Sample(row.file, row.position, turns, row.native_id, pictures)
