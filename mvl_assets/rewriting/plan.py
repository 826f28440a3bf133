"""What a stage would send for a source, before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import ModelProfile, Profile
from mvl_assets.config.prompts import Prompt, load_prompts, rewrite_prompt
from mvl_assets.inference.request import Request
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.client import BATCH, model_ref
from mvl_assets.model_stage.retry_policy import rejected
from mvl_assets.rewriting.requests import asks_for, family_of
from mvl_assets.rewriting.rewrite import STAGE

# Forecasts only. English takes about four characters a token; a seeing model of the paper's kind spends 256 tokens on a
# tile of 448 pixels, at most 12 tiles a picture.
CHARS_PER_TOKEN = 4.0
TILE, TOKENS_PER_TILE, MOST_TILES = 448, 256, 12
MEASURED = 256
# Stored answers that the length of an answer is learnt from.
LEARNT_FROM = 10_000


@dataclass(frozen=True, slots=True)
class Plan:
    """Distinct requests: `wanted == answered + left + to_send`. Tokens and money are for `to_send`, and are estimates.

    `rows` are what is asked about: samples, or rewrites. `left` failed before and wait for `mvl retry`.
    `completion_tokens` is the mean of what this prompt has cost so far, or half its token limit where nothing was asked
    yet. `gpu_hours` and `cost` are None where the model's price table has no entry for them. Re-asks are not in it.
    """

    stage: str
    source: str
    model: str
    rows: int
    wanted: int
    answered: int
    left: int
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
) -> Plan:
    """The plan of `rewrite_source` with the same arguments. Reads the lake and sends nothing."""
    family = family_of(source)
    prompt = rewrite_prompt(load_prompts() if prompts is None else prompts, family)
    model = profile.model_for("caption" if family == "caption" else "rewrite")
    most = limit if limit is not None else profile.rewrite_limit
    asks = asks_for(lake, source, prompt, model_ref(model), most)
    return plan_requests(lake, STAGE, source.slug, model, ([ask.request for ask in some] for _, some in asks))


def plan_requests(
    lake: Lake, stage: str, source: str, model: ModelProfile, by_row: Iterable[Sequence[Request]]
) -> Plan:
    """Counts requests, given row by row, against the stored answers and failures, and estimates from the first
    `MEASURED` that are to be sent. Memory holds 16 bytes a request."""
    log = lake.answers(stage, source)
    failed = rejected(lake, stage, source).left
    seen: set[bytes] = set()
    rows = answered = left = 0
    sample: list[Request] = []
    by_row = iter(by_row)
    while batch := list(islice(by_row, BATCH)):
        rows += len(batch)
        fresh = {r.key: r for requests in batch for r in requests if bytes.fromhex(r.key) not in seen}
        seen.update(bytes.fromhex(key) for key in fresh)
        known = log.answered(fresh)
        answered += len(known)
        unknown = {key: r for key, r in fresh.items() if key not in known}
        left += sum(key in failed for key in unknown)
        sample.extend(islice((r for key, r in unknown.items() if key not in failed), MEASURED - len(sample)))
    to_send = len(seen) - answered - left
    asked = sum(_prompt_tokens(lake, request, model) for request in sample) / max(1, len(sample))
    said = _mean_completion(lake, stage, source, sample)
    prompt_tokens, completion_tokens = round(asked * to_send), round(said * to_send)
    return Plan(
        stage=stage,
        source=source,
        model=model.name,
        rows=rows,
        wanted=len(seen),
        answered=answered,
        left=left,
        to_send=to_send,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        gpu_hours=model.price.gpu_hours(prompt_tokens, completion_tokens),
        cost=model.price.cost(prompt_tokens, completion_tokens) or None,
        currency=model.price.currency,
    )


def _prompt_tokens(lake: Lake, request: Request, model: ModelProfile) -> float:
    chars = sum(len(text) for message in request.messages for text in _texts(message["content"]))
    tiles = 0
    for info in lake.images.describe(set(request.images)).values():
        scale = min(1.0, model.max_side / max(info.width, info.height, 1))
        across, down = (max(1, math.ceil(side * scale / TILE)) for side in (info.width, info.height))
        tiles += min(across * down, MOST_TILES)
    return chars / CHARS_PER_TOKEN + tiles * TOKENS_PER_TILE


def _texts(content: Any) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]


def _mean_completion(lake: Lake, stage: str, source: str, sample: list[Request]) -> float:
    if not sample:
        return 0.0
    prompts = sql.within("prompt", {request.prompt for request in sample})
    spent = lake.answers(stage, source).table.rows(["completion_tokens"], prompts)
    counted = [row["completion_tokens"] for row in islice(spent, LEARNT_FROM)]
    if counted:
        return sum(counted) / len(counted)
    return sum(request.max_tokens for request in sample) / len(sample) / 2
