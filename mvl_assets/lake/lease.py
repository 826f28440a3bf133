"""One writer per partition: a lease that ends with the process that holds it, however that process ends.

A lease keeps two runs from paying for the same answers. It is not what keeps rows unique; the key does that.

On a local disk it is an advisory lock of the kernel, released by the kernel even after kill -9. On an object store it
is a compare-and-swap on the table's own config, renewed by its holder and taken over once it has not been renewed for
`LEASE_TTL_S`.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import lance
from lance.commit import CommitConflictError

from mvl_assets.lake.durable import resolve_local_path
from mvl_assets.lake.errors import LeaseHeld

if TYPE_CHECKING:
    from mvl_assets.lake.table import Table

LEASE_TTL_S = 120.0
LEASE_CONFIG_KEY = "mvl.lease"


class FileLease:
    """A kernel lock on a small file beside the table; the file says who holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def __enter__(self) -> FileLease:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 200).decode(errors="replace") or "another process"
            os.close(fd)
            raise LeaseHeld(
                f"{self.path.stem} is being written by {holder}",
                hint="wait for that run or cancel it; what it has written stays",
            ) from None
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
        except OSError:
            os.close(fd)  # or this process would keep a lock that it does not know of
            raise
        self._fd = fd
        return self

    def renew(self) -> None:
        """Nothing to do: the kernel keeps the lock as long as the process lives."""

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._fd is not None:
            os.close(self._fd)  # the file stays: unlinking it would let a third process lock another inode
            self._fd = None


class ConfigLease:
    """A lease inside a Lance table on an object store, taken by compare-and-swap on the table's config."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.token = uuid.uuid4().hex
        self._renewed_at = 0.0

    def __enter__(self) -> ConfigLease:
        self._write_lease()
        return self

    def _write_lease(self) -> None:
        dataset = self.table.open()
        holder_lease = _read_lease(dataset)
        if holder_lease and holder_lease["token"] != self.token and time.time() - holder_lease["at"] < LEASE_TTL_S:
            raise LeaseHeld(
                f"{self.table.uri} is being written by {holder_lease['holder']}",
                hint=f"wait for that run; a dead one's lease ends after {LEASE_TTL_S:.0f} s",
            )
        own_lease = {"token": self.token, "at": time.time(), "holder": f"{socket.gethostname()}:{os.getpid()}"}
        try:
            lance.LanceDataset.commit(self.table.uri, _build_config_update(own_lease), read_version=dataset.version)
        except CommitConflictError as error:
            raise LeaseHeld(f"{self.table.uri}: another process took the lease first") from error
        self._renewed_at = time.monotonic()

    def renew(self) -> None:
        """Called by the holder with every commit; writes only when a third of the time is gone.

        Raises `LeaseHeld` when this process stood still for so long that another one took over.
        """
        if time.monotonic() - self._renewed_at > LEASE_TTL_S / 3:
            self._write_lease()

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        dataset = self.table.open()
        if _read_lease(dataset).get("token") == self.token:
            with suppress(CommitConflictError):  # taken over in this very moment
                lance.LanceDataset.commit(self.table.uri, _build_config_update({}), read_version=dataset.version)


def _read_lease(dataset: lance.LanceDataset) -> dict[str, Any]:
    return json.loads(dataset.config().get(LEASE_CONFIG_KEY) or "{}")


def _build_config_update(lease: dict[str, Any]) -> lance.LanceOperation.UpdateConfig:
    updates = lance.LanceOperation.UpdateMap(updates={LEASE_CONFIG_KEY: json.dumps(lease)}, replace=False)
    return lance.LanceOperation.UpdateConfig(config_updates=updates)


def create_lease(table: Table) -> FileLease | ConfigLease:
    path = resolve_local_path(table.uri)
    return ConfigLease(table) if path is None else FileLease(path.with_suffix(".lease"))
