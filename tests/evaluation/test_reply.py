"""A conversation as the runner asks it: pictures where they stand, laid out as in training."""

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
from mvl_training.evaluation.student_runner import StudentRunner
from tests.evaluation.untrained import untrained_checkpoint
from tests.training import tiny_model

PICTURE, FILM = VisualPlaceholder("image", 3), VisualPlaceholder("video", 5)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> StudentRunner:
    return StudentRunner(untrained_checkpoint(tmp_path_factory.mktemp("untrained")).export_dir, max_new_tokens=6)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    return ChatTokenizer.load(tiny_model.write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def test_a_question_with_its_pictures_first_is_the_prompt_of_training(tokens: ChatTokenizer) -> None:
    for visuals in ([], [PICTURE], [PICTURE, PICTURE], [FILM]):
        asked = encode_chat_prompt([("user", [*visuals, "What?\nSay."])], tokens, system_prompt="S")
        assert asked == encode_prompt("What?\nSay.", visuals, tokens, system_prompt="S")


@pytest.mark.parametrize(
    "messages",
    [
        [("user", ["First: ", PICTURE, "Second: ", PICTURE, "Which?"])],
        [("system", ["Be short."]), ("user", [PICTURE, "What?"])],
        [("user", ["Look."]), ("assistant", ["I do."]), ("user", [PICTURE, PICTURE])],
        [("user", [FILM, "What moves in <image>?"])],
    ],
)
def test_any_conversation_is_what_the_exported_template_renders(tokens: ChatTokenizer, messages: list[Any]) -> None:
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
    said, plain = "", []
    once = [
        (role, [p if isinstance(p, str) else VisualPlaceholder(p.kind, 1) for p in parts]) for role, parts in messages
    ]
    for token in encode_chat_prompt(once, tokens, system_prompt="S"):
        if token in names:
            said, plain = said + tokens.decode(plain) + names[token], []
        else:
            plain.append(token)
    assert said + tokens.decode(plain) == rendered


def test_the_runner_answers_a_conversation_as_it_answers_a_question(runner: StudentRunner) -> None:
    red, blue = tiny_model.draw("circle", "red"), tiny_model.draw("square", "blue")
    for pictures in ([], [red], [red, blue]):
        (said,) = runner.answer_questions([(pictures, "What?")])
        assert runner.generate_reply([("user", [*pictures, "What?"])], max_new_tokens=6) == said != ""


def test_where_a_picture_stands_and_in_which_order_is_seen_by_the_model(
    runner: StudentRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_film_takes_the_tokens_of_a_film(runner: StudentRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [tiny_model.draw("circle", "red", at=(n, n)) for n in (0, 40, 80)]
    seen: list[Any] = []
    embed = runner.student.embed_inputs
    monkeypatch.setattr(runner.student, "embed_inputs", lambda batch: seen.append(batch) or embed(batch))
    runner.generate_reply([("user", [frames, "What moves?", frames[0]])], max_new_tokens=1)
    (batch,) = seen
    assert [layout.kind for layout in batch.layouts] == ["video", "anyres"]
    assert len(batch.tiles_T3PP) == sum(layout.n_tiles for layout in batch.layouts)


def test_a_conversation_that_does_not_fit_is_refused_instead_of_cut(runner: StudentRunner) -> None:
    with pytest.raises(MvlError, match="do not fit into the 2048 positions"):
        runner.generate_reply([("user", ["a" * 2100])])


def test_an_export_is_found_from_its_folder(runner: StudentRunner, tmp_path: Path) -> None:
    checkpoint = untrained_checkpoint(tmp_path)
    assert StudentRunner(checkpoint.output_dir, max_new_tokens=6).answer_questions(
        [([], "Hi")]
    ) == runner.answer_questions([([], "Hi")])
