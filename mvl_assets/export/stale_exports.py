"""Which exported files hold what is taken out of the lake, so that they can go with it.

An export is a copy of a mixture, made again for nothing. Below the export folder there is a folder for each format; its
files begin with the name of their stage (`single_image.json`), its pictures are called by their ids.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.schema import STAGES
from mvl_assets.lake_queries.views import in_batches

ID_LENGTH = 32


def outdated_files(folder: Path, stages: Collection[str], pictures: IdSet) -> Iterator[Path]:
    """Files of `stages`, and exported `pictures`. A format that holds such a picture loses the files of all stages:
    they may have been made of an earlier mixture."""
    for form in sorted(p for p in folder.glob("*") if p.is_dir()):
        found = False
        named = (p for p in form.rglob("*") if p.is_file() and _is_id(p.stem))
        for batch in in_batches(({"path": p} for p in named), 8192):
            gone = pictures.has([entry["path"].stem for entry in batch])
            for entry, goes in zip(batch, gone, strict=True):
                if goes:
                    found = True
                    yield entry["path"]
        for path in sorted(p for p in form.rglob("*") if p.is_file() and not _is_id(p.stem)):
            stage = next((s for s in STAGES if path.relative_to(form).parts[0].startswith(s)), None)
            if stage is not None and (found or stage in stages):
                yield path


def _is_id(name: str) -> bool:
    return len(name) == ID_LENGTH and not set(name) - set("0123456789abcdef")
