"""`inputs_current`: whether all of an asset was made from what is current now; the check, and the sensor behind it.

Dagster's own label ("Unsynced") of a partitioned asset shows only on the page of one partition, never on the asset.
This check shows in the graph and on the asset, with a table of the partitions that are out of date and why. A run
reports it by what the rows say they were made with; the sensor reports it again, by Dagster's own staleness, when a
prompt, the profile, the rows above or the asset itself changed. It starts nothing. (The check is one for all
partitions: Dagster stores no second evaluation of the same partition from a sensor.)
Concept: https://docs.dagster.io/guides/automate/sensors
"""

# No `from __future__ import annotations`: Dagster reads the annotations of the sensor as they are.
import json
from collections.abc import Mapping, Sequence

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from mvl_assets.common.digest import digest_hex
from mvl_assets.config.catalog import Category, SourceSpec, load_catalog
from mvl_assets.config.profile import ModelProfile
from mvl_assets.config.prompts import criteria_hash, judge_prompts, load_prompts, rewrite_prompt
from mvl_assets.defs.prompts import report_prompts
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.freshness import outdated
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.asset_status import Standing, Standings

CURRENT = "inputs_current"


def current_check(key: dg.AssetKey) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        CURRENT,
        asset=key,
        description="Every partition was made with the current prompts, model and settings from the current rows."
        " `mvl stale --launch` makes those again that were not.",
    )


def current_result(key: dg.AssetKey, lake: Lake, category: Category) -> dg.AssetCheckResult:
    """For a run: what the rows of all partitions say they were made with."""
    table = key.to_user_string()
    late = {}
    for slug in asset_keys.rewritten_sources(category):
        source = load_catalog()[slug]
        model, hashes = rewriter(source) if key.path[0] == "rewritten" else judge(source)
        rows = outdated(lake, table, slug, prompt_hashes=hashes, model=model.name, model_revision=model.revision)
        if rows:
            late[slug] = f"{rows} rows were made with another prompt or model"
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=CURRENT,
        passed=not late,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=_listed(late),
    )


def rewriter(source: SourceSpec) -> tuple[ModelProfile, list[str]]:
    """The model and the hashes of the prompts that rewrite a source now."""
    model = asset_keys.profile().model_for("caption" if source.family == "caption" else "rewrite")
    return model, [rewrite_prompt(load_prompts(), source.family or "").hash]


def judge(source: SourceSpec) -> tuple[ModelProfile, list[str]]:
    """The model and the hashes of the prompts that judge a source now."""
    return asset_keys.profile().model_for("judge"), [criteria_hash(judge_prompts(load_prompts(), source.family or ""))]


@dg.sensor(
    name="prompt_observer",
    description="Notices edited prompt files, and marks every partition that was made with something else than what is"
    " current now. It costs nothing and starts nothing.",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def prompt_observer(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    edited = report_prompts(context.instance)
    if edited:
        context.log.info(f"edited: {', '.join(edited)}")
    assert context.repository_def is not None  # Dagster leaves it out only where a test builds the context by hand
    asset_graph = context.repository_def.asset_graph
    seen: dict[str, str] = json.loads(context.cursor or "{}")
    inputs = {key.to_user_string(): now for key, now in _inputs(asset_graph, context.instance).items()}
    standings = Standings(asset_graph, context.instance)
    looked = {
        name: list(standings.of_asset(dg.AssetKey(name.split("/"))))
        for name in inputs
        if seen.get(name) != inputs[name]
    }
    events = [
        _evaluation(found[0].key, [s for s in found if s.state == "stale"])
        for found in looked.values()
        if any(s.state != "missing" for s in found)
    ]
    late = [f"{e.asset_key.to_user_string()}" for e in events if not e.passed]
    return dg.SensorResult(
        skip_reason=f"out of date: {', '.join(late)}" if late else "nothing became out of date",
        cursor=json.dumps(inputs),
        asset_events=events,
    )


def _inputs(asset_graph: AssetGraph, instance: dg.DagsterInstance) -> Mapping[dg.AssetKey, str]:
    """Per asset with the check: a digest that changes whenever one of its partitions may have become stale or fresh."""
    keys = sorted(k.asset_key for k in asset_graph.asset_check_keys if k.name == CURRENT)
    prompts = {asset_keys.prompt_key(name): prompt.hash for name, prompt in load_prompts().items()}
    parents = {key: sorted(asset_graph.get(key).parent_keys) for key in keys}
    wanted = [*keys, *(p for listed in parents.values() for p in listed if p not in prompts)]
    made = {
        r.asset_entry.asset_key: r.asset_entry.last_materialization_storage_id
        for r in instance.get_asset_records(sorted(set(wanted)))
    }
    return {
        key: digest_hex(
            asset_graph.get(key).code_version, made.get(key), *(prompts.get(p) or made.get(p) for p in parents[key])
        )
        for key in keys
    }


def _evaluation(key: dg.AssetKey, stale: Sequence[Standing]) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=CURRENT,
        passed=not stale,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=_listed({s.partition or "": "; ".join(s.causes) for s in stale}),
    )


def _listed(late: Mapping[str, str]) -> dict[str, int | str]:
    """One entry per partition: tables are folded away on the page of a check."""
    return {"partitions out of date": len(late), **late}


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions(sensors=[prompt_observer])
