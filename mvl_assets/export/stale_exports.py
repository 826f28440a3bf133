"""Which exported files hold data that is removed from the lake, so that they can be removed with it.

An export is a copy of a mixture and can be made again. The export folder has a folder per format; its files, or folders
of shards, begin with the name of their training stage (`single_image.json`). Images are files named by their ids, or
are inside shards that name these ids.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import PurePosixPath

import pyarrow.parquet as pq

from mvl_assets.common.batches import iter_batches
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.formats.table_schemas import IMAGE_IDS
from mvl_assets.lake import external_table
from mvl_assets.lake.id_set import IdSet

IMAGE_ID_LENGTH = 32
BATCH_NAMES = 8192
READ_ROWS = 8192
REVIEW = "review"
FIFTYONE_SAMPLES = "samples.json"
_PAIR_NAMES = (REVIEW, FIFTYONE_SAMPLES.partition(".")[0])
"""Begin the names of the files of judged pairs, which are of no training stage."""

_IMAGE_PATH = re.compile(rb"images/[0-9a-f]{3}/([0-9a-f]{32})\.")
_TABLE_SUFFIX = ".lance"


def iter_stale_exports(folder: ExportFolder, stages: Collection[str], image_ids: IdSet) -> Iterator[str]:
    """Yield the names of the files of `stages` and of the exported images of `image_ids`.

    If a format has such an image, the files of all its stages are yielded: they may be of an earlier mixture. Judged
    pairs are yielded whenever a stage is.
    """
    for _, names in groupby((name for name in folder.list_files() if "/" in name), key=lambda n: n.partition("/")[0]):
        holds_removed_image = False
        other_names = []
        for batch in iter_batches(names, BATCH_NAMES):
            image_names = [name for name in batch if _is_image_id(_strip_suffixes(PurePosixPath(name).name))]
            other_names += sorted(set(batch) - set(image_names))
            removal_flags = image_ids.contains([_strip_suffixes(PurePosixPath(name).name) for name in image_names])
            for name, is_removed in zip(image_names, removal_flags, strict=True):
                if is_removed:
                    holds_removed_image = True
                    yield name
        holds_removed_image = holds_removed_image or _contains_image(folder, other_names, image_ids)
        for name in other_names:
            top_name = _strip_suffixes(name.split("/")[1])
            stage = next((s for s in (*TRAINING_STAGES, *_PAIR_NAMES) if top_name.startswith(s)), None)
            if stage is not None and (holds_removed_image or stage in stages or (stage in _PAIR_NAMES and stages)):
                yield name


def _contains_image(folder: ExportFolder, names: Collection[str], image_ids: IdSet) -> bool:
    """Return whether one of the shards among the files of a format has one of these images."""
    return any(
        image_ids.contains(batch).any()
        for shard_ids in _iter_shard_ids(folder, names)
        for batch in iter_batches(shard_ids, BATCH_NAMES)
    )


def _iter_shard_ids(folder: ExportFolder, names: Collection[str]) -> Iterator[Iterator[str]]:
    """Yield the ids of the images inside each shard; what a killed export has left half is not read."""
    complete_names = [name for name in names if not PurePosixPath(name).name.startswith(".")]
    lines = {name for name in complete_names if name.endswith(".jsonl")}
    for name in complete_names:
        if name in lines:
            yield _iter_line_ids(folder, name)
        elif name.endswith(".parquet"):
            yield _iter_parquet_ids(folder, name)
        elif name.endswith(".tar") and name.replace("-images/", "/").removesuffix(".tar") + ".jsonl" not in lines:
            yield _iter_member_ids(folder, name)
    tables = {parts[1] for parts in (name.split("/") for name in names) if parts[1].endswith(_TABLE_SUFFIX)}
    for table in sorted(tables):
        (top_folder,) = {name.split("/")[0] for name in names}
        if any(name.startswith(f"{top_folder}/{table}/_versions/") for name in names):
            yield _iter_table_ids(f"{folder.uri}/{top_folder}/{table}")


def _iter_line_ids(folder: ExportFolder, name: str) -> Iterator[str]:
    with folder.open_file(name) as file:
        rest = b""
        while data := file.read(1 << 20):
            text, _, rest = (rest + data).rpartition(b"\n")
            yield from (match.decode() for match in _IMAGE_PATH.findall(text))


def _iter_parquet_ids(folder: ExportFolder, name: str) -> Iterator[str]:
    with folder.open_file(name) as file:
        for batch in pq.ParquetFile(file).iter_batches(READ_ROWS, columns=[IMAGE_IDS.name]):
            yield from batch.column(0).flatten().to_pylist()


def _iter_table_ids(uri: str) -> Iterator[str]:
    for batch in external_table.iter_batches(uri, [IMAGE_IDS.name], READ_ROWS):
        yield from batch.column(0).flatten().to_pylist()


def _iter_member_ids(folder: ExportFolder, name: str) -> Iterator[str]:
    """Yield the ids that a tar's images are named by, or that its samples list."""
    with folder.open_file(name) as file, tarfile.open(fileobj=file) as tar:
        for member in tar:
            if member.name.endswith(".json"):
                content = tar.extractfile(member)
                assert content is not None  # members are files
                yield from json.load(content)[IMAGE_IDS.name]
            elif _is_image_id(_strip_suffixes(PurePosixPath(member.name).name)):
                yield _strip_suffixes(PurePosixPath(member.name).name)


def _strip_suffixes(name: str) -> str:
    """Return a file's name without suffixes, nor the dot in front of the temporary file that a killed export leaves."""
    return name.lstrip(".").partition(".")[0]


def _is_image_id(name: str) -> bool:
    return len(name) == IMAGE_ID_LENGTH and not set(name) - set("0123456789abcdef")
