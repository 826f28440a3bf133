"""Failed requests: which ones the next run sends again, and which ones wait for `mvl retry`.

| what failed | next run | why |
|---|---|---|
| a time-out, a lost connection, a malformed reply | sends again | the server may have been at fault |
| 5xx, 408, 409, 425, 429, more often than a run accepts | sends again | as above |
| not answered within the time of its batch, more often than a run accepts | sends again | as above |
| its batch was cancelled | skips | somebody cancelled it |
| any other 4xx | skips | the server refused this very request, which may be too long |
| `context_full`: a cut answer that no server's context leaves more room | skips | it would be cut again |
| `crashed_server` | skips | each attempt costs a server |
| a missing or broken image | skips | nothing could be sent |
| an unusable answer, after its one re-ask | skips | it is stored and was paid for |

What is skipped stays a row of `rejects`. Another request key (an edited prompt, another model, a changed row) is
another request, and is sent. What a fault means during a run is decided in `inference.faults`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mvl_assets.inference.progress import FailedRequest
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.rejects import format_reject_partition

ALL_ERROR_CLASSES = "all"
UNANSWERED = "unanswered"
_TRANSIENT_ERRORS = frozenset(
    {"timeout", "connection_lost", "no_connection", "malformed_reply", "batch_expired", UNANSWERED}
)
_TRANSIENT_STATUSES = frozenset({"http_408", "http_409", "http_425", "http_429"})


def is_transient(error: str) -> bool:
    """Return whether the next run sends again by itself after an error of this class."""
    return error in _TRANSIENT_ERRORS or error in _TRANSIENT_STATUSES or error.startswith("http_5")


def is_retry_requested(error: str, retry_error_classes: Collection[str]) -> bool:
    """Return whether `retry_error_classes` has this class or `all`."""
    return error in retry_error_classes or ALL_ERROR_CLASSES in retry_error_classes


@dataclass(frozen=True, slots=True)
class PreviousFailures:
    """The failures of earlier runs, by request key.

    Attributes:
        skipped: Those that are not sent again.
        attempts_by_key: The attempts of all of them.
    """

    skipped: Mapping[str, FailedRequest]
    attempts_by_key: Mapping[str, int]


def load_previous_failures(
    lake: Lake, stage: str, source: str, retry_error_classes: Collection[str] = ()
) -> PreviousFailures:
    """Return the failures among the rejects of a stage and source.

    Args:
        lake: The lake.
        stage: Pipeline stage.
        source: The source.
        retry_error_classes: Classes of errors whose requests are sent again.
    """
    skipped: dict[str, FailedRequest] = {}
    attempts_by_key: dict[str, int] = {}
    columns = ["request_key", "error", "message", "attempts"]
    partition_key = format_reject_partition(stage, source)
    for row in lake.get_table("rejects").iter_rows(columns, partition_key=partition_key):
        request_key = row["request_key"]
        if request_key is None:
            continue
        attempts_by_key[request_key] = row["attempts"]
        if not is_transient(row["error"]) and not is_retry_requested(row["error"], retry_error_classes):
            skipped[request_key] = FailedRequest(request_key, row["error"], row["message"], row["attempts"])
    return PreviousFailures(skipped, attempts_by_key)


def has_auto_retried_requests(lake: Lake, stage: str, source: str) -> bool:
    """Return whether a stage and source has failed requests that the next run sends again without being told to."""
    partition_key = format_reject_partition(stage, source)
    batches = lake.get_table("rejects").scan(["error"], "request_key IS NOT NULL", partition_key=partition_key)
    return any(is_transient(error) for batch in batches for error in batch.column(0).unique().to_pylist())


@dataclass
class RejectGroup:
    """The rejects of one stage, source and error class. `example` is one of their messages."""

    stage: str
    source: str
    error: str
    rows: int
    attempts: int
    example: str

    @property
    def is_auto_retried(self) -> bool:
        """Whether the next run sends them again without being told to."""
        return is_transient(self.error)


def list_reject_groups(lake: Lake, stages: Collection[str]) -> list[RejectGroup]:
    """Return the rejects of some stages that could be sent again, the largest group first."""
    groups_by_key: dict[tuple[str, str, str], RejectGroup] = {}
    condition = f"{sql.is_in('stage', stages)} AND request_key IS NOT NULL"
    for row in lake.get_table("rejects").iter_rows(["stage", "source", "error", "message", "attempts"], condition):
        key = (row["stage"], row["source"], row["error"])
        group = groups_by_key.setdefault(key, RejectGroup(*key, rows=0, attempts=0, example=row["message"]))
        group.rows += 1
        group.attempts += row["attempts"]
    return sorted(groups_by_key.values(), key=lambda g: (-g.rows, g.stage, g.source, g.error))
