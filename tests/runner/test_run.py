"""`mvl run`: twice, in part, interrupted and killed. What was paid for is kept, and nothing is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import pytest

from mvl_assets.runner.orphaned_runs import UNFINISHED_STATUSES
from tests.cli.home import KEPT, REWRITTEN, SOURCES, Home, lines_with, one_error
from tests.patience import PATIENCE_S, wait_until
from tests.servers import FakeProcess

AT_ONCE = 2
# Two sources are asked beside each other.
IN_FLIGHT = AT_ONCE * len(REWRITTEN)
# Fewer than the rows of one source, so that both are still asked.
ANSWERED = 8


@pytest.fixture
def holding() -> Iterator[FakeProcess]:
    """A model that gives a few answers and waits then, so that there is a middle to be stopped in."""
    with FakeProcess("--hold-after", str(ANSWERED)) as server:
        yield server


@pytest.fixture
def halfway(sorted_in: Home, holding: FakeProcess, tmp_path: Path) -> Home:
    """Everything before the rewriting is made, and the model is a fleet of the one that waits."""
    home = sorted_in.copy(tmp_path / "home")
    endpoints_file = tmp_path / "endpoints"
    endpoints_file.write_text(holding.base_url, encoding="utf-8")
    home.profile(model_endpoints_file=str(endpoints_file), model_concurrency=AT_ONCE)
    return home


@contextmanager
def stopped_halfway(
    home: Home, model: FakeProcess, stop: Callable[[subprocess.Popen[str]], object]
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A run that is stopped when all that it may ask at once is held; gives its process and what it said."""
    process = home.start("run", *SOURCES, "--until", "rewritten")
    try:
        deadline = time.monotonic() + PATIENCE_S
        while model.counts()["requests"] < ANSWERED + IN_FLIGHT:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
            time.sleep(0.05)
        stop(process)
        yield process, process.communicate(timeout=PATIENCE_S)[0]
    finally:
        for left in home.processes():
            left.kill()
        process.wait()


def gone(processes: Callable[[], list[psutil.Process]], seconds: float = PATIENCE_S) -> bool:
    """Whether they end within so many seconds; a killed process is gone a moment after the kill."""
    deadline = time.monotonic() + seconds
    while processes():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def asked_keys(home: Home) -> dict[str, set[str]]:
    """The requests behind the rewritten rows, by source."""
    keys: dict[str, set[str]] = {}
    for name in home.lake.list_tables("rewritten"):
        for row in home.lake.get_table(name).iter_rows(["source", "request_key"]):
            keys.setdefault(row["source"], set()).add(row["request_key"])
    return keys


def assert_goes_on(home: Home, model: FakeProcess, built: Home, asked_twice: int) -> None:
    """The next run ends well with the rows of an undisturbed one, and asks at most so many requests again."""
    model.release()
    home.run("run", *SOURCES, "--until", "rewritten")
    assert asked_keys(home) == asked_keys(built)
    counts = model.counts()
    assert counts["requests"] - counts["distinct"] <= asked_twice
    instance = dg.DagsterInstance.from_config(str(home.folder / "dagster"))
    with instance:
        assert instance.get_runs(dg.RunsFilter(statuses=UNFINISHED_STATUSES)) == []
        for pool in instance.event_log_storage.get_concurrency_keys():
            assert instance.event_log_storage.get_concurrency_info(pool).active_slot_count == 0, pool


# -- undisturbed ---------------------------------------------------------------------------------------------------


def test_the_second_run_sends_nothing_and_makes_nothing_stale(
    built: Home, copy_of: Callable[[Home], Home], model: FakeProcess
) -> None:
    home = copy_of(built)
    before = model.counts()["requests"]
    names = ["samples", *(n for f in ("category", "rewritten", "judged", "mixture") for n in home.lake.list_tables(f))]
    versions = {name: home.lake.get_table(name).version for name in names}
    output = home.run("run", *SOURCES, "--until", "mixture")
    assert model.counts()["requests"] == before
    assert lines_with(output, ["-- raw: 0 made, 3 up to date, 0 failed"])
    for stage, fresh in {"category": 3, "rewritten": 2, "judged": 2, "curation": 2, "mixture": 3}.items():
        assert lines_with(output, [f"-- {stage}: 0 made, {fresh} up to date, 0 failed"]), output
    assert {name: home.lake.get_table(name).version for name in names} == versions
    assert "nothing is stale" in home.run("stale")


def test_part_of_the_pipeline_for_some_sources_leaves_the_rest_alone(fresh: Home) -> None:
    output = fresh.run("run", "--source", KEPT, "--source", REWRITTEN[0], "--until", "category")
    assert output.startswith("2 sources, 3 stages") and "Rows by category" in output
    assert "Share kept" not in output
    assert {row["source"] for row in fresh.lake.get_table("samples").iter_rows(["source"])} == {KEPT, REWRITTEN[0]}
    assert fresh.lake.list_tables("category") == ["category/caption", "category/general"]
    assert fresh.lake.list_tables("rewritten") == []


def test_a_selection_runs_those_assets_alone(built: Home, copy_of: Callable[[Home], Home]) -> None:
    output = copy_of(built).run("run", *SOURCES, "--select", "key:judged/caption", "--force")
    assert output.startswith("3 sources, 1 stage,")
    assert lines_with(output, ["-- judged: 1 made, 0 up to date, 0 failed"])
    assert not lines_with(output, ["-- rewritten"])


def test_an_undeclared_source_is_an_error(raw: Home) -> None:
    one_error(raw.mvl("run", "--source", "nothing"), "there is no source 'nothing'", "`mvl sources` lists them")


def test_a_run_without_any_files_suggests_demo_data(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.profile()
    one_error(home.mvl("run"), "no source has files", "mvl demo-data")


def test_a_source_without_files_fails_alone(fresh: Home) -> None:
    words = ("run", "--source", "numinamath", "--source", KEPT, "--until", "raw")
    done = fresh.mvl(*words)
    one_error(done, "numinamath: the folder", "put the source's files into")
    assert not fresh.lake.get_table("samples").exists()  # nothing is begun for a source that is not in the graph
    (fresh.folder / "raw" / "numinamath").mkdir()
    done = fresh.mvl(*words)
    one_error(done, "raw/numinamath[numinamath]: numinamath: no ", "put the source's files into")
    assert lines_with(done.stdout, ["-- raw: 1 made, 0 up to date, 1 failed"])
    assert "Rows by category" not in done.stdout
    assert fresh.lake.get_table("samples").count() > 0


def test_nothing_is_made_behind_a_failed_ingest_and_the_next_run_makes_it_right(fresh: Home) -> None:
    files = fresh.folder / "raw" / KEPT
    aside = files.rename(fresh.folder / "aside")
    files.mkdir()
    done = fresh.mvl("run", "--source", KEPT, "--until", "curation")
    one_error(done, f"raw/{KEPT}[{KEPT}]: {KEPT}: no ", "put the source's files into")
    assert lines_with(done.stdout, ["every source failed: ", "are left as they are"])
    assert not lines_with(done.stdout, ["-- curation"])
    stopped = fresh.mvl("run", *SOURCES, "--until", "category").stdout
    assert lines_with(stopped, ["-- category: 2 made, 0 up to date, 0 failed, 1 skipped"])
    assert lines_with(fresh.run("stale"), ["not materialised, though there are files", KEPT])
    files.rmdir()
    aside.rename(files)
    mended = fresh.run("run", "--source", KEPT, "--until", "category")
    assert lines_with(mended, ["-- category: 1 made, 0 up to date, 0 failed,"])
    assert fresh.lake.get_table("category/general").count()


def test_nothing_is_mixed_behind_a_blocking_check_that_fails(fresh: Home) -> None:
    copy = "allava_vflan"
    shutil.copytree(fresh.folder / "raw" / KEPT, fresh.folder / "raw" / copy)
    words = ("run", "--source", KEPT, "--source", copy, "--until", "mixture")
    done = fresh.mvl(*words)
    one_error(done, "curation/duplicates: check sources_keep_their_samples: ", "`mvl ui` shows the check")
    assert f"{KEPT} (80%) would lose more than 50%" in done.stderr
    assert lines_with(done.stdout, ["-- mixture: 0 made, 0 up to date, 0 failed, 3 skipped"])
    assert fresh.lake.list_tables("mixture") == []
    fresh.profile(duplicates={"allow_removed": {KEPT: "a copy made for a test"}})
    assert lines_with(fresh.run(*words), ["-- mixture: 3 made"])


# -- stopped in the middle -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(lambda process: os.killpg(process.pid, signal.SIGINT), id="Ctrl-C at a terminal"),
        pytest.param(lambda process: process.terminate(), id="kill"),
    ],
)
def test_an_interrupt_stores_what_has_arrived_and_leaves_no_process(
    halfway: Home, holding: FakeProcess, built: Home, stop: Callable[[subprocess.Popen[str]], object]
) -> None:
    with stopped_halfway(halfway, holding, stop) as (process, output):
        assert process.returncode == 130, output
        assert output.rstrip().endswith("stopped; run the same command again to continue") and "Traceback" not in output
        wait_until(lambda: not halfway.processes(), "the end of its processes")
    stored = sum(halfway.lake.get_answer_log("rewritten", source).count() for source in REWRITTEN)
    assert stored == ANSWERED, "everything answered before the interrupt is stored"
    assert_goes_on(halfway, holding, built, asked_twice=IN_FLIGHT)


def test_a_kill_leaves_no_process_no_lease_and_no_run_that_never_ends(
    halfway: Home, holding: FakeProcess, built: Home
) -> None:
    with stopped_halfway(halfway, holding, lambda process: process.kill()):
        assert gone(halfway.processes)
    # What was in flight, and what was answered and not yet stored.
    assert_goes_on(halfway, holding, built, asked_twice=IN_FLIGHT + ANSWERED)


def test_a_killed_worker_is_reported_in_one_line(halfway: Home, holding: FakeProcess, built: Home) -> None:
    def kill_a_worker(process: subprocess.Popen[str]) -> None:
        workers = [p for p in halfway.processes() if p.pid != process.pid and "spawn_main" in " ".join(p.cmdline())]
        workers[0].kill()

    with stopped_halfway(halfway, holding, kill_a_worker) as (process, output):
        assert process.returncode == 1 and "Traceback" not in output, output
        assert lines_with(output, ["error:", "the process that ran it was killed"])
        assert lines_with(output, ["what to do:", "memory"])
        assert gone(halfway.processes)
    assert_goes_on(halfway, holding, built, asked_twice=IN_FLIGHT + ANSWERED)


def test_a_partition_missing_from_the_lake_is_made_again(
    built: Home, copy_of: Callable[[Home], Home], tmp_path: Path
) -> None:
    home = copy_of(built)
    output = home.using(MVL_LAKE=str(tmp_path / "other")).run("run", *SOURCES, "--until", "category")
    assert lines_with(output, ["-- category: 3 made, 0 up to date, 0 failed"]), output
