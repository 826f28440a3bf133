"""Which exported files hold data that is removed from the lake, so that they can be removed with it.

An export is a copy of a mixture and can be made again. The export folder has a folder per format; its files, or folders
of parts, begin with the name of their training stage (`single_image.json`), its images are named by their ids, also
inside tars.
"""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path

from mvl_assets.common.batches import iter_batches
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.lake.id_set import IdSet

IMAGE_ID_LENGTH = 32


def iter_stale_exports(export_dir: Path, stages: Collection[str], image_ids: IdSet) -> Iterator[Path]:
    """Yield the files of `stages` and the exported images of `image_ids`.

    If a format has such an image, the files of all its stages are yielded: they may be of an earlier mixture.
    """
    for format_dir in sorted(p for p in export_dir.glob("*") if p.is_dir()):
        holds_removed_image = False
        image_paths = (p for p in format_dir.rglob("*") if p.is_file() and _is_image_id(_strip_suffixes(p.name)))
        for paths in iter_batches(image_paths, 8192):
            removal_flags = image_ids.contains([_strip_suffixes(path.name) for path in paths])
            for path, is_removed in zip(paths, removal_flags, strict=True):
                if is_removed:
                    holds_removed_image = True
                    yield path
        tars = sorted(format_dir.rglob("*.tar"))
        holds_removed_image = holds_removed_image or any(_contains_image(path, image_ids) for path in tars)
        for path in sorted(p for p in format_dir.rglob("*") if p.is_file()):
            if _is_image_id(_strip_suffixes(path.name)):
                continue
            top_name = _strip_suffixes(path.relative_to(format_dir).parts[0])
            stage = next((s for s in TRAINING_STAGES if top_name.startswith(s)), None)
            if stage is not None and (holds_removed_image or stage in stages):
                yield path


def _contains_image(path: Path, image_ids: IdSet) -> bool:
    """Return whether a tar of images has one of these. Reads the heads of its members."""
    with tarfile.open(path) as tar:
        names = (_strip_suffixes(Path(member.name).name) for member in tar)
        return any(
            image_ids.contains(batch).any() for batch in iter_batches((n for n in names if _is_image_id(n)), 8192)
        )


def _strip_suffixes(name: str) -> str:
    """Return a file's name without suffixes, nor the dot in front of the temporary file that a killed export leaves."""
    return name.lstrip(".").partition(".")[0]


def _is_image_id(name: str) -> bool:
    return len(name) == IMAGE_ID_LENGTH and not set(name) - set("0123456789abcdef")
