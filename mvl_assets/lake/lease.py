"""One writer per partition: a lease that ends with the process that holds it, however that process ends.

A lease keeps two runs from paying for the same answers. It is not what keeps rows unique; the key does that.

On a local disk it is an advisory lock of the kernel, released by the kernel even after kill -9. On an object store it
is a compare-and-swap on the table's own config, renewed by its holder and taken over once it has not been renewed for
`STALE_SECONDS`.
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

from mvl_assets.lake.durable import local_path
from mvl_assets.lake.errors import LeaseHeld

if TYPE_CHECKING:
    from mvl_assets.lake.table import Table

STALE_SECONDS = 120.0
CONFIG_KEY = "mvl.lease"


class FileLease:
    """A kernel lock on a small file beside the table; the file says who holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def __enter__(self) -> FileLease:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 200).decode(errors="replace") or "another process"
            os.close(handle)
            raise LeaseHeld(
                f"{self.path.stem} is being written by {holder}",
                hint="wait for that run or cancel it; what it has written stays",
            ) from None
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
        except OSError:
            os.close(handle)  # or this process would keep a lock that it does not know of
            raise
        self._handle = handle
        return self

    def renew(self) -> None:
        """Nothing to do: the kernel keeps the lock as long as the process lives."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            os.close(self._handle)  # the file stays: unlinking it would let a third process lock another inode
            self._handle = None


class ConfigLease:
    """A lease inside a Lance table on an object store, taken by compare-and-swap on the table's config."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.token = uuid.uuid4().hex
        self._renewed = 0.0

    def __enter__(self) -> ConfigLease:
        self._write()
        return self

    def _write(self) -> None:
        dataset = self.table.open()
        held = _held(dataset)
        if held and held["token"] != self.token and time.time() - held["at"] < STALE_SECONDS:
            raise LeaseHeld(
                f"{self.table.uri} is being written by {held['holder']}",
                hint=f"wait for that run; a dead one's lease ends after {STALE_SECONDS:.0f} s",
            )
        value = {"token": self.token, "at": time.time(), "holder": f"{socket.gethostname()}:{os.getpid()}"}
        try:
            lance.LanceDataset.commit(self.table.uri, _update(value), read_version=dataset.version)
        except CommitConflictError as error:
            raise LeaseHeld(f"{self.table.uri}: another process took the lease first") from error
        self._renewed = time.monotonic()

    def renew(self) -> None:
        """Called by the holder with every commit; writes only when a third of the time is gone.

        Raises `LeaseHeld` when this process stood still for so long that another one took over.
        """
        if time.monotonic() - self._renewed > STALE_SECONDS / 3:
            self._write()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        dataset = self.table.open()
        if _held(dataset).get("token") == self.token:
            with suppress(CommitConflictError):  # taken over in this very moment
                lance.LanceDataset.commit(self.table.uri, _update({}), read_version=dataset.version)


def _held(dataset: lance.LanceDataset) -> dict[str, Any]:
    return json.loads(dataset.config().get(CONFIG_KEY) or "{}")


def _update(value: dict[str, Any]) -> lance.LanceOperation.UpdateConfig:
    updates = lance.LanceOperation.UpdateMap(updates={CONFIG_KEY: json.dumps(value)}, replace=False)
    return lance.LanceOperation.UpdateConfig(config_updates=updates)


def lease_for(table: Table) -> FileLease | ConfigLease:
    path = local_path(table.uri)
    return ConfigLease(table) if path is None else FileLease(path.with_suffix(".lease"))
