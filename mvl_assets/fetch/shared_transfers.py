"""What the sources that one process fetches at the same time share: connections, and files of equal content."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp

from mvl_assets.config.settings import load_settings
from mvl_assets.fetch.connection import create_session
from mvl_assets.fetch.progress import TransferMeter
from mvl_assets.fetch.state import iter_states

MAX_CONNECTIONS = 16
"""Files that are downloaded at the same time, of all sources together."""


class SharedTransfers:
    """Belongs to one event loop. `connections` bounds the downloads of all sources."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.connections = asyncio.Semaphore(MAX_CONNECTIONS)
        self._fetched_files: dict[str, tuple[str, Path]] = {}
        self._content_locks: dict[str, asyncio.Lock] = {}
        self._meters: set[TransferMeter] = set()

    def find_fetched_files(self, slug: str, digests: Collection[str]) -> None:
        """Look in the folders of all sources but `slug` for intact files with one of these sha256."""
        if not digests:
            return
        for other_slug, state in iter_states():
            root = load_settings().raw_dir / other_slug
            for name, file in state.files.items():
                if other_slug != slug and file.sha256 in digests and state.has_intact_file(root, name):
                    self.add_fetched_file(file.sha256, other_slug, root / name)

    def add_fetched_file(self, digest: str, slug: str, path: Path) -> None:
        """Let other sources link a file of the source `slug`, whose sha256 is `digest`."""
        self._fetched_files[digest] = (slug, path)

    def get_fetched_file(self, digest: str) -> tuple[str, Path] | None:
        """Return source and path of a file with this sha256; None if none is known."""
        return self._fetched_files.get(digest)

    @asynccontextmanager
    async def hold_content(self, digest: str | None) -> AsyncIterator[None]:
        """Wait until no other source downloads a file with this sha256, and keep others from it during the block."""
        if digest is None:
            yield
        else:
            async with self._content_locks.setdefault(digest, asyncio.Lock()):
                yield

    @contextmanager
    def count_meter(self, meter: TransferMeter) -> Iterator[None]:
        """Count what the meter says is missing as pending during the block."""
        self._meters.add(meter)
        try:
            yield
        finally:
            self._meters.discard(meter)

    def count_pending_bytes(self) -> int:
        """Return the bytes that the running downloads will still write, as far as it is known."""
        return sum(
            max(0, meter.total_bytes - meter.transferred_bytes)
            for meter in self._meters
            if meter.total_bytes is not None
        )


@asynccontextmanager
async def open_shared_transfers() -> AsyncIterator[SharedTransfers]:
    """Yield what the fetches of one event loop share."""
    async with create_session() as session:
        yield SharedTransfers(session)
