"""The lease of a table: one writer at a time, so that two runs do not pay for the same answers.

Rows are kept unique by their key, not by the lease. On a local disk it is an advisory lock of the kernel, released even
after kill -9. On an object store it is a compare-and-swap on the table's own config, renewed by a thread of its holder
and free to be taken over once it has not been renewed for `LEASE_TTL_S`; the clocks of the machines may differ by half
of that.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import lance
from lance.commit import CommitConflictError

from mvl_assets.common.file_lock import acquire_lock
from mvl_assets.lake.durability.heartbeat import Heartbeat, read_clock
from mvl_assets.lake.durability.holder import describe_holder, is_known_dead
from mvl_assets.lake.errors import LeaseHeld
from mvl_assets.lake.storage import build_storage_options, resolve_local_path
from mvl_assets.lake.table import Table

LEASE_TTL_S = 120.0
# A commit that takes longer than the lease lives says nothing about who holds it.
COMMIT_TIMEOUT = dt.timedelta(seconds=LEASE_TTL_S / 2)
LEASE_CONFIG_KEY = "mvl.lease"


class FileLease:
    """A kernel lock on a small file next to the table; the file names the holder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def __enter__(self) -> FileLease:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = acquire_lock(self.path, blocking=False)
        if fd is None:
            holder = self.path.read_bytes()[:200].decode(errors="replace") or "another process"
            raise LeaseHeld(
                f"{self.path.stem} is being written by {holder}",
                hint="wait for that run or cancel it; what it has written stays",
            )
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
        except OSError:
            os.close(fd)  # otherwise this process would keep a lock that it does not know of
            raise
        self._fd = fd
        return self

    def renew(self) -> None:
        """Do nothing: the kernel keeps the lock as long as the process lives."""

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._fd is not None:
            os.close(self._fd)  # the file stays, see `acquire_lock`
            self._fd = None


class ConfigLease:
    """A lease inside a Lance table on an object store, taken by compare-and-swap on the table's config."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.token = uuid.uuid4().hex
        self._heartbeat = Heartbeat(self._write_lease, table.uri, LEASE_TTL_S)

    def __enter__(self) -> ConfigLease:
        taken_at = read_clock()
        self._write_lease()
        self._heartbeat.start(taken_at)
        return self

    def _write_lease(self) -> None:
        dataset = self.table.open()
        holder_lease = _read_lease(dataset)
        if (
            holder_lease
            and holder_lease["token"] != self.token
            and time.time() - holder_lease["at"] < LEASE_TTL_S
            and not is_known_dead(holder_lease["holder"])
        ):
            raise LeaseHeld(
                f"{self.table.uri} is being written by {holder_lease['holder']['name']}",
                hint=f"wait for that run; a dead one's lease ends after {LEASE_TTL_S:.0f} s",
            )
        own_lease = {"token": self.token, "at": time.time(), "holder": describe_holder()}
        try:
            self._store_config(dataset, own_lease)
        except CommitConflictError as error:
            raise LeaseHeld(f"{self.table.uri}: another process took the lease first") from error

    def renew(self) -> None:
        """Make sure that the lease is held; a thread renews it.

        Raises:
            LeaseHeld: This process paused for so long that another one has taken the lease over, or may.
        """
        self._heartbeat.require_held()

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._heartbeat.stop()
        dataset = self.table.open()
        if _read_lease(dataset).get("token") == self.token:
            with suppress(CommitConflictError):  # taken over at this moment
                self._store_config(dataset, {})

    def _store_config(self, dataset: lance.LanceDataset, lease: dict[str, Any]) -> None:
        updates = lance.LanceOperation.UpdateMap(updates={LEASE_CONFIG_KEY: json.dumps(lease)}, replace=False)
        lance.LanceDataset.commit(
            self.table.uri,
            lance.LanceOperation.UpdateConfig(config_updates=updates),
            read_version=dataset.version,
            storage_options=build_storage_options(self.table.uri),
            commit_timeout=COMMIT_TIMEOUT,
        )


def _read_lease(dataset: lance.LanceDataset) -> dict[str, Any]:
    return json.loads(dataset.config().get(LEASE_CONFIG_KEY) or "{}")


def create_lease(table: Table) -> FileLease | ConfigLease:
    """Return the kind of lease that the table's storage supports. It is taken when it is entered."""
    path = resolve_local_path(table.uri)
    return ConfigLease(table) if path is None else FileLease(path.with_suffix(".lease"))
