"""What a chain asks next by the stored answers and failures: nothing, a request to send, or one that is skipped."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from mvl_assets.inference.progress import FailedRequest
from mvl_assets.inference.request import Request
from mvl_assets.lake.answer_lookup import AnswerLookup
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.reask import Parsed, ReaskChain, Resolution, RoundKeys, resolve_chains
from mvl_assets.model_stage.retry_policy import is_retry_requested, load_previous_failures
from mvl_assets.model_stage.stage import ModelStage, RowRequests, Subject

ROW_BATCH_SIZE = 256


@dataclass(frozen=True, slots=True)
class DueRequest:
    """The next request of a chain.

    Attributes:
        request: The first request, or the re-ask that follows an unusable answer.
        is_skipped: Whether it failed before and is not sent again without being told to.
    """

    request: Request
    is_skipped: bool


@dataclass(slots=True)
class ReaskTally:
    """Chains with an answer, and the re-asks that follow their first one: those answered, and those that are due."""

    answered: int = 0
    reasked: int = 0


def find_due_request(
    reask_chain: ReaskChain,
    resolution: Resolution[Any],
    failures: Mapping[str, FailedRequest],
    retry_error_classes: Collection[str] = (),
) -> DueRequest | None:
    """Return the next request of a chain, or None if its stored answers are all that a run asks for.

    Args:
        reask_chain: The chain.
        resolution: Its state by the answer log.
        failures: The failed requests that are not sent again, by key.
        retry_error_classes: Error classes, or `all`, whose unusable answers are asked once more.
    """
    if resolution.n_answers:
        is_reask_due = resolution.error is not None and (
            resolution.next_round <= reask_chain.auto_rounds
            or is_retry_requested(resolution.error.code, retry_error_classes)
        )
        if not is_reask_due:
            return None
    request = reask_chain.build_round_request(resolution.next_round)
    if resolution.next_round == reask_chain.longer_round:
        request = replace(request, cut_answer=resolution.token_use)
    return DueRequest(request, request.key in failures)


def resolve_questions(
    stage: ModelStage[Subject, Parsed],
    answer_lookup: AnswerLookup,
    questions: Sequence[tuple[Subject, int]],
    round_keys: Sequence[RoundKeys],
    failures: Mapping[str, FailedRequest],
) -> list[Resolution[Parsed]]:
    """Resolve chains, each of which is the question at a position of a row's requests.

    Args:
        stage: The stage, which parses the answers.
        answer_lookup: The stored answers.
        questions: For each chain, the row's subject and the position.
        round_keys: The keys of the chains.
        failures: Requests that failed, by key.
    """

    def parse(index: int, request_key: str, answer: Mapping[str, Any], length_factor: int) -> Parsed:
        subject, position = questions[index]
        return stage.parse(subject, position, request_key, answer, length_factor)

    return resolve_chains(answer_lookup, round_keys, parse, failures)


def iter_due_requests(
    lake: Lake, stage: ModelStage[Subject, Any], rows: Iterable[RowRequests[Subject]], tally: ReaskTally | None = None
) -> Iterator[DueRequest | None]:
    """Yield what `find_due_request` returns for each distinct chain of `rows`; memory holds 16 bytes a chain."""
    answer_lookup = lake.get_answer_lookup(stage.name, stage.source, stage.shard_name)
    failures = load_previous_failures(lake, stage.name, stage.source).skipped
    seen_keys: set[bytes] = set()
    remaining_rows = iter(rows)
    while batch := list(islice(remaining_rows, ROW_BATCH_SIZE)):
        questions: list[tuple[Subject, int]] = []
        chains: list[ReaskChain] = []
        for row in batch:
            for position, reask_chain in enumerate(row.chains):
                key = bytes.fromhex(reask_chain.request.key)
                if key not in seen_keys:
                    seen_keys.add(key)
                    questions.append((row.subject, position))
                    chains.append(reask_chain)
        round_keys = [RoundKeys(chain=reask_chain) for reask_chain in chains]
        resolutions = resolve_questions(stage, answer_lookup, questions, round_keys, failures)
        for reask_chain, resolution in zip(chains, resolutions, strict=True):
            due = find_due_request(reask_chain, resolution, failures)
            if tally is not None and resolution.n_answers:
                tally.answered += 1
                tally.reasked += resolution.n_answers - 1 + (due is not None)
            yield due
