"""Asking the same thing more than once: an answer of no use may be followed by another request, with a key of its own.

Round 1 is the request itself. Round 2 has the prompt's `retry_sampling` sampling laid over its own; every run asks it. Later
rounds, and round 2 of a prompt without `retry_sampling`, add a seed and are asked only when somebody says so. All answers
stay stored; the first that is of use counts, so a better parser may take back an earlier round for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Generic, TypeVar

from mvl_assets.inference.request import Request
from mvl_assets.lake.answers import AnswerLog

LOOKUP_BATCH_SIZE = 1024
ANSWER_COLUMNS = ["text", "finish_reason", "first_token_logprobs"]

Subject = TypeVar("Subject")
Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class ReaskChain(Generic[Subject]):
    """What is asked (`subject` is the caller's own), and its sampling from the second round on."""

    subject: Subject
    request: Request
    retry_sampling: Mapping[str, Any] | None

    def build_round_request(self, round_number: int) -> Request:
        if round_number == 1:
            return self.request
        sampling = self.request.sampling if self.retry_sampling is None else self.retry_sampling
        if round_number > self.auto_rounds:
            sampling = {**sampling, "seed": round_number}
        return replace(self.request, sampling=sampling)

    @property
    def auto_rounds(self) -> int:
        """How many a run asks by itself."""
        return 1 if self.retry_sampling is None else 2


@dataclass(frozen=True, slots=True)
class Resolution(Generic[Subject, Parsed]):
    """What the log says to a question.

    `parsed` is None when it was never answered; `request` is the one whose answer counts (the last, while none is of
    use). `auto_rounds` counts the answers. `next_request` is what would be asked next, None after an answer of use.
    """

    chain: ReaskChain[Subject]
    request: Request
    parsed: Parsed | None
    n_answers: int
    next_request: Request | None

    @property
    def should_send(self) -> bool:
        """Whether a run asks the following request without being told to."""
        return self.next_request is not None and self.n_answers < self.chain.auto_rounds


def resolve_chains(
    log: AnswerLog,
    chains: Iterable[ReaskChain[Subject]],
    parse: Callable[[Subject, Request, Mapping[str, Any]], Parsed],
    is_usable: Callable[[Parsed], bool],
) -> Iterator[Resolution[Subject, Parsed]]:
    """Each question with what is stored for it, in order; looks a batch of keys up at a time."""
    chains = iter(chains)
    while batch := list(islice(chains, LOOKUP_BATCH_SIZE)):
        yield from _resolve_batch(log, batch, parse, is_usable)


def _resolve_batch(
    log: AnswerLog,
    batch: Sequence[ReaskChain[Subject]],
    parse: Callable[[Subject, Request, Mapping[str, Any]], Parsed],
    is_usable: Callable[[Parsed], bool],
) -> list[Resolution[Subject, Parsed]]:
    resolutions: list[Resolution[Subject, Parsed]] = [
        Resolution(chain, chain.request, None, 0, chain.request) for chain in batch
    ]
    open_requests = dict(enumerate(q.request for q in batch))
    round_number = 1
    while open_requests:
        stored_answers = log.get({request.key for request in open_requests.values()}, ANSWER_COLUMNS)
        next_requests: dict[int, Request] = {}
        for index, request in open_requests.items():
            reask_chain = resolutions[index].chain
            if request.key not in stored_answers:
                continue
            parsed = parse(reask_chain.subject, request, stored_answers[request.key])
            next_request = None if is_usable(parsed) else reask_chain.build_round_request(round_number + 1)
            resolutions[index] = Resolution(reask_chain, request, parsed, round_number, next_request)
            if next_request is not None:
                next_requests[index] = next_request
        open_requests, round_number = next_requests, round_number + 1
    return resolutions
