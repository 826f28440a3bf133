r"""M4-Instruct: interleaved multi-image JSON, with one folder or one zip of images per top folder of their paths.

    [{"sample_id": "0", "image": ["nlvr2/1.png", "nlvr2/2.png"], "metadata": {"dataset": "nlvr2", "split": "train"},
      "conversations": [{"from": "human", "value": "<image>\n<image>\nAlike?"}, {"from": "gpt", "value": "No."}]}, ...]

`nlvr2/1.png` is a file, or a member of `nlvr2.zip`; `dreamsim/...` is in the parts `dreamsim_split.z01` and
`dreamsim_split.zip`. All sub-datasets share one file: a source whose `hub.config` is `nlvr2` takes the rows whose
images are in that folder, or whose `metadata.dataset` is called so, counted from 0; without a config it takes all.
The two names differ (images of `HQ-Edit/`, the dataset `HQ-Edit-Diff`), so either may go on after a `-` or `_`. Rows
whose roles are swapped are known and become `swapped_roles`. Dataset card: lmms-lab/M4-Instruct-Data; a row of it is in
NVlabs/VILA, llava/data/dataset_impl/llava.py, and one in issue 107 of LLaVA-VL/LLaVA-NeXT.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.readers.files import format_relative_path, list_source_files
from mvl_assets.readers.format import ARCHIVE_FILES, Format, make_key_reader
from mvl_assets.readers.formats.llava_json import filter_shared_file, to_llava_sample
from mvl_assets.readers.parsers.json_stream import iter_elements
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
    for path in list_source_files(source, root, "*.json"):
        items = (
            iter_elements(path)
            if config is None
            else filter_shared_file(iter_elements(path), partial(_matches_config, config))
        )
        yield from to_rows(format_relative_path(root, path), items, "sample_id", "id")


def _matches_config(config: str, row: Mapping[str, Any]) -> bool:
    """Return whether the row is of the config, or names neither folder nor dataset: it is then rejected, not lost."""
    metadata, images = row.get("metadata"), row.get("image")
    first_image = images[0] if isinstance(images, list) and images else images
    names = [metadata.get("dataset") if isinstance(metadata, Mapping) else None]
    names.append(first_image.partition("/")[0] if isinstance(first_image, str) and "/" in first_image else None)
    dataset_names = [name for name in names if isinstance(name, str)]
    return not dataset_names or any(
        name == config or name.startswith((f"{config}-", f"{config}_")) for name in dataset_names
    )


FORMAT = Format(
    row_files=("*.json",),
    media_files=ARCHIVE_FILES,
    description="the annotations *.json and the image zips",
    read=read,
    read_keys=make_key_reader(read_rows),
)
