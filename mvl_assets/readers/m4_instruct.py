r"""M4-Instruct: interleaved multi-picture JSON, with one folder or one zip of pictures per top folder of their paths.

    [{"sample_id": "0", "image": ["nlvr2/1.png", "nlvr2/2.png"], "metadata": {"dataset": "nlvr2", "split": "train"},
      "conversations": [{"from": "human", "value": "<image>\n<image>\nAlike?"}, {"from": "gpt", "value": "No."}]}, ...]

`nlvr2/1.png` is a file, or a member of `nlvr2.zip`; `dreamsim/...` lies in the parts `dreamsim_split.z01` and
`dreamsim_split.zip`. All sub-datasets share one file: a source whose `hub.config` is `nlvr2` takes the rows whose
`metadata.dataset` is, counted from 0; without a config it takes all. Rows whose roles are swapped are known and become
`swapped_roles`. Dataset card: lmms-lab/M4-Instruct-Data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.readers.files import files_below, relative
from mvl_assets.readers.json_stream import elements
from mvl_assets.readers.llava_json import own_rows, sample_of
from mvl_assets.readers.rows import built, rows_of
from mvl_assets.readers.sample import Broken, Sample

if TYPE_CHECKING:
    from mvl_assets.catalog import SourceSpec


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    config = source.hub.config if source.hub is not None else None
    for path in files_below(source.slug, root, "*.json"):
        items = elements(path) if config is None else own_rows(elements(path), partial(_is_of, config))
        for row in rows_of(relative(root, path), items, "sample_id", "id"):
            yield built(row, partial(sample_of, root))


def _is_of(config: str, row: Mapping[str, Any]) -> bool:
    about = row.get("metadata")
    return not isinstance(about, Mapping) or about.get("dataset") in (config, None)
