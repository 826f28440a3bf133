"""Every command as a user runs it, on a small lake that was built by the commands themselves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from mvl_assets.cli import COMMANDS, cli
from mvl_assets.common.digest import compute_digest
from mvl_assets.config.catalog import load_catalog
from mvl_assets.config.prompts import PROMPTS_DIR
from mvl_assets.errors import MvlError
from mvl_assets.lake.schemas.data_tables import SAMPLES
from tests.cli.home import KEPT, MODEL, REWRITTEN, SOURCES, Home, lines_with, one_error
from tests.lake.rows import sample


def here(home: Home, *words: str) -> Result:
    """The command in this process: for those that read the lake and nothing of Dagster."""
    return CliRunner().invoke(cli, words, env=home.environment)


def first(home: Home, table: str, condition: str | None = None) -> dict[str, Any]:
    return next(home.lake.get_table(table).iter_rows(None, condition))


# -- help, doctor, demo-data ---------------------------------------------------------------------------------------


def test_help_lists_every_command_and_each_has_help() -> None:
    output = CliRunner().invoke(cli, ["--help"]).output
    for name, words in COMMANDS.items():
        assert lines_with(output, [name, words.split(",")[0][:40]]), name
        own = CliRunner().invoke(cli, [name, "--help"])
        assert own.exit_code == 0 and "Usage:" in own.output


def test_unknown_command_and_wrong_option_end_in_one_line(raw: Home) -> None:
    done = raw.mvl("fly")
    assert done.returncode == 2 and "No such command 'fly'" in done.stderr and "Traceback" not in done.stderr
    done = raw.mvl("run", "--until", "the end")
    assert done.returncode == 2 and "'raw'" in done.stderr and "Traceback" not in done.stderr


def test_doctor_names_every_check_and_the_fix_of_each_failure(raw: Home) -> None:
    done = raw.mvl("doctor")
    lines = done.stdout.splitlines()
    for name in ("python", "c++ compiler", "libnuma", "disk", "profile", "vllm", "port 3000", "chromium"):
        assert lines_with(done.stdout, [f" {name}: "]), name
    failed = [i for i, line in enumerate(lines) if line.startswith(("FAIL", "--"))]
    assert all(lines[i + 1].strip().startswith("fix: ") for i in failed)
    assert done.returncode == any(line.startswith("FAIL") for line in lines)
    quiet = raw.mvl("doctor", "--quiet")
    assert quiet.returncode == done.returncode
    assert len(quiet.stdout.splitlines()) == 2 * sum(line.startswith("FAIL") for line in lines)


def test_doctor_reports_a_missing_profile(raw: Home) -> None:
    done = raw.using(MVL_PROFILE="nobody").mvl("doctor", "--quiet")
    assert done.returncode == 1
    assert "FAIL profile: there is no profile 'nobody'" in done.stdout
    assert "fix: set MVL_PROFILE to one of" in done.stdout and "demo-all" in done.stdout


def test_demo_data_is_written_and_an_unknown_source_refused(raw: Home, fresh: Home) -> None:
    output = fresh.run("demo-data", *SOURCES, "--rows", "16")
    for slug in (KEPT, *REWRITTEN):
        assert lines_with(output, [slug, "llava_json", "14", "2"]), output
    one_error(fresh.mvl("demo-data", "--source", "nothing"), "there is no demo data for: nothing", "`mvl sources`")


# -- sources, status, plan -----------------------------------------------------------------------------------------


def test_sources_are_the_153_and_those_outside_with_what_was_found(built: Home) -> None:
    listed = built.json("sources")
    assert isinstance(listed, list)
    assert all(
        {"slug", "category", "group", "catalog", "in_paper", "rows", "rejects"} <= source.keys() for source in listed
    )
    inside = [source for source in listed if source["in_paper"]]
    assert len(inside) == 153
    assert {g: sum(s["group"] == g for s in inside) for g in "ABC"} == {"A": 58, "B": 60, "C": 35}
    result = {s["slug"]: (s["state"], s["rows"], s["rejects"]) for s in listed if s["rows"] or s["rejects"]}
    rejects = list(built.lake.get_table("rejects").iter_rows(["source"], "stage = 'raw'"))
    for slug in (KEPT, *REWRITTEN):
        rejected = sum(row["source"] == slug for row in rejects)
        assert result.pop(slug) == ("ingested", 12 - rejected, rejected)
    assert result == {}


def test_sources_filters_by_category_and_group(built: Home) -> None:
    listed = json.loads(here(built, "sources", "--category", "caption", "--group", "B", "--json").output)
    expected = {s for s, spec in load_catalog().items() if (spec.category, spec.group) == ("caption", "B")}
    assert {source["slug"] for source in listed} == expected
    assert lines_with(here(built, "sources").output, [KEPT, "general", "ingested"])
    assert here(built, "sources", "--category", "dogs").exit_code == 2


def test_status_counts_what_was_made_and_what_is_in_it(built: Home) -> None:
    stages = {stage["stage"]: stage for stage in built.json("status")["stages"]}
    assert all({"materialised", "stale", "rows", "rejects"} <= stage.keys() for stage in stages.values())
    made = {name: (stage["materialised"], stage["stale"]) for name, stage in stages.items()}
    assert made["raw"] == made["category"] == (3, 0)
    assert made["rewritten"] == made["judged"] == (2, 0)
    assert made["mixture"] == (3, 0) and made["checkpoint"] == (0, 0)
    lake = built.lake
    assert stages["raw"]["rows"] == lake.get_table("samples").count("NOT withdrawn") > 20
    assert stages["raw"]["rejects"] == lake.get_table("rejects").count("stage = 'raw'") > 0
    assert stages["judged"]["rows"] == sum(lake.get_table(f"judged/{c}").count() for c in ("caption", "code_math")) > 10
    assert "materialised, stale and missing count partitions" in built.run("status")


def test_status_of_an_empty_lake_counts_nothing(raw: Home, copy_of: Callable[[Home], Home]) -> None:
    stages = copy_of(raw).json("status")["stages"]
    assert {stage["materialised"] for stage in stages} == {0}
    assert not any(stage["rows"] for stage in stages)


def test_a_plan_says_what_is_answered_and_what_would_be_sent(built: Home, copy_of: Callable[[Home], Home]) -> None:
    for stage in ("rewritten", "judged"):
        plans = {plan["source"]: plan for plan in built.json("plan", stage)}
        assert plans.keys() == set(REWRITTEN)
        for plan in plans.values():
            assert (plan["to_send"], plan["model"]) == (0, MODEL)
            assert plan["requested"] == plan["cache_hits"] > 0
    other = copy_of(built)
    other.profile(model_revision="2", model_price={"input_per_million": 1.0, "output_per_million": 2.0})
    plan = other.json("plan", "rewritten", "--source", REWRITTEN[0], "--limit", "5")[0]
    assert (plan["requested"], plan["cache_hits"], plan["to_send"]) == (5, 0, 5)
    assert plan["prompt_tokens"] > 100 and plan["cost"] > 0
    assert (plan["basis"], plan["counted"]) == ("limit", "lake")
    assert 0 < plan["cost_low"] < plan["cost"] < plan["cost_high"]
    assert lines_with(other.run("plan", "rewritten"), ["all"])


def test_a_plan_of_everything_counts_judges_of_rewrites_to_come_and_fits_a_narrow_terminal(
    built: Home, copy_of: Callable[[Home], Home]
) -> None:
    other = copy_of(built)
    other.profile(model_revision="2", model_price={"input_per_million": 1.0, "output_per_million": 2.0})
    plans = [plan for plan in other.json("plan", "all", "--source", REWRITTEN[0]) if plan["to_send"]]
    assert (plans[0]["stage"], plans[0]["counted"]) == ("rewritten", "lake")
    judging = next(plan for plan in plans if plan["counted"] == "rewrites to come")
    assert (judging["stage"], judging["source"]) == ("judged", REWRITTEN[0])
    assert judging["to_send"] >= 3 * plans[0]["to_send"]  # a request per criterion
    lines = other.run("plan", "all").splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("USD ") and "in all, within" in line for line in lines)


def test_a_plan_of_a_selection_is_that_of_the_assets_it_selects(built: Home) -> None:
    assert [plan["source"] for plan in built.json("plan", "judged", "--select", "key:judged/caption")] == ["sharegpt4v"]
    one_error(
        built.mvl("plan", "judged", "--select", "key:rewritten/caption"), "no asset of the stage judged", "key:judged/*"
    )
    one_error(built.mvl("plan", "judged", "--select", "key:("), "not an asset selection", "key:rewritten/chart")
    one_error(built.mvl("plan", "judged", "--select", "nothing"), "selects no asset", "web UI")


def test_a_plan_for_a_source_that_is_not_there_or_not_rewritten_says_so(built: Home) -> None:
    one_error(built.mvl("plan", "rewritten", "--source", "nothing"), "there is no source 'nothing'", "`mvl sources`")
    one_error(built.mvl("plan", "rewritten", "--source", KEPT), f"{KEPT}: group A is not rewritten", "only group B is")


# -- stale ---------------------------------------------------------------------------------------------------------


def test_an_edited_prompt_makes_stale_exactly_what_was_made_with_it(
    built: Home, copy_of: Callable[[Home], Home], tmp_path: Path
) -> None:
    assert "nothing is stale" in built.run("stale")
    prompts = tmp_path / "prompts"
    shutil.copytree(PROMPTS_DIR / "small", prompts / "small")
    edited = prompts / "small" / "rewrite_math.md"
    edited.write_text(edited.read_text(encoding="utf-8").rstrip() + " Be brief.\n", encoding="utf-8")
    listed = copy_of(built).using(MVL_PROMPTS=str(prompts)).json("stale")
    assert {(row["asset"], row["partition"]) for row in listed} == {("rewritten/code_math", "geo170k")}


# -- trace ---------------------------------------------------------------------------------------------------------


def test_trace_of_every_kind_of_id_reaches_the_file(built: Home) -> None:
    rewrite = first(built, "rewritten/code_math")
    used = first(built, "mixture/single_image")
    judged = first(built, "judged/code_math", f"rewrite_id = '{rewrite['rewrite_id']}'")
    for row_id, place in (
        (used["row_id"], "mixture/single_image"),
        (judged["judged_id"], "judged/code_math"),
        (rewrite["rewrite_id"], "rewritten/code_math"),
        (rewrite["sample_id"], "samples"),
        (rewrite["sample_id"][:12].upper(), "samples"),
    ):
        result = json.loads(here(built, "trace", row_id, "--json").output)
        assert result["table"] == place and result["id"].startswith(row_id.lower())
        assert result["sample"]["file"].endswith(".json")
    result = json.loads(here(built, "trace", judged["judged_id"], "--json").output)
    assert result["answer"]["request_key"] == rewrite["request_key"] and result["answer"]["text"]
    assert len(result["verdicts"]) == len(judged["verdicts"]) > 1


def test_a_trace_reads_from_the_training_row_to_the_file(built: Home) -> None:
    used = first(built, "mixture/single_image", "rewrite_id IS NOT NULL")
    output = here(built, "trace", used["row_id"][:16]).output.splitlines()
    order = ["used in", "verdict", "rewrite", "answer", "sample", "file"]
    marks = [next(i for i, line in enumerate(output) if line.startswith(mark)) for mark in order]
    assert marks == sorted(marks)
    file = next(line for line in output if line.startswith("file"))
    assert str(built.folder / "raw" / used["source"]) in file and " row " in file


def test_a_trace_of_an_image_or_answer_names_its_uses_and_images_are_written(built: Home, tmp_path: Path) -> None:
    rewrite = first(built, "rewritten/code_math")
    lineage = json.loads(here(built, "trace", rewrite["rewrite_id"], "--json").output)
    image_id = lineage["images"][0]["image_id"]
    output = here(built, "trace", image_id, "--images", str(tmp_path / "out")).output
    assert f"used in   samples  {rewrite['version_id']}" in output
    (written,) = (tmp_path / "out").iterdir()
    assert written.stem == image_id and compute_digest(written.read_bytes()) == image_id
    output = here(built, "trace", rewrite["request_key"]).output
    assert f"used in   rewritten/code_math  {rewrite['rewrite_id']}" in output


@pytest.mark.parametrize(
    ("row_id", "message"),
    [
        ("0" * 32, "nothing in the lake has an id that begins with"),
        ("abc", "is not an id"),
        ("hello there", "is not an id"),
    ],
)
def test_trace_of_an_unknown_id_is_one_error(built: Home, row_id: str, message: str) -> None:
    result = here(built, "trace", row_id)
    assert isinstance(result.exception, MvlError)
    assert message in result.exception.message and result.exception.hint


def test_trace_refuses_an_ambiguous_prefix(tmp_path: Path) -> None:
    home = Home(tmp_path)
    rows = [sample("drawn", n, sample_id=f"abcdef{n}".ljust(32, "0")) for n in range(2)]
    home.lake.get_table("samples").insert(pa.Table.from_pylist(rows, schema=SAMPLES.columns))
    one_error(home.mvl("trace", "abcdef"), "more than one row begins with abcdef", "give more characters")
    assert home.mvl("trace", "abcdef1").returncode == 0


# -- serve ---------------------------------------------------------------------------------------------------------


def test_serve_reports_that_no_server_runs(raw: Home) -> None:
    assert "no local model server is running" in raw.run("serve", "status")
    assert raw.json("serve", "status") == []
    assert "nothing was running" in raw.run("serve", "stop")
