"""Judge probes: the pairs that ship, and how a judge's verdicts on them are counted."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from mvl_assets.answer_matching.numbers import parse_numbers
from mvl_assets.errors import MvlError
from mvl_assets.judging.probe_images import render_probe_png
from mvl_assets.judging.probes import (
    PROBE_FAULTS,
    JudgeResponse,
    PairResult,
    compute_probe_score,
    load_probes,
    run_probes,
)
from mvl_assets.lake.lake import Lake
from tests.rewriting.small_source import profile
from tests.servers import serving

PROBES = load_probes()


def test_each_fault_of_the_paper_has_equally_many_pairs():
    assert set(Counter(case.fault for case in PROBES.pairs).items()) == {(fault, 4) for fault in PROBE_FAULTS}
    assert {case.image for case in PROBES.pairs} == set(PROBES.images)
    for case in PROBES.pairs:
        assert case.good != case.bad and case.reason.endswith(".")
        # The fault alone tells them apart: same question, unless the question is the fault or leads to it.
        assert case.good.question == case.bad.question or case.fault in ("off_image", "unseen_content")
        assert 0.4 < len(case.good.answer) / len(case.bad.answer) < 2.5 or case.fault == "off_image"


def test_a_wrong_step_ends_with_the_right_result():
    for case in PROBES.pairs:
        if case.fault == "wrong_step":
            assert parse_numbers(case.good.answer)[-1].value == parse_numbers(case.bad.answer)[-1].value


@pytest.mark.parametrize("name", PROBES.images)
def test_probe_images_are_deterministic_and_large_enough_for_a_model(name: str):
    data = render_probe_png(PROBES.images[name])
    assert data == render_probe_png(PROBES.images[name])
    with Image.open(io.BytesIO(data)) as image:
        assert min(image.size) >= 224
        assert len(image.getcolors(1 << 20) or []) > 2


def test_probe_files_with_errors_are_refused_with_a_reason(tmp_path: Path):
    with pytest.raises(KeyError, match="poem"):
        render_probe_png({"kind": "poem"})
    path = tmp_path / "probes.yaml"
    path.write_text("images: {}\npairs:\n  - {fault: rude, reason: w, image: p}\n", encoding="utf-8")
    with pytest.raises(MvlError, match=r"probes.yaml:3: pairs.0.fault"):
        load_probes(path)
    output = "{question: q, answer: a}"
    path.write_text(
        f"images: {{}}\npairs:\n  - {{fault: off_image, reason: w, image: p, good: {output}, bad: {output}}}\n",
        encoding="utf-8",
    )
    with pytest.raises(MvlError, match="no image is described for p"):
        load_probes(path)


def test_a_judge_gets_every_criterion_with_the_image_once(lake: Lake):
    pictures = {name: render_probe_png(description) for name, description in PROBES.images.items()}
    with serving() as (server, endpoint):
        server.record_bodies = True
        asked = run_probes(lake, profile(), PROBES, pictures, run_id="r", endpoints=[endpoint])
        assert len(server.bodies) == len(PROBES.pairs) * 2 * 3
        assert all(body["messages"][0]["content"][1]["type"] == "image_url" for body in server.bodies)
    # No endpoint: only an attempt to send would notice.
    assert run_probes(lake, profile(), PROBES, pictures, run_id="r2") == asked
    result = compute_probe_score(asked)
    assert (result.n_pairs, result.n_unanswered) == (16, 0)
    assert result.true_keeps == sum(one.good.all_yes for one in asked if one.good)
    assert lake.images.table.count() == 0, "the drawn pictures are no part of the lake"


def test_a_judge_that_always_says_yes_keeps_all_and_catches_nothing():
    yes, no = JudgeResponse(True, 0.9), JudgeResponse(False, 0.3)
    contrast_pair = PROBES.pairs[0]
    always = compute_probe_score([PairResult(contrast_pair, yes, yes)] * 4)
    assert (always.true_rejects, always.true_keeps, always.ranked_correctly) == (0, 4, 0)
    right = compute_probe_score([PairResult(contrast_pair, yes, no), PairResult(contrast_pair, None, no)])
    assert (right.n_pairs, right.n_unanswered, right.true_rejects, right.true_keeps, right.ranked_correctly) == (
        2,
        1,
        1,
        1,
        1,
    )
