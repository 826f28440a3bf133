"""What a stage would send for a source, before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import ModelProfile, Profile
from mvl_assets.config.prompts import Prompt, get_rewrite_prompt, load_prompts
from mvl_assets.inference.request import Request
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.client import REQUEST_BATCH_SIZE, to_model_ref
from mvl_assets.model_stage.retry_policy import load_previous_failures
from mvl_assets.rewriting.requests import iter_requests, resolve_prompt_family
from mvl_assets.rewriting.rewrite import REWRITE_STAGE

# Forecasts only. English takes about four characters a token; a seeing model of the paper's kind spends 256 tokens on a
# tile of 448 pixels, at most 12 tiles a picture.
CHARS_PER_TOKEN = 4.0
TILE_SIDE_PX, TOKENS_PER_TILE, MAX_TILES = 448, 256, 12
PROMPT_SAMPLE_SIZE = 256
# Stored answers that the length of an answer is learnt from.
COMPLETION_SAMPLE_SIZE = 10_000


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """Distinct requests: `wanted == answered + left + to_send`. Tokens and money are for `to_send`, and are estimates.

    `n_rows` are what is asked about: samples, or rewrites. `skipped` failed before and wait for `mvl retry`.
    `completion_tokens` is the mean of what this prompt has cost so far, or half its token limit where nothing was asked
    yet. `compute_gpu_hours` and `cost` are None where the model's price table has no entry for them. Re-asks are not in it.
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


def plan_rewrite(
    lake: Lake,
    source: SourceSpec,
    profile: Profile,
    *,
    prompts: Mapping[str, Prompt] | None = None,
    limit: int | None = None,
) -> RequestPlan:
    """The plan of `rewrite_source` with the same arguments. Reads the lake and sends nothing."""
    family = resolve_prompt_family(source)
    prompt = get_rewrite_prompt(load_prompts() if prompts is None else prompts, family)
    model = profile.get_rewriter(family)
    sample_limit = limit if limit is not None else profile.rewrite_limit
    requests_by_sample = iter_requests(lake, source, prompt, to_model_ref(model), sample_limit)
    return plan_requests(
        lake,
        REWRITE_STAGE,
        source.slug,
        model,
        (
            [rewrite_request.request for rewrite_request in rewrite_requests]
            for _, rewrite_requests in requests_by_sample
        ),
    )


def plan_requests(
    lake: Lake, stage: str, source: str, model: ModelProfile, requests_by_row: Iterable[Sequence[Request]]
) -> RequestPlan:
    """Counts requests, given row by row, against the stored answers and failures, and estimates from the first
    `PROMPT_SAMPLE_SIZE` that are to be sent. Memory holds 16 bytes a request."""
    log = lake.get_answer_log(stage, source)
    skipped_failures = load_previous_failures(lake, stage, source).skipped
    seen_keys: set[bytes] = set()
    rows = cache_hits = skipped = 0
    sampled_requests: list[Request] = []
    requests_by_row = iter(requests_by_row)
    while batch := list(islice(requests_by_row, REQUEST_BATCH_SIZE)):
        rows += len(batch)
        new_requests = {r.key: r for requests in batch for r in requests if bytes.fromhex(r.key) not in seen_keys}
        seen_keys.update(bytes.fromhex(key) for key in new_requests)
        answered_keys = log.find_answered(new_requests)
        cache_hits += len(answered_keys)
        unanswered_requests = {key: r for key, r in new_requests.items() if key not in answered_keys}
        skipped += sum(key in skipped_failures for key in unanswered_requests)
        sampled_requests.extend(
            islice(
                (r for key, r in unanswered_requests.items() if key not in skipped_failures),
                PROMPT_SAMPLE_SIZE - len(sampled_requests),
            )
        )
    to_send = len(seen_keys) - cache_hits - skipped
    mean_prompt_tokens = sum(_estimate_prompt_tokens(lake, request, model) for request in sampled_requests) / max(
        1, len(sampled_requests)
    )
    mean_completion_tokens = _estimate_completion_tokens(lake, stage, source, sampled_requests)
    prompt_tokens, completion_tokens = round(mean_prompt_tokens * to_send), round(mean_completion_tokens * to_send)
    return RequestPlan(
        stage=stage,
        source=source,
        model=model.name,
        rows=rows,
        requested=len(seen_keys),
        cache_hits=cache_hits,
        skipped=skipped,
        to_send=to_send,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        gpu_hours=model.price.compute_gpu_hours(prompt_tokens, completion_tokens),
        cost=model.price.compute_cost(prompt_tokens, completion_tokens) or None,
        currency=model.price.currency,
    )


def _estimate_prompt_tokens(lake: Lake, request: Request, model: ModelProfile) -> float:
    n_chars = sum(len(text) for message in request.messages for text in _extract_texts(message["content"]))
    n_tiles = 0
    for info in lake.images.read_properties(set(request.image_ids)).values():
        scale = min(1.0, model.max_image_side / max(info.width, info.height, 1))
        across, down = (max(1, math.ceil(side * scale / TILE_SIDE_PX)) for side in (info.width, info.height))
        n_tiles += min(across * down, MAX_TILES)
    return n_chars / CHARS_PER_TOKEN + n_tiles * TOKENS_PER_TILE


def _extract_texts(content: Any) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]


def _estimate_completion_tokens(lake: Lake, stage: str, source: str, sampled_requests: list[Request]) -> float:
    if not sampled_requests:
        return 0.0
    prompt_filter = sql.is_in("prompt", {request.prompt_name for request in sampled_requests})
    answer_rows = lake.get_answer_log(stage, source).table.iter_rows(["completion_tokens"], prompt_filter)
    completion_tokens = [row["completion_tokens"] for row in islice(answer_rows, COMPLETION_SAMPLE_SIZE)]
    if completion_tokens:
        return sum(completion_tokens) / len(completion_tokens)
    return sum(request.max_tokens for request in sampled_requests) / len(sampled_requests) / 2
