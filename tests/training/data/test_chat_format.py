"""Labels, markers and the chat format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mvl_assets.common.rejects import RejectError
from mvl_assets.errors import MvlError
from mvl_training.data.chat_format import (
    IGNORE_INDEX,
    ChatTokenizer,
    EncodedSample,
    VisualPlaceholder,
    build_chat_template,
    encode_conversation,
    encode_prompt,
    move_marker_to_front,
)

TURNS = [
    {"from": "human", "value": "<image>\nWhat?\nSay."},
    {"from": "gpt", "value": "A cat."},
    {"from": "human", "value": "Sure?"},
    {"from": "gpt", "value": "Yes\nindeed"},
]


def chatml(tokens: ChatTokenizer, turns=TURNS, visuals=(VisualPlaceholder("image", 3),), **options) -> EncodedSample:
    return encode_conversation(turns, visuals, tokens, chat_format="chatml", system_prompt="S", **options)


def decode_ids(tokens: ChatTokenizer, ids) -> str:
    return tokens._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)


def decode_loss_tokens(tokens: ChatTokenizer, encoded: EncodedSample) -> str:
    return decode_ids(tokens, encoded.input_ids[encoded.labels != IGNORE_INDEX])


def test_a_conversation_reads_as_chatml(tokens: ChatTokenizer) -> None:
    assert decode_ids(tokens, chatml(tokens).input_ids) == (
        "<|im_start|>system\nS<|im_end|>\n"
        "<|im_start|>user\n<image><image><image>\nWhat?\nSay.<|im_end|>\n"
        "<|im_start|>assistant\nA cat.<|im_end|>\n"
        "<|im_start|>user\nSure?<|im_end|>\n"
        "<|im_start|>assistant\nYes\nindeed<|im_end|>\n"
    )


def test_the_loss_is_taken_on_answers_and_their_end(tokens: ChatTokenizer) -> None:
    encoded = chatml(tokens)
    assert decode_loss_tokens(tokens, encoded) == "A cat.<|im_end|>Yes\nindeed<|im_end|>"
    kept = encoded.labels != IGNORE_INDEX
    assert np.array_equal(encoded.labels[kept], encoded.input_ids[kept])
    assert encoded.n_loss_tokens == kept.sum()


def test_paper_parity_also_trains_on_markers_and_newlines_of_user_turns(tokens: ChatTokenizer) -> None:
    encoded = chatml(tokens, paper_parity=True)
    assert decode_loss_tokens(tokens, encoded) == (
        "<|im_start|>\n<|im_end|>\n"
        "<|im_start|>\n\n\n<|im_end|>\n"
        "<|im_start|>assistant\nA cat.<|im_end|>\n"
        "<|im_start|>\n<|im_end|>\n"
        "<|im_start|>assistant\nYes\nindeed<|im_end|>\n"
    )
    assert np.array_equal(encoded.input_ids, chatml(tokens).input_ids)
    assert encoded.n_loss_tokens == (encoded.labels != IGNORE_INDEX).sum() - 1  # nothing predicts the first token


def test_a_system_turn_of_the_data_replaces_the_default_unless_parity_is_asked(tokens: ChatTokenizer) -> None:
    turns = [{"from": "system", "value": "Own"}, *TURNS]
    assert decode_ids(tokens, chatml(tokens, turns).input_ids).startswith("<|im_start|>system\nOwn<|im_end|>")
    assert decode_ids(tokens, chatml(tokens, turns, paper_parity=True).input_ids).startswith(
        "<|im_start|>system\nS<|im_end|>"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("What?\n<image>", "<image>\nWhat?"),
        ("Look <image> here.", "<image>\nLook  here."),
        ("<image>\nWhat?", "<image>\nWhat?"),
        ("<image> What?", "<image> What?"),
        ("<image>\nand\n<image>?", "<image>\nand\n<image>?"),
        ("One <image> or two <image>?", "One <image> or two <image>?"),
        ("What moves? <video>", "<video>\nWhat moves?"),
        (" <image> ", "<image>"),
        ("Hello", "Hello"),
    ],
)
def test_a_lone_marker_moves_to_the_front_of_its_turn_as_the_released_code_moves_it(value: str, expected: str) -> None:
    assert move_marker_to_front(value) == expected


def test_markers_move_only_in_human_turns_and_only_if_asked(tokens: ChatTokenizer) -> None:
    turns = [{"from": "human", "value": "What?\n<image>"}, {"from": "gpt", "value": "Say <image>"}]
    left, moved = (
        decode_ids(
            tokens,
            encode_conversation(
                turns,
                [VisualPlaceholder("image", 2)],
                tokens,
                chat_format="chatml",
                system_prompt="S",
                image_first=image_first,
            ).input_ids,
        )
        for image_first in (False, True)
    )
    assert "user\nWhat?\n<image><image><|im_end|>" in left
    assert "user\n<image><image>\nWhat?<|im_end|>" in moved
    assert "Say <image>" in left and "Say <image>" in moved


def test_plain_style_is_images_caption_newline(tokens: ChatTokenizer) -> None:
    turns = [{"from": "human", "value": "Describe.\n<image>"}, {"from": "gpt", "value": "A cat."}]
    encoded = encode_conversation(
        turns, [VisualPlaceholder("image", 4)], tokens, chat_format="plain", system_prompt="S"
    )
    assert decode_ids(tokens, encoded.input_ids) == "<image>" * 4 + "A cat.\n"
    assert decode_loss_tokens(tokens, encoded) == "A cat.\n"
    with pytest.raises(RejectError, match="not_one_caption"):
        encode_conversation(TURNS, [VisualPlaceholder("image", 4)], tokens, chat_format="plain", system_prompt="S")


def test_text_of_a_sample_cannot_end_a_turn_or_add_an_image(tokens: ChatTokenizer) -> None:
    turns = [
        {"from": "human", "value": "What is <|im_end|>?"},
        {"from": "gpt", "value": "<image> and <|im_start|> are markers"},
    ]
    encoded = chatml(tokens, turns, ())
    assert (encoded.input_ids == tokens.im_end_id).sum() == 3
    assert (encoded.input_ids == tokens.image_token_id).sum() == 0


@pytest.mark.parametrize(
    ("turns", "visuals", "error"),
    [
        (TURNS, (), "marker_mismatch"),
        (TURNS, (VisualPlaceholder("image", 3), VisualPlaceholder("image", 3)), "marker_mismatch"),
        (TURNS, (VisualPlaceholder("video", 3),), "marker_mismatch"),
        ([{"from": "tool", "value": "x"}], (), "unknown_role"),
        ([{"from": "human", "value": "x"}, {"from": "gpt", "value": "  "}], (), "no_answer"),
        ([{"from": "human", "value": "x"}, {"from": "gpt", "value": None}], (), "no_answer"),
        ([], (), "no_answer"),
    ],
)
def test_a_conversation_that_cannot_be_trained_on_is_rejected_by_error_class(
    tokens: ChatTokenizer, turns, visuals, error: str
) -> None:
    with pytest.raises(RejectError, match=error):
        chatml(tokens, turns, visuals)


def test_a_prompt_is_the_beginning_of_the_trained_sequence(tokens: ChatTokenizer) -> None:
    prompt_ids = encode_prompt("What?\nSay.", [VisualPlaceholder("image", 3)], tokens, system_prompt="S")
    assert prompt_ids == chatml(tokens).input_ids[: len(prompt_ids)].tolist()
    assert encode_prompt("Hi", [], tokens, system_prompt="S")[-10:] == tokens.encode("assistant\n")
    without = chatml(tokens, [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}], ())
    prompt_ids = encode_prompt("Hi", [], tokens, system_prompt="S")
    assert prompt_ids == without.input_ids[: len(prompt_ids)].tolist()


def test_the_chat_template_renders_what_encode_prompt_returns(tokens: ChatTokenizer) -> None:
    import jinja2

    template = jinja2.Environment(autoescape=False).from_string(build_chat_template("It's \\ here"))
    message = {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Both?"}]}
    rendered = template.render(messages=[message], add_generation_prompt=True)
    visuals = [VisualPlaceholder("image", 1), VisualPlaceholder("image", 1)]
    assert rendered == decode_ids(tokens, encode_prompt("Both?", visuals, tokens, system_prompt="It's \\ here"))
    plain = template.render(messages=[{"role": "system", "content": "X"}, {"role": "user", "content": "Hi"}])
    assert plain == "<|im_start|>system\nX<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"


def test_qwen_like_vocabularies_get_the_markers_after_their_own_tokens(tokens: ChatTokenizer) -> None:
    assert (tokens.image_token_id, tokens.video_token_id, tokens.vocab_size) == (259, 260, 261)


def test_a_tokenizer_without_chatml_is_one_clear_error(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(MvlError, match="im_start"):
        ChatTokenizer.load(tmp_path)
    with pytest.raises(MvlError, match="cannot be read as a tokenizer"):
        ChatTokenizer.load(tmp_path / "nowhere")
