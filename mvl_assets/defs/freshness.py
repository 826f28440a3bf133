"""The check `inputs_fresh`, whether every partition was made from its current inputs, and the sensor that reports it.

Dagster shows its own label ("Unsynced") of a partitioned asset only on the page of one partition, not on the asset.
This check shows in the graph and on the asset, with the stale partitions and why they are stale. A run reports it by
the prompt hash and model stored in the rows; the sensor reports it again, by Dagster's own staleness, when a prompt,
the profile, the upstream rows or the asset itself changed. The sensor starts no run. (There is one check for all
partitions: Dagster does not store a second evaluation of the same partition from a sensor.)
Concept: https://docs.dagster.io/guides/automate/sensors
"""

# No `from __future__ import annotations`: Dagster reads the annotations of the sensor as they are.
import json
from collections.abc import Mapping, Sequence

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.common.digest import compute_digest
from mvl_assets.config.catalog import Category, SourceSpec, load_catalog
from mvl_assets.config.profile import ModelProfile
from mvl_assets.config.prompts import (
    compute_judging_hash,
    get_judge_prompts,
    get_probe_prompt,
    get_rewrite_prompt,
    get_score_prompt,
    load_prompts,
)
from mvl_assets.defs.prompts import report_edited_prompts
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.freshness import count_stale_rows
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.asset_status import AssetStatus, AssetStatusResolver
from mvl_assets.orchestration.dagster_internals import AssetGraph
from mvl_assets.stages import JUDGED, REWRITTEN, SCORED

FRESHNESS_CHECK = "inputs_fresh"


def build_freshness_check(key: dg.AssetKey) -> dg.AssetCheckSpec:
    """Return the spec of the freshness check of an asset."""
    return dg.AssetCheckSpec(
        FRESHNESS_CHECK,
        asset=key,
        description="Every partition was made with the current prompts, model and settings from the current rows."
        " The job `make_up_to_date` makes those that were not again, and what follows from them; so does"
        " `mvl stale --launch --downstream`.",
    )


def build_freshness_result(key: dg.AssetKey, lake: Lake, category: Category) -> dg.AssetCheckResult:
    """Return the result for a run: per partition, rows made with another prompt or model than the current ones."""
    table_name = key.to_user_string()
    stale_partitions = {}
    for slug in asset_keys.list_rewritten_sources(category):
        source = load_catalog()[slug]
        model, prompt_hashes = _RESOLVERS[key.path[0]](source)
        n_stale_rows = count_stale_rows(
            lake, table_name, slug, prompt_hashes=prompt_hashes, model=model.name, model_revision=model.revision
        )
        if n_stale_rows:
            stale_partitions[slug] = f"{n_stale_rows} rows were made with another prompt or model"
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=FRESHNESS_CHECK,
        passed=not stale_partitions,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=_build_check_metadata(stale_partitions),
    )


def resolve_rewriter(source: SourceSpec) -> tuple[ModelProfile, list[str]]:
    """Return the model and the hashes of the prompts that rewrite a source now."""
    model = asset_keys.load_active_profile().get_rewriter(source.family)
    return model, [get_rewrite_prompt(load_prompts(), source.family or "").hash]


def resolve_judge(source: SourceSpec) -> tuple[ModelProfile, list[str]]:
    """Return the model and the hashes of the prompts that judge a source now."""
    profile = asset_keys.load_active_profile()
    prompts = load_prompts()
    criteria = get_judge_prompts(prompts, source.family or "", reference=profile.gives_reference)
    probe = None if profile.prober is None else get_probe_prompt(prompts)
    return profile.get_model("judge"), [compute_judging_hash(criteria, probe, profile.prober)]


def resolve_scorer(source: SourceSpec) -> tuple[ModelProfile, list[str]]:
    """Return the model and the hash of the prompt that score a source now."""
    return asset_keys.load_active_profile().get_model("score"), [
        get_score_prompt(load_prompts(), source.family or "").hash
    ]


_RESOLVERS = {REWRITTEN.name: resolve_rewriter, JUDGED.name: resolve_judge, SCORED.name: resolve_scorer}


@dg.sensor(
    name="freshness_sensor",
    description="Observes edited prompt files, and reports the partitions that were not made from their current inputs."
    " It starts no run.",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def freshness_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Report edited prompts, and the freshness check of each asset whose inputs changed since the last tick."""
    edited = report_edited_prompts(context.instance)
    if edited:
        context.log.info(f"edited: {', '.join(edited)}")
    assert context.repository_def is not None  # Dagster leaves it out only where a test builds the context by hand
    asset_graph = context.repository_def.asset_graph
    previous_digests: dict[str, str] = json.loads(context.cursor or "{}")
    input_digests = {
        key.to_user_string(): input_digest
        for key, input_digest in _compute_input_digests(asset_graph, context.instance).items()
    }
    status_resolver = AssetStatusResolver(asset_graph, context.instance)
    statuses_by_asset = {
        name: list(status_resolver.iter_asset_statuses(dg.AssetKey(name.split("/"))))
        for name in input_digests
        if previous_digests.get(name) != input_digests[name]
    }
    events = [
        _build_check_evaluation(statuses[0].key, [s for s in statuses if s.state == "stale"])
        for statuses in statuses_by_asset.values()
        if any(s.state != "missing" for s in statuses)
    ]
    stale_assets = [f"{e.asset_key.to_user_string()}" for e in events if not e.passed]
    return dg.SensorResult(
        skip_reason=f"stale: {', '.join(stale_assets)}" if stale_assets else "nothing became stale",
        cursor=json.dumps(input_digests),
        asset_events=events,
    )


def _compute_input_digests(asset_graph: AssetGraph, instance: dg.DagsterInstance) -> Mapping[dg.AssetKey, str]:
    """Return, per asset with the check, a digest that changes when one of its partitions may become stale or fresh."""
    keys = sorted(k.asset_key for k in asset_graph.asset_check_keys if k.name == FRESHNESS_CHECK)
    prompt_hashes = {asset_keys.build_prompt_key(name): prompt.file_hash for name, prompt in load_prompts().items()}
    parents = {key: sorted(asset_graph.get(key).parent_keys) for key in keys}
    tracked_keys = [*keys, *(p for parent_keys in parents.values() for p in parent_keys if p not in prompt_hashes)]
    latest_storage_ids = {
        r.asset_entry.asset_key: r.asset_entry.last_materialization_storage_id
        for r in instance.get_asset_records(sorted(set(tracked_keys)))
    }
    return {
        key: compute_digest(
            asset_graph.get(key).code_version,
            latest_storage_ids.get(key),
            *(prompt_hashes.get(p) or latest_storage_ids.get(p) for p in parents[key]),
        )
        for key in keys
    }


def _build_check_evaluation(key: dg.AssetKey, stale_statuses: Sequence[AssetStatus]) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=FRESHNESS_CHECK,
        passed=not stale_statuses,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=_build_check_metadata({s.partition_key or "": "; ".join(s.causes) for s in stale_statuses}),
    )


def _build_check_metadata(stale_partitions: Mapping[str, str]) -> dict[str, int | str]:
    """Return one entry per partition: Dagster folds tables away on the page of a check."""
    return {metadata_keys.STALE_PARTITIONS: len(stale_partitions), **stale_partitions}


@dg.definitions
def defs() -> dg.Definitions:
    """Return the sensor."""
    return dg.Definitions(sensors=[freshness_sensor])
