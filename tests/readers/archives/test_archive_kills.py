"""Archives while processes are killed, at any size, and with any damage."""

from __future__ import annotations

import gzip
import io
import os
import signal
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mvl_assets.readers.archives import entry
from mvl_assets.readers.archives import tar as tars
from mvl_assets.readers.archives import zip as zips
from tests.archive_files import GOOD, PAIR, read, special, tar, zipped
from tests.raw_files import put

KILLED = """
import os, signal, sys
from pathlib import Path
from mvl_assets.common import atomic_write
from mvl_assets.readers.archives import index, unpack
from mvl_assets.readers.files import resolve_image

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

module, name, after = {"unpack": (unpack, "_ensure_free_space", 2), "fill": (index, "_insert_members", 0),
                       "index": (index._CommonRoot, "add", 30), "sync": (atomic_write, "fsync_path", 2)}[sys.argv[2]]
calls, real = [], getattr(module, name)

def counted(*args):
    calls.append(1)
    return die() if len(calls) > after else real(*args)

setattr(module, name, counted)
unpack._FREE_SPACE_CHECK_BYTES = 1 << 20
resolve_image(Path(sys.argv[1]), "i/1.png")
"""


@pytest.mark.parametrize("moment", ["unpack", "fill", "index", "sync"])
def test_a_kill_leaves_no_partial_file_and_the_next_process_starts_over(tmp_path: Path, moment: str) -> None:
    filler = [(f"i/f{n}", os.urandom(100_000)) for n in range(50)]
    put(tmp_path, "i.tar.gz", gzip.compress(tar(*filler, ("i/1.png", GOOD)), 1))
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    made = {p.suffix for p in (tmp_path / ".unpacked").iterdir()}
    assert ".index" not in made
    if moment == "unpack":
        assert made == {"", ".tmp"}
    assert read(tmp_path, "i/1.png") == GOOD
    assert sorted(p.suffix for p in (tmp_path / ".unpacked").iterdir()) == ["", ".index", ".tar"]


def small_and_large() -> Iterator[tuple[str, Callable[[int], bytes]]]:
    def many(members: int) -> list[tuple[str, bytes]]:
        return [(f"i/{n:09d}.png", b"x") for n in range(members)]

    yield "i.tar", lambda n: tar(*many(n), format=tarfile.GNU_FORMAT)
    yield "i.zip", lambda n: zipped(*many(n), method=zipfile.ZIP_STORED)
    yield "i.tar.gz", lambda n: gzip.compress(tar(*many(n), format=tarfile.GNU_FORMAT), 1)


@pytest.mark.parametrize(("file", "make"), list(small_and_large()))
def test_memory_does_not_grow_with_the_archive(tmp_path: Path, file: str, make: Callable[[int], bytes]) -> None:
    peaks = []
    for members in (300, 6000):
        root = tmp_path / str(members)
        put(root, file, make(members))
        tracemalloc.start()
        assert read(root, "i/000000299.png") == b"x"
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 300_000


@pytest.mark.parametrize("kind", ["tar", "zip"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_ends_in_members_or_an_archive_error(kind: str, data: st.DataObject) -> None:
    whole = bytearray(tar(*PAIR, special("l", tarfile.SYMTYPE, "x")) if kind == "tar" else zipped(*PAIR))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        stream = io.BytesIO(damaged)
        members = (
            tars.iter_entries(stream, len(damaged)) if kind == "tar" else zips.iter_entries(stream, [0], len(damaged))
        )
        for member in members:
            assert member.error is not None or 0 <= member.offset <= member.offset + member.compressed_size <= len(
                damaged
            )
    except entry.ArchiveError:
        pass
