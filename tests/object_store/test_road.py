"""The pipeline in small on an object store: the same lake as on a disk, also with several writers and kills."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mvl_assets.demo_data.write import write_demo_sources
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.storage import open_filesystem
from tests.object_store.road import SLUGS, ask, build_profile, describe, ingest, mix, start_words
from tests.object_store.server import KEYS, PROJECT, list_files
from tests.patience import PATIENCE_S
from tests.servers import serving

ROWS = 6


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    write_demo_sources(folder, list(SLUGS), n_rows=ROWS, seed=0)
    return folder


@pytest.fixture(scope="module")
def on_disk(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Both sources, categorised, on a disk."""
    lake = Lake(str(tmp_path_factory.mktemp("disk") / "lake"))
    for slug in SLUGS:
        ingest(lake, slug, raw)
    return lake


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts processes of `road`, which wait for their first line; they are ended with the test."""
    processes: list[subprocess.Popen[str]] = []

    def start_process(*words: str | Path | int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            start_words(*words), cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        return process

    yield start_process
    for process in processes:
        process.kill()
        process.communicate()


def release(*processes: subprocess.Popen[str]) -> None:
    """Lets them begin, at the same moment."""
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def test_two_writers_of_different_sources_make_the_lake_of_one_after_the_other(
    root: str, raw: Path, on_disk: Lake, start: Callable[..., subprocess.Popen[str]]
) -> None:
    writers = [start("ingest", root, slug, raw) for slug in SLUGS]
    release(*writers)
    assert [writer.wait(PATIENCE_S) for writer in writers] == [0, 0]
    assert describe(Lake(root)) == describe(on_disk)
    with serving() as (_, endpoint):
        profile = build_profile(endpoint.base_url)
        for lake in (Lake(root), on_disk):
            ask(lake, SLUGS[0], profile)
            mix(lake, profile)
    lake = Lake(root)
    assert describe(lake) == describe(on_disk)
    assert lake.get_table("mixture/single_image").count() and lake.list_tables("judged")
    filesystem, _ = open_filesystem(root)
    secret = KEYS["AWS_SECRET_ACCESS_KEY"].encode()
    for path in list_files(root):
        with filesystem.open_input_stream(path) as stream:
            assert secret not in stream.read(), path


def test_a_process_killed_before_a_commit_is_simply_run_again(
    root: str, raw: Path, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    slug = SLUGS[0]
    expected = Lake(str(tmp_path / "lake"))
    ingest(expected, slug, raw)
    killed = start("ingest", root, slug, raw, 2)
    release(killed)
    assert killed.wait(PATIENCE_S) == -signal.SIGKILL
    ingest(Lake(root), slug, raw)
    assert describe(Lake(root)) == describe(expected)


@pytest.mark.soak
def test_a_kill_before_any_commit_and_at_any_moment_changes_nothing_in_the_end(
    root: str, raw: Path, start: Callable[..., subprocess.Popen[str]], on_disk: Lake
) -> None:
    chance = random.Random(20261129)
    for slug in SLUGS:
        for number in range(1, 20):
            process = start("ingest", f"{root}/{number}", slug, raw, number)
            release(process)
            if process.wait(PATIENCE_S) == 0:
                assert number > 2
                break
            assert process.returncode == -signal.SIGKILL
            ingest(Lake(f"{root}/{number}"), slug, raw)
            assert describe(Lake(f"{root}/{number}"))["samples"]
    for _ in range(20):
        process = start("ingest", root, chance.choice(SLUGS), raw)
        release(process)
        time.sleep(chance.uniform(0, 1.5))
        process.kill()
        process.wait()
    for slug in SLUGS:
        ingest(Lake(root), slug, raw)
    names = ("samples", "images", "rejects")
    stored, expected = describe(Lake(root)), describe(on_disk)
    assert {name: stored.get(name) for name in names} == {name: expected.get(name) for name in names}


@pytest.mark.soak
def test_two_writers_of_the_same_source_store_every_row_once(
    root: str, raw: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    slug = SLUGS[0]
    for turn in range(6):
        writers = [start("ingest", f"{root}/{turn}", slug, raw) for _ in range(2)]
        release(*writers)
        outcomes = sorted(writer.wait(PATIENCE_S) for writer in writers)
        assert outcomes in ([0, 0], [0, 1]), "the second is refused unless it comes after the first"
        ingest(Lake(f"{root}/{turn}"), slug, raw)
        samples = Lake(f"{root}/{turn}").get_table("samples")
        ids = [row["version_id"] for row in samples.iter_rows(["version_id"])]
        assert len(ids) == len(set(ids)), f"turn {turn}"
