"""Stored answers of a stage and source over all tables that may hold them.

A large source is divided into shards by the leading bits of a digest of each row, and a shard's answers have a table of
their own, `answers/{stage}/{source}/{shard}`, named by these bits. When the source grows, the number of shards doubles:
shard `01` then splits into `010` and `011`, and the answers of both are still in the table `01`. So a shard's answers
are looked up in every table whose bits begin with its own, or are the beginning of its own. A source that was never
divided has the table `answers/{stage}/{source}` alone, which stands for no bits at all.

Answers about the few rows that a prompt was tried on (`mvl try`) have a table of their own beside these,
`answers/{stage}/{source}/try`, so that a trial and a run never wait for each other. Both find the other's answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mvl_assets.lake.answers import AnswerLog

WHOLE_SOURCE = ""
"""The shard of a source that is not divided."""
TRIED_ROWS = "try"
"""The shard of rows that a prompt was tried on, whatever bits their digests begin with."""


class AnswerLookup:
    """Reads the answers of several tables as if they were in one; of equal keys the first table's is taken.

    Attributes:
        logs: The tables, by shard.
    """

    def __init__(self, logs: dict[str, AnswerLog], shard: str = WHOLE_SOURCE) -> None:
        self.logs = logs
        self._shard = shard

    def find_answered(self, request_keys: Iterable[str]) -> set[str]:
        """Return those of the keys that have an answer. Raises as `AnswerLog.find_answered` does."""
        remaining = set(request_keys)
        answered: set[str] = set()
        for log in self.logs.values():
            if not remaining:
                break
            answered |= log.find_answered(remaining)
            remaining -= answered
        return answered

    def get(self, request_keys: Iterable[str], columns: Sequence[str] | None = None) -> dict[str, dict]:
        """Return the stored answers by key, with all columns or only these. Raises as `find_answered` does."""
        remaining = set(request_keys)
        answers: dict[str, dict] = {}
        for log in self.logs.values():
            if not remaining:
                break
            answers |= log.get(remaining, columns)
            remaining -= answers.keys()
        return answers

    def estimate_count(self, filter: str | None = None) -> int:
        """Count the answers that match; of a table that several shards share, take this one's share."""
        return round(
            sum(
                log.table.count(filter) / 2 ** max(0, _count_bits(self._shard) - _count_bits(shard))
                for shard, log in self.logs.items()
            )
        )

    def has_match(self, filter: str) -> bool:
        """Return whether any answer matches."""
        return any(log.table.count(filter) for log in self.logs.values())

    def iter_rows(self, columns: Sequence[str], filter: str | None = None) -> Iterator[dict]:
        """Yield the answers that match, table by table."""
        for log in self.logs.values():
            yield from log.table.iter_rows(columns, filter)


def is_related(shard: str, other: str) -> bool:
    """Return whether rows of a shard may be in the other, or were when the source had fewer or more shards."""
    return TRIED_ROWS in (shard, other) or shard.startswith(other) or other.startswith(shard)


def _count_bits(shard: str) -> int:
    return 0 if shard == TRIED_ROWS else len(shard)
