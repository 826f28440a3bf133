"""The server backend with a fake server: each question once, with its images and with grey ones."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from mvl_assets.inference.local_server import server
from mvl_assets.inference.local_server.server_spec import ServerSpec
from mvl_assets.inference.request import ModelRef
from mvl_assets.lake.lake import Lake
from mvl_assets.media.image import GREY
from mvl_training.evaluation.held_out import server_client
from mvl_training.evaluation.held_out.questions import HeldOutQuestion
from mvl_training.evaluation.held_out.suite import select_held_out_questions
from mvl_training.recipe import load_recipe
from mvl_training.runs.training_run import Checkpoint

CHECKPOINT = Checkpoint("one_vision", Path("/no/export"), "v1", 512)
FAKE = (sys.executable, "-m", "mvl_assets.inference.testing.fake_server", "--port")
MODEL = ModelRef("student", "v1")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The checkpoint's server is the fake one, whose name is whatever it is asked for; collects what is logged."""
    _serve_by(monkeypatch, FAKE)
    yield []
    server.stop_servers()


def _serve_by(monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    def spec(*_: object, **__: object) -> ServerSpec:
        return ServerSpec(model="fake", served_model_name="fake", idle_timeout_s=30.0, command=command)

    monkeypatch.setattr(server_client, "build_server_spec", spec)


def _ask(lake: Lake, questions: list[HeldOutQuestion], log: list[str], checkpoint: Checkpoint = CHECKPOINT) -> dict:
    return server_client.request_answers(lake, checkpoint, questions, max_new_tokens=8, run_id="r1", log=log.append)


def test_every_question_is_answered_and_a_rerun_starts_no_server(lake: Lake, fake: list[str]) -> None:
    questions = select_held_out_questions(lake, ["general", "language"], 0.999999, per_category=3)
    # Two rows with the same words and no image are one request.
    twin = dataclasses.replace(next(q for q in questions if not q.image_ids), question_id="f" * 32)
    questions.append(twin)
    answers = _ask(lake, questions, fake)
    assert answers.keys() == {question.question_id for question in questions}
    for question in questions:
        row = answers[question.question_id]
        assert row.answer
        assert (row.blank_image_answer is None) == (not question.image_ids)
    assert fake == ["asking the server of one_vision 9 requests"]

    server.stop_servers()
    assert _ask(lake, questions, fake) == answers
    server_client.start_server(lake, CHECKPOINT, questions, max_new_tokens=8)
    assert len(fake) == 1 and server.list_servers() == []
    _ask(lake, questions, fake, dataclasses.replace(CHECKPOINT, version="v2"))
    assert len(fake) == 2, "another checkpoint is asked anew"


def test_a_failed_question_is_an_error_not_a_wrong_answer(
    lake: Lake, fake: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _serve_by(monkeypatch, (*FAKE[:-1], "--fault", "400=1.0", "--port"))
    questions = select_held_out_questions(lake, ["language"], 0.999999, per_category=2)
    with pytest.raises(server_client.UnansweredQuestionsError, match="2 of 2 requests to one_vision failed"):
        _ask(lake, questions, fake)


def test_a_blank_image_request_differs_only_in_its_images(lake: Lake) -> None:
    (question,) = select_held_out_questions(lake, ["general"], 0.999999, per_category=1)
    true, grey = (
        server_client.build_request(question, MODEL, max_new_tokens=8, blank_images=flag) for flag in (False, True)
    )
    assert true.key != grey.key
    assert true.messages[0]["content"][-1] == grey.messages[0]["content"][-1]
    images = server_client.fetch_images(lake, [*true.image_ids, *grey.image_ids])
    with (
        Image.open(io.BytesIO(images[true.image_ids[0]])) as seen,
        Image.open(io.BytesIO(images[grey.image_ids[0]])) as blank,
    ):
        assert blank.size == seen.size
        assert blank.convert("RGB").getcolors() == [(blank.width * blank.height, GREY)]


def test_the_demo_model_has_head_sizes_that_vllm_serves_on_cpu() -> None:
    config = load_recipe("demo").language.config or {}
    # `CPUAttentionBackend.get_supported_head_sizes` of vLLM 0.32; other sizes end the engine at the first request.
    assert config["hidden_size"] / config["num_attention_heads"] in (32, 64, 80, 96, 112, 128, 160, 192, 224, 256)


def test_the_server_spec_allows_the_longest_sequence_and_the_most_images(lake: Lake) -> None:
    questions = select_held_out_questions(lake, ["general"], 0.999999, per_category=2)
    many = dataclasses.replace(questions[0], image_ids=questions[0].image_ids * 3)
    spec = server_client.build_server_spec(CHECKPOINT, [*questions, many], max_new_tokens=8)
    assert spec.max_model_len == 520
    assert spec.args[-1] == '{"image": 3}'
