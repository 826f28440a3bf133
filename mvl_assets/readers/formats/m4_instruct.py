r"""M4-Instruct: interleaved multi-picture JSON, with one folder or one zip of pictures per top folder of their paths.

    [{"sample_id": "0", "image": ["nlvr2/1.png", "nlvr2/2.png"], "metadata": {"dataset": "nlvr2", "split": "train"},
      "conversations": [{"from": "human", "value": "<image>\n<image>\nAlike?"}, {"from": "gpt", "value": "No."}]}, ...]

`nlvr2/1.png` is a file, or a member of `nlvr2.zip`; `dreamsim/...` lies in the parts `dreamsim_split.z01` and
`dreamsim_split.zip`. All sub-datasets share one file: a source whose `hub.config` is `nlvr2` takes the rows whose
pictures lie in that folder, or whose `metadata.dataset` is called so, counted from 0; without a config it takes all.
The two names differ (pictures of `HQ-Edit/`, the dataset `HQ-Edit-Diff`), so either may go on behind a `-` or `_`. Rows
whose roles are swapped are known and become `swapped_roles`. Dataset card: lmms-lab/M4-Instruct-Data; a row of it is in
NVlabs/VILA, llava/data/dataset_impl/llava.py, and one in issue 107 of LLaVA-VL/LLaVA-NeXT.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.readers.files import files_below, relative
from mvl_assets.readers.formats.llava_json import own_rows, sample_of
from mvl_assets.readers.json_stream import elements
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
    for path in files_below(source.slug, root, "*.json"):
        items = elements(path) if config is None else own_rows(elements(path), partial(_is_of, config))
        yield from rows_of(relative(root, path), items, "sample_id", "id")


def _is_of(config: str, row: Mapping[str, Any]) -> bool:
    """A row that names neither a folder nor a dataset is taken by everybody, so that it is rejected and not lost."""
    about, pictures = row.get("metadata"), row.get("image")
    first = pictures[0] if isinstance(pictures, list) and pictures else pictures
    names = [about.get("dataset") if isinstance(about, Mapping) else None]
    names.append(first.partition("/")[0] if isinstance(first, str) and "/" in first else None)
    known = [name for name in names if isinstance(name, str)]
    return not known or any(name == config or name.startswith((f"{config}-", f"{config}_")) for name in known)
