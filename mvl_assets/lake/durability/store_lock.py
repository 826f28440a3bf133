"""A lock in an object store that many may share or one may hold alone.

Every holder has an object of its own below the lock's folder, which it writes again and again while it works. A process
that wants in writes its object first and looks at the others afterwards: of two that come at once, at least one sees
the other and steps back, because stores list what was written before (S3, Google Cloud Storage and Azure do). Ages are
differences between times of the store, so the clocks of the machines need not agree.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pyarrow.fs as pafs

from mvl_assets.lake.durability.heartbeat import Heartbeat, read_clock
from mvl_assets.lake.durability.holder import describe_holder, is_known_dead
from mvl_assets.lake.errors import translate_disk_errors
from mvl_assets.lake.storage import open_filesystem

LIFETIME_S = 180.0
N_RETRIES, RETRY_WAIT_S = 3, 1.0
SHARED, EXCLUSIVE = "shared", "exclusive"


@contextmanager
def try_store_lock(folder_uri: str, *, shared: bool) -> Iterator[bool]:
    """Hold the lock during the block, or yield False at once if another process prevents it."""
    holder = _Holder(folder_uri, SHARED if shared else EXCLUSIVE)
    try:
        with translate_disk_errors(folder_uri):
            is_acquired = holder.acquire()
            for _ in range(N_RETRIES):
                if is_acquired:
                    break
                # Of several that came at once all may have stepped back.
                holder.release()
                time.sleep(random.uniform(0, RETRY_WAIT_S))
                is_acquired = holder.acquire()
        yield is_acquired
    finally:
        holder.release()


class _Holder:
    """This process's object of a lock."""

    def __init__(self, folder_uri: str, kind: str) -> None:
        self._filesystem, self._folder = open_filesystem(folder_uri)
        self._name = f"{kind}-{uuid.uuid4().hex}.json"
        self._heartbeat = Heartbeat(self._write, folder_uri, LIFETIME_S)

    def acquire(self) -> bool:
        taken_at = read_clock()
        self._write()
        if self._has_rival():
            return False
        self._heartbeat.start(taken_at)
        return True

    def release(self) -> None:
        self._heartbeat.stop()
        with suppress(OSError):  # a lock that cannot be removed ends by itself
            self._filesystem.delete_file(f"{self._folder}/{self._name}")

    def _write(self) -> None:
        content = json.dumps(describe_holder())
        with self._filesystem.open_output_stream(f"{self._folder}/{self._name}") as stream:
            stream.write(content.encode())

    def _has_rival(self) -> bool:
        """Return whether a living holder does not go with this one; remove the objects of dead ones."""
        files = self._filesystem.get_file_info(pafs.FileSelector(self._folder))
        modified_ns = {file.base_name: file.mtime_ns for file in files if file.type == pafs.FileType.File}
        now_ns = modified_ns.pop(self._name)
        has_rival = False
        for name, rival_modified_ns in modified_ns.items():
            if name.startswith(SHARED) and self._name.startswith(SHARED):
                continue
            path = f"{self._folder}/{name}"
            if (now_ns - rival_modified_ns) / 1e9 > LIFETIME_S or self._is_known_dead(path):
                with suppress(OSError):  # others may be removing it as well
                    self._filesystem.delete_file(path)
            else:
                has_rival = True
        return has_rival

    def _is_known_dead(self, path: str) -> bool:
        try:
            with self._filesystem.open_input_stream(path) as stream:
                return is_known_dead(json.loads(stream.read()))
        except FileNotFoundError:  # it has just been released
            return True
        except ValueError:  # on a disk, where the tests run it, it is being written
            return False
