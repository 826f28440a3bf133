"""From one raw row to a `Sample`: ids, roles, turns and markers. Shared by every reader; knows no file format.

Conversations come in two key styles, and in some published files in both at once with nulls
(huggingface.co/datasets/mvp-lab/LLaVA-OneVision-1.5-Instruct-Data):

    {"from": "human", "value": "<image>\\nWhat is it?"}
    {"role": "user", "content": "What is it?", "from": null, "value": null}

Other keys inside a turn (`data_source`, `markdown`, `text` are seen in the wild) are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mvl_assets.readers.json_stream import BadItem, Item
from mvl_assets.readers.sample import IMAGE_MARKER, VIDEO_MARKER, Broken, Role, Sample, Turn

MAX_ID = 512
_ROLES: dict[str, Role] = {
    "human": "human",
    "user": "human",
    "gpt": "gpt",
    "assistant": "gpt",
    "system": "system",
}


class RowError(Exception):
    """Why one row cannot be a sample; becomes `Broken` with this error class and message."""

    def __init__(self, error: str, message: str) -> None:
        self.error = error
        self.message = message
        super().__init__(f"{error}: {message}")


@dataclass(frozen=True, slots=True)
class Row:
    """One object of a file, with its place and the source's own id."""

    file: str
    position: int
    native_id: str | None
    value: Mapping[str, Any]


def rows_of(file: str, items: Iterable[Item | BadItem], *id_fields: str) -> Iterator[Row | Broken]:
    """The objects among `items`; the native id is the item's key, or else the first of `id_fields` that is there
    (`meta.id` is the `id` inside `meta`)."""
    for item in items:
        if isinstance(item, BadItem):
            yield Broken(file, item.position, item.error, item.message, native_id(item.key))
        elif not isinstance(item.value, dict):
            found = type(item.value).__name__
            yield Broken(file, item.position, "not_an_object", f"a {found} where an object was expected")
        else:
            own = native_id(item.key if item.key is not None else _own_id(item.value, id_fields))
            bad = next((cell for cell in item.value.values() if isinstance(cell, BadItem)), None)
            if bad is not None:
                yield Broken(file, item.position, bad.error, bad.message, own)
            else:
                yield Row(file, item.position, own, item.value)


def _own_id(value: Mapping[str, Any], fields: Iterable[str]) -> Any:
    for field in fields:
        found: Any = value
        for part in [field] if field in value else field.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if found is not None:
            return found
    return None


def built(row: Row | Broken, make: Callable[[Row], Sample]) -> Sample | Broken:
    """`make(row)`, or the reason why it cannot be made."""
    if isinstance(row, Broken):
        return row
    try:
        return make(row)
    except RowError as error:
        return Broken(row.file, row.position, error.error, error.message, row.native_id)


def native_id(value: object) -> str | None:
    """Ids are strings or integers in the wild; anything else names nothing."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)
    return text if 0 < len(text) <= MAX_ID and is_text(text) else None


def turns_of(conversations: object) -> tuple[Turn, ...]:
    """The turns of a conversation in either key style. Raises `RowError`.

    An optional system turn comes first; then human and gpt take turns, human first, gpt last.
    """
    if not isinstance(conversations, list | tuple) or not conversations:
        raise RowError("no_turns", "the row has no conversation")
    turns = tuple(_turn(entry, index) for index, entry in enumerate(conversations))
    spoken = turns[1:] if turns[0].role == "system" else turns
    for index, turn in enumerate(spoken):
        if turn.role != ("human", "gpt")[index % 2]:
            if index == 0 and turn.role == "gpt":
                raise RowError("swapped_roles", "the answer comes before the question")
            raise RowError("roles_do_not_alternate", f"turn {index} is spoken by {turn.role}")
    if not spoken or spoken[-1].role != "gpt":
        raise RowError("no_answer", "the conversation ends with a question")
    for index, turn in enumerate(spoken):
        if turn.role == "gpt" and not turn.value.strip():
            raise RowError("empty_answer", f"turn {index} is empty")
    return turns


def question_and_answer(question: str, answer: str) -> tuple[Turn, ...]:
    return turns_of([{"from": "human", "value": question}, {"from": "gpt", "value": answer}])


def with_markers(turns: tuple[Turn, ...], pictures: int) -> tuple[Turn, ...]:
    """The turns with one `<image>` per picture; missing ones go before the first question. Raises `RowError`."""
    if any(VIDEO_MARKER in turn.value for turn in turns if turn.role == "human"):
        raise RowError("marker_mismatch", f"a question holds {VIDEO_MARKER}, and there is no video")
    if any(IMAGE_MARKER in turn.value for turn in turns if turn.role == "gpt"):
        raise RowError("marker_mismatch", f"an answer holds {IMAGE_MARKER}, where no picture can be")
    found = sum(turn.value.count(IMAGE_MARKER) for turn in turns)
    if found == 0 and pictures:
        turns = _before_first_question(turns, f"{IMAGE_MARKER}\n" * pictures)
    elif found != pictures:
        raise RowError("marker_mismatch", f"{found} {IMAGE_MARKER} markers for {pictures} pictures")
    return _with_questions(turns)


def with_video_marker(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The turns with one `<video>`. LLaVA's files write `<image>` for a video; that one is replaced."""
    videos = sum(turn.value.count(VIDEO_MARKER) for turn in turns)
    images = sum(turn.value.count(IMAGE_MARKER) for turn in turns)
    if (videos, images) == (0, 1):
        turns = tuple(Turn(t.role, t.value.replace(IMAGE_MARKER, VIDEO_MARKER)) for t in turns)
    elif (videos, images) == (0, 0):
        turns = _before_first_question(turns, f"{VIDEO_MARKER}\n")
    elif (videos, images) != (1, 0):
        raise RowError("marker_mismatch", f"{videos} {VIDEO_MARKER} and {images} {IMAGE_MARKER} markers for one video")
    return _with_questions(turns)


def _turn(entry: object, index: int) -> Turn:
    if not isinstance(entry, Mapping):
        raise RowError("bad_turn", f"turn {index} is a {type(entry).__name__}")
    role, value = _first(entry, "from", "role"), _first(entry, "value", "content")
    if not isinstance(role, str) or role not in _ROLES:
        raise RowError("unknown_role", f"turn {index} is spoken by {str(role)[:40]!r}")
    if not isinstance(value, str):
        raise RowError("bad_turn", f"the text of turn {index} is a {type(value).__name__}")
    if not is_text(value):
        raise RowError("bad_utf8", f"turn {index} holds a lone surrogate, which no UTF-8 text can")
    return Turn(_ROLES[role], value)


def _first(entry: Mapping[str, Any], *keys: str) -> Any:
    for key in keys:
        if (value := entry.get(key)) is not None:
            return value
    return None


def is_text(value: str) -> bool:
    """Whether it is free of lone surrogates, which no UTF-8 text can hold."""
    if value.isascii():
        return True
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _before_first_question(turns: tuple[Turn, ...], prefix: str) -> tuple[Turn, ...]:
    first = next(i for i, turn in enumerate(turns) if turn.role == "human")
    return (*turns[:first], Turn("human", prefix + turns[first].value), *turns[first + 1 :])


def _with_questions(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    for index, turn in enumerate(turns):
        if turn.role == "human" and not turn.value.strip():
            raise RowError("empty_question", f"turn {index} is empty")
    return turns
