"""The wiring of the graph: what there is, what feeds what, what is checked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import chain
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from mvl_assets.config.catalog import list_partition_keys, load_catalog
from mvl_assets.config.prompts import get_judge_prompts, get_rewrite_prompt, get_score_prompt, load_prompts
from mvl_assets.config.settings import PROJECT_ROOT
from mvl_assets.definitions import build_defs
from mvl_assets.defs.curation import HITS_CHECK, SOURCES_CHECK
from mvl_assets.defs.freshness import FRESHNESS_CHECK
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import SCHEMA_CHECK
from mvl_assets.orchestration.resources import LakeResource
from mvl_assets.runner.dagster_home import load_code_locations
from tests.defs.conftest import forget
from tests.defs.edges import EDGES
from tests.patience import PATIENCE_S

# From this many partitions on, Dagster silently stops looking whether an upstream asset changed.
BLIND_FROM = 100

LOAD = """
import importlib, json, sys
graph = importlib.import_module(sys.argv[1]).defs().resolve_asset_graph()
heavy = {"torch", "transformers", "tokenizers", "vllm", "deepspeed", "lancedb", "skimage", "matplotlib"}
print(json.dumps({"assets": len(graph.get_all_asset_keys()), "heavy": sorted(heavy & set(sys.modules))}))
"""

BLOCKING = (SCHEMA_CHECK, SOURCES_CHECK, HITS_CHECK)


@pytest.fixture(scope="module")
def graphs(locations: dict[str, dg.Definitions]) -> list[AssetGraph]:
    return [definitions.resolve_asset_graph() for definitions in locations.values()]


@pytest.fixture(scope="module")
def lake_graph(locations: dict[str, dg.Definitions]) -> AssetGraph:
    return locations["mvl_assets"].resolve_asset_graph()


def declared(one: AssetGraph) -> list[dg.AssetKey]:
    """What a location defines itself; what it only names as upstream belongs to the other one."""
    return [key for key in one.get_all_asset_keys() if one.get(key).description]


def test_both_code_locations_load_and_are_sound(locations: dict[str, dg.Definitions]) -> None:
    assert list(locations) == ["mvl_assets", "mvl_training"]
    for definitions in locations.values():
        dg.Definitions.validate_loadable(definitions)


def test_every_source_has_a_raw_asset_and_153_of_them_are_the_papers(lake_graph: AssetGraph) -> None:
    raw = {key.path[1] for key in lake_graph.get_all_asset_keys() if key.path[0] == "raw"}
    assert raw == set(load_catalog())
    assert Counter(load_catalog()[slug].supplementary for slug in raw)[False] == 153


def test_a_source_without_files_is_declared_and_in_no_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raw" / "dvqa").mkdir(parents=True)
    monkeypatch.setenv("MVL_HOME", str(tmp_path))
    forget()
    graph = build_defs().resolve_asset_graph()
    forget()
    raw = {key for key in graph.get_all_asset_keys() if key.path[0] == "raw"}
    assert len(raw) == len(load_catalog()), "all are shown"
    materializable = {key.to_user_string() for key in graph.materializable_asset_keys}
    assert {name for name in materializable if name.startswith(("raw", "category"))} == {"raw/dvqa", "category/chart"}
    assert graph.get(dg.AssetKey(["category", "chart"])).partitions_def == dg.StaticPartitionsDefinition(["dvqa"])
    declared_only = graph.get(dg.AssetKey(["raw", "arxivqa"]))
    assert declared_only.group_name == "raw_chart" and "`mvl sources lock`" in (declared_only.description or "")
    assert graph.get(dg.AssetKey(["mixture", "alignment"])).parent_keys == {
        dg.AssetKey(["curation", name]) for name in ("duplicates", "contamination")
    }


def test_nothing_is_scored_where_the_profile_scores_no_rows() -> None:
    keys = build_defs().resolve_asset_graph().get_all_asset_keys()
    assert not [key for key in keys if key.path[0] == "scored" or key.path[-1].startswith("score_")]


def test_the_whole_pipeline_is_one_location_for_one_machine(
    locations: dict[str, dg.Definitions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MVL_EVAL_PYTHON", sys.executable)
    (whole,) = load_code_locations().values()
    training = locations["mvl_training"].resolve_asset_graph()
    assert set(training.get_all_asset_keys()) <= set(whole.resolve_asset_graph().materializable_asset_keys)


def test_no_asset_is_defined_in_both_locations(graphs: list[AssetGraph]) -> None:
    assert max(Counter(chain.from_iterable(declared(g) for g in graphs)).values()) == 1


def test_every_asset_has_a_group_a_description_an_owner_and_kinds(graphs: list[AssetGraph]) -> None:
    for one in graphs:
        for key in declared(one):
            node = one.get(key)
            category = f"_{load_catalog()[key.path[1]].category}" if key.path[0] == "raw" else ""
            assert node.group_name == f"{key.path[0]}{category}", key
            assert re.fullmatch(r".{20,}[.?!]", node.description or "", re.DOTALL), (key, node.description)
            assert node.owners and node.kinds, key


def test_every_key_is_a_stage_and_a_name(graphs: list[AssetGraph]) -> None:
    for key in chain.from_iterable(g.get_all_asset_keys() for g in graphs):
        assert len(key.path) == 2 and all(re.fullmatch(r"[a-z0-9][a-z0-9_]*", part) for part in key.path), key


def test_the_edges_between_groups_are_those_of_the_readme(graphs: list[AssetGraph]) -> None:
    result = {
        (parent.path[0], key.path[0]) for one in graphs for key in declared(one) for parent in one.get(key).parent_keys
    }
    assert result == EDGES


def test_what_the_training_location_names_as_upstream_is_defined_by_the_lake(graphs: list[AssetGraph]) -> None:
    lake, training = graphs
    named = set(training.get_all_asset_keys()) - set(declared(training))
    assert named == {dg.AssetKey(["mixture", s]) for s in ("alignment", "single_image", "one_vision")}
    assert named <= set(declared(lake))


def test_no_asset_has_so_many_partitions_that_dagster_stops_looking(graphs: list[AssetGraph]) -> None:
    for one in graphs:
        for key in one.get_all_asset_keys():
            partitions = one.get(key).partitions_def
            # Kept checkpoints are named while stages train, and nothing is downstream of them.
            if isinstance(partitions, dg.DynamicPartitionsDefinition):
                assert not one.get(key).child_keys, key
            else:
                assert partitions is None or len(partitions.get_partition_keys()) < BLIND_FROM, key


def test_a_source_feeds_its_own_partition_only(lake_graph: AssetGraph) -> None:
    for category in asset_keys.list_categories():
        child = dg.AssetKey(["category", category])
        for slug in list_partition_keys(category):
            fed = lake_graph.get_child_partition_keys_of_parent(slug, dg.AssetKey(["raw", slug]), child)
            assert set(fed) == {slug}


def test_a_prompt_feeds_the_partitions_of_its_family_only(lake_graph: AssetGraph) -> None:
    prompts = load_prompts()
    for category in asset_keys.list_rewritten_categories():
        for slug in asset_keys.list_rewritten_sources(category):
            family = load_catalog()[slug].family or ""
            for stage, used in (
                ("rewritten", {get_rewrite_prompt(prompts, family).name}),
                ("judged", {p.name for p in get_judge_prompts(prompts, family)}),
                ("scored", {get_score_prompt(prompts, family).name}),
            ):
                key = dg.AssetKey([stage, category])
                parents = [p for p in lake_graph.get(key).parent_keys if p.path[0] == "prompts"]
                feeding = {
                    p.path[1]
                    for p in parents
                    if slug in lake_graph.get_child_partition_keys_of_parent(p.path[1], p, key)
                }
                assert feeding == used, (key, slug)


def test_every_prompt_is_used_by_a_source(lake_graph: AssetGraph) -> None:
    for name in load_prompts():
        assert lake_graph.get(asset_keys.build_prompt_key(name)).child_keys, name


def test_sources_that_were_screened_out_enter_no_category(lake_graph: AssetGraph) -> None:
    for slug, source in load_catalog().items():
        children = lake_graph.get(dg.AssetKey(["raw", slug])).child_keys
        assert bool(children) == (source.group in ("A", "B")), slug


def test_every_table_has_a_check_that_stops_what_comes_after(lake_graph: AssetGraph) -> None:
    for key in lake_graph.materializable_asset_keys:
        checks = {c.name: lake_graph.get(c).blocking for c in lake_graph.get(key).check_keys}
        if key.path[0] == "export":
            continue
        assert checks[SCHEMA_CHECK] is True, key
        assert all(not blocking for name, blocking in checks.items() if name not in BLOCKING), key
        assert (FRESHNESS_CHECK in checks) == (key.path[0] in ("rewritten", "judged", "scored")), key


def test_every_asset_is_checked(graphs: list[AssetGraph]) -> None:
    for one in graphs:
        for key in one.materializable_asset_keys:
            assert one.get(key).check_keys, key


def test_a_bad_checkpoint_stops_what_would_be_trained_on_it(locations: dict[str, dg.Definitions]) -> None:
    training = locations["mvl_training"].resolve_asset_graph()
    for stage in ("alignment", "single_image", "one_vision"):
        checks = training.get(dg.AssetKey(["checkpoint", stage])).check_keys
        assert checks and all(training.get(check).blocking for check in checks)


def test_what_spends_model_time_has_a_pool_and_nothing_starts_it_by_itself(
    locations: dict[str, dg.Definitions],
) -> None:
    pools: dict[str, set[str]] = {}
    for definitions in locations.values():
        one = definitions.resolve_asset_graph()
        for key in one.materializable_asset_keys:
            node = one.get(key)
            assert node.automation_condition is None, key
            pools.setdefault(key.path[0], set()).update(node.assets_def.computation.node_def.pools)  # type: ignore[union-attr]
    assert {stage: pool for stage, pool in pools.items() if pool} == {
        "rewritten": {"llm-rewrite"},
        "judged": {"llm-judge"},
        "scored": {"llm-judge"},
        "checkpoint": {"gpu-train"},
        "evaluation": {"gpu-train"},
    }
    (sensor,) = locations["mvl_assets"].sensors or ()
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING and not sensor.targets


@pytest.mark.parametrize("module", ["mvl_assets.definitions", "mvl_training.definitions"])
def test_a_code_location_loads_without_torch_and_the_like(module: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, module],
        env=os.environ | {"MVL_HOME": str(tmp_path), "PYTHONPATH": str(PROJECT_ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["assets"] > 0 and result["heavy"] == []


def test_dagster_itself_finds_the_workspace_valid(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"],
        cwd=PROJECT_ROOT,
        env=os.environ | {"MVL_HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path), "DAGSTER_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_build_defs_uses_the_resources_it_is_given(tmp_path: Path) -> None:
    lake = LakeResource(root=str(tmp_path / "lake"))
    assert build_defs({"lake": lake}).resources == {"lake": lake}
    assert build_defs().resources == {"lake": LakeResource()}
