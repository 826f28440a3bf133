"""Request plan of a stage for a source: what a run would send and cost. Nothing is sent."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mvl_assets.inference.request import Request
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.due_requests import ReaskTally, iter_due_requests
from mvl_assets.model_stage.forecast import (
    BASES,
    DEFAULT_REASK_SHARE,
    MIN_ANSWERS,
    AnswerForecast,
    ExpectedTokens,
    forecast_answer,
)
from mvl_assets.model_stage.stage import ModelStage, RowRequests, ServedModel

# Forecasts only. English takes about four characters a token; a vision model of the paper's kind spends 256 tokens on a
# tile of 448 pixels, at most 12 tiles an image.
CHARS_PER_TOKEN = 4.0
TILE_SIDE_PX, TOKENS_PER_TILE, MAX_TILES = 448, 256, 12
PROMPT_SAMPLE_SIZE = 256
# How far an estimate of the tokens of requests may be off: characters and tiles are not the model's own count.
PROMPT_ERROR = 0.3


IN_LAKE, TO_COME, FROM_CATALOG = "lake", "rewrites to come", "catalog"


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """Distinct questions to one model: `requested == cache_hits + skipped + to_send`.

    A question counts once, by its next request: the first one, or the re-ask that follows a stored answer. Tokens and
    cost include the re-asks of answers that are still to come.

    Attributes:
        stage: The stage's name.
        source: The source.
        model: The model's name.
        rows: Rows that are asked about: samples or rewrites.
        requested: Questions in all.
        cache_hits: Those with stored answers that no re-ask follows.
        skipped: Those whose next request failed before and waits for `mvl retry`.
        to_send: Those that a run would send a request for.
        reasks: How many re-asks are likely to follow, by the share of this model's answers about the source that needed
            one.
        prompt_tokens: An estimate for `to_send` and `reasks`.
        completion_tokens: The same, thoughts included.
        basis: What the length of answers rests on, see `forecast`.
        gpu_hours: An estimate; None where the model's price has no rate.
        cost: An estimate; None where the model has no price.
        cost_low: Its lower bound.
        cost_high: Its upper bound.
        currency: The currency of `cost`.
        counted: Whether requests are counted by the rows in the lake, by rewrites to come, or by the catalog's sizes.
    """

    stage: str
    source: str
    model: str
    rows: int
    requested: int
    cache_hits: int
    skipped: int
    to_send: int
    reasks: int
    prompt_tokens: int
    completion_tokens: int
    basis: str
    gpu_hours: float | None
    cost: float | None
    cost_low: float | None
    cost_high: float | None
    currency: str
    counted: str = IN_LAKE


def plan_stage(lake: Lake, stage: ModelStage[Any, Any]) -> list[RequestPlan]:
    """Return what a run of the stage would send to each of its models. Reads the lake and sends nothing.

    What is asked once more about stored answers is a plan of its own; that about answers to come is not known.
    """
    plans = [_plan_model(lake, stage, model) for model in stage.models]
    follow_ups = [_plan_model(lake, stage, model) for model in stage.choose_follow_up_models()]
    return [*plans, *(plan for plan in follow_ups if plan.requested)]


def _plan_model(lake: Lake, stage: ModelStage[Any, Any], model: ServedModel) -> RequestPlan:
    """Count the model's questions by what a run would do about them.

    Tokens are estimated from the first `PROMPT_SAMPLE_SIZE` requests that are to be sent.
    """
    n_rows = requested = cache_hits = skipped = 0
    sampled_requests: list[Request] = []

    def iter_counted_rows() -> Iterator[RowRequests[Any]]:
        nonlocal n_rows
        for row in stage.iter_requests(model, sendable_only=True):
            n_rows += 1
            yield row

    tally = ReaskTally()
    for due in iter_due_requests(lake, stage, iter_counted_rows(), tally):
        requested += 1
        if due is None:
            cache_hits += 1
        elif due.is_skipped:
            skipped += 1
        elif len(sampled_requests) < PROMPT_SAMPLE_SIZE:
            sampled_requests.append(due.request)
    mean_prompt_tokens = sum(
        _estimate_prompt_tokens(lake, stage.source, request) for request in sampled_requests
    ) / max(1, len(sampled_requests))
    reask_share = tally.reasked / tally.answered if tally.answered >= MIN_ANSWERS else DEFAULT_REASK_SHARE
    return build_plan(
        stage.name,
        stage.source,
        model,
        rows=n_rows,
        requested=requested,
        cache_hits=cache_hits,
        skipped=skipped,
        prompt_tokens=mean_prompt_tokens,
        answer=_forecast_answers(lake, stage, model, sampled_requests),
        reask_share=reask_share if stage.reasks else 0.0,
    )


def build_plan(
    stage: str,
    source: str,
    model: ServedModel,
    *,
    rows: int,
    requested: int,
    prompt_tokens: float,
    answer: AnswerForecast,
    reask_share: float,
    cache_hits: int = 0,
    skipped: int = 0,
) -> RequestPlan:
    """Return the plan of `requested - cache_hits - skipped` requests to a model.

    Args:
        stage: See `RequestPlan`.
        source: See `RequestPlan`.
        model: Who is asked, at what price.
        rows: See `RequestPlan`.
        requested: See `RequestPlan`.
        prompt_tokens: Tokens of one request.
        answer: Tokens of one answer.
        reask_share: Re-asks per request.
        cache_hits: See `RequestPlan`.
        skipped: See `RequestPlan`.
    """
    to_send = requested - cache_hits - skipped
    n_requests = to_send * (1 + reask_share)
    price = model.price

    def estimate_cost(prompt_factor: float, completion_tokens: float) -> float | None:
        tokens = (prompt_tokens * prompt_factor * n_requests, completion_tokens * n_requests)
        return price.compute_cost(round(tokens[0]), round(tokens[1])) or None

    total_prompt_tokens, total_completion_tokens = round(prompt_tokens * n_requests), round(answer.mean * n_requests)
    return RequestPlan(
        stage=stage,
        source=source,
        model=model.ref.name,
        rows=rows,
        requested=requested,
        cache_hits=cache_hits,
        skipped=skipped,
        to_send=to_send,
        reasks=round(to_send * reask_share),
        prompt_tokens=total_prompt_tokens,
        completion_tokens=total_completion_tokens,
        basis=answer.basis,
        gpu_hours=price.compute_gpu_hours(total_prompt_tokens, total_completion_tokens),
        cost=price.compute_cost(total_prompt_tokens, total_completion_tokens) or None,
        cost_low=estimate_cost(1 - PROMPT_ERROR, answer.low),
        cost_high=estimate_cost(1 + PROMPT_ERROR, answer.high),
        currency=price.currency,
    )


def _estimate_prompt_tokens(lake: Lake, source: str, request: Request) -> float:
    n_chars = sum(len(text) for message in request.messages for text in _extract_texts(message["content"]))
    images = lake.get_images(source).read_properties(set(request.image_ids)).values()
    image_tokens = sum(estimate_image_tokens(i.width, i.height, request.model.max_image_side) for i in images)
    return n_chars / CHARS_PER_TOKEN + image_tokens


def estimate_image_tokens(width: int, height: int, max_image_side: int | None) -> int:
    """Return what an image takes of a model that reads tiles, scaled to `max_image_side`."""
    longest_side = max(width, height, 1)
    scale = min(1.0, (max_image_side or longest_side) / longest_side)
    across, down = (max(1, math.ceil(side * scale / TILE_SIDE_PX)) for side in (width, height))
    return TOKENS_PER_TILE * min(across * down, MAX_TILES)


def _extract_texts(content: Any) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]


def _forecast_answers(
    lake: Lake, stage: ModelStage[Any, Any], model: ServedModel, sampled_requests: Sequence[Request]
) -> AnswerForecast:
    """Return the mean forecast over the prompts of the requests; the weakest basis counts."""
    n_by_prompt = Counter((request.prompt_name, int(request.sampling["max_tokens"])) for request in sampled_requests)
    if not n_by_prompt:
        return AnswerForecast(0.0, 0.0, 0.0, "")
    expected = ExpectedTokens(stage.expected_tokens, model.ref.thinking_tokens // 2)
    forecasts = [
        (n, forecast_answer(lake, stage.name, stage.source, model.ref, prompt_name, max_tokens, expected))
        for (prompt_name, max_tokens), n in n_by_prompt.items()
    ]
    total = n_by_prompt.total()
    mean, low, high = (
        sum(n * getattr(forecast, field) for n, forecast in forecasts) / total for field in ("mean", "low", "high")
    )
    return AnswerForecast(mean, low, high, max((f.basis for _, f in forecasts), key=BASES.index))
