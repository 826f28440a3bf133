r"""Builds a `Sample` from one raw row of any format: ids, roles, turns and markers.

Conversations come in two key styles, and in some published files in both at once with nulls
(huggingface.co/datasets/mvp-lab/LLaVA-OneVision-1.5-Instruct-Data):

    {"from": "human", "value": "<image>\nWhat is it?"}
    {"role": "user", "content": "What is it?", "from": null, "value": null}

Other keys inside a turn (`data_source`, `markdown`, `text` are seen in the wild) are ignored. A text may be a list of
parts (`content_parts`). What a tool returns counts as a human turn, what is called as the assistant's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mvl_assets.common.markers import IMAGE_MARKER, VIDEO_MARKER
from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.content_parts import format_parts, format_tool_calls
from mvl_assets.readers.parsers.json_stream import Item, RejectedItem
from mvl_assets.readers.sample import RejectedRow, Sample, Turn, TurnRole

MAX_NATIVE_ID_CHARS = 512
_TOOL_ROLES = ("tool", "function", "observation", "tool_response", "ipython")
"""Roles under which a tool answers a call. Several answers may follow each other."""

_ROLE_BY_NAME: dict[str, TurnRole] = {
    "human": "human",
    "user": "human",
    "gpt": "gpt",
    "assistant": "gpt",
    "model": "gpt",
    "bot": "gpt",
    "function_call": "gpt",
    "tool_call": "gpt",
    "system": "system",
    "developer": "system",
    **dict.fromkeys(_TOOL_ROLES, "human"),  # type: ignore[dict-item]
}


class Row(NamedTuple):
    """One object of a file, with its place and the source's own id."""

    file: str
    position: int
    native_id: str | None
    value: Mapping[str, Any]


def to_rows(file: str, items: Iterable[Item | RejectedItem], *id_fields: str) -> Iterator[Row | RejectedRow]:
    """Yield the objects among `items` as rows.

    Args:
        file: Name of the file in rows and rejects.
        items: Elements of the file. Those that are not objects become rejects.
        id_fields: Fields of the native id, the first that exists counts (`meta.id` is the `id` inside `meta`). The key
            of an item goes before them.
    """
    for item in items:
        if isinstance(item, RejectedItem):
            yield RejectedRow(file, item.position, item.error, item.message, parse_native_id(item.key))
        elif not isinstance(item.value, dict):
            type_name = type(item.value).__name__
            yield RejectedRow(file, item.position, "not_an_object", f"a {type_name} where an object was expected")
        else:
            row_id = parse_native_id(item.key if item.key is not None else _find_native_id(item.value, id_fields))
            for cell in item.value.values():
                if isinstance(cell, RejectedItem):
                    yield RejectedRow(file, item.position, cell.error, cell.message, row_id)
                    break
            else:
                yield Row(file, item.position, row_id, item.value)


def _find_native_id(value: Mapping[str, Any], fields: Iterable[str]) -> Any:
    for field in fields:
        value_at_path: Any = value
        if field in value:
            value_at_path = value[field]
        else:
            for key in field.split("."):
                value_at_path = value_at_path.get(key) if isinstance(value_at_path, Mapping) else None
        if value_at_path is not None:
            return value_at_path
    return None


def build_sample(row: Row | RejectedRow, to_sample: Callable[[Row], Sample]) -> Sample | RejectedRow:
    """Return `to_sample(row)`, or the reject that says why it cannot be made."""
    if isinstance(row, RejectedRow):
        return row
    try:
        return to_sample(row)
    except RejectError as error:
        return RejectedRow(row.file, row.position, error.code, error.message, row.native_id)


def parse_native_id(value: object) -> str | None:
    """Return the id as text; anything but a string or a number is None.

    A whole number as a float is that number: tables that pandas wrote have such ids where one is missing.
    """
    if type(value) is not str:
        if isinstance(value, float) and math.isfinite(value):
            value = int(value) if value.is_integer() else str(value)
        if isinstance(value, bool) or not isinstance(value, str | int):
            return None
    text = str(value)
    return text if 0 < len(text) <= MAX_NATIVE_ID_CHARS and is_utf8_encodable(text) else None


def parse_turns(conversations: object) -> tuple[Turn, ...]:
    """Return the turns of a conversation in either key style.

    An optional system turn comes first; then human and gpt take turns, human first, gpt last.

    Raises:
        RejectError: Roles, order or texts are not those of a conversation.
    """
    if type(conversations) is list and (plain_turns := _parse_plain_turns(conversations)):
        return plain_turns
    if not isinstance(conversations, list | tuple) or not conversations:
        raise RejectError("no_turns", "the row has no conversation")
    turns = _merge_tool_answers(
        [(_parse_turn(entry, index), _is_tool_answer(entry)) for index, entry in enumerate(conversations)]
    )
    dialogue = turns[1:] if turns[0].role == "system" else turns
    for index, turn in enumerate(dialogue):
        if turn.role != ("human", "gpt")[index % 2]:
            if index == 0 and turn.role == "gpt":
                raise RejectError("swapped_roles", "the answer comes before the question")
            raise RejectError("roles_do_not_alternate", f"turn {index} is spoken by {turn.role}")
    if not dialogue or dialogue[-1].role != "gpt":
        raise RejectError("no_answer", "the conversation ends with a question")
    for index, turn in enumerate(dialogue):
        if turn.role == "gpt" and not turn.value.strip():
            raise RejectError("empty_answer", f"turn {index} is empty")
    return turns


def build_qa_turns(question: str, answer: str) -> tuple[Turn, ...]:
    """Return a human turn and its answer. Raises `RejectError`, also for a list of content parts."""
    for index, text in enumerate((question, answer)):
        if not isinstance(text, str):
            raise RejectError("bad_turn", f"the text of turn {index} is a {type(text).__name__}")
    return parse_turns([{"from": "human", "value": question}, {"from": "gpt", "value": answer}])


def add_image_markers(turns: tuple[Turn, ...], n_images: int) -> tuple[Turn, ...]:
    """Return the turns with one `<image>` per image; missing ones go before the first question.

    Raises `RejectError`.
    """
    _require_questions(turns)
    if not n_images and not any("<" in turn.value for turn in turns):
        return turns
    if any(VIDEO_MARKER in turn.value for turn in turns if turn.role == "human"):
        raise RejectError("marker_mismatch", f"a question holds {VIDEO_MARKER}, and there is no video")
    if any(IMAGE_MARKER in turn.value for turn in turns if turn.role == "gpt"):
        raise RejectError("marker_mismatch", f"an answer holds {IMAGE_MARKER}, where images cannot be")
    n_markers = sum(turn.value.count(IMAGE_MARKER) for turn in turns)
    if n_markers == 0 and n_images:
        turns = prepend_to_first_question(turns, f"{IMAGE_MARKER}\n" * n_images)
    elif n_markers != n_images:
        raise RejectError("marker_mismatch", f"{n_markers} {IMAGE_MARKER} markers for {n_images} images")
    return turns


def add_video_marker(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """Return the turns with one `<video>`. LLaVA's files write `<image>` for a video; that one is replaced."""
    _require_questions(turns)
    n_video_markers = sum(turn.value.count(VIDEO_MARKER) for turn in turns)
    n_image_markers = sum(turn.value.count(IMAGE_MARKER) for turn in turns)
    if (n_video_markers, n_image_markers) == (0, 1):
        turns = tuple(Turn(t.role, t.value.replace(IMAGE_MARKER, VIDEO_MARKER)) for t in turns)
    elif (n_video_markers, n_image_markers) == (0, 0):
        turns = prepend_to_first_question(turns, f"{VIDEO_MARKER}\n")
    elif (n_video_markers, n_image_markers) != (1, 0):
        raise RejectError(
            "marker_mismatch",
            f"{n_video_markers} {VIDEO_MARKER} and {n_image_markers} {IMAGE_MARKER} markers for one video",
        )
    return turns


def _parse_plain_turns(conversations: Iterable[object]) -> tuple[Turn, ...]:
    """Return the turns of the most frequent form, in a third of the time; none for what needs a closer look."""
    turns: list[Turn] = []
    role: TurnRole = "gpt"
    for entry in conversations:
        role = "human" if role == "gpt" else "gpt"
        if type(entry) is not dict or entry.get("from") != role:
            return ()
        value = entry.get("value")
        if type(value) is not str or not value or value.isspace() or not is_utf8_encodable(value):
            return ()
        turns.append(Turn(role, value))
    return tuple(turns) if role == "gpt" else ()


def _parse_turn(entry: object, index: int) -> Turn:
    if not isinstance(entry, Mapping):
        raise RejectError("bad_turn", f"turn {index} is a {type(entry).__name__}")
    if (role := entry.get("from")) is None:
        role = entry.get("role")
    if (value := entry.get("value")) is None:
        value = entry.get("content")
    role = role.lower() if isinstance(role, str) else role
    if isinstance(value, list | tuple):
        value = format_parts(value, index)
    if not value and (calls := format_tool_calls(entry.get("tool_calls"))) is not None:
        value = calls
    if not isinstance(role, str) or role not in _ROLE_BY_NAME:
        raise RejectError("unknown_role", f"turn {index} is spoken by {str(role)[:40]!r}")
    if not isinstance(value, str):
        raise RejectError("bad_turn", f"the text of turn {index} is a {type(value).__name__}")
    if not (value.isascii() or is_utf8_encodable(value)):
        raise RejectError("bad_utf8", f"turn {index} holds a lone surrogate, which no UTF-8 text can")
    return Turn(_ROLE_BY_NAME[role], value)


def _is_tool_answer(entry: object) -> bool:
    role = (entry.get("from") or entry.get("role")) if isinstance(entry, Mapping) else None
    return isinstance(role, str) and role.lower() in _TOOL_ROLES


def _merge_tool_answers(turns: Iterable[tuple[Turn, bool]]) -> tuple[Turn, ...]:
    """Return the turns, with what several tools answered one after the other as one."""
    merged: list[Turn] = []
    follows_tool = False
    for turn, is_tool_answer in turns:
        if is_tool_answer and follows_tool:
            merged[-1] = Turn(turn.role, f"{merged[-1].value}\n{turn.value}")
        else:
            merged.append(turn)
        follows_tool = is_tool_answer
    return tuple(merged)


def is_utf8_encodable(value: str) -> bool:
    """Return whether the text is free of lone surrogates, which UTF-8 cannot hold."""
    if value.isascii():
        return True
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def prepend_to_first_question(turns: tuple[Turn, ...], prefix: str) -> tuple[Turn, ...]:
    """Return the turns with a text before the first human one."""
    first = next(i for i, turn in enumerate(turns) if turn.role == "human")
    return (*turns[:first], Turn("human", prefix + turns[first].value), *turns[first + 1 :])


def _require_questions(turns: tuple[Turn, ...]) -> None:
    for index, turn in enumerate(turns):
        if turn.role == "human" and (not turn.value or turn.value.isspace()):
            raise RejectError("empty_question", f"turn {index} is empty")
