"""At every step of storing answers the process is killed or the step fails: acknowledged answers are there, once."""

from __future__ import annotations

import datetime as dt
import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mvl_assets.lake.durability.compaction import expire_versions
from mvl_assets.lake.errors import DiskError
from mvl_assets.lake.lake import Lake
from tests.lake.failpoints import BATCH, BATCHES, POINTS, append_all, failpoint
from tests.lake.processes import PROJECT
from tests.lake.rows import answer, duplicates, pages
from tests.patience import PATIENCE_S

# The passage at which it happens: once there is something to lose, where a step is passed more than once.
TURNS = {
    "lease signed": 1,
    "table made": 1,
    "commit": 4,
    "fragment written": 3,
    "commit made durable": 4,
    "lease renewed": 3,
}


def turn(point: str) -> int:
    return TURNS.get(point, 2)


def assert_whole(lake: Lake, acked: int) -> None:
    """The acknowledged answers are stored, at most one batch more, each once and as it was; the rest can be added."""
    log = Lake(lake.root).get_answer_log("rewritten", "drawn")
    result = {row["request_key"]: row["text"] for row in log.table.iter_rows(["request_key", "text"])}
    expected = {answer(n).request_key: answer(n).text for n in range(BATCH * BATCHES)}
    assert acked <= len(result) <= acked + BATCH
    assert result.items() <= expected.items()
    assert duplicates(log.table) == 0
    append_all(log, lambda count: None)
    again = Lake(lake.root).get_answer_log("rewritten", "drawn")
    assert again.find_answered(expected) == expected.keys()
    assert again.count() == len(expected)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", POINTS)
def test_a_process_killed_at_any_step_leaves_what_it_acknowledged(lake: Lake, point: str, when: str) -> None:
    command = [sys.executable, "-m", "tests.lake.failpoints", lake.root, point, when, str(turn(point))]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode < 0, done.stdout + done.stderr
    assert_whole(lake, sum(int(line) for line in done.stdout.split()))


# A table that is there when making it fails was made by somebody else, and is as good.
@pytest.mark.parametrize(
    ("point", "when"), [(p, w) for p in POINTS for w in ("before", "after") if (p, w) != ("table made", "after")]
)
def test_a_step_that_fails_on_a_full_disk_is_reported_and_the_next_run_continues(
    lake: Lake, point: str, when: str
) -> None:
    acked: list[int] = []

    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        pytest.raises(DiskError, match="the disk is full") as error,
        failpoint(point, when, turn(point), fail),
    ):
        append_all(lake.get_answer_log("rewritten", "drawn"), acked.append)
    assert error.value.hint is not None
    assert_whole(lake, sum(acked))


def list_data_files(lake: Lake) -> set[Path]:
    return set((Path(lake.root) / "category/ocr.lance/data").glob("*.lance"))


@pytest.mark.parametrize(
    ("point", "when", "passage", "is_new"),
    [
        ("fragment written", "before", 2, False),
        ("fragment written", "after", 2, False),
        ("commit", "before", 3, False),
        ("commit", "after", 3, True),
        ("commit made durable", "before", 2, True),
    ],
)
def test_a_killed_publish_leaves_the_old_content_or_the_new_and_files_that_garbage_collection_removes(
    lake: Lake, point: str, when: str, passage: int, is_new: bool
) -> None:
    command = [sys.executable, "-m", "tests.lake.failpoints", lake.root, point, when, str(passage), "publish"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode < 0 and done.stdout == "old\n", done.stdout + done.stderr
    table = lake.get_table("category/ocr")
    licenses = [row["license"] for row in table.iter_rows(["license"], partition_key="a")]
    assert licenses == ["new"] * 15 if is_new else licenses == ["old"] * 30
    table.publish([pages("a", "new", range(15))], "a")
    assert duplicates(table) == 0 and table.count() == 15
    live = table.write_fragments([pages("b", "live", range(4))], "b")  # a writer that has not committed yet
    (live_file,) = (Path(table.uri) / "data" / file.path for file in live.to_lance()[0].files)
    old = time.time() - 8 * 24 * 3600
    for file in list_data_files(lake) - {live_file}:
        os.utime(file, (old, old))
    expire_versions(table, dt.timedelta(0))
    named = {Path(table.uri) / "data" / f.path for part in table.open().get_fragments() for f in part.metadata.files}
    assert list_data_files(lake) == {*named, live_file}
    table.append_fragments([live])
    assert table.count(partition_key="b") == 4
