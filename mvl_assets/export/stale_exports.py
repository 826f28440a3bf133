"""Which exported files hold data that is removed from the lake, so that they can be removed with it.

An export is a copy of a mixture and can be made again. The export folder has a folder per format; its files, or folders
of parts, begin with the name of their training stage (`single_image.json`), its images are named by their ids, also
inside tars.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import PurePosixPath

from mvl_assets.common.batches import iter_batches
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.lake.id_set import IdSet

IMAGE_ID_LENGTH = 32
BATCH_NAMES = 8192
_IMAGE_PATH = re.compile(rb"images/[0-9a-f]{2}/([0-9a-f]{32})\.")


def iter_stale_exports(folder: ExportFolder, stages: Collection[str], image_ids: IdSet) -> Iterator[str]:
    """Yield the names of the files of `stages` and of the exported images of `image_ids`.

    If a format has such an image, the files of all its stages are yielded: they may be of an earlier mixture.
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
        tars = [name for name in other_names if name.endswith(".tar")]
        holds_removed_image = holds_removed_image or any(
            _contains_image(folder, tar, image_ids, set(other_names)) for tar in tars
        )
        for name in other_names:
            top_name = _strip_suffixes(name.split("/")[1])
            stage = next((s for s in TRAINING_STAGES if top_name.startswith(s)), None)
            if stage is not None and (holds_removed_image or stage in stages):
                yield name


def _contains_image(folder: ExportFolder, tar: str, image_ids: IdSet, names: Collection[str]) -> bool:
    """Return whether a tar of images has one of these: its lines say so, or else the heads of its members."""
    lines = tar.removesuffix(".tar") + ".jsonl"
    read_ids = _iter_line_ids(folder, lines) if lines in names else _iter_member_ids(folder, tar)
    return any(image_ids.contains(batch).any() for batch in iter_batches(read_ids, BATCH_NAMES))


def _iter_line_ids(folder: ExportFolder, name: str) -> Iterator[str]:
    with folder.open_file(name) as file:
        rest = b""
        while data := file.read(1 << 20):
            text, _, rest = (rest + data).rpartition(b"\n")
            yield from (match.decode() for match in _IMAGE_PATH.findall(text))


def _iter_member_ids(folder: ExportFolder, name: str) -> Iterator[str]:
    with folder.open_file(name) as file, tarfile.open(fileobj=file) as tar:
        names = (_strip_suffixes(PurePosixPath(member.name).name) for member in tar)
        yield from (name for name in names if _is_image_id(name))


def _strip_suffixes(name: str) -> str:
    """Return a file's name without suffixes, nor the dot in front of the temporary file that a killed export leaves."""
    return name.lstrip(".").partition(".")[0]


def _is_image_id(name: str) -> bool:
    return len(name) == IMAGE_ID_LENGTH and not set(name) - set("0123456789abcdef")
