"""The whole pipeline at small scale as a user runs it: `mvl run` with the real vLLM, DeepSpeed and Lance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.catalog import load_catalog
from mvl_assets.config.profile import PROFILES_DIR
from mvl_assets.config.settings import PROJECT_ROOT
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.holdout import is_held_out
from mvl_assets.lake_queries.lineage import trace
from mvl_assets.lake_queries.views import iter_mixture_rows
from tests.servers import vllm_server
from tests.training.orchestration import small_pipeline

pytestmark = [pytest.mark.pipeline, pytest.mark.server]
__all__ = ["vllm_server"]

SOURCES = [
    "tabmwp",
    "chartqa_cauldron_llava_format",
    "visual7w_cauldron_llava_format",
    "sharegpt4v",
    "nlvr2",
    "llava_video_next_qa",
    "numinamath",
    "lcs_558k",
]
# Long enough for eight sources, three trainings and two servers on two busy cores.
PATIENCE_S = 1500
HOLDOUT = 0.25


def mvl(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mvl_assets.cli", *arguments]
    return subprocess.run(
        command, env=environment, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, vllm_server: Endpoint) -> Iterator[dict[str, str]]:
    home = tmp_path_factory.mktemp("pipeline")
    profile = yaml.safe_load((PROFILES_DIR / "demo.yaml").read_text(encoding="utf-8"))
    model = profile["models"]["smollm2"]
    del model["serve"]
    model |= {"name": vllm_server.model, "base_urls": [vllm_server.base_url]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MVL_HOME", str(home))
        recipe = yaml.safe_load(small_pipeline.write_profile(home).read_text(encoding="utf-8"))["recipe"]
    # The small model says Yes or No by chance; everything is kept, so that mixtures surely have rewrites.
    keep = {"rule": "true"}
    mixture = {"seed": 1, "alignment": 12, "single_image": 80, "one_vision": 24}
    profile |= {
        "limit": 24,
        "keep": keep,
        "rewrite_limit": 2,
        "mixture": mixture,
        "holdout_fraction": HOLDOUT,
        "recipe": recipe,
    }
    (home / "pipeline.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    environment = {**os.environ, "MVL_HOME": str(home), "MVL_PROFILE": str(home / "pipeline.yaml")}
    environment.pop("DAGSTER_HOME", None)
    yield environment
    mvl(environment, "serve", "stop")


@pytest.fixture(scope="module")
def first(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    named = [word for slug in SOURCES for word in ("--source", slug)]
    written = mvl(environment, "demo-data", "--rows", "36", *named)
    assert written.returncode == 0, written.stderr
    return mvl(environment, "run")


@pytest.fixture(scope="module")
def lake(environment: dict[str, str], first: subprocess.CompletedProcess[str]) -> Lake:
    assert first.returncode == 0, first.stdout + first.stderr
    return Lake(str(Path(environment["MVL_HOME"]) / "lake"))


def test_the_whole_pipeline_runs_and_every_stage_has_rows(lake: Lake, environment: dict[str, str]) -> None:
    listed = {line["stage"]: line for line in json.loads(mvl(environment, "status", "--json").stdout)["stages"]}
    for stage in ("raw", "category", "rewritten", "judged", "mixture", "pack_plan", "evaluation"):
        assert listed[stage]["rows"] > 0, stage
        assert listed[stage]["stale"] == 0, stage
    assert listed["checkpoint"]["materialised"] == 2 * len(TRAINING_STAGES), "and as many exports"


def test_the_last_checkpoint_was_asked_through_its_server_and_the_others_here(lake: Lake) -> None:
    asked = {
        (row["checkpoint"], row["backend"])
        for row in lake.get_table("evaluation/held_out").iter_rows(["checkpoint", "backend"])
    }
    assert asked == {("alignment", "local"), ("single_image", "local"), ("one_vision", "server")}


def test_every_training_row_can_be_traced_to_its_file(lake: Lake) -> None:
    kinds = set()
    for stage in TRAINING_STAGES:
        for row in iter_mixture_rows(lake, stage):
            result = trace(lake, row["row_id"])
            source = load_catalog()[result["sample"]["source"]]
            assert result["sample"]["source"] in SOURCES
            assert (Path(lake.root).parent / "raw" / source.slug / result["sample"]["file"]).exists()
            if row["kind"] == "rewritten":
                assert result["answer"]["text"]
                assert result["judged"]["keep"]
                assert len(result["verdicts"]) == len(result["judged"]["verdicts"]) > 0
            kinds.add(row["kind"])
    assert kinds == {"original", "rewritten"}


def test_held_out_questions_are_in_no_mixture(lake: Lake) -> None:
    held_out = {
        row["sample_id"]
        for name in lake.list_tables("category")
        for row in lake.get_table(name).iter_rows(["sample_id", "image_group_id"])
        if is_held_out(row["image_group_id"], HOLDOUT)
    }
    trained = {
        row["sample_id"]
        for stage in TRAINING_STAGES
        for row in lake.get_table(f"mixture/{stage}").iter_rows(["sample_id"])
    }
    assert held_out
    assert trained
    assert not held_out & trained


def test_a_second_run_asks_nothing_trains_nothing_and_changes_no_table(lake: Lake, environment: dict[str, str]) -> None:
    names = ["samples", *(name for family in ("rewritten", "judged", "mixture") for name in lake.list_tables(family))]
    before = {name: lake.get_table(name).version for name in names}
    answers = {(stage, s): lake.get_answer_log(stage, s).count() for stage in ("rewritten", "judged") for s in SOURCES}
    again = mvl(environment, "run")
    assert again.returncode == 0, again.stderr
    assert {name: lake.get_table(name).version for name in names} == before
    assert {(stage, s): lake.get_answer_log(stage, s).count() for stage, s in answers} == answers
    assert f"checkpoint: 0 made, {2 * len(TRAINING_STAGES)} up to date" in again.stdout


@pytest.mark.skipif(
    not (PROJECT_ROOT.parent / "shared" / "data" / "tabmwp").is_dir(),
    reason="the real TabMWP files lie beside no project here",
)
def test_real_tabmwp_problems_ran_the_whole_pipeline(lake: Lake) -> None:
    assert (Path(lake.root).parent / "raw" / "tabmwp").is_symlink()
    assert lake.get_table("rewritten/code_math").count("source = 'tabmwp'") > 0
    assert lake.get_table("mixture/single_image").count("source = 'tabmwp'") > 0
