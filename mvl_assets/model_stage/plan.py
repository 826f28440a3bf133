"""Request plan of a stage for a source: what a run would send and cost. Nothing is sent."""

from __future__ import annotations

import heapq
import io
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

from PIL import Image

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
from mvl_assets.model_stage.image_tokens import count_image_tokens, find_image_token_rule
from mvl_assets.model_stage.stage import NO_FOLLOW_UPS, FollowUpForecast, ModelStage, RowRequests, ServedModel

# Forecasts only. English takes about four characters a token.
CHARS_PER_TOKEN = 4.0
PROMPT_SAMPLE_SIZE = 256
# How far an estimate of the tokens of requests may be off: characters are not the model's own count.
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
        follow_ups: How many further requests are likely to follow new answers, such as votes.
        prompt_tokens: An estimate for `to_send`, `reasks` and `follow_ups`.
        completion_tokens: The same, thoughts included.
        basis: What the length of answers rests on, see `forecast`.
        gpu_hours: An estimate; None where the model's price has no rate.
        cost: An estimate; None where the model has no price.
        cost_low: Its lower bound.
        cost_high: Its upper bound.
        currency: The currency of `cost`.
        image_rule: The rule by which the tokens of images are counted, see `image_tokens`; empty without images.
        may_follow_up: Whether it is unknown if follow-ups are needed: only `cost_high` has them.
        counted: Whether requests are counted by the rows in the lake, by rewrites to come, or by the catalog's sizes.
        batch_price_factor: Of a model that is asked in batches, the part of its price that the cost is made of.
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
    follow_ups: int
    prompt_tokens: int
    completion_tokens: int
    basis: str
    gpu_hours: float | None
    cost: float | None
    cost_low: float | None
    cost_high: float | None
    currency: str
    image_rule: str = ""
    may_follow_up: bool = False
    counted: str = IN_LAKE
    batch_price_factor: float | None = None


def plan_stage(lake: Lake, stage: ModelStage[Any, Any]) -> list[RequestPlan]:
    """Return what a run of the stage would send to each of its models. Reads the lake and sends nothing.

    What is asked once more about stored answers is a plan of its own.
    """
    plans = [_plan_model(lake, stage, model, stage.forecast_follow_ups(model)) for model in stage.models]
    follow_ups = [_plan_model(lake, stage, model, NO_FOLLOW_UPS) for model in stage.choose_follow_up_models()]
    return [*plans, *(plan for plan in follow_ups if plan.requested)]


def _plan_model(
    lake: Lake, stage: ModelStage[Any, Any], model: ServedModel, follow_ups: FollowUpForecast
) -> RequestPlan:
    """Count the model's questions by what a run would do about them.

    Tokens are estimated from `PROMPT_SAMPLE_SIZE` of the requests that are to be sent, chosen by their keys.
    """
    n_rows = requested = cache_hits = skipped = 0
    sample: list[tuple[int, Request]] = []

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
        else:
            # Keys are digests, so the smallest ones are a random sample; keys are distinct.
            entry = (-int(due.request.key, 16), due.request)
            if len(sample) < PROMPT_SAMPLE_SIZE:
                heapq.heappush(sample, entry)
            else:
                heapq.heappushpop(sample, entry)
    sampled_requests = [request for _, request in sample]
    reask_share = tally.reasked / tally.answered if tally.answered >= MIN_ANSWERS else DEFAULT_REASK_SHARE
    return build_plan(
        stage.name,
        stage.source,
        model,
        rows=n_rows,
        requested=requested,
        cache_hits=cache_hits,
        skipped=skipped,
        prompt_tokens=_estimate_prompt_tokens(lake, stage, sampled_requests),
        answer=_forecast_answers(lake, stage, model, sampled_requests),
        reask_share=reask_share if stage.reasks else 0.0,
        follow_ups=follow_ups,
        has_images=any(request.image_ids for request in sampled_requests),
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
    has_images: bool,
    follow_ups: FollowUpForecast = NO_FOLLOW_UPS,
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
        has_images: Whether requests have images.
        follow_ups: Further requests per request.
        cache_hits: See `RequestPlan`.
        skipped: See `RequestPlan`.
    """
    to_send = requested - cache_hits - skipped
    n_requests = to_send * (1 + reask_share + follow_ups.expected)
    most_requests = to_send * (1 + reask_share + follow_ups.most)
    price = model.price

    def estimate_cost(n: float, prompt_factor: float, completion_tokens: float) -> float | None:
        tokens = (prompt_tokens * prompt_factor * n, completion_tokens * n)
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
        follow_ups=round(to_send * follow_ups.expected),
        prompt_tokens=total_prompt_tokens,
        completion_tokens=total_completion_tokens,
        basis=answer.basis,
        gpu_hours=price.compute_gpu_hours(total_prompt_tokens, total_completion_tokens),
        cost=price.compute_cost(total_prompt_tokens, total_completion_tokens) or None,
        cost_low=estimate_cost(n_requests, 1 - PROMPT_ERROR, answer.low),
        cost_high=estimate_cost(most_requests, 1 + PROMPT_ERROR, answer.high),
        currency=price.currency,
        image_rule=find_image_token_rule(model.ref.name).name if has_images else "",
        may_follow_up=bool(to_send) and follow_ups.most > follow_ups.expected,
        batch_price_factor=model.batch_price_factor,
    )


def _estimate_prompt_tokens(lake: Lake, stage: ModelStage[Any, Any], requests: Sequence[Request]) -> float:
    """Return the mean tokens of requests, by their characters and the sizes of their images."""
    if not requests:
        return 0.0
    n_chars = sum(
        len(text) for request in requests for message in request.messages for text in _extract_texts(message["content"])
    )
    sizes = _read_image_sizes(lake, stage, {image_id for request in requests for image_id in request.image_ids})
    n_image_tokens = sum(
        count_image_tokens(request.model, *sizes[image_id])
        for request in requests
        for image_id in request.image_ids
        if image_id in sizes
    )
    return (n_chars / CHARS_PER_TOKEN + n_image_tokens) / len(requests)


def _read_image_sizes(lake: Lake, stage: ModelStage[Any, Any], image_ids: Set[str]) -> dict[str, tuple[int, int]]:
    """Return (width, height) by image id: columns of the lake, or of a stage's own images their headers."""
    if stage.fetch_images is None:
        properties = lake.get_images(stage.source).read_properties(image_ids)
        return {image_id: (image.width, image.height) for image_id, image in properties.items()}
    return {
        image_id: Image.open(io.BytesIO(data)).size for image_id, data in stage.fetch_images(sorted(image_ids)).items()
    }


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
