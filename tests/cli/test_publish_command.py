"""`mvl publish` as a user runs it, against a hub on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest

from tests.cli.home import MAIN, PROJECT, Home, lines_with, one_error
from tests.export.small_lake import STAGE, fill_judged_lake
from tests.publish.writable_hub import TOKEN, WritableHub, WritableRepo

REPO = "someone/pairs"
ARGUMENTS = ("publish", REPO, "--format", "parquet,lance", "--licence", "all", "--private")


@pytest.fixture
def hub() -> Iterator[WritableHub]:
    server = WritableHub()
    yield server
    server.close()


@pytest.fixture
def home(tmp_path: Path, hub: WritableHub) -> Home:
    home = Home(tmp_path / "home")
    home.profile()
    fill_judged_lake(home.folder / "lake")
    return home.using(HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN, HF_HUB_DISABLE_XET="1", HF_HUB_OFFLINE="0")


def test_what_is_published_loads_and_a_repeat_sends_nothing(home: Home, hub: WritableHub, tmp_path: Path) -> None:
    shown = home.run(*ARGUMENTS, "--dry-run")
    assert "(new, private)" in shown and "to send, lance" in shown and lines_with(shown, ["parquet: 1 files"])
    assert not hub.repos and not any(method == "PUT" for method, _ in hub.asked)
    output = home.run(*ARGUMENTS)
    assert f"parquet/{STAGE}: 12 rows" in output and f"published: {hub.url}/datasets/{REPO}" in output
    repo = hub.repos[REPO]
    assert repo.private and [commit.summary for commit in repo.commits][-1] == "Card and metadata"
    for name, data in repo.files.items():
        path = tmp_path / "downloaded" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    rows = datasets.load_dataset(str(tmp_path / "downloaded"), STAGE, split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 12 and not any("-fragments" in name for name in repo.files)
    n_stored = sum(hub.puts.values())
    home.run(*ARGUMENTS)
    assert len(repo.commits) == 2 and sum(hub.puts.values()) == n_stored
    assert TOKEN not in output and not any(TOKEN.encode() in data for data in repo.files.values())


def test_killed_in_the_middle_it_goes_on(home: Home, hub: WritableHub) -> None:
    arguments = (*ARGUMENTS, "--shard-mb", "1")
    hub.hold_after = 1
    process = subprocess.Popen([sys.executable, "-c", MAIN, *arguments], cwd=PROJECT, env=home.environment)
    assert hub.held.wait(300)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert sum(hub.puts.values()) == 1 and not hub.repos[REPO].commits
    hub.hold_after = None
    hub.release.set()
    home.run(*arguments)
    repo = hub.repos[REPO]
    assert set(hub.puts.values()) == {1} and len(repo.commits) == 2
    folder = home.folder / "publish" / REPO.replace("/", "--")
    for name, data in repo.files.items():
        assert name == ".gitattributes" or (folder / name).read_bytes() == data


def test_only_permitted_rows_are_published_by_default(home: Home, hub: WritableHub) -> None:
    output = home.run("publish", REPO, "--yes")
    assert f"parquet/{STAGE}: 6 rows" in output
    assert "left out: 1 rows: sources with the licence research only" in output
    assert not hub.repos[REPO].private


def test_refusals_are_one_error_each(home: Home, hub: WritableHub) -> None:
    one_error(home.using(HF_TOKEN="").mvl(*ARGUMENTS), "no HF_TOKEN", "settings/tokens")
    shown = home.using(HF_TOKEN="").run(*ARGUMENTS, "--dry-run")
    assert "the hub was not asked what it has" in shown and "to send, parquet:" in shown and "already" not in shown
    one_error(home.using(HF_TOKEN="hf_reader").mvl(*ARGUMENTS), "does not let this token write", "right to write")
    hub.repos[REPO] = WritableRepo(private=False)
    one_error(home.mvl(*ARGUMENTS), "is public, and --private", "leave --private out")
