"""kill -9 at seeded moments: acknowledged rows are there, none is there twice, and the table opens again."""

from __future__ import annotations

import random
import time

import pytest

from mvl_assets.lake.errors import LeaseHeld
from mvl_assets.lake.lake import Lake
from tests.kills import LAKE_KILLS
from tests.lake.processes import Worker, workers
from tests.lake.rows import answer, duplicates, pages
from tests.lake.workers import PUBLISHED_ROWS

# How long after the line that a kill waits for it happens: somewhere within the write that follows.
LATEST_S = 0.012


def stored(lines: list[str]) -> int:
    return max((int(line.split()[1]) for line in lines if line.startswith("stored")), default=0)


def test_acknowledged_answers_survive_a_kill_at_any_moment(lake: Lake) -> None:
    chance = random.Random(20241206)
    acked = 0
    for kill in range(LAKE_KILLS):
        awaited = "maintain" if kill % 3 == 2 else "stored"
        with workers(("append", lake.root)) as (worker,):
            lines = [worker.line()]
            for _ in range(chance.randrange(1, 4)):
                lines.append(worker.line())
                while not lines[-1].startswith(awaited):
                    lines.append(worker.line())
            time.sleep(chance.uniform(0, LATEST_S))
            lines += worker.kill()
        assert stored(lines) > acked, "the worker went on from where the killed one stopped"
        acked = stored(lines)
        log = Lake(lake.root).get_answer_log("rewritten", "drawn")
        result = log.count()
        assert acked <= result <= acked + 4, f"kill {kill}: {acked} acknowledged, {result} stored"
        assert duplicates(log.table) == 0
        keys = {answer(n).request_key: f"text {n}" for n in range(result)}
        assert {r["request_key"]: r["text"] for r in log.table.iter_rows(["request_key", "text"])} == keys


def test_a_killed_publish_leaves_the_old_content_or_the_new(lake: Lake) -> None:
    chance = random.Random(20241207)
    table = lake.get_table("category/ocr")
    table.publish([pages("other", "x", range(100))], "other")
    other = table.compute_data_version("other")
    versions = [
        table.publish([pages("drawn", f"turn {turn}", range(PUBLISHED_ROWS))], "drawn").data_version for turn in (1, 0)
    ]
    for _ in range(4):
        with workers(("publish", lake.root)) as (worker,):
            starts = 0
            while starts < 2:
                starts += worker.line() == "start"
            time.sleep(chance.uniform(0, 0.3))
            worker.kill()
        reopened = Lake(lake.root).get_table("category/ocr")
        assert reopened.compute_data_version("drawn") in versions
        assert reopened.compute_data_version("other") == other
        assert duplicates(reopened) == 0
    done = Lake(lake.root).get_table("category/ocr").publish([pages("drawn", "end", range(3))], "drawn")
    assert done.n_rows == lake.get_table("category/ocr").count("source = 'drawn'") == 3


def test_a_lease_names_its_holder_and_ends_with_its_process(lake: Lake) -> None:
    with workers(("hold", lake.root)) as (holder,):
        assert holder.line() == "held"
        with pytest.raises(LeaseHeld, match=str(holder.process.pid)), lake.get_answer_log("rewritten", "drawn"):
            pass
        assert lake.get_answer_log("rewritten", "drawn").count() == 0, "reading needs no lease"
        with lake.get_answer_log("rewritten", "other source") as other:
            assert other.append([answer(1)]) == 1
        holder.kill()
        with lake.get_answer_log("rewritten", "drawn") as log:
            assert log.append([answer(1)]) == 1


def test_one_of_two_processes_gets_the_lease(lake: Lake) -> None:
    first, second = (Worker("hold", lake.root) for _ in range(2))
    try:
        output = []
        for worker in (first, second):
            try:
                output.append(worker.line())
            except EOFError:
                output.append("refused")
        assert sorted(output) == ["held", "refused"]
    finally:
        first.kill()
        second.kill()
