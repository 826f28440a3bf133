"""`mvl purge` and `mvl gc` as a user runs them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mvl_assets.lake.lake import Lake
from tests.cli.home import KEPT, REWRITTEN, Home, lines_with, one_error
from tests.export.small_lake import SOURCE, fill_judged_lake

STAGE = "single_image"


def rows(home: Home, name: str, source: str) -> int:
    return Lake(str(home.folder / "lake")).get_table(name).count(f"source = '{source}'")


def checkpoint(home: Home, stage: str, plan_version: str) -> None:
    folder = home.folder / "checkpoints" / stage / plan_version[:16]
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"plan_version": plan_version}), encoding="utf-8")


def test_purged_source_is_deleted_and_not_ingested_again(built: Home, copy_of: Callable[[Home], Home]) -> None:
    home = copy_of(built)
    slug = REWRITTEN[1]
    export = home.folder / "export" / "llava_json"
    export.mkdir(parents=True)
    (export / f"{STAGE}.json").write_text("[]", encoding="utf-8")
    (export / "one_vision.json").write_text("[]", encoding="utf-8")
    checkpoint(home, STAGE, "made-of-a-plan-that-is-gone")
    looked = home.run("purge", "source", slug, "--dry-run")
    assert rows(home, "samples", slug) > 0 and rows(home, f"mixture/{STAGE}", slug) > 0
    for words in (("samples", str(rows(home, "samples", slug))), ("answers/rewritten/" + slug,), ("mixture/" + STAGE,)):
        assert lines_with(looked, words), looked
    assert lines_with(looked, ["exports to delete: 1 files", "llava_json"])
    assert lines_with(looked, ["may have been trained on it", str(home.folder / "checkpoints" / STAGE)])

    asked = home.mvl("purge", "source", slug)
    assert asked.returncode != 0 and "delete this from" in asked.stdout
    assert rows(home, "samples", slug) > 0 and (export / f"{STAGE}.json").exists()

    assert lines_with(home.run("purge", "source", slug, "--yes"), [slug, "done"])
    for name in ("samples", "category/code_math", "rewritten/code_math", "judged/code_math", f"mixture/{STAGE}"):
        assert rows(home, name, slug) == 0, name
    assert rows(home, "samples", KEPT) > 0
    assert not (export / f"{STAGE}.json").exists() and (export / "one_vision.json").exists()

    home.run("run", "--source", slug, "--until", "raw")
    assert rows(home, "samples", slug) == 0
    (listed,) = (s for s in home.json("sources") if s["slug"] == slug)
    assert (listed["rows"], listed["rejects"]) == (0, 1)
    assert "is allowed again" in home.run("purge", "allow", "source", slug)
    one_error(home.mvl("purge", "allow", "source", slug), "not purged", "mvl purge")


def test_exports_elsewhere_are_named_and_what_publications_were_made_of_is_deleted(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.profile()
    fill_judged_lake(home.folder / "lake")
    home.run("export", "ms_swift", "--out", str(tmp_path / "elsewhere"))
    staged = home.folder / "publish" / "someone--pairs" / "parquet" / STAGE / "train-0.jsonl"
    staged.parent.mkdir(parents=True)
    staged.write_text("", encoding="utf-8")
    output = home.run("purge", "source", SOURCE, "--yes")
    assert lines_with(output, ["not undone", str(tmp_path / "elsewhere"), "(ms_swift", "delete it"])
    assert lines_with(output, ["exports to delete: 1 files", "someone--pairs"]) and not staged.exists()


def test_sample_is_purged_by_a_prefix_of_its_id(sorted_in: Home, copy_of: Callable[[Home], Home]) -> None:
    home = copy_of(sorted_in)
    sample = next(Lake(str(home.folder / "lake")).get_table("samples").iter_rows(["sample_id"], f"source = '{KEPT}'"))
    before = rows(home, "samples", KEPT)
    output = home.run("purge", "sample", sample["sample_id"][:12], "--yes")
    assert lines_with(output, [KEPT, "done"]) and lines_with(output, ["next", "mvl run"])
    gone = before - rows(home, "samples", KEPT)
    assert gone >= 1
    again = home.run("purge", "sample", sample["sample_id"], "--yes")
    assert lines_with(again, ["images: 0 go"]), "it is remembered, and there is nothing left"
    assert lines_with(again, ["the lake has no row of it"])
    freed = home.run("gc", "--dry-run")
    assert str(home.folder / "lake") in freed and "after" not in freed
    done = home.run("gc", "--keep-days", "0", "--compact-images")
    assert lines_with(done, ["before", "after"])


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("purge", "source", "nothing_of_that_name"), "there is no source", "mvl sources"),
        (("purge", "sample", "0123456789ab"), "no sample has an id", "mvl trace"),
        (("purge", "allow", "source", "geo170k"), "not purged", "mvl purge"),
    ],
)
def test_unknown_name_is_one_error_line_with_a_hint(
    sorted_in: Home, words: tuple[str, ...], message: str, hint: str
) -> None:
    one_error(sorted_in.mvl(*words), message, hint)


def test_purge_is_refused_while_answers_of_the_source_are_written(
    sorted_in: Home, copy_of: Callable[[Home], Home]
) -> None:
    home = copy_of(sorted_in)
    slug = REWRITTEN[0]
    with home.lake.get_answer_log("rewritten", slug):
        done: subprocess.CompletedProcess[str] = home.mvl("purge", "source", slug, "--yes", "--no-reclaim")
    one_error(done, "is being written by pid", "wait for that run")
    assert rows(home, "samples", slug) > 0
