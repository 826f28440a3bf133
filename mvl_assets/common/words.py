"""Texts reduced to their words, many texts at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mvl_assets.common.markers import IMAGE_MARKER, VIDEO_MARKER

CHUNK_CHARS = 1 << 17
"""Characters that are worked on at once, so that they stay in the processor's cache."""

_END_PUNCTUATION = b".,;:!?"
_SPACE = ord(" ")
_SEPARATOR = b"\xff"  # occurs in no UTF-8
# Among ASCII characters, a capital becomes a small letter and each white space a space.
_FOLDED = bytes(ord(" " if chr(n).isspace() else chr(n).lower()) if n < 128 else n for n in range(256))
_IS_PUNCTUATION = bytes(n in _END_PUNCTUATION for n in range(256))
_ENDS_WORD = bytes(n in (_SPACE, _SEPARATOR[0]) for n in range(256))


def normalize_texts(texts: Sequence[str]) -> list[str]:
    """Return each text without markers of images and videos, case, punctuation at the ends of words and extra spaces.

    Only punctuation at the end of a word is left out: 3.5 is not 35, and -5 is not 5.
    """
    return [text for chunk in _iter_chunks(texts) for text in _normalize_chunk(chunk)]


def _iter_chunks(texts: Sequence[str]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    n_bytes = 0
    for text in texts:
        if "<" in text:
            text = text.replace(IMAGE_MARKER, "").replace(VIDEO_MARKER, "")
        if not text.isascii():
            text = " ".join(text.split()).casefold()
        chunk.append(text.encode())
        n_bytes += len(chunk[-1])
        if n_bytes >= CHUNK_CHARS:
            yield chunk
            chunk, n_bytes = [], 0
    if chunk:
        yield chunk


def _normalize_chunk(texts: Sequence[bytes]) -> list[str]:
    joined = bytearray(_SEPARATOR.join([*texts, b""])).translate(_FOLDED)
    chars = np.frombuffer(joined, dtype=np.uint8)
    marks = np.flatnonzero(np.frombuffer(joined.translate(_IS_PUNCTUATION), dtype=bool))
    if len(marks):
        # Of marks that follow each other, all are at the end of the word, or none is.
        is_last = np.append(np.diff(marks) != 1, True)
        is_at_end = np.frombuffer(_ENDS_WORD, dtype=bool)[chars[marks[is_last] + 1]]
        chars[marks[is_at_end[np.cumsum(is_last) - is_last]]] = _SPACE
    is_space = chars == _SPACE
    is_extra = is_space[1:] & is_space[:-1]
    if is_extra.any():
        chars = chars[np.append(~is_extra, True)]
    return [text.strip(b" ").decode() for text in chars.tobytes().split(_SEPARATOR)[:-1]]
