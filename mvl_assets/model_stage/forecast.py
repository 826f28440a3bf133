"""Forecasts of tokens: what a request to a model costs, by its own stored answers, else by what the prompt expects."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from mvl_assets.inference.request import ModelRef
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake

MEASURED, EXPECTED, HALF_LIMIT = "answers", "prompt", "limit"
BASES = (MEASURED, EXPECTED, HALF_LIMIT)
"""What a forecast rests on, the best first: the same model's answers, what the prompt expects, half its limit."""

# Stored answers that a mean is taken of, and how few say too little about the share of re-asks.
ANSWER_SAMPLE_SIZE, MIN_ANSWERS = 10_000, 20
# Besides chance, the next rows differ from those that are answered.
MIN_ERROR = 0.1
# An expectation is right within a factor.
EXPECTATION_FACTOR = 2.0
# Of answers, where none is stored: the share that is unusable or cut, and asked for once more.
DEFAULT_REASK_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class AnswerForecast:
    """Tokens that a model writes for one request, thoughts included: the mean, and how far it may be off.

    Attributes:
        mean: The expected mean.
        low: Its lower bound.
        high: Its upper bound, at most the token limit and the thoughts.
        basis: `MEASURED`, `EXPECTED` or `HALF_LIMIT`.
    """

    mean: float
    low: float
    high: float
    basis: str


def forecast_answer(
    lake: Lake, stage: str, source: str, model: ModelRef, prompt_name: str, max_tokens: int, expected: ExpectedTokens
) -> AnswerForecast:
    """Return what an answer to a prompt takes of this very model.

    Its answers about the source count, else those about other sources; never another model's.
    """
    lengths = [
        row["completion_tokens"]
        for row in islice(_iter_answer_lengths(lake, stage, source, model, prompt_name), ANSWER_SAMPLE_SIZE)
    ]
    if lengths:
        mean = sum(lengths) / len(lengths)
        deviation = math.sqrt(sum((length - mean) ** 2 for length in lengths) / len(lengths))
        # Of few answers even the deviation says little.
        error = max(MIN_ERROR * mean, 2 * deviation / math.sqrt(len(lengths))) + mean / len(lengths)
        return AnswerForecast(mean, max(0.0, mean - error), mean + error, MEASURED)
    answer_tokens = expected.by_prompt.get(prompt_name)
    basis = HALF_LIMIT if answer_tokens is None else EXPECTED
    mean = float(max_tokens / 2 if answer_tokens is None else min(answer_tokens, max_tokens))
    high = min(EXPECTATION_FACTOR * mean, max_tokens) + EXPECTATION_FACTOR * expected.thinking
    return AnswerForecast(mean + expected.thinking, (mean + expected.thinking) / EXPECTATION_FACTOR, high, basis)


@dataclass(frozen=True, slots=True)
class ExpectedTokens:
    """Tokens that a stage expects where nothing is stored: of an answer by prompt, and of thoughts before it."""

    by_prompt: Mapping[str, int]
    thinking: int = 0


def _iter_answer_lengths(
    lake: Lake, stage: str, source: str, model: ModelRef, prompt_name: str
) -> Iterator[dict[str, Any]]:
    condition = " AND ".join(
        [
            sql.equals("prompt", prompt_name),
            sql.equals("model", model.name),
            sql.equals("model_revision", model.revision),
        ]
    )
    other_names = (name.rpartition("/")[2] for name in lake.list_tables(f"answers/{stage}"))
    sources = chain([source], (name for name in other_names if name != source))
    return chain.from_iterable(
        lake.get_answer_lookup(stage, name).iter_rows(["completion_tokens"], condition) for name in sources
    )
