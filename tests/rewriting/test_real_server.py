"""Rewriting and judging against the real vLLM server with the small text model."""

from __future__ import annotations

import pytest
from small_source import CHART, MATH, profile, put

from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.judging.judge import judge_source
from mvl_assets.lake.lake import Lake
from mvl_assets.rewriting.rewrite import rewrite_source

pytestmark = [pytest.mark.server, pytest.mark.soak]


def test_a_small_text_model_writes_rows_and_verdicts(lake: Lake, vllm_server: Endpoint):
    text_only = profile(sees_images=False, rule="answer_agrees")
    for source in (MATH, CHART):
        put(lake, source, range(3))
        written = rewrite_source(lake, source, text_only, run_id="r1", endpoints=[vllm_server])
        answered = {row["sample_id"] for row in lake.table(f"rewritten/{source.category}").rows()}
        # Every sample is exactly one of rewritten and rejected, and a small model still manages most.
        assert len(answered) + sum(written.unusable.values()) == 3
        assert len(answered) >= 2
        assert written.blind == written.rows
        judged = judge_source(lake, source, text_only, run_id="r1", endpoints=[vllm_server])
        assert (judged.rows, judged.unusable) == (written.rows, {})
        for row in lake.table(f"judged/{source.category}").rows():
            assert all(0 < v["p_yes"] < 1 for v in row["verdicts"])
        assert rewrite_source(lake, source, text_only, run_id="r2").sent == 0
        assert judge_source(lake, source, text_only, run_id="r2").sent == 0
