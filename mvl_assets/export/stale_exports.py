"""Which exported files hold what is taken out of the lake, so that they can go with it.

An export is a copy of a mixture, made again for nothing. Below the export folder there is a folder for each format; its
files begin with the name of their stage (`single_image.json`), its pictures are called by their ids.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from mvl_assets.common.batches import iter_batches
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.lake.id_set import IdSet

IMAGE_ID_LENGTH = 32


def iter_stale_exports(export_dir: Path, stages: Collection[str], image_ids: IdSet) -> Iterator[Path]:
    """Files of `stages`, and exported `image_ids`. A format that holds such a picture loses the files of all stages:
    they may have been made of an earlier mixture."""
    for format_dir in sorted(p for p in export_dir.glob("*") if p.is_dir()):
        holds_removed_image = False
        image_paths = (p for p in format_dir.rglob("*") if p.is_file() and _is_image_id(p.stem))
        for batch in iter_batches(({"path": p} for p in image_paths), 8192):
            removal_flags = image_ids.contains([entry["path"].stem for entry in batch])
            for entry, is_removed in zip(batch, removal_flags, strict=True):
                if is_removed:
                    holds_removed_image = True
                    yield entry["path"]
        for path in sorted(p for p in format_dir.rglob("*") if p.is_file() and not _is_image_id(p.stem)):
            stage = next((s for s in TRAINING_STAGES if path.relative_to(format_dir).parts[0].startswith(s)), None)
            if stage is not None and (holds_removed_image or stage in stages):
                yield path


def _is_image_id(name: str) -> bool:
    return len(name) == IMAGE_ID_LENGTH and not set(name) - set("0123456789abcdef")
