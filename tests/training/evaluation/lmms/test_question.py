"""Questions of the pipe, built from those of lmms-eval without changing them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mvl_training.evaluation.lmms import question as asked
from mvl_training.evaluation.lmms.question import (
    DEFAULT_MAX_NEW_TOKENS,
    QuestionError,
    build_benchmark_question,
    iter_question_batches,
    resolve_stop_sequences,
    truncate_at_stop,
)
from mvl_training.evaluation.tasks import utils

SAYS_NOTHING = {"until": ["\n\n"], "do_sample": False}


def _output(content: Any, settings: dict[str, Any] | None = None, bound: int | None = None) -> dict[str, Any]:
    return build_benchmark_question(
        "t", [{"role": "user", "content": content}], settings or SAYS_NOTHING, max_new_tokens=bound
    )


def test_images_keep_their_places_and_every_pixel() -> None:
    pictures = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    doc = {"images": pictures, "text": "First picture: <image>\nSecond picture: <image>\nWhich?", "answer": "first"}
    (message,) = utils.doc_to_messages(doc)
    (asked_message,) = _output(message["content"])["messages"]
    parts = asked_message["parts"]
    assert [next(iter(part)) for part in parts] == ["text", "image", "text", "image", "text"]
    assert [part["text"] for part in parts[::2]] == ["First picture: ", "Second picture: ", "Which?"]
    for part, image in zip(parts[1::2], pictures, strict=True):
        with Image.open(io.BytesIO(base64.b64decode(part["image"]))) as sent:
            assert list(sent.getdata()) == list(image.getdata())


def test_every_answer_is_limited_by_the_caller_the_task_or_a_default() -> None:
    assert _output("Hi", {"max_new_tokens": 16})["max_new_tokens"] == 16
    assert _output("Hi", {"max_new_tokens": 16}, bound=512)["max_new_tokens"] == 512
    assert _output("Hi")["max_new_tokens"] == DEFAULT_MAX_NEW_TOKENS


@pytest.mark.parametrize("settings", [{"do_sample": True}, {"temperature": 0.7}, {"num_beams": 4}])
def test_a_task_that_requires_sampled_answers_is_rejected(settings: dict[str, Any]) -> None:
    with pytest.raises(QuestionError, match=r"t requires .*greedy"):
        _output("Hi", settings)


def test_a_temperature_without_sampling_is_accepted() -> None:
    assert _output("Hi", {"temperature": 0.2, "do_sample": False, "num_beams": 1})


def test_videos_are_sent_as_paths_and_unsupported_media_are_refused(tmp_path: Path) -> None:
    video = {"type": "video", "url": str(tmp_path / "a.mp4")}
    assert _output([video])["messages"][0]["parts"] == [{"video": str(tmp_path / "a.mp4")}]
    for part in (
        {**video, "start_time": 3.0},
        {"type": "audio", "url": "a.wav"},
        {"type": "video", "url": {"path": "a"}},
    ):
        with pytest.raises(QuestionError, match="cannot be shown"):
            _output([part])


def test_stop_sequences_of_the_task_truncate_and_that_of_lmms_eval_does_not() -> None:
    assert resolve_stop_sequences(SAYS_NOTHING, "\n\n") == []
    assert resolve_stop_sequences({"until": ["ASSISTANT:"]}, "\n\n") == ["ASSISTANT:"]
    assert resolve_stop_sequences({"until": "\n"}, "\n\n") == ["\n"]
    assert resolve_stop_sequences({"until": None}, "\n\n") == []
    reasoned = "First.\n\nSo B.\nASSISTANT: more"
    assert truncate_at_stop(reasoned, []) == reasoned
    assert truncate_at_stop(reasoned, ["ASSISTANT:", "zzz"]) == "First.\n\nSo B.\n"
    assert truncate_at_stop(reasoned, ["So", "First"]) == ""


def test_question_batches_are_bounded_and_built_lazily(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "MAX_QUESTIONS_PER_LINE", 3)
    monkeypatch.setattr(asked, "MAX_BYTES_PER_LINE", 1000)
    made: list[int] = []

    def ask(size: int) -> dict[str, Any]:
        made.append(size)
        return {"messages": [{"parts": [{"image": "x" * size}]}]}

    sizes = [10, 10, 10, 10, 990, 2000, 5]
    sent = iter_question_batches(ask(size) for size in sizes)
    assert len(next(sent)) == 3 and len(made) == 4
    assert [len(line) for line in sent] == [2, 1, 1]


@pytest.mark.parametrize(
    ("answer", "said", "score"),
    [
        ("4", "4", 1),
        ("4", "There are 4 discs, not 5.", 1),
        ("4", "14", 0),
        ("B", " b. red", 1),
        ("B", "Blue is the highest: C", 0),
        ("first", "In the First picture", 1),
        ("first", "second", 0),
        ("4", "", 0),
    ],
)
def test_the_first_possible_answer_in_a_text_is_scored(answer: str, said: str, score: int) -> None:
    assert utils.process_results({"answer": answer}, [said]) == {"exact_match": float(score)}


def test_a_system_prompt_comes_before_the_tasks_own_messages() -> None:
    own = [{"role": "user", "content": "What?"}]
    question = build_benchmark_question("t", own, SAYS_NOTHING, max_new_tokens=None, system_prompt="You help.")
    assert question["messages"] == [
        {"role": "system", "parts": [{"text": "You help."}]},
        {"role": "user", "parts": [{"text": "What?"}]},
    ]
