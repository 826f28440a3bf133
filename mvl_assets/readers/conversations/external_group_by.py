"""An external merge sort that groups (key, value) rows in bounded memory."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from operator import itemgetter
from typing import IO, Any

from mvl_assets.common.scratch_location import SCRATCH_HINT, open_scratch_file
from mvl_assets.errors import InfrastructureError

RUN_BYTES = 32 << 20
"""Approximate bytes of rows that are held before they are sorted and written to disk."""

_ROW_OVERHEAD_BYTES = 200  # bytes that Python needs for a row in addition to its characters

SortEntry = tuple[str, int, str]  # key, number of the row, its value as JSON


def group_by_external_sort(rows: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Iterator[Any]]]:
    """Yield each key with its values in the order in which they came; keys come in the order of their characters.

    As with `itertools.groupby`, a key's values are gone once the next key is asked for. Memory stays near `RUN_BYTES`
    whatever the number of rows; a row of 100 characters takes 300 bytes of it. The temporary files have no names, so a
    process that is killed leaves none.

    Args:
        rows: (key, value); values are what JSON can hold.

    Raises:
        InfrastructureError: The temporary files cannot be written.
    """
    with ExitStack() as open_files:
        sorted_runs: list[Iterator[SortEntry]] = []
        buffer: list[SortEntry] = []
        buffer_bytes = 0
        for row_number, (key, value) in enumerate(rows):
            text = json.dumps(value)
            buffer.append((key, row_number, text))
            buffer_bytes += len(key) + len(text) + _ROW_OVERHEAD_BYTES
            if buffer_bytes >= RUN_BYTES:
                with _convert_disk_errors():
                    stream = open_files.enter_context(open_scratch_file("w+", "ascii"))
                    _write_run(stream, sorted(buffer))
                sorted_runs.append(_read_run(stream))
                buffer, buffer_bytes = [], 0
        merged = heapq.merge(*sorted_runs, sorted(buffer))
        for key, group in groupby(merged, itemgetter(0)):
            yield key, (json.loads(text) for _, _, text in group)


def _write_run(stream: IO[str], entries: list[SortEntry]) -> None:
    for key, row_number, text in entries:
        stream.write(f"{json.dumps(key)}\t{row_number}\t{text}\n")
    stream.seek(0)


@contextmanager
def _convert_disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InfrastructureError(
            f"rows cannot be sorted in a temporary file: {error.strerror}",
            hint=f"free some space, or {SCRATCH_HINT}",
        ) from error


def _read_run(stream: IO[str]) -> Iterator[SortEntry]:
    for line in stream:
        key, row_number, text = line.rstrip("\n").split("\t")
        yield json.loads(key), int(row_number), text
