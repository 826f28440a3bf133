"""What other processes do in the tests of this folder: write, and be killed while they write.

Run as `python -m tests.lake.workers NAME ROOT ...`. A worker reports on its standard output, one line at a time; what
it says it has done, it has done.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from mvl_assets.lake.errors import LakeError, LeaseHeld
from mvl_assets.lake.lake import Lake
from tests.lake.rows import answer, make_image, pages

PUBLISHED_ROWS = 5_000


def say(*words: object) -> None:
    print(*words, flush=True)


def wait() -> None:
    """Until the test writes a line: so that several workers start at the same moment, or one stays until killed."""
    sys.stdin.readline()


def append(root: str) -> None:
    """Appends four answers at a time for ever, and folds the table after every sixth time. Says how many are stored."""
    log = Lake(root).get_answer_log("rewritten", "drawn")
    with log:
        number = log.count()
        say("stored", number)
        while True:
            log.append([answer(n) for n in range(number, number + 4)])
            number += 4
            say("stored", number)
            if number // 4 % 6 == 0:
                say("maintain")
                log.maintain()


def publish(root: str) -> None:
    """Publishes one partition with this content and that content, by turns, for ever."""
    table = Lake(root).get_table("category/ocr")
    say("ready", table.count())
    turn = 0
    while True:
        say("start")
        table.publish([pages("drawn", f"turn {turn % 2}", range(PUBLISHED_ROWS))], "drawn")
        say("done")
        turn += 1


def hold(root: str) -> None:
    """Takes the lease and keeps it until it is killed."""
    with Lake(root).get_answer_log("rewritten", "drawn"):
        say("held")
        wait()


def append_same(root: str, who: str) -> None:
    """Appends the same answers as everyone else, without the lease: as two owners of one partition would."""
    log = Lake(root).get_answer_log("rewritten", "drawn")
    log._lease = _NoLease()  # type: ignore[assignment]
    say("ready")
    wait()
    new = sum(log.append([answer(n, who) for n in range(r * 20, r * 20 + 20)]) for r in range(10))
    say("inserted", new)


class _NoLease:
    def renew(self) -> None:
        pass


def insert_same(root: str, who: str) -> None:
    """Inserts the same rows as everyone else."""
    table = Lake(root).get_table("category/ocr")
    table.count()
    say("ready")
    wait()
    say("inserted", sum(table.insert(pages("drawn", who, range(r * 50, r * 50 + 50))) for r in range(10)))


def publish_rounds(root: str, who: str, own: str) -> None:
    """Publishes a partition per round: the same as everyone else, or (`own`) one of its own."""
    table = Lake(root).get_table("category/ocr")
    say("ready")
    for turn in range(8):
        wait()
        part = f"{who if own == 'own' else 'all'} {turn}"
        rows = pages(part, who, range(20)) if own == "own" else _other_keys(part, who)
        say("published", table.publish([rows], part).data_version)


def _other_keys(part: str, who: str) -> pa.Table:
    """Rows of one partition whose keys no other writer has: Lance sees no conflict in them."""
    rows = pages(f"{part} {who}", who, range(20))
    return rows.set_column(rows.schema.get_field_index("source"), "source", pa.array([part] * len(rows), pa.string()))


def fill_disk(root: str) -> None:
    """On a file system of two megabytes: writes until it is full, then frees space and goes on; then read-only."""
    ballast = Path(root).parent / "ballast"
    ballast.write_bytes(b"\0" * 500_000)
    lake = Lake(root)
    log, stored = lake.get_answer_log("rewritten", "drawn"), 0
    try:
        with log:
            while stored < 1000:
                log.append(
                    [answer(n, text=random.Random(n).randbytes(10_000).hex()) for n in range(stored, stored + 2)]
                )
                stored += 2
    except LakeError as error:
        say("answers", error.message, "|", error.hint)
    for name, write in _writes(lake).items():
        _say_error(name, write)
    ballast.unlink()
    with Lake(root).get_answer_log("rewritten", "drawn") as again:
        say("kept", again.count() - stored, "more", again.append([answer(stored + 10)]))
    subprocess.run(["mount", "-o", "remount,ro", str(Path(root).parent)], check=True)
    for name, write in _writes(Lake(root)).items():
        _say_error(f"read-only {name}", write)
    _say_error("read-only answers", lambda: Lake(root).get_answer_log("rewritten", "drawn").__enter__())
    say("readable", Lake(root).get_answer_log("rewritten", "drawn").count() - stored)


def _writes(lake: Lake) -> dict[str, Callable[[], object]]:
    return {
        "publish": lambda: lake.get_table("category/ocr").publish([pages("a", "x" * 500, range(3000))], "a"),
        "insert": lambda: lake.get_table("category/ocr").insert(pages("b", "x" * 500, range(3000))),
        "pictures": lambda: lake.get_images("drawn").insert([make_image(1, 3_000_000)]),
    }


def _say_error(name: str, write: Callable[[], object]) -> None:
    try:
        write()
    except LeaseHeld as error:
        say(name, "lease", error.message)
    except LakeError as error:
        say(name, error.message, "|", error.hint)
    except Exception as error:
        say(name, "RAW", type(error).__name__, str(error)[:300])
    else:
        say(name, "nothing happened")


if __name__ == "__main__":
    {f.__name__: f for f in (append, publish, hold, append_same, insert_same, publish_rounds, fill_disk)}[sys.argv[1]](
        *sys.argv[2:]
    )
