"""`mvl sources`, its lock and its fetch, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mvl_assets.cli import cli
from mvl_assets.config.catalog import load_catalog
from mvl_assets.config.settings import PROJECT_ROOT, load_settings
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.removal.tombstones import add_tombstones
from tests.fetch.hub_server import Fault, HubServer, Repo
from tests.fetch.sources import noise
from tests.patience import PATIENCE_S

SLUG, REPO = "ai2d_gpt4v", "lmms-lab/LLaVA-OneVision-Data"
OTHER = "iiit5k"


@pytest.fixture
def data(hub: HubServer) -> Repo:
    files = {"ai2d(gpt4v)/train-0.parquet": noise(3_000_000), "iiit5k/train-0.parquet": noise(9000, 1)}
    hub.repos[REPO] = Repo(files, license="apache-2.0")
    return hub.repos[REPO]


def mvl(*words: str) -> Result:
    return CliRunner().invoke(cli, ["sources", *words])


def line_of(slug: str) -> dict[str, Any]:
    lines: list[dict[str, Any]] = json.loads(mvl("--json").output)
    return next(line for line in lines if line["slug"] == slug)


def test_source_goes_from_unverified_to_locked_to_fetched(data: Repo) -> None:
    assert line_of(SLUG)["state"] == "unverified"
    assert "1 of 1 sources locked" in mvl("lock", "--source", SLUG).output
    line = line_of(SLUG)
    assert (line["state"], line["size"], line["card_license"]) == ("locked", 3_000_000, "apache-2.0")
    done = mvl("fetch", "--source", SLUG)
    assert done.exit_code == 0 and "3.0 MB of 3.0 MB" in done.output
    assert line_of(SLUG)["state"] == "fetched" and line_of(OTHER)["state"] == "unverified"
    assert (load_settings().raw_dir / SLUG / "train-0.parquet").read_bytes() == noise(3_000_000)


def test_list_filtered_by_state_and_licence_says_what_to_do(data: Repo) -> None:
    mvl("lock", "--source", SLUG)
    locked = mvl("--state", "locked").output
    assert "\n1 source\n" in locked and f"{SLUG}: locked at {data.commit[:12]}, not fetched" in locked
    declared = mvl("--state", "declared").output
    assert "cn_ocr_1: declared: no public home is known; put the source's files into" in declared
    by_licence = json.loads(mvl("--license", "CC-BY-4.0", "--json").output)
    assert {line["license"] for line in by_licence} == {"cc-by-4.0"}
    unknown = json.loads(mvl("--license", "unknown", "--json").output)
    assert {line["license"] for line in unknown} == {None}
    alone = mvl("--source", SLUG, "--state", "locked").output
    assert "\n1 source\n" in alone and f"{SLUG}: locked" in alone
    assert mvl("--source", SLUG, "--license", "proprietary").output.startswith("no source matches")
    assert mvl("--state", "lost").exit_code == 2
    misplaced = mvl("--category", "ocr", "lock")
    assert misplaced.exit_code == 2 and "options of `lock` come after it" in misplaced.output


def test_locking_a_category_names_the_sources_that_fail(data: Repo, hub: HubServer) -> None:
    done = mvl("lock", "--category", "ocr")
    assert done.exit_code == 0
    assert "HuggingFaceM4/the_cauldron is missing, private or gated (HTTP 401)" in done.output
    assert f"{OTHER}: 1 files, 9.0 kB, {REPO} at {data.commit[:12]}" in done.output
    listed = json.loads(load_settings().lock_file.read_text(encoding="utf-8"))["sources"]
    assert listed.keys() == {s for s, spec in load_catalog().items() if spec.category == "ocr"}
    hub.repos.clear()
    alone = mvl("lock", "--source", SLUG)
    assert alone.exit_code == 1 and "no source could be looked up" in str(alone.exception)


def test_failing_source_does_not_stop_the_others(data: Repo, hub: HubServer) -> None:
    hub.faults["ai2d"] = Fault(times=99, status=404)
    done = mvl("fetch", "--source", SLUG, "--source", OTHER)
    assert done.exit_code == 1 and f"1 of 2 sources were not fetched: {SLUG}" in str(done.exception)
    assert "what to do: `mvl sources lock`" in done.output
    assert (load_settings().raw_dir / OTHER / "train-0.parquet").is_file()


def test_killed_fetch_command_resumes_when_run_again(data: Repo, hub: HubServer) -> None:
    """The whole way: a hub, a redirect to its storage, kill -9 of the command, the same command once more."""
    mvl("lock", "--source", SLUG)
    root = load_settings().raw_dir / SLUG
    hub.written = lambda: sum(p.stat().st_size for p in root.glob(".fetch/*.part"))
    hub.faults["/cdn/"] = Fault(hold=2_000_000)
    code = "from mvl_assets.cli import main; main()"
    words = ["sources", "fetch", "--source", SLUG]
    process = subprocess.Popen([sys.executable, "-c", code, *words], cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL)
    try:
        assert hub.held.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()
        hub.release.set()
    assert line_of(SLUG)["state"] == "fetching" and not (root / "train-0.parquet").exists()
    kept = hub.written()
    assert kept == 2_000_000
    hub.sent.clear()
    assert mvl("fetch", "--source", SLUG).exit_code == 0
    assert (root / "train-0.parquet").read_bytes() == noise(3_000_000)
    assert hub.sent["train-0.parquet"] == 3_000_000 - kept
    assert line_of(SLUG)["state"] == "fetched"


def test_fetch_without_arguments_takes_the_fetchable_sources_of_the_profile(
    data: Repo, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (PROJECT_ROOT / "mvl_assets" / "profiles" / "demo.yaml").read_text(encoding="utf-8")
    home.mkdir()
    profile = home / "two.yaml"
    profile.write_text(text.replace("sources: all ", f"sources: [{OTHER}, cn_ocr_1] "), encoding="utf-8")
    monkeypatch.setenv("MVL_PROFILE", str(profile))
    assert mvl("fetch").exit_code == 0
    assert [p.name for p in load_settings().raw_dir.iterdir()] == [OTHER]


def test_purged_source_is_not_fetched(data: Repo, hub: HubServer) -> None:
    add_tombstones(Lake(load_settings().lake_root), SLUG, [(None, None)])
    line = line_of(SLUG)
    assert line["state"] == "purged" and "`mvl purge allow source ai2d_gpt4v` allows it again" in line["note"]
    done = mvl("fetch", "--source", SLUG)
    assert isinstance(done.exception, MvlError) and "purged" in done.exception.message
    assert f"`mvl purge allow source {SLUG}`" in str(done.exception.hint)
    done = mvl("fetch", "--category", load_catalog()[SLUG].category)
    assert f"{SLUG}: purged, so not fetched" in done.output
    assert not (load_settings().raw_dir / SLUG).exists()
