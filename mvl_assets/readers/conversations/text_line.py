r"""A LLaVA line of text alone, read in one step: there are millions of them, and the general way costs twice as much.

{"id": "1", "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]}
"""

from __future__ import annotations

import msgspec

from mvl_assets.readers.parsers.json_stream import has_keys
from mvl_assets.readers.rows import parse_native_id
from mvl_assets.readers.sample import Sample, Turn


class _TextLine(msgspec.Struct, gc=False):
    conversations: tuple[Turn, ...]
    id: str | int | msgspec.UnsetType | None = msgspec.UNSET


_decode = msgspec.json.Decoder(_TextLine).decode


def parse_text_line(file: str, position: int, line: bytes) -> Sample | None:
    """Return the sample, or None for a line that is anything else or that something may be wrong with."""
    try:
        row = _decode(line)
    except (ValueError, RecursionError, msgspec.DecodeError):
        return None
    turns = row.conversations
    # With other keys, or one that is given twice, it has more than these.
    if not has_keys(line, 2 * len(turns) + (1 if row.id is msgspec.UNSET else 2)):
        return None
    speaker = "gpt"
    for turn in turns:
        text = turn.value
        if turn.role == speaker or "<" in text or not text or text.isspace():
            return None
        speaker = turn.role
    if not turns or turns[0].role != "human" or speaker != "gpt":
        return None
    return Sample(file, position, turns, parse_native_id(row.id))
