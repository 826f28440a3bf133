"""Fetching sources: all files of each into its folder at the locked commit, or an error that says why not.

The folder belongs either to the fetch or to the user. Files that the user put there are never overwritten or removed; a
folder with files that are not the source's is left alone with an error.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.errors import InfrastructureError, MvlError
from mvl_assets.fetch import hub
from mvl_assets.fetch.errors import FetchError, FetchRefused
from mvl_assets.fetch.lock import LockedFile, LockedSource, read_lockfile
from mvl_assets.fetch.lookup import resolve_source
from mvl_assets.fetch.overview import list_files, matches_lock
from mvl_assets.fetch.progress import LogFn, TransferMeter, format_bytes, log_nothing
from mvl_assets.fetch.rules import format_manual_instructions
from mvl_assets.fetch.shared_transfers import SharedTransfers, open_shared_transfers
from mvl_assets.fetch.state import (
    PARTIAL_DIR,
    FetchState,
    StoredFile,
    hold_source_lock,
    load_state,
    save_state,
)
from mvl_assets.fetch.transfer import (
    Downloader,
    PartialFile,
    RemoteFile,
    RetryPolicy,
    check_disk_space,
    compute_sha256,
    find_mismatch,
)

MAX_CONCURRENT_SOURCES = 8
MAX_CONCURRENT_DOWNLOADS = 4
"""Sources that are fetched at the same time, and files of one source; together `shared_transfers.MAX_CONNECTIONS`."""
SAVE_INTERVAL_S = 1.0
SAVE_INTERVAL_RATIO = 50
"""Shortest time in seconds between two writes of the state file while files arrive; with many files, at least so many
times what a write takes. A file that a kill leaves out of the state is checked and recorded by the next fetch."""

FailureFn = Callable[[SourceSpec, MvlError], object]


def fetch_source(
    source: SourceSpec, *, log: LogFn = log_nothing, refetch: bool = False, retry_policy: RetryPolicy = RetryPolicy()
) -> FetchState:
    """Fetch the source's missing files and return the state of all.

    A fetch that was killed anywhere resumes where it was when it is run again.

    Args:
        source: The source.
        log: Gets a line of progress.
        refetch: Also fetch files that were removed after they were ingested.
        retry_policy: How often to retry.

    Raises:
        FetchError: The source has no public home, cannot be looked up, is gated, or the wrong file arrived.
        InfrastructureError: The disk is too full.
    """

    async def fetch() -> FetchState:
        async with open_shared_transfers() as shared:
            return await _fetch_with(shared, source, log, retry_policy, refetch=refetch)

    return asyncio.run(fetch())


def fetch_sources(
    sources: Iterable[SourceSpec],
    on_failure: FailureFn,
    *,
    log: LogFn = log_nothing,
    refetch: bool = False,
    retry_policy: RetryPolicy = RetryPolicy(),
) -> None:
    """Fetch several sources at a time, and a file that they share once.

    Args:
        sources: The sources.
        on_failure: Gets a source that cannot be fetched, with the error, while the others go on.
        log: Gets lines of progress, each of one source.
        refetch: Also fetch files that were removed after they were ingested.
        retry_policy: How often to retry.

    Raises:
        InfrastructureError: The disk is too full. What has arrived is kept.
    """

    async def fetch_all() -> None:
        slots = asyncio.Semaphore(MAX_CONCURRENT_SOURCES)
        async with open_shared_transfers() as shared:

            async def fetch_one(source: SourceSpec) -> None:
                async with slots:
                    try:
                        await _fetch_with(shared, source, log, retry_policy, refetch=refetch)
                    except InfrastructureError:
                        raise
                    except MvlError as error:
                        on_failure(source, error)

            await _run_all(fetch_one(source) for source in sources)

    asyncio.run(fetch_all())


async def _run_all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all at once. The first failure cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for coroutine in coroutines:
                tasks.create_task(coroutine)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


async def _fetch_with(
    shared: SharedTransfers, source: SourceSpec, log: LogFn, retry_policy: RetryPolicy, *, refetch: bool
) -> FetchState:
    if source.path is not None:
        raise FetchError(source.slug, "its `path:` is a folder of your own, into which nothing is fetched")
    with hold_source_lock(source.slug):
        locked_entry, previous_state = read_lockfile().get_entry(source), load_state(source)
        if (
            previous_state is not None
            and previous_state.removed is not None
            and not refetch
            and matches_lock(previous_state, locked_entry)
        ):
            log(f"{source.slug}: ingested, archives removed: nothing to fetch")
            return previous_state
        entry = locked_entry if locked_entry is not None else await asyncio.to_thread(_resolve_unlocked, source, log)
        if entry.reason is not None:
            log(f"{source.slug}: {entry.reason}")
        is_locked = locked_entry is not None
        return await _SourceFetch(source, entry, previous_state, log, retry_policy, shared, is_locked=is_locked).run()


def _resolve_unlocked(source: SourceSpec, log: LogFn) -> LockedSource:
    try:
        entry = resolve_source(source)
    except FetchRefused as error:
        raise FetchError(source.slug, error.message, hint=error.hint or format_manual_instructions(source)) from error
    origin = f"{entry.declaration.repo} as it is now, at {entry.commit[:12]}" if entry.commit else "what its URL gives"
    log(f"{source.slug}: unverified: there is no lock, taking {origin}")
    return entry


class _SourceFetch:
    """One run. The state file is written before the first byte, while files arrive, and at the end."""

    def __init__(
        self,
        source: SourceSpec,
        entry: LockedSource,
        previous_state: FetchState | None,
        log: LogFn,
        retry_policy: RetryPolicy,
        shared: SharedTransfers,
        *,
        is_locked: bool,
    ) -> None:
        self.source, self.entry, self.log, self.retry_policy = source, entry, log, retry_policy
        self._shared = shared
        self.root = source.root
        stored_files = dict(previous_state.files) if previous_state is not None else {}
        self.state = FetchState(commit=entry.commit, locked=is_locked, files=stored_files)
        # A file from before the first fetch is the user's; later ones may come from a killed fetch.
        self._is_user_managed = previous_state is None
        self._next_save_at = 0.0

    async def run(self) -> FetchState:
        missing = await asyncio.to_thread(self._find_missing_files)
        if missing:
            self._save()
            await self._download(missing)
        return await asyncio.to_thread(self._finish)

    def _find_missing_files(self) -> list[RemoteFile]:
        """Return the files to download. Those that another source has fetched are linked."""
        self._check_foreign_files()
        missing = [
            remote_file
            for remote_file in map(self._build_remote_file, self.entry.files)
            if not self._is_present(remote_file)
        ]
        self._shared.find_fetched_files(self.source.slug, {item.sha256 for item in missing if item.sha256 is not None})
        return [item for item in missing if not self._link_from_other_source(item)]

    def _finish(self) -> FetchState:
        self._remove_stale_files()
        self.state = self.state.model_copy(update={"complete": True})
        self._save()
        shutil.rmtree(self.root / PARTIAL_DIR, ignore_errors=True)
        total_bytes = sum(f.size for f in self.state.files.values())
        self.log(f"{self.source.slug}: {len(self.state.files)} files, {format_bytes(total_bytes)}, all there")
        return self.state

    def _save(self) -> None:
        started_at = time.monotonic()
        save_state(self.source.slug, self.state)
        saved_at = time.monotonic()
        self._next_save_at = saved_at + max(SAVE_INTERVAL_S, SAVE_INTERVAL_RATIO * (saved_at - started_at))

    def _build_remote_file(self, file: LockedFile) -> RemoteFile:
        declaration = self.entry.declaration
        if declaration.repo is None:
            return RemoteFile(file.name, file.path, file.size, file.sha256, file.git_sha1)
        assert self.entry.commit is not None
        url = hub.build_file_url(declaration.repo, self.entry.commit, file.path)
        return RemoteFile(file.name, url, file.size, file.sha256, file.git_sha1, hub.build_auth_headers())

    def _check_foreign_files(self) -> None:
        """Raise `FetchError` for files of other names, which could mix two sources' rows."""
        own_names = {file.name for file in self.entry.files}
        own_names |= {name for name, file in self.state.files.items() if not file.user_managed}
        foreign_names = [name for name in list_files(self.root) if name not in own_names]
        if foreign_names:
            raise FetchError(
                self.source.slug,
                f"{self.root} already holds other files, such as {foreign_names[0]}",
                hint="move them away (demo data can be removed), or set MVL_HOME to another folder",
            )

    def _is_present(self, remote_file: RemoteFile) -> bool:
        """Return whether the file is there; one that the user put there is checked first."""
        path, stored = self.root / remote_file.name, self.state.files.get(remote_file.name)
        if not path.is_file():
            return False
        if stored is not None and not stored.user_managed:
            return (
                self.state.has_intact_file(self.root, remote_file.name)
                and find_mismatch(remote_file, path, stored.sha256) is None
            )
        digest = compute_sha256(path)
        mismatch = find_mismatch(remote_file, path, digest)
        if mismatch is not None:
            raise FetchError(
                self.source.slug,
                f"a file of this name with other content exists ({mismatch})",
                file=remote_file.name,
                hint=f"move {path} away and run again",
            )
        self._record_file(remote_file.name, digest, user_managed=self._is_user_managed or stored is not None)
        return True

    def _link_from_other_source(self, remote_file: RemoteFile) -> bool:
        """Link a file that another source of the same repository has fetched; return whether there is one."""
        if remote_file.sha256 is None:
            return False
        fetched_file = self._shared.get_fetched_file(remote_file.sha256)
        if fetched_file is None:
            return False
        slug, origin = fetched_file
        partial = PartialFile(self.root, remote_file)
        partial.discard()
        try:
            os.link(origin, partial.path)
        except OSError:  # another disk, or one without links
            if not origin.is_file():
                return False
            check_disk_space(self.root, origin.stat().st_size)
            shutil.copyfile(origin, partial.path)
        if partial.compute_sha256() != remote_file.sha256:
            partial.discard()
            return False
        partial.finalize(self.root / remote_file.name)
        self._record_file(remote_file.name, remote_file.sha256)
        self.log(f"{self.source.slug}: {remote_file.name} is shared with {slug}")
        return True

    async def _download(self, remote_files: Sequence[RemoteFile]) -> None:
        present_bytes = sum(PartialFile(self.root, remote_file).size for remote_file in remote_files)
        sizes = [item.size for item in remote_files]
        remaining_bytes = max(0, sum(size for size in sizes if size is not None) - present_bytes)
        check_disk_space(self.root, remaining_bytes + self._shared.count_pending_bytes())
        unsized_note = f" and {sizes.count(None)} files of unknown size" if None in sizes else ""
        resume_note = f"; {format_bytes(present_bytes)} have arrived" if present_bytes else ""
        self.log(
            f"{self.source.slug}: {len(remote_files)} files to fetch, "
            f"{format_bytes(remaining_bytes)}{unsized_note}{resume_note}"
        )
        meter = TransferMeter(self.source.slug, None if None in sizes else remaining_bytes, self.log)
        downloader = Downloader(self.source.slug, self.root, self._shared.session, meter, self.retry_policy)
        slots = asyncio.Semaphore(MAX_CONCURRENT_DOWNLOADS)

        async def download_one(remote_file: RemoteFile) -> None:
            async with self._shared.hold_content(remote_file.sha256):
                if await asyncio.to_thread(self._link_from_other_source, remote_file):
                    meter.extend_total(-(remote_file.size or 0))
                    return
                async with slots, self._shared.connections:
                    digest = await downloader.download(remote_file)
                self._record_file(remote_file.name, digest)
                self._shared.add_fetched_file(digest, self.source.slug, self.root / remote_file.name)

        with self._shared.count_meter(meter):
            try:
                await _run_all(download_one(remote_file) for remote_file in remote_files)
            finally:
                self._save()
        if remote_files:
            self.log(meter.format_line())

    def _record_file(self, name: str, digest: str, *, user_managed: bool = False) -> None:
        stat = (self.root / name).stat()
        stored = StoredFile(size=stat.st_size, sha256=digest, mtime_ns=stat.st_mtime_ns, user_managed=user_managed)
        self.state.files[name] = stored
        if time.monotonic() > self._next_save_at:
            self._save()

    def _remove_stale_files(self) -> None:
        """Remove files of an earlier commit that this one does not have."""
        current_names = {file.name for file in self.entry.files}
        for name in self.state.files.keys() - current_names:
            if self.state.has_intact_file(self.root, name):
                (self.root / name).unlink()
        kept = {name: file for name, file in self.state.files.items() if name in current_names}
        self.state = self.state.model_copy(update={"files": kept})
