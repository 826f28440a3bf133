"""Request plan of a stage for a source: what a run would send and cost. Nothing is sent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from mvl_assets.inference.request import Request
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.due_requests import iter_due_requests
from mvl_assets.model_stage.stage import ModelStage, RowRequests, ServedModel

# Forecasts only. English takes about four characters a token; a vision model of the paper's kind spends 256 tokens on a
# tile of 448 pixels, at most 12 tiles an image.
CHARS_PER_TOKEN = 4.0
TILE_SIDE_PX, TOKENS_PER_TILE, MAX_TILES = 448, 256, 12
PROMPT_SAMPLE_SIZE = 256
# Stored answers that the length of an answer is estimated from.
COMPLETION_SAMPLE_SIZE = 10_000


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """Distinct questions to one model: `requested == cache_hits + skipped + to_send`.

    A question counts once, by its next request: the first one, or the re-ask that follows a stored answer. Re-asks of
    answers that are still to come are not counted.

    Attributes:
        stage: The stage's name.
        source: The source.
        model: The model's name.
        rows: Rows that are asked about: samples or rewrites.
        requested: Questions in all.
        cache_hits: Those with stored answers that no re-ask follows.
        skipped: Those whose next request failed before and waits for `mvl retry`.
        to_send: Those that a run would send a request for.
        prompt_tokens: An estimate for `to_send`.
        completion_tokens: The same, from the mean of the model's answers to this prompt so far, or half the prompt's
            token limit where there is none.
        gpu_hours: An estimate; None where the model's price has no rate.
        cost: An estimate; None where the model has no price.
        currency: The currency of `cost`.
    """

    stage: str
    source: str
    model: str
    rows: int
    requested: int
    cache_hits: int
    skipped: int
    to_send: int
    prompt_tokens: int
    completion_tokens: int
    gpu_hours: float | None
    cost: float | None
    currency: str


def plan_stage(lake: Lake, stage: ModelStage[Any, Any]) -> list[RequestPlan]:
    """Return what a run of the stage would send to each of its models. Reads the lake and sends nothing."""
    return [_plan_model(lake, stage, model) for model in stage.models]


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

    for due in iter_due_requests(lake, stage, iter_counted_rows()):
        requested += 1
        if due is None:
            cache_hits += 1
        elif due.is_skipped:
            skipped += 1
        elif len(sampled_requests) < PROMPT_SAMPLE_SIZE:
            sampled_requests.append(due.request)
    to_send = requested - cache_hits - skipped
    mean_prompt_tokens = sum(
        _estimate_prompt_tokens(lake, stage.source, request) for request in sampled_requests
    ) / max(1, len(sampled_requests))
    mean_completion_tokens = _estimate_completion_tokens(lake, stage, model, sampled_requests)
    prompt_tokens, completion_tokens = round(mean_prompt_tokens * to_send), round(mean_completion_tokens * to_send)
    price = model.price
    return RequestPlan(
        stage=stage.name,
        source=stage.source,
        model=model.ref.name,
        rows=n_rows,
        requested=requested,
        cache_hits=cache_hits,
        skipped=skipped,
        to_send=to_send,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        gpu_hours=price.compute_gpu_hours(prompt_tokens, completion_tokens),
        cost=price.compute_cost(prompt_tokens, completion_tokens) or None,
        currency=price.currency,
    )


def _estimate_prompt_tokens(lake: Lake, source: str, request: Request) -> float:
    n_chars = sum(len(text) for message in request.messages for text in _extract_texts(message["content"]))
    n_tiles = 0
    for info in lake.get_images(source).read_properties(set(request.image_ids)).values():
        longest_side = max(info.width, info.height, 1)
        scale = min(1.0, (request.model.max_image_side or longest_side) / longest_side)
        across, down = (max(1, math.ceil(side * scale / TILE_SIDE_PX)) for side in (info.width, info.height))
        n_tiles += min(across * down, MAX_TILES)
    return n_chars / CHARS_PER_TOKEN + n_tiles * TOKENS_PER_TILE


def _extract_texts(content: Any) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]


def _estimate_completion_tokens(
    lake: Lake, stage: ModelStage[Any, Any], model: ServedModel, sampled_requests: list[Request]
) -> float:
    if not sampled_requests:
        return 0.0
    prompt_filter = sql.is_in("prompt", {request.prompt_name for request in sampled_requests})
    # Another model may answer in one word what this one reasons about.
    filters = f"{prompt_filter} AND {sql.equals('model', model.ref.name)}"
    answer_rows = lake.get_answer_lookup(stage.name, stage.source).iter_rows(["completion_tokens"], filters)
    completion_tokens = [row["completion_tokens"] for row in islice(answer_rows, COMPLETION_SAMPLE_SIZE)]
    if completion_tokens:
        return sum(completion_tokens) / len(completion_tokens)
    return sum(request.max_tokens for request in sampled_requests) / len(sampled_requests) / 2
