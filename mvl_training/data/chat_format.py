"""Encoding of conversations as tokens and labels: the only module that knows the chat formats.

Formats: ChatML as Qwen2.5 uses it (stages 2 and 3), and the bare `image, caption, newline` of LLaVA's alignment
("plain"). A sample that does not fit is rejected, never cut. Of the model libraries only `tokenizers` is needed, so
planning runs without torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import AddedToken, Tokenizer

from mvl_assets.common.markers import IMAGE_MARKER, VIDEO_MARKER
from mvl_assets.common.rejects import RejectError
from mvl_assets.errors import MvlError
from mvl_training.recipe import ChatFormat

IGNORE_INDEX = -100
MARKER_PATTERN = re.compile(f"({IMAGE_MARKER}|{VIDEO_MARKER})")
IM_START, IM_END = "<|im_start|>", "<|im_end|>"
CHATML_ROLES = {"system": "system", "human": "user", "gpt": "assistant"}

CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\n' + default_system + '<|im_end|>\n' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}"
    "{% elif part['type'] == 'video' %}{{ '<video>\n' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Jinja template. Renders each image where it is among the parts; equal to `encode_prompt` for images before text."""


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """One sample as tokens.

    Attributes:
        input_ids: int32 (L,).
        labels: int32 (L,): the id itself where the loss is taken, else IGNORE_INDEX.
    """

    input_ids: np.ndarray
    labels: np.ndarray

    @property
    def n_loss_tokens(self) -> int:
        """Tokens that the loss is taken on; never the first, which no earlier token predicts."""
        return int((self.labels[1:] != IGNORE_INDEX).sum())


@dataclass(frozen=True, slots=True)
class VisualPlaceholder:
    """What stands for one marker in the tokens: an image, or a whole video.

    Attributes:
        kind: What the marker says.
        n_tokens: Placeholder tokens, whose embeddings become visual features.
        parts: Text and ids in order, where a student has more than the placeholder tokens of the kind; text is
            tokenised together with that before it.
    """

    kind: Literal["image", "video"]
    n_tokens: int
    parts: tuple[str | tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class ChatStyle:
    """How a student's chat template differs from LLaVA-OneVision's.

    Attributes:
        newline_after_visual: Whether a newline follows each image and video; None: where the data has one.
        has_empty_system: Whether an empty system prompt is a turn of its own.
    """

    newline_after_visual: bool | None = None
    has_empty_system: bool = True


LLAVA_STYLE = ChatStyle()


def build_chat_template(system_prompt: str) -> str:
    """Return the export's chat template, with the default system prompt of the recipe."""
    quoted = "'" + system_prompt.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return CHAT_TEMPLATE.replace("default_system", quoted)


class ChatTokenizer:
    """A tokenizer with placeholder tokens for images and videos.

    Text of samples is always tokenised as text: `<|im_end|>` written inside a question does not end the turn.

    Args:
        tokenizer: The tokenizer.
        source_name: Where it is from, for errors.
        visual_tokens: Its placeholder tokens of images and videos; None: the markers `<image>` and `<video>`, which are
            added to it.

    Raises:
        MvlError: The tokenizer lacks ChatML's tokens, or a placeholder token.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        source_name: str = "tokenizer",
        visual_tokens: tuple[str, str] | None = None,
    ) -> None:
        for marker in (IM_START, IM_END, *(visual_tokens or ())):
            if tokenizer.token_to_id(marker) is None:
                raise MvlError(
                    f"{source_name}: the tokenizer has no token {marker}",
                    hint="use the student's own tokenizer" if visual_tokens else "use a tokenizer of a ChatML model",
                )
        if visual_tokens is None:
            visual_tokens = (IMAGE_MARKER, VIDEO_MARKER)
            tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in visual_tokens])
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._encoding_cache: dict[str, list[int]] = {}
        self.image_token_id, self.video_token_id = map(self.get_token_id, visual_tokens)
        self.im_start_id = self.get_token_id(IM_START)
        self.im_end_id = self.get_token_id(IM_END)
        newline_ids = self.encode("\n")
        self.newline_id = newline_ids[0] if len(newline_ids) == 1 else None

    @classmethod
    def load(cls, folder: Path, visual_tokens: tuple[str, str] | None = None) -> ChatTokenizer:
        """Load from a folder with `tokenizer.json`.

        Args:
            folder: The folder.
            visual_tokens: As of the class.

        Raises:
            MvlError: The file is missing or cannot be read.
        """
        path = folder / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            raise MvlError(f"{path}: cannot be read as a tokenizer ({error})") from error
        return cls(tokenizer, source_name=str(path), visual_tokens=visual_tokens)

    @property
    def placeholder_ids(self) -> tuple[int, int]:
        """Ids of the placeholder tokens of images and of videos."""
        return self.image_token_id, self.video_token_id

    @property
    def vocab_size(self) -> int:
        """Rows that an embedding needs at least."""
        return 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_cached(self, text: str) -> list[int]:
        """Encode text that recurs in every sample (headers, system prompt). The list is shared: do not change it."""
        if text not in self._encoding_cache:
            self._encoding_cache[text] = self.encode(text)
        return self._encoding_cache[text]

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def to_json(self) -> str:
        """Return the tokenizer as JSON, which is part of a plan's hash."""
        return self._tokenizer.to_str()

    def get_token_id(self, token: str) -> int:
        """Return the id of a token of the vocabulary.

        Raises:
            MvlError: There is no such token.
        """
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise MvlError(f"the tokenizer has no token {token}", hint="use the student's own tokenizer")
        return token_id


class _TokenBuilder:
    """Collects tokens with their labels."""

    def __init__(
        self, tokenizer: ChatTokenizer, visuals: Sequence[VisualPlaceholder], style: ChatStyle = LLAVA_STYLE
    ) -> None:
        self.tokenizer = tokenizer
        self.style = style
        self.input_ids: list[int] = []
        self.labels: list[int] = []
        self._visuals = list(visuals)
        self._n_used_visuals = 0
        self._pending_text = ""

    def add(self, ids: Sequence[int], with_loss: bool) -> None:
        if self._pending_text:
            text_ids = self.tokenizer.encode(self._pending_text)
            self._pending_text = ""
            self.add(text_ids, with_loss=False)
        self.input_ids.extend(ids)
        self.labels.extend(ids if with_loss else [IGNORE_INDEX] * len(ids))

    def add_text(self, text: str) -> None:
        """Add text without loss, which is tokenised together with the text that follows."""
        self._pending_text += text

    def add_text_with_markers(self, text: str) -> None:
        """Add text without loss in which each marker becomes its image's or video's placeholder tokens."""
        for index, segment in enumerate(_split_at_markers(text)):
            if index % 2 == 1:
                self.add_visual("image" if segment == IMAGE_MARKER else "video")
            elif index and self.style.newline_after_visual is not None:
                self.add_text("\n" * self.style.newline_after_visual + segment.removeprefix("\n"))
            else:
                self.add_text(segment)

    def add_visual(self, kind: str) -> None:
        if self._n_used_visuals >= len(self._visuals) or self._visuals[self._n_used_visuals].kind != kind:
            raise RejectError("marker_mismatch", f"marker {self._n_used_visuals + 1} ({kind}) has no {kind}")
        visual = self._visuals[self._n_used_visuals]
        self._n_used_visuals += 1
        placeholder_id = self.tokenizer.image_token_id if kind == "image" else self.tokenizer.video_token_id
        for part in visual.parts or ((placeholder_id,) * visual.n_tokens,):
            if isinstance(part, str):
                self.add_text(part)
            else:
                self.add(part, with_loss=False)

    def build(self) -> EncodedSample:
        self.add((), with_loss=False)
        if self._n_used_visuals != len(self._visuals):
            raise RejectError(
                "marker_mismatch", f"{len(self._visuals)} images or videos, {self._n_used_visuals} markers"
            )
        return EncodedSample(np.array(self.input_ids, dtype=np.int32), np.array(self.labels, dtype=np.int32))


def encode_conversation(
    turns: Sequence[dict[str, Any]],
    visuals: Sequence[VisualPlaceholder],
    tokenizer: ChatTokenizer,
    *,
    chat_format: ChatFormat,
    system_prompt: str,
    paper_parity: bool = False,
    image_first: bool = False,
    style: ChatStyle = LLAVA_STYLE,
) -> EncodedSample:
    """Encode one conversation with its labels.

    ChatML: loss on each answer and the `<|im_end|>` that ends it. Plain: images, caption, newline; loss on the caption
    and the newline.

    Args:
        turns: {"from": system|human|gpt, "value": text}; human turns hold one marker per visual, in order.
        visuals: The images and videos.
        tokenizer: The student's.
        chat_format: The format.
        system_prompt: ChatML's first turn, unless the conversation has one of its own.
        paper_parity: Loss as in the released code: on whole assistant turns, header and last newline included, and on
            every `<|im_start|>`, `<|im_end|>` and newline token anywhere; `system_prompt` replaces a system turn of
            the data.
        image_first: Move the only marker of a human turn to its front, as the released code does.
        style: Of the student's chat template.

    Raises:
        RejectError: The conversation cannot be trained on.
    """
    for turn in turns:
        if turn["from"] not in CHATML_ROLES:
            raise RejectError("unknown_role", f"a turn is from {turn['from']!r}")
    answers = [answer_turn for answer_turn in turns if answer_turn["from"] == "gpt"]
    if not any((t["value"] or "").strip() for t in answers):
        raise RejectError("no_answer", "no assistant turn has any text")
    if image_first:
        turns = [
            {**turn, "value": move_marker_to_front(turn["value"] or "")} if turn["from"] == "human" else turn
            for turn in turns
        ]
    builder = _TokenBuilder(tokenizer, visuals, style)
    if chat_format == "plain":
        return _encode_plain(turns, builder)
    _append_chatml(turns, builder, system_prompt, paper_parity)
    encoded = builder.build()
    if paper_parity:
        marker_ids = [
            token_id
            for token_id in (tokenizer.newline_id, tokenizer.im_start_id, tokenizer.im_end_id)
            if token_id is not None
        ]
        is_marker = np.isin(encoded.input_ids, marker_ids)
        encoded = EncodedSample(encoded.input_ids, np.where(is_marker, encoded.input_ids, encoded.labels))
    return encoded


def encode_prompt(
    question: str,
    visuals: Sequence[VisualPlaceholder],
    tokenizer: ChatTokenizer,
    *,
    system_prompt: str,
    style: ChatStyle = LLAVA_STYLE,
) -> list[int]:
    """Return the ids up to where the assistant's answer begins, with the visuals before the question.

    Args:
        question: Text of the user's turn.
        visuals: Placeholders of its images or frames, in order.
        tokenizer: The student's tokenizer.
        system_prompt: Text of the system turn.
        style: Of the student's chat template.
    """
    return encode_chat_prompt([("user", [*visuals, question])], tokenizer, system_prompt=system_prompt, style=style)


def encode_chat_prompt(
    messages: Sequence[tuple[str, Sequence[str | VisualPlaceholder]]],
    tokenizer: ChatTokenizer,
    *,
    system_prompt: str,
    style: ChatStyle = LLAVA_STYLE,
) -> list[int]:
    """Return the ids up to where the assistant's answer begins, with each visual in its place among the words.

    Equal to what `CHAT_TEMPLATE` renders. Texts are not searched for markers: a person may ask about the word
    "<image>".

    Args:
        messages: (role, parts) with the roles system, user and assistant.
        tokenizer: The student's.
        system_prompt: Used unless the first message is a system message.
        style: Of the student's chat template.
    """
    builder = _TokenBuilder(
        tokenizer, [part for _, parts in messages for part in parts if isinstance(part, VisualPlaceholder)], style
    )
    has_own_system = bool(messages) and messages[0][0] == "system"
    has_default_system = not has_own_system and (style.has_empty_system or system_prompt != "")
    default_system_message = [("system", (system_prompt,))] if has_default_system else []
    for role, parts in [*default_system_message, *messages]:
        builder.add([tokenizer.im_start_id], with_loss=False)
        text = f"{role}\n"
        if role == "assistant":
            # As in training, where header and answer are tokenised separately.
            builder.add(tokenizer.encode_cached(text), with_loss=False)
            text = ""
        builder.add_text(text)
        for part in parts:
            if isinstance(part, VisualPlaceholder):
                builder.add_visual(part.kind)
                builder.add_text("" if style.newline_after_visual is False else "\n")
            else:
                builder.add_text(part)
        _close_turn(builder, loss_on_end=False, loss_on_newline=False)
    builder.add([tokenizer.im_start_id], with_loss=False)
    builder.add(tokenizer.encode_cached("assistant\n"), with_loss=False)
    return builder.build().input_ids.tolist()


def _append_chatml(
    turns: Sequence[dict[str, Any]], builder: _TokenBuilder, system_prompt: str, paper_parity: bool
) -> None:
    tokenizer = builder.tokenizer
    own_system_prompt = turns[0]["value"] if turns and turns[0]["from"] == "system" and not paper_parity else None
    dialogue_turns = [dialogue_turn for dialogue_turn in turns if dialogue_turn["from"] != "system"]
    if own_system_prompt or system_prompt or builder.style.has_empty_system:
        builder.add([tokenizer.im_start_id], with_loss=False)
        header = f"system\n{own_system_prompt or system_prompt}"
        builder.add(tokenizer.encode(header) if own_system_prompt else tokenizer.encode_cached(header), with_loss=False)
        _close_turn(builder, loss_on_end=False, loss_on_newline=False)
    for turn in dialogue_turns:
        value = turn["value"] or ""
        if turn["from"] == "human":
            builder.add([tokenizer.im_start_id], with_loss=False)
            builder.add_text_with_markers("user\n" + value)
            _close_turn(builder, loss_on_end=False, loss_on_newline=False)
        else:
            # Header and answer are tokenised separately, because a prompt ends there when the model is asked.
            builder.add([tokenizer.im_start_id], with_loss=paper_parity)
            builder.add(tokenizer.encode_cached("assistant\n"), with_loss=paper_parity)
            builder.add(tokenizer.encode(value), with_loss=True)
            _close_turn(builder, loss_on_end=True, loss_on_newline=paper_parity)


def _encode_plain(turns: Sequence[dict[str, Any]], builder: _TokenBuilder) -> EncodedSample:
    dialogue_turns = [turn for turn in turns if turn["from"] != "system"]
    if [t["from"] for t in dialogue_turns] != ["human", "gpt"]:
        raise RejectError(
            "not_one_caption",
            f"alignment takes one question and one caption, this sample has {len(dialogue_turns)} turns",
        )
    for marker in _split_at_markers(dialogue_turns[0]["value"] or "")[1::2]:
        builder.add_visual("image" if marker == IMAGE_MARKER else "video")
    builder.add(builder.tokenizer.encode((dialogue_turns[1]["value"] or "") + "\n"), with_loss=True)
    return builder.build()


def _close_turn(builder: _TokenBuilder, *, loss_on_end: bool, loss_on_newline: bool) -> None:
    builder.add([builder.tokenizer.im_end_id], with_loss=loss_on_end)
    builder.add(builder.tokenizer.encode_cached("\n"), with_loss=loss_on_newline)


def move_marker_to_front(text: str) -> str:
    """Return a turn's text with its marker in a line of its own before the words, if it has exactly one marker."""
    before, *rest = _split_at_markers(text)
    if len(rest) != 2 or not before:
        return text
    marker, after = rest
    return f"{marker}\n{(before + after).strip()}".strip()


def _split_at_markers(text: str) -> list[str]:
    """Split into text and markers, which alternate: markers have odd indices."""
    return MARKER_PATTERN.split(text)
