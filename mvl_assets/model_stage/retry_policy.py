"""Failed requests: which are asked again by the next run, and which wait until somebody says so (`mvl retry`).

| what failed | next run | why |
|---|---|---|
| a time-out, a lost connection, no real reply | asks again | the server may have been at fault |
| 5xx, 408, 409, 425, 429, more often than a run bears | asks again | as above |
| any other 4xx | leaves it | the server refused this very request; it may be too long |
| `killed_server` | leaves it | each try costs a server |
| a missing or broken picture | leaves it | nothing could be sent |
| an answer of no use, after its one re-ask | leaves it | it is stored and was paid for |

What is left stays a row of `rejects`. Another request key (an edited prompt, another model, a changed row) is another
request, and is asked. Belongs here: this rule. What a fault means while a run goes is `inference.retry`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mvl_assets.inference.progress import Failure
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake

ALL = "all"
UNANSWERED = "unanswered"
_PASSING = frozenset({"timeout", "connection_lost", "no_connection", "malformed_reply", UNANSWERED})
_PASSING_STATUS = frozenset({"http_408", "http_409", "http_425", "http_429"})


def passes(error: str) -> bool:
    """Whether the next run asks again by itself after an error of this class."""
    return error in _PASSING or error in _PASSING_STATUS or error.startswith("http_5")


def chosen(error: str, retry: Collection[str]) -> bool:
    """Whether `retry`, some error classes or `all`, names this class."""
    return error in retry or ALL in retry


@dataclass(frozen=True, slots=True)
class Rejected:
    """The failures of earlier runs by request key: those that are `left`, and the `attempts` all have cost."""

    left: Mapping[str, Failure]
    attempts: Mapping[str, int]


def rejected(lake: Lake, stage: str, source: str, retry: Collection[str] = ()) -> Rejected:
    """What the rejects of a stage and source say; those that `retry` names are not left."""
    left: dict[str, Failure] = {}
    attempts: dict[str, int] = {}
    columns = ["request_key", "error", "message", "attempts"]
    condition = f"{sql.equals('stage', stage)} AND {sql.equals('source', source)}"
    for row in lake.table("rejects").rows(columns, condition):
        key = row["request_key"]
        if key is None:
            continue
        attempts[key] = row["attempts"]
        if not passes(row["error"]) and not chosen(row["error"], retry):
            left[key] = Failure(key, row["error"], row["message"], row["attempts"])
    return Rejected(left, attempts)


@dataclass
class Group:
    """The rejects of one stage, source and error class; `example` is one of their messages."""

    stage: str
    source: str
    error: str
    rows: int
    attempts: int
    example: str

    @property
    def asked_again(self) -> bool:
        """By the next run, without being told to."""
        return passes(self.error)


def groups(lake: Lake, stages: Collection[str]) -> list[Group]:
    """What is rejected in these stages and could be asked again, most rows first. Holds one entry per class."""
    found: dict[tuple[str, str, str], Group] = {}
    condition = f"{sql.within('stage', stages)} AND request_key IS NOT NULL"
    for row in lake.table("rejects").rows(["stage", "source", "error", "message", "attempts"], condition):
        key = (row["stage"], row["source"], row["error"])
        group = found.setdefault(key, Group(*key, rows=0, attempts=0, example=row["message"]))
        group.rows += 1
        group.attempts += row["attempts"]
    return sorted(found.values(), key=lambda g: (-g.rows, g.stage, g.source, g.error))
