"""Requests to send, a fresh answer log, and options that keep tests short."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.request import TEXT_OUTPUT, ModelRef, OutputFormat, Request
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.lake import Lake
from tests.patience import PATIENCE_S

MODEL = ModelRef("fake", "1")


def build_request(text: str, output: OutputFormat = TEXT_OUTPUT, **sampling: object) -> Request:
    return Request(
        messages=({"role": "user", "content": text},),
        model=MODEL,
        sampling={"max_tokens": 16, "temperature": 0, **sampling},
        prompt_name="test",
        prompt_hash="0" * 32,
        output=output,
    )


def build_requests(count: int, prefix: str = "question") -> list[Request]:
    return [build_request(f"{prefix} {i}") for i in range(count)]


@pytest.fixture
def new_log(tmp_path: Path) -> Callable[[], AnswerLog]:
    """A function that opens the same answers with a fresh handle, as a new process does."""
    return lambda: Lake(str(tmp_path / "lake")).get_answer_log("rewritten", "source")


@pytest.fixture
def quick() -> EngineOptions:
    """Options with short pauses; what a busy machine delays is neither an outage nor sent twice."""
    return EngineOptions(
        backoff_base_s=0.01,
        backoff_cap_s=0.05,
        flush_interval_s=0.1,
        probe_interval_s=0.05,
        outage_timeout_s=PATIENCE_S,
        initial_outage_timeout_s=PATIENCE_S,
        hedge_requests=False,
    )
