"""Plans beyond what the lake holds: judging and scoring of rewrites to come, and sources that are not ingested yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import Prompt, load_prompts
from mvl_assets.judging.judge import JudgeStage
from mvl_assets.judging.probes.build import build_contrast_pairs
from mvl_assets.judging.probes.run import ProbeStage
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.forecast import DEFAULT_REASK_SHARE, ExpectedTokens, forecast_answer
from mvl_assets.model_stage.image_tokens import count_image_tokens
from mvl_assets.model_stage.plan import (
    CHARS_PER_TOKEN,
    FROM_CATALOG,
    TO_COME,
    RequestPlan,
    build_plan,
    plan_stage,
)
from mvl_assets.model_stage.stage import NO_FOLLOW_UPS, FollowUpForecast, ServedModel
from mvl_assets.rewriting.rewrite import RewriteStage
from mvl_assets.scoring.score import ScoreStage
from mvl_assets.stages import CATEGORY, JUDGED, REWRITTEN, SCORED

# Of a source that is not ingested: the question and answer of a row, and its image.
TYPICAL_INPUT_TOKENS, TYPICAL_IMAGE_SIDES = 100, (800, 600)


def plan_source(lake: Lake, spec: SourceSpec, profile: Profile, limit: int | None = None) -> list[RequestPlan]:
    """Return the plans of rewriting a source of group B, judging and scoring it, rewrites to come included.

    Args:
        lake: The lake.
        spec: The source; where the lake has no rows of it, the catalog's size counts.
        profile: Names the models and limits.
        limit: How many samples requests may be sent for; None leaves it to the profile.
    """
    stage = RewriteStage(lake, spec, profile, limit=limit)
    category = lake.get_table(CATEGORY.get_table_name(spec.category))
    if category.exists() and category.count(partition_key=spec.slug):
        rewriting = plan_stage(lake, stage)
    else:
        rewriting = _plan_rewriting_by_catalog(lake, spec, profile, stage, limit)
    plans = [*rewriting, *(judging for plan in rewriting for judging in plan_judging(lake, spec, profile, stage, plan))]
    if lake.get_table(REWRITTEN.get_table_name(spec.category)).exists():
        plans += plan_stage(lake, JudgeStage(lake, spec, profile, limit=limit))
    plans += plan_scoring(lake, spec, profile, stage, rewriting, limit)
    return [plan for plan in plans if plan.requested]


def plan_judging(
    lake: Lake, spec: SourceSpec, profile: Profile, stage: RewriteStage, rewriting: RequestPlan
) -> list[RequestPlan]:
    """Return the plans of judging the rewrites that `rewriting` would make, one per model that is asked.

    Nothing is taken off for what the checks drop.
    """
    if not rewriting.to_send:
        return []
    pairs_per_answer = count_pairs(stage.prompt)
    n_pairs = round(rewriting.to_send * pairs_per_answer)
    answer_tokens = rewriting.completion_tokens / (rewriting.to_send + rewriting.reasks)
    judge_stage = JudgeStage(lake, spec, profile)
    plans = [
        replace(
            _forecast_requests(
                lake,
                JUDGED.name,
                spec.slug,
                model,
                judge_stage.criteria[0],
                rows=n_pairs,
                requested=n_pairs * len(judge_stage.criteria),
                input_tokens=answer_tokens / pairs_per_answer,
                reask_share=0.0,
                follow_ups=judge_stage.forecast_follow_ups(model),
            ),
            counted=TO_COME,
        )
        for model in judge_stage.judges
    ]
    if judge_stage.prober is not None and judge_stage.probe_prompt is not None:
        probing = _forecast_requests(
            lake,
            JUDGED.name,
            spec.slug,
            judge_stage.prober,
            judge_stage.probe_prompt,
            rows=n_pairs,
            requested=n_pairs,
            input_tokens=TYPICAL_INPUT_TOKENS,
            reask_share=0.0,
        )
        plans.append(replace(probing, counted=TO_COME))
    return plans


def plan_probes(lake: Lake, profile: Profile) -> list[RequestPlan]:
    """Return the plans of `mvl judge probe`, one per judge."""
    pairs, prompts = build_contrast_pairs(), load_prompts(profile=profile)
    return [plan for judge in profile.judges for plan in plan_stage(lake, ProbeStage(profile, judge, pairs, prompts))]


def plan_scoring(
    lake: Lake,
    spec: SourceSpec,
    profile: Profile,
    stage: RewriteStage,
    rewriting: Sequence[RequestPlan],
    limit: int | None = None,
) -> list[RequestPlan]:
    """Return the plans of scoring what is rewritten and, as far as that is not enough, what will be."""
    if not profile.score_rows:
        return []
    score_stage = ScoreStage(lake, spec, profile, limit=limit)
    plans = plan_stage(lake, score_stage)
    n_rows = min(profile.score_rows, *(plan.rows for plan in rewriting)) if rewriting else 0
    n_to_come = 2 * n_rows - sum(plan.requested for plan in plans)
    if n_to_come <= 0:
        return plans
    answer_tokens = sum(p.completion_tokens for p in rewriting) / max(1, sum(p.to_send + p.reasks for p in rewriting))
    to_come = _forecast_requests(
        lake,
        SCORED.name,
        spec.slug,
        score_stage.models[0],
        score_stage.prompt,
        rows=n_to_come,
        requested=n_to_come,
        input_tokens=(TYPICAL_INPUT_TOKENS + answer_tokens / count_pairs(stage.prompt)) / 2,
        reask_share=0.0,
    )
    return [*plans, replace(to_come, counted=TO_COME)]


def count_pairs(prompt: Prompt) -> float:
    """Return how many rewrites an answer to the prompt gives: the middle of what its schema allows."""
    pairs = {} if prompt.schema is None else prompt.schema["properties"].get("pairs", {})
    return (pairs.get("minItems", 1) + pairs["maxItems"]) / 2 if pairs else 1.0


def _plan_rewriting_by_catalog(
    lake: Lake, spec: SourceSpec, profile: Profile, stage: RewriteStage, limit: int | None
) -> list[RequestPlan]:
    if spec.expected is None:
        return []
    limits = [n for n in (spec.expected.count, profile.limit, limit or profile.rewrite_limit) if n is not None]
    plan = _forecast_requests(
        lake,
        REWRITTEN.name,
        spec.slug,
        stage.models[0],
        stage.prompt,
        rows=min(limits),
        requested=min(limits),
        input_tokens=TYPICAL_INPUT_TOKENS,
        reask_share=DEFAULT_REASK_SHARE,
    )
    return [replace(plan, counted=FROM_CATALOG)]


def _forecast_requests(
    lake: Lake,
    stage: str,
    source: str,
    model: ServedModel,
    prompt: Prompt,
    *,
    rows: int,
    requested: int,
    input_tokens: float,
    reask_share: float,
    follow_ups: FollowUpForecast = NO_FOLLOW_UPS,
) -> RequestPlan:
    """Return the plan of requests that cannot be built yet."""
    expected = {} if prompt.expected_tokens is None else {prompt.name: prompt.expected_tokens}
    has_images = prompt.modality == "vision" and model.ref.supports_images
    image_tokens = count_image_tokens(model.ref, *TYPICAL_IMAGE_SIDES) if has_images else 0
    return build_plan(
        stage,
        source,
        model,
        rows=rows,
        requested=requested,
        prompt_tokens=len(prompt.template) / CHARS_PER_TOKEN + input_tokens + image_tokens,
        answer=forecast_answer(
            lake,
            stage,
            source,
            model.ref,
            prompt.name,
            int(prompt.sampling["max_tokens"]),
            ExpectedTokens(expected, model.ref.thinking_tokens // 2),
        ),
        reask_share=reask_share,
        has_images=has_images,
        follow_ups=follow_ups,
    )
