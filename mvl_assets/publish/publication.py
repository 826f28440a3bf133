"""A publication: which files a data set on the hub gets, keeps and loses, and the commits that bring it there.

The files lie in a folder of their own, one folder in it for each format. Their names, or what the hub knows of their
content, say which of them it has. Data files are committed first, in few large commits, the card and Croissant last, so
that the card never names what is not there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mvl_assets.export.croissant import FILE_NAME as CROISSANT
from mvl_assets.export.description import CARD
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.publish.errors import PublishError
from mvl_assets.publish.hub_repository import HubFile, HubRepository, LocalFile

COMMIT_BYTES, COMMIT_FILES = 50_000_000_000, 500
"""A commit ends before the file that would take it over one of these: the hub allows about 128 commits an hour."""

DESCRIPTION_FILES = (CROISSANT, CARD)

_NAMED_BY_CONTENT = re.compile(r"/train-\d+-of-\d+-[0-9a-f]{16}\.[a-z]+$")
_UNPUBLISHED = re.compile(r"^[a-z_]+/[a-z_]+-fragments/")
"""What only a later export of a Lance table needs."""


@dataclass(frozen=True, slots=True)
class PublicationPlan:
    """What a publication changes.

    Attributes:
        data_files: Files to add or replace, in order.
        description_files: Croissant and card, if they changed.
        kept: How many files the hub has already.
        deleted_names: Files of earlier publications, to delete.
    """

    data_files: list[LocalFile]
    description_files: list[LocalFile]
    kept: int
    deleted_names: list[str]

    @property
    def has_changes(self) -> bool:
        return bool(self.data_files or self.description_files or self.deleted_names)


def list_local_files(folder: ExportFolder, format_names: Collection[str]) -> list[LocalFile]:
    """Return the files to publish: those of the formats, then Croissant and the card."""
    assert folder.local_path is not None
    names = [name for format_name in sorted(format_names) for name in folder.list_files(format_name)]
    names = [name for name in names if not _UNPUBLISHED.match(name) and not Path(name).name.startswith(".")]
    names += [name for name in DESCRIPTION_FILES if (folder.local_path / name).is_file()]
    return [LocalFile(name, folder.local_path / name, (folder.local_path / name).stat().st_size) for name in names]


def plan_publication(
    local_files: Sequence[LocalFile], hub_files: Mapping[str, HubFile], known_formats: Collection[str]
) -> PublicationPlan:
    """Compare the files with those on the hub.

    Args:
        local_files: What the hub shall have.
        hub_files: What it has.
        known_formats: Names of all formats: other files on the hub are left alone.

    Raises:
        PublishError: The repository holds a data set that is none of ours.
    """
    own_names = [name for name in hub_files if name.partition("/")[0] in known_formats and "/" in name]
    foreign_names = [name for name in hub_files if name not in own_names and not name.startswith(".")]
    if CARD in hub_files and not own_names and set(foreign_names) != {CARD}:
        raise PublishError(
            f"the repository holds a data set that mvl did not publish ({', '.join(sorted(foreign_names)[:3])})",
            hint="publish to another repository, or delete its files first",
        )
    changed = [file for file in local_files if not _is_on_hub(file, hub_files.get(file.name))]
    local_names = {file.name for file in local_files}
    return PublicationPlan(
        [file for file in changed if file.name not in DESCRIPTION_FILES],
        [file for file in changed if file.name in DESCRIPTION_FILES],
        len(local_files) - len(changed),
        sorted(name for name in own_names if name not in local_names),
    )


def send_publication(
    repository: HubRepository, plan: PublicationPlan, on_commit: Callable[[int, int, int], None]
) -> None:
    """Bring the hub to what the plan says. Killed anywhere, it goes on when it is planned and sent again.

    Args:
        repository: The repository.
        plan: The plan.
        on_commit: Told the number of each commit, of all commits, and of the bytes of its files, before it is sent.
    """
    batches = list(_iter_batches(plan.data_files))
    n_commits = len(batches) + bool(plan.description_files or plan.deleted_names)
    for number, batch in enumerate(batches, 1):
        on_commit(number, n_commits, sum(file.size for file in batch))
        # On a second attempt the hub may have them all: its answer may have been lost.
        repository.commit(f"Data files, {number} of {len(batches)}", partial(_list_missing, repository, batch))
    if plan.description_files or plan.deleted_names:
        on_commit(n_commits, n_commits, sum(file.size for file in plan.description_files))
        repository.commit(
            "Card and metadata",
            partial(_list_missing, repository, plan.description_files),
            lambda: sorted(set(plan.deleted_names) & set(repository.list_files())),
        )


def _list_missing(repository: HubRepository, files: Sequence[LocalFile]) -> list[LocalFile]:
    hub_files = repository.list_files()
    return [file for file in files if not _is_on_hub(file, hub_files.get(file.name))]


def _is_on_hub(file: LocalFile, hub_file: HubFile | None) -> bool:
    if hub_file is None or hub_file.size != file.size:
        return False
    if _NAMED_BY_CONTENT.search(file.name):
        return True
    if hub_file.sha256 is not None:
        with file.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == hub_file.sha256
    digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    digest.update(file.path.read_bytes())
    return digest.hexdigest() == hub_file.git_sha1


def _iter_batches(files: Sequence[LocalFile]) -> Iterator[list[LocalFile]]:
    batch: list[LocalFile] = []
    n_bytes = 0
    for file in files:
        if batch and (len(batch) == COMMIT_FILES or n_bytes + file.size > COMMIT_BYTES):
            yield batch
            batch, n_bytes = [], 0
        batch.append(file)
        n_bytes += file.size
    if batch:
        yield batch
