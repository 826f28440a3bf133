"""Labels, markers and the chat format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mvl_assets.errors import MvlError
from mvl_training.data.chat_format import IGNORE, ChatTokens, Encoded, Unusable, Visual, chat_template, encode, prompt

TURNS = [
    {"from": "human", "value": "<image>\nWhat?\nSay."},
    {"from": "gpt", "value": "A cat."},
    {"from": "human", "value": "Sure?"},
    {"from": "gpt", "value": "Yes\nindeed"},
]


def chatml(tokens: ChatTokens, turns=TURNS, visuals=(Visual("image", 3),), **options) -> Encoded:
    return encode(turns, visuals, tokens, style="chatml", system="S", **options)


def shown(tokens: ChatTokens, ids) -> str:
    return tokens._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)


def trained(tokens: ChatTokens, encoded: Encoded) -> str:
    return shown(tokens, encoded.ids[encoded.labels != IGNORE])


def test_a_conversation_reads_as_chatml(tokens: ChatTokens) -> None:
    assert shown(tokens, chatml(tokens).ids) == (
        "<|im_start|>system\nS<|im_end|>\n"
        "<|im_start|>user\n<image><image><image>\nWhat?\nSay.<|im_end|>\n"
        "<|im_start|>assistant\nA cat.<|im_end|>\n"
        "<|im_start|>user\nSure?<|im_end|>\n"
        "<|im_start|>assistant\nYes\nindeed<|im_end|>\n"
    )


def test_the_loss_is_taken_on_answers_and_their_end(tokens: ChatTokens) -> None:
    encoded = chatml(tokens)
    assert trained(tokens, encoded) == "A cat.<|im_end|>Yes\nindeed<|im_end|>"
    kept = encoded.labels != IGNORE
    assert np.array_equal(encoded.labels[kept], encoded.ids[kept])
    assert encoded.targets == kept.sum()


def test_paper_parity_also_trains_on_markers_and_newlines_of_user_turns(tokens: ChatTokens) -> None:
    encoded = chatml(tokens, paper_parity=True)
    assert trained(tokens, encoded) == (
        "<|im_start|>\n<|im_end|>\n"
        "<|im_start|>\n\n\n<|im_end|>\n"
        "<|im_start|>assistant\nA cat.<|im_end|>\n"
        "<|im_start|>\n<|im_end|>\n"
        "<|im_start|>assistant\nYes\nindeed<|im_end|>\n"
    )
    assert np.array_equal(encoded.ids, chatml(tokens).ids)
    assert encoded.targets == (encoded.labels != IGNORE).sum() - 1  # nothing predicts the first token


def test_a_system_turn_of_the_data_replaces_the_default_unless_parity_is_asked(tokens: ChatTokens) -> None:
    turns = [{"from": "system", "value": "Own"}, *TURNS]
    assert shown(tokens, chatml(tokens, turns).ids).startswith("<|im_start|>system\nOwn<|im_end|>")
    assert shown(tokens, chatml(tokens, turns, paper_parity=True).ids).startswith("<|im_start|>system\nS<|im_end|>")


def test_plain_style_is_pictures_caption_newline(tokens: ChatTokens) -> None:
    turns = [{"from": "human", "value": "Describe.\n<image>"}, {"from": "gpt", "value": "A cat."}]
    encoded = encode(turns, [Visual("image", 4)], tokens, style="plain", system="S")
    assert shown(tokens, encoded.ids) == "<image>" * 4 + "A cat.\n"
    assert trained(tokens, encoded) == "A cat.\n"
    with pytest.raises(Unusable, match="not_one_caption"):
        encode(TURNS, [Visual("image", 4)], tokens, style="plain", system="S")


def test_text_of_a_sample_cannot_end_a_turn_or_bring_a_picture(tokens: ChatTokens) -> None:
    turns = [
        {"from": "human", "value": "What is <|im_end|>?"},
        {"from": "gpt", "value": "<image> and <|im_start|> are markers"},
    ]
    encoded = chatml(tokens, turns, ())
    assert (encoded.ids == tokens.end).sum() == 3
    assert (encoded.ids == tokens.image).sum() == 0


@pytest.mark.parametrize(
    ("turns", "visuals", "error"),
    [
        (TURNS, (), "marker_mismatch"),
        (TURNS, (Visual("image", 3), Visual("image", 3)), "marker_mismatch"),
        (TURNS, (Visual("video", 3),), "marker_mismatch"),
        ([{"from": "tool", "value": "x"}], (), "unknown_role"),
        ([{"from": "human", "value": "x"}, {"from": "gpt", "value": "  "}], (), "no_answer"),
        ([{"from": "human", "value": "x"}, {"from": "gpt", "value": None}], (), "no_answer"),
        ([], (), "no_answer"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_by_name(tokens: ChatTokens, turns, visuals, error: str) -> None:
    with pytest.raises(Unusable, match=error):
        chatml(tokens, turns, visuals)


def test_a_prompt_is_the_start_of_what_was_trained(tokens: ChatTokens) -> None:
    asked = prompt("What?\nSay.", [Visual("image", 3)], tokens, system="S")
    assert asked == chatml(tokens).ids[: len(asked)].tolist()
    assert prompt("Hi", [], tokens, system="S")[-10:] == tokens.text("assistant\n")
    without = chatml(tokens, [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}], ())
    asked = prompt("Hi", [], tokens, system="S")
    assert asked == without.ids[: len(asked)].tolist()


def test_the_chat_template_renders_what_prompt_gives(tokens: ChatTokens) -> None:
    import jinja2

    template = jinja2.Environment(autoescape=False).from_string(chat_template("It's \\ here"))
    message = {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Both?"}]}
    rendered = template.render(messages=[message], add_generation_prompt=True)
    visuals = [Visual("image", 1), Visual("image", 1)]
    assert rendered == shown(tokens, prompt("Both?", visuals, tokens, system="It's \\ here"))
    plain = template.render(messages=[{"role": "system", "content": "X"}, {"role": "user", "content": "Hi"}])
    assert plain == "<|im_start|>system\nX<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"


def test_qwen_like_vocabularies_get_the_markers_after_their_own_tokens(tokens: ChatTokens) -> None:
    assert (tokens.image, tokens.video, tokens.size) == (259, 260, 261)


def test_a_tokenizer_without_chatml_is_one_clear_error(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(MvlError, match="im_start"):
        ChatTokens.load(tmp_path)
    with pytest.raises(MvlError, match="no tokenizer can be read"):
        ChatTokens.load(tmp_path / "nowhere")
