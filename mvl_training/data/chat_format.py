"""Conversations as tokens and labels: the one place that knows the chat format.

Belongs here: turns -> token ids and labels, picture markers -> placeholder tokens, the chat template of the export.
Does not: pixels and tile geometry (`mvl_assets.media.tiles`), packing (`packing`). Needs the `tokenizers` package
only, so planning runs without torch.

Formats: ChatML as Qwen2.5 uses it (stages 2 and 3), and the bare `picture, caption, newline` of LLaVA's alignment
("plain"). A sample that does not fit is refused by name (`Unusable`), never cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import AddedToken, Tokenizer

from mvl_assets.errors import MvlError

IGNORE = -100
IMAGE, VIDEO = "<image>", "<video>"
MARKERS = re.compile(f"({IMAGE}|{VIDEO})")
START, END = "<|im_start|>", "<|im_end|>"
ROLES = {"system": "system", "human": "user", "gpt": "assistant"}

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
"""Jinja. Renders pictures where they stand among the parts; equal to `prompt` for pictures before the question."""


class Unusable(Exception):
    """A sample that cannot be trained on. `error` is a snake_case class for the rejects table."""

    def __init__(self, error: str, message: str) -> None:
        self.error = error
        self.message = message
        super().__init__(f"{error}: {message}")


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids and labels of one sample, int32 of shape (length,). A label is the id itself, or IGNORE."""

    ids: np.ndarray
    labels: np.ndarray

    @property
    def targets(self) -> int:
        """Tokens the loss is taken on. The first token of a sample has nothing before it to predict it from."""
        return int((self.labels[1:] != IGNORE).sum())


@dataclass(frozen=True, slots=True)
class Visual:
    """One marker's worth of placeholder tokens: a picture, or a whole video."""

    kind: Literal["image", "video"]
    tokens: int


def chat_template(system: str) -> str:
    """The export's chat template, with the default system prompt of the recipe."""
    quoted = "'" + system.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return CHAT_TEMPLATE.replace("default_system", quoted)


class ChatTokens:
    """A tokenizer with the markers `<image>` and `<video>` as tokens of their own.

    Text of samples is always tokenised as text: `<|im_end|>` written inside a question does not end the turn.
    """

    def __init__(self, tokenizer: Tokenizer, *, name: str = "tokenizer") -> None:
        for marker in (START, END):
            if tokenizer.token_to_id(marker) is None:
                raise MvlError(f"{name}: the tokenizer has no token {marker}", hint="use a tokenizer of a ChatML model")
        tokenizer.add_special_tokens([AddedToken(m, special=True, normalized=False) for m in (IMAGE, VIDEO)])
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._fixed: dict[str, list[int]] = {}
        self.image = self._id(IMAGE)
        self.video = self._id(VIDEO)
        self.start = self._id(START)
        self.end = self._id(END)
        newline = self.text("\n")
        self.newline = newline[0] if len(newline) == 1 else None

    @classmethod
    def load(cls, folder: Path) -> ChatTokens:
        """From a folder with `tokenizer.json`. Raises MvlError when it is missing or not readable."""
        file = folder / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises bare Exception
            raise MvlError(f"{file}: no tokenizer can be read ({error})") from error
        return cls(tokenizer, name=str(file))

    @property
    def size(self) -> int:
        """Ids in use: the least number of rows an embedding needs."""
        return 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    def text(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def fixed(self, text: str) -> list[int]:
        """The same for what every sample has (headers, the system prompt); remembered, so do not change the list."""
        if text not in self._fixed:
            self._fixed[text] = self.text(text)
        return self._fixed[text]

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def digest_text(self) -> str:
        """The tokenizer as JSON: what a plan's hash takes in."""
        return self._tokenizer.to_str()

    def _id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        assert number is not None
        return number


class _Builder:
    """Collects pieces of tokens with their labels."""

    def __init__(self, tokens: ChatTokens, visuals: Sequence[Visual]) -> None:
        self.tokens = tokens
        self.ids: list[int] = []
        self.labels: list[int] = []
        self._visuals = list(visuals)
        self._next = 0

    def add(self, ids: Sequence[int], trained: bool) -> None:
        self.ids.extend(ids)
        self.labels.extend(ids if trained else [IGNORE] * len(ids))

    def add_with_markers(self, text: str) -> None:
        """Untrained text in which each marker becomes its picture's or video's placeholder tokens."""
        for number, part in enumerate(_split(text)):
            if number % 2 == 0:
                if part:
                    self.add(self.tokens.text(part), trained=False)
            else:
                self.add_visual("image" if part == IMAGE else "video")

    def add_visual(self, kind: str) -> None:
        if self._next >= len(self._visuals) or self._visuals[self._next].kind != kind:
            raise Unusable("marker_mismatch", f"marker {self._next + 1} ({kind}) has no {kind}")
        visual = self._visuals[self._next]
        self._next += 1
        placeholder = self.tokens.image if kind == "image" else self.tokens.video
        self.add([placeholder] * visual.tokens, trained=False)

    def finish(self) -> Encoded:
        if self._next != len(self._visuals):
            raise Unusable("marker_mismatch", f"{len(self._visuals)} pictures or videos, {self._next} markers")
        return Encoded(np.array(self.ids, dtype=np.int32), np.array(self.labels, dtype=np.int32))


def encode(
    turns: Sequence[dict[str, Any]],
    visuals: Sequence[Visual],
    tokens: ChatTokens,
    *,
    style: Literal["plain", "chatml"],
    system: str,
    paper_parity: bool = False,
) -> Encoded:
    """Tokens and labels of one conversation.

    `turns` are {"from": system|human|gpt, "value": text}; human turns hold one marker per visual, in order.
    ChatML: loss on each answer and the `<|im_end|>` that ends it. With `paper_parity` as the released code has it: on
    whole assistant turns, header and last newline included, and on every `<|im_start|>`, `<|im_end|>` and newline
    token anywhere; a system turn of the data gives way to the fixed prompt. Plain: pictures, caption, newline; loss on
    the caption and newline. Raises Unusable.
    """
    for turn in turns:
        if turn["from"] not in ROLES:
            raise Unusable("unknown_role", f"a turn is from {turn['from']!r}")
    answers = [t for t in turns if t["from"] == "gpt"]
    if not any((t["value"] or "").strip() for t in answers):
        raise Unusable("no_answer", "no assistant turn has any text")
    builder = _Builder(tokens, visuals)
    if style == "plain":
        return _plain(turns, builder)
    _chatml(turns, builder, system, paper_parity)
    encoded = builder.finish()
    if paper_parity:
        marker_ids = [i for i in (tokens.newline, tokens.start, tokens.end) if i is not None]
        everywhere = np.isin(encoded.ids, marker_ids)
        encoded = Encoded(encoded.ids, np.where(everywhere, encoded.ids, encoded.labels))
    return encoded


def prompt(question: str, visuals: Sequence[Visual], tokens: ChatTokens, *, system: str) -> list[int]:
    """Ids up to where the assistant's answer begins; markers for the visuals are put before the question."""
    return chat_prompt([("user", [*visuals, question])], tokens, system=system)


def chat_prompt(
    messages: Sequence[tuple[str, Sequence[str | Visual]]], tokens: ChatTokens, *, system: str
) -> list[int]:
    """Ids up to where the assistant's answer begins, visuals where they stand among the words.

    `messages` are (role, parts) with the roles system, user and assistant; a first system message stands in place of
    `system`. Equal to what `CHAT_TEMPLATE` renders. Texts are not searched for markers: a person may ask about the
    word "<image>".
    """
    builder = _Builder(tokens, [part for _, parts in messages for part in parts if isinstance(part, Visual)])
    opening = [] if messages and messages[0][0] == "system" else [("system", (system,))]
    for role, parts in [*opening, *messages]:
        builder.add([tokens.start], trained=False)
        text = f"{role}\n"
        if role == "assistant":
            # As in training, where header and answer are tokenised apart.
            builder.add(tokens.fixed(text), trained=False)
            text = ""
        for part in parts:
            if isinstance(part, Visual):
                if text:
                    builder.add(tokens.text(text), trained=False)
                builder.add_visual(part.kind)
                text = "\n"
            else:
                text += part
        builder.add(tokens.text(text), trained=False)
        _close_turn(builder, end_trained=False, newline_trained=False)
    builder.add([tokens.start], trained=False)
    builder.add(tokens.fixed("assistant\n"), trained=False)
    return builder.finish().ids.tolist()


def _chatml(turns: Sequence[dict[str, Any]], builder: _Builder, system: str, paper_parity: bool) -> None:
    tokens = builder.tokens
    own = turns[0]["value"] if turns and turns[0]["from"] == "system" and not paper_parity else None
    rest = [t for t in turns if t["from"] != "system"]
    builder.add([tokens.start], trained=False)
    header = f"system\n{own or system}"
    builder.add(tokens.text(header) if own else tokens.fixed(header), trained=False)
    _close_turn(builder, end_trained=False, newline_trained=False)
    for turn in rest:
        value = turn["value"] or ""
        if turn["from"] == "human":
            builder.add([tokens.start], trained=False)
            builder.add_with_markers("user\n" + value)
            _close_turn(builder, end_trained=False, newline_trained=False)
        else:
            # Header and answer are tokenised apart, because that is how a prompt ends when the model is asked.
            builder.add([tokens.start], trained=paper_parity)
            builder.add(tokens.fixed("assistant\n"), trained=paper_parity)
            builder.add(tokens.text(value), trained=True)
            _close_turn(builder, end_trained=True, newline_trained=paper_parity)


def _plain(turns: Sequence[dict[str, Any]], builder: _Builder) -> Encoded:
    spoken = [t for t in turns if t["from"] != "system"]
    if [t["from"] for t in spoken] != ["human", "gpt"]:
        raise Unusable("not_one_caption", f"alignment takes one question and one caption, here are {len(spoken)} turns")
    for part in _split(spoken[0]["value"] or "")[1::2]:
        builder.add_visual("image" if part == IMAGE else "video")
    builder.add(builder.tokens.text((spoken[1]["value"] or "") + "\n"), trained=True)
    return builder.finish()


def _close_turn(builder: _Builder, *, end_trained: bool, newline_trained: bool) -> None:
    builder.add([builder.tokens.end], trained=end_trained)
    builder.add(builder.tokens.fixed("\n"), trained=newline_trained)


def _split(text: str) -> list[str]:
    """Text and markers in turn: odd places hold markers."""
    return MARKERS.split(text)
