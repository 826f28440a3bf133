"""The fetch plan of every source of the catalog, against a recorded hub and without a network."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mvl_assets.cli import cli
from mvl_assets.config.catalog import SourceSpec, load_catalog
from mvl_assets.fetch.lock import Lockfile, read_lockfile, write_lockfile
from mvl_assets.fetch.lookup import lock_sources
from mvl_assets.fetch.plan import LAKE_BYTES_PER_ARCHIVE_BYTE, plan_ingest, sum_plans
from mvl_assets.fetch.source import fetch_source
from mvl_assets.readers.registry import get_reader
from mvl_assets.readers.sample import RejectedRow
from tests.fetch.hub_server import HubServer, Repo
from tests.fetch.recorded_hub import GB, LISTED, MB, SHAREGPT4O, repositories
from tests.fetch.sources import QUICK, noise, spec
from tests.raw_files import put

M4_ROWS, CAMBRIAN_ROWS = 1_010 * MB, 9_120 * MB
ON_THE_HUB = [source for source in load_catalog().values() if source.hub is not None]


@cache
def lock_recorded() -> Lockfile:
    return lock_sources(ON_THE_HUB, Lockfile())


@pytest.fixture
def recorded(hub: HubServer) -> Lockfile:
    hub.repos = repositories(load_catalog().values())
    write_lockfile(lock_recorded())
    return read_lockfile()


def run_json(*words: str) -> Any:
    done = CliRunner().invoke(cli, [*words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_every_source_on_the_hub_is_resolved_to_files_that_hold_rows(hub: HubServer) -> None:
    hub.repos = repositories(load_catalog().values())
    locked = lock_sources(ON_THE_HUB, Lockfile())
    unresolved = {s.slug: locked.sources[s.slug].reason for s in ON_THE_HUB if locked.get_entry(s) is None}
    assert unresolved == {}
    assert len(ON_THE_HUB) > 115
    assert len(hub.requests_of("/api/datasets/")) == len({s.hub.repo for s in ON_THE_HUB if s.hub})


def test_source_gets_only_its_part_of_a_shared_repository(recorded: Lockfile) -> None:
    sizes = {s.slug: recorded.sources[s.slug].total_bytes for s in ON_THE_HUB}
    assert sizes["sharegpt_4o"] == sum(SHAREGPT4O) * MB
    assert sizes["allava_vflan"] == 468 * MB and sizes["allava_4v_chinese_vflan"] == 326 * MB
    assert sizes["llava_video_next_qa"] == (3_980 + 1_740) * 1000 + 2780 * MB
    assert sizes["idk"] == 1_710 * MB + CAMBRIAN_ROWS and sizes["lnqa"] == 31_300 * MB + CAMBRIAN_ROWS
    assert sizes["nlvr2"] == 11 * GB + M4_ROWS and sizes["vist"] == sizes["raven_multi_image"] == MB + M4_ROWS
    assert sizes["m4_instruct_video"] == 100 * MB
    names = {s.slug: [f.name for f in recorded.sources[s.slug].files] for s in ON_THE_HUB}
    assert names["ai2d_gpt4v"] == ["train-00000-of-00001.parquet"]
    assert not any(".git" in name for files in names.values() for name in files)


@pytest.mark.parametrize("slug", [s.slug for s in ON_THE_HUB if s.hub and s.hub.repo in LISTED])
def test_reader_finds_the_files_where_the_fetch_puts_them(recorded: Lockfile, slug: str, tmp_path: Path) -> None:
    """Of empty files nothing comes but broken files; a reader that finds no file of rows raises `SourceError`."""
    for file in recorded.sources[slug].files:
        put(tmp_path / slug, file.name, b"")
    source = load_catalog()[slug]
    assert all(isinstance(row, RejectedRow) for row in get_reader(source.format)(source, tmp_path / slug))


def test_plan_lists_every_source_and_marks_unlocked_ones_unknown(recorded: Lockfile) -> None:
    plans = {plan["source"]: plan for plan in run_json("plan", "raw")}
    everything = plans.pop("all")
    assert plans.keys() == load_catalog().keys()
    unknown = {slug for slug, plan in plans.items() if plan["bytes_to_fetch"] is None}
    assert unknown == {s.slug for s in load_catalog().values() if s.hub is None}
    assert all(plans[slug]["note"] for slug in unknown)
    assert everything["note"].startswith(f"without {len(unknown)} of unknown size")
    known = sum(plan["bytes_to_fetch"] for slug, plan in plans.items() if slug not in unknown)
    # Nine sources share M4-Instruct's rows, ten Cambrian-10M's.
    assert everything["bytes_to_fetch"] == known - 8 * M4_ROWS - 9 * CAMBRIAN_ROWS
    assert everything["fetch_hours"] == pytest.approx(everything["bytes_to_fetch"] * 8 / 1e9 / 3600)
    assert run_json("plan", "raw", "--bandwidth-mbit", "100")[-1]["fetch_hours"] == pytest.approx(
        everything["fetch_hours"] * 10
    )


def test_plan_is_limited_to_a_category_or_to_sources(recorded: Lockfile) -> None:
    videos = run_json("plan", "raw", "--category", "video")
    assert [plan["category"] for plan in videos] == ["video"] * 9 + [""]
    named = run_json("plan", "raw", "--source", "geo3k", "--source", "idk")
    assert [plan["source"] for plan in named] == ["geo3k", "idk", "all"]
    text = CliRunner().invoke(cli, ["plan", "raw", "--source", "lnqa"]).output
    assert "40.4 GB" in text and "0.09" in text and "locked" in text


def test_plan_notes_a_declared_file_that_the_repository_lacks(recorded: Lockfile) -> None:
    lacking = "no file of nyu-visionx/Cambrian-10M is called oodvqa*"
    (plan, _) = run_json("plan", "raw", "--source", "sketchyvqa")
    assert (plan["n_files"], plan["note"]) == (1, lacking)
    (line,) = [line for line in run_json("sources", "--category", "general") if line["slug"] == "sketchyvqa"]
    assert line["state"] == "locked" and line["note"].endswith(lacking)


def test_planned_lake_bytes_scale_with_the_limit(recorded: Lockfile) -> None:
    rows, source = 57_284, load_catalog()["sharegpt_4o"]
    assert source.expected is not None and source.expected.count == rows
    size = sum(SHAREGPT4O) * MB
    whole = plan_ingest(source, recorded, limit=None, bandwidth_mbit=1000)
    some = plan_ingest(source, recorded, limit=1000, bandwidth_mbit=1000)
    more = plan_ingest(source, recorded, limit=10**9, bandwidth_mbit=1000)
    assert (whole.lake_bytes, more.lake_bytes) == (round(size * LAKE_BYTES_PER_ARCHIVE_BYTE),) * 2
    assert some.lake_bytes == round(size * LAKE_BYTES_PER_ARCHIVE_BYTE * 1000 / rows) and some.archive_bytes == size
    assert plan_ingest(load_catalog()["svit_core"], recorded, limit=1000, bandwidth_mbit=1000).lake_bytes is None


def test_plan_without_archives_needs_disk_for_the_largest_source(recorded: Lockfile) -> None:
    chosen = [load_catalog()[slug] for slug in ("geo3k", "idk", "lnqa")]
    plans = [plan_ingest(s, recorded, limit=None, bandwidth_mbit=1000) for s in chosen]
    kept = sum_plans(plans, chosen, recorded, bandwidth_mbit=1000, keep_archives=True)
    removed = sum_plans(plans, chosen, recorded, bandwidth_mbit=1000, keep_archives=False)
    assert kept.archive_bytes == kept.total_bytes == 31_300 * MB + 1_710 * MB + CAMBRIAN_ROWS + MB
    assert kept.lake_bytes == pytest.approx(kept.total_bytes * LAKE_BYTES_PER_ARCHIVE_BYTE, abs=9)
    assert removed.archive_bytes == 31_300 * MB + CAMBRIAN_ROWS


def test_plan_without_a_lock_is_unknown_and_says_what_to_run(home: Path) -> None:
    everything = run_json("plan", "raw")[-1]
    assert (everything["total_bytes"], everything["bytes_to_fetch"], everything["fetch_hours"]) == (None, None, None)
    assert "mvl sources lock" in CliRunner().invoke(cli, ["plan", "raw", "--source", "geo3k"]).output


def test_plan_leaves_out_present_files(hub: HubServer) -> None:
    hub.repos["lab/data"] = Repo({"a.json": noise(3000), "b.json": noise(2000, 1)})
    source: SourceSpec = spec()
    write_lockfile(lock_sources([source], Lockfile()))
    before = plan_ingest(source, read_lockfile(), limit=None, bandwidth_mbit=1000)
    assert (before.n_files, before.n_files_present, before.bytes_to_fetch) == (2, 0, 5000)
    fetch_source(source, retry_policy=QUICK)
    after = plan_ingest(source, read_lockfile(), limit=None, bandwidth_mbit=1000)
    assert (after.state, after.n_files_present, after.present_bytes, after.bytes_to_fetch) == ("fetched", 2, 5000, 0)
    (source.root / "a.json").unlink()
    part = plan_ingest(source, read_lockfile(), limit=None, bandwidth_mbit=1000)
    assert (part.state, part.n_files_present, part.bytes_to_fetch) == ("fetching", 1, 3000)
