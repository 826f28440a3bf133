"""Conversations as the student runner encodes them: images in place, laid out as in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest

from mvl_assets.errors import MvlError
from mvl_training.data.chat_format import (
    ChatTokenizer,
    VisualPlaceholder,
    build_chat_template,
    encode_chat_prompt,
    encode_prompt,
)
from mvl_training.evaluation.student_runner import Conversation, StudentRunner
from tests.training import tiny_model
from tests.training.evaluation.untrained import untrained_checkpoint

IMAGE, VIDEO = VisualPlaceholder("image", 3), VisualPlaceholder("video", 5)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> StudentRunner:
    return StudentRunner(untrained_checkpoint(tmp_path_factory.mktemp("untrained")).export_dir, max_new_tokens=6)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    return ChatTokenizer.load(tiny_model.write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def test_a_question_with_its_images_first_has_the_prompt_of_training(tokens: ChatTokenizer) -> None:
    for visuals in ([], [IMAGE], [IMAGE, IMAGE], [VIDEO]):
        asked = encode_chat_prompt([("user", [*visuals, "What?\nSay."])], tokens, system_prompt="S")
        assert asked == encode_prompt("What?\nSay.", visuals, tokens, system_prompt="S")


@pytest.mark.parametrize(
    "messages",
    [
        [("user", ["First: ", IMAGE, "Second: ", IMAGE, "Which?"])],
        [("system", ["Be short."]), ("user", [IMAGE, "What?"])],
        [("user", ["Look."]), ("assistant", ["I do."]), ("user", [IMAGE, IMAGE])],
        [("user", [VIDEO, "What moves in <image>?"])],
    ],
)
def test_encoding_a_conversation_equals_the_exported_template(tokens: ChatTokenizer, messages: list[Any]) -> None:
    def content(parts: list[Any]) -> list[dict[str, str]]:
        return [{"type": "text", "text": p} if isinstance(p, str) else {"type": p.kind} for p in parts]

    template = jinja2.Environment().from_string(build_chat_template("S"))
    listed = [{"role": role, "content": content(parts)} for role, parts in messages]
    rendered = template.render(messages=listed, add_generation_prompt=True)
    names = {
        tokens.image_token_id: "<image>",
        tokens.video_token_id: "<video>",
        tokens.im_start_id: "<|im_start|>",
        tokens.im_end_id: "<|im_end|>",
    }
    answers, plain = "", []
    once = [
        (role, [p if isinstance(p, str) else VisualPlaceholder(p.kind, 1) for p in parts]) for role, parts in messages
    ]
    for token in encode_chat_prompt(once, tokens, system_prompt="S"):
        if token in names:
            answers, plain = answers + tokens.decode(plain) + names[token], []
        else:
            plain.append(token)
    assert answers + tokens.decode(plain) == rendered


def test_a_one_turn_conversation_gets_the_answer_of_a_question(runner: StudentRunner) -> None:
    red, blue = tiny_model.draw("circle", "red"), tiny_model.draw("square", "blue")
    for images in ([], [red], [red, blue]):
        (answers,) = runner.answer_questions([(images, "What?")])
        assert runner.generate_reply([("user", [*images, "What?"])], max_new_tokens=6) == answers != ""


def test_place_and_order_of_images_reach_the_model(runner: StudentRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    red, blue = tiny_model.draw("circle", "red"), tiny_model.draw("square", "blue")
    seen: list[Any] = []
    embed = runner.student.embed_inputs
    monkeypatch.setattr(runner.student, "embed_inputs", lambda batch: seen.append(batch) or embed(batch))
    runner.generate_reply([("user", ["a", red, "b", blue])], max_new_tokens=1)
    runner.generate_reply([("user", ["a", blue, "b", red])], max_new_tokens=1)
    runner.generate_reply([("user", [red, blue, "ab"])], max_new_tokens=1)
    first, swapped, ahead = seen
    assert [layout.kind for layout in first.layouts] == ["padded", "padded"]
    assert first.visual_positions_V.tolist() == swapped.visual_positions_V.tolist() != ahead.visual_positions_V.tolist()
    half = len(first.tiles_T3PP) // 2
    assert (first.tiles_T3PP[:half] == swapped.tiles_T3PP[half:]).all()
    assert (first.tiles_T3PP == ahead.tiles_T3PP).all()


def test_a_video_takes_the_tiles_of_a_video(runner: StudentRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [tiny_model.draw("circle", "red", at=(n, n)) for n in (0, 40, 80)]
    seen: list[Any] = []
    embed = runner.student.embed_inputs
    monkeypatch.setattr(runner.student, "embed_inputs", lambda batch: seen.append(batch) or embed(batch))
    runner.generate_reply([("user", [frames, "What moves?", frames[0]])], max_new_tokens=1)
    (batch,) = seen
    assert [layout.kind for layout in batch.layouts] == ["video", "anyres"]
    assert len(batch.tiles_T3PP) == sum(layout.n_tiles for layout in batch.layouts)


def test_a_conversation_longer_than_the_model_is_refused_not_truncated(runner: StudentRunner) -> None:
    with pytest.raises(MvlError, match="do not fit into the 2048 positions"):
        runner.generate_reply([("user", ["a" * 2100])])


def test_an_export_is_found_from_its_output_dir(runner: StudentRunner, tmp_path: Path) -> None:
    checkpoint = untrained_checkpoint(tmp_path)
    assert StudentRunner(checkpoint.output_dir, max_new_tokens=6).answer_questions(
        [([], "Hi")]
    ) == runner.answer_questions([([], "Hi")])


def test_a_batch_gets_the_answers_of_each_conversation_alone(runner: StudentRunner) -> None:
    red, blue = tiny_model.draw("circle", "red"), tiny_model.draw("square", "blue", (480, 230))
    conversations = [
        Conversation([("user", parts)], budget)
        for parts, budget in (
            ([red, "What is it?"], 6),
            (["Hi"], 12),
            ([red, blue, "Which of the two is larger, and why?"], 3),
            ([blue, "What?"], 6),
            ([[red, blue, red], "What moves?"], 6),
        )
    ]
    alone = [runner.generate_reply(c.messages, max_new_tokens=c.max_new_tokens) for c in conversations]
    assert runner.generate_replies(conversations) == alone
    assert len(set(alone)) == len(alone)


def test_batches_hold_what_the_limit_of_tokens_allows(runner: StudentRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    generate = runner.student.llava.generate
    monkeypatch.setattr(
        runner.student.llava, "generate", lambda **kw: sizes.append(len(kw["inputs_embeds"])) or generate(**kw)
    )
    monkeypatch.setattr(runner, "batch_tokens", 120)
    questions: list[tuple[list[bytes], str]] = [([], "a" * n) for n in (1, 2, 3, 150)]
    answers = runner.answer_questions(questions)
    assert sizes == [3, 1], "a question that is longer than the limit is asked alone"
    assert answers == [runner.answer_questions([question])[0] for question in questions]


def test_losses_of_packed_samples_are_those_of_each_alone(runner: StudentRunner) -> None:
    samples: list[tuple[list[bytes], str, str]] = [
        ([tiny_model.draw("circle", "red")], "What?", "a circle"),
        ([], "Say it.", "it"),
    ]
    alone = [runner.compute_losses([sample])[0] for sample in samples]
    assert runner.compute_losses(samples) == pytest.approx(alone, rel=1e-5)
