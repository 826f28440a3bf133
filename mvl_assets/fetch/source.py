"""One source as a whole: all its files into its folder, at the locked commit, or a clear reason why not.

The folder belongs either to the fetch or to a person. Files that a person put there are never overwritten or removed;
a folder that holds anything else than the source's own files is left alone with an error.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.settings import settings
from mvl_assets.fetch import hub
from mvl_assets.fetch.connection import new_session
from mvl_assets.fetch.errors import FetchError, Unreachable
from mvl_assets.fetch.lock import LockedFile, LockedSource, read_lock
from mvl_assets.fetch.lookup import look_up
from mvl_assets.fetch.overview import agrees, files_in
from mvl_assets.fetch.progress import Meter, Say, quiet, size_text
from mvl_assets.fetch.rules import supply
from mvl_assets.fetch.state import PARTS, FetchState, StoredFile, all_states, alone, load_state, save_state
from mvl_assets.fetch.transfer import Carrier, Item, Part, Patience, check_room, difference, sha256_of

CONNECTIONS = 4
"""Files of one source that come at the same time."""
SAVE_S = 1.0
"""The state file is written at most this often while files arrive."""


def fetch_source(
    source: SourceSpec, *, say: Say = quiet, again: bool = False, patience: Patience = Patience()
) -> FetchState:
    """Brings the source's files and returns what is there then. Files that are there and right are not asked for.

    `again` also brings files that were removed after they were ingested. Raises `FetchError` with what to do when the
    source has no public home, cannot be looked up, is gated, or when something arrives wrong; `MachineError` for a
    disk without room. Killed anywhere, it goes on where it was when it is run again.
    """
    if source.path is not None:
        raise FetchError(source.slug, "its `path:` names a folder of yours, into which nothing is fetched")
    with alone(source.slug):
        locked, old = read_lock().of(source), load_state(source)
        if old is not None and old.removed is not None and not again and agrees(old, locked):
            say(f"{source.slug}: ingested, archives removed: nothing to fetch")
            return old
        entry = locked or _unlocked(source, say)
        if entry.reason is not None:
            say(f"{source.slug}: {entry.reason}")
        return _Fetch(source, entry, old, say, patience, is_locked=locked is not None).run()


def _unlocked(source: SourceSpec, say: Say) -> LockedSource:
    try:
        entry = look_up(source)
    except Unreachable as error:
        raise FetchError(source.slug, error.message, hint=error.hint or supply(source)) from error
    at = f"{entry.declared.repo} as it is now, at {entry.commit[:12]}" if entry.commit else "what its address gives"
    say(f"{source.slug}: unverified: there is no lock, taking {at}")
    return entry


class _Fetch:
    """One run. The state file is written before the first byte, while files arrive, and when all are there."""

    def __init__(
        self,
        source: SourceSpec,
        entry: LockedSource,
        old: FetchState | None,
        say: Say,
        patience: Patience,
        *,
        is_locked: bool,
    ) -> None:
        self.source, self.entry, self.say, self.patience = source, entry, say, patience
        self.root = source.root
        known = dict(old.files) if old is not None else {}
        self.state = FetchState(commit=entry.commit, locked=is_locked, files=known)
        # A file that is there before the first fetch is a person's; later ones a killed fetch has not written down.
        self._by_hand = old is None
        self._saved = 0.0

    def run(self) -> FetchState:
        self._refuse_strangers()
        missing = [item for item in map(self._item, self.entry.files) if not self._is_right(item)]
        if missing:
            self._save()
            twins = _files_elsewhere(self.source.slug)
            self._bring([item for item in missing if not self._is_linked(item, twins)])
        self._remove_stale()
        self.state = self.state.model_copy(update={"complete": True})
        self._save()
        shutil.rmtree(self.root / PARTS, ignore_errors=True)
        total = sum(f.size for f in self.state.files.values())
        self.say(f"{self.source.slug}: {len(self.state.files)} files, {size_text(total)}, all there")
        return self.state

    def _save(self) -> None:
        save_state(self.source.slug, self.state)
        self._saved = time.monotonic()

    def _item(self, file: LockedFile) -> Item:
        declared = self.entry.declared
        if declared.repo is None:
            return Item(file.name, file.path, file.size, file.sha256, file.git_sha1)
        assert self.entry.commit is not None
        address = hub.file_address(declared.repo, self.entry.commit, file.path)
        return Item(file.name, address, file.size, file.sha256, file.git_sha1, hub.secret())

    def _refuse_strangers(self) -> None:
        """A folder that holds other files would mix two sources' rows; a file of the right name is looked at later."""
        ours = {file.name for file in self.entry.files}
        ours |= {name for name, file in self.state.files.items() if not file.by_hand}
        strange = [name for name in files_in(self.root) if name not in ours]
        if strange:
            raise FetchError(
                self.source.slug,
                f"{self.root} already holds other files, such as {strange[0]}",
                hint="move them away (a miniature can be removed), or name another folder with MVL_HOME",
            )

    def _is_right(self, item: Item) -> bool:
        """Whether the file is there; one that a person put there is checked and then counts as there."""
        place, known = self.root / item.name, self.state.files.get(item.name)
        if not place.is_file():
            return False
        if known is not None and not known.by_hand:
            return self.state.has(self.root, item.name) and difference(item, place, known.sha256) is None
        digest = sha256_of(place)
        wrong = difference(item, place, digest)
        if wrong is not None:
            raise FetchError(
                self.source.slug,
                f"a file of this name is there with other content ({wrong})",
                file=item.name,
                hint=f"move {place} away and run again",
            )
        self._keep(item.name, digest, by_hand=self._by_hand or known is not None)
        return True

    def _is_linked(self, item: Item, twins: dict[str, tuple[str, Path]]) -> bool:
        """Several sources are parts of one repository: a file another one has fetched is linked, not fetched again."""
        if item.sha256 is None or item.sha256 not in twins:
            return False
        slug, origin = twins[item.sha256]
        part = Part(self.root, item)
        part.drop()
        try:
            os.link(origin, part.path)
        except OSError:  # another disk, or one without links
            check_room(self.root, origin.stat().st_size)
            shutil.copyfile(origin, part.path)
        if part.sha256() != item.sha256:
            part.drop()
            return False
        part.take(self.root / item.name)
        self._keep(item.name, item.sha256)
        self.say(f"{self.source.slug}: {item.name} is the one {slug} has")
        return True

    def _bring(self, items: Sequence[Item]) -> None:
        here = sum(Part(self.root, item).size for item in items)
        sizes = [item.size for item in items]
        left = max(0, sum(size for size in sizes if size is not None) - here)
        check_room(self.root, left)
        unknown = f" and {sizes.count(None)} files of unknown size" if None in sizes else ""
        going_on = f"; {size_text(here)} are here" if here else ""
        self.say(f"{self.source.slug}: {len(items)} files to fetch, {size_text(left)}{unknown}{going_on}")
        asyncio.run(self._carry(items, None if None in sizes else left))

    async def _carry(self, items: Sequence[Item], total: int | None) -> None:
        meter = Meter(self.source.slug, total, self.say)
        places = asyncio.Semaphore(CONNECTIONS)
        async with new_session() as session:
            carrier = Carrier(self.source.slug, self.root, session, meter, self.patience)

            async def one(item: Item) -> None:
                async with places:
                    self._keep(item.name, await carrier.bring(item))

            try:
                async with asyncio.TaskGroup() as tasks:
                    for item in items:
                        tasks.create_task(one(item))
            except BaseExceptionGroup as group:
                raise group.exceptions[0] from None
            finally:
                self._save()
        if items:
            self.say(meter.line())

    def _keep(self, name: str, digest: str, *, by_hand: bool = False) -> None:
        found = (self.root / name).stat()
        stored = StoredFile(size=found.st_size, sha256=digest, mtime_ns=found.st_mtime_ns, by_hand=by_hand)
        self.state.files[name] = stored
        if time.monotonic() - self._saved > SAVE_S:
            self._save()

    def _remove_stale(self) -> None:
        """Files of an earlier commit that this one does not have."""
        wanted = {file.name for file in self.entry.files}
        for name in self.state.files.keys() - wanted:
            if self.state.has(self.root, name):
                (self.root / name).unlink()
        kept = {name: file for name, file in self.state.files.items() if name in wanted}
        self.state = self.state.model_copy(update={"files": kept})


def _files_elsewhere(slug: str) -> dict[str, tuple[str, Path]]:
    """What other sources have fetched: sha256 -> (source, path)."""
    return {
        file.sha256: (other, settings().raw / other / name)
        for other, state in all_states()
        if other != slug
        for name, file in state.files.items()
        if state.has(settings().raw / other, name)
    }
