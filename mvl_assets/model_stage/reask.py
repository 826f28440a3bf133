"""Re-asks: an unusable answer may be followed by a request with other sampling, hence with another key.

Round 1 is the request itself. Round 2 has the prompt's `retry_sampling` laid over its own sampling; every run sends it.
Later rounds, and round 2 of a prompt without `retry_sampling`, add a seed and are sent only on request (`mvl retry`).
All answers stay stored; the first usable one counts, so a better parser may make an earlier round usable without
sending a request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from typing import Any, Generic, TypeVar

from mvl_assets.common.rejects import RejectError
from mvl_assets.inference.progress import FailedRequest
from mvl_assets.inference.request import Request
from mvl_assets.lake.answer_lookup import AnswerLookup
from mvl_assets.model_stage.retry_policy import UNANSWERED

ANSWER_COLUMNS = ["text", "finish_reason", "first_token_logprobs"]

Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class ReaskChain:
    """One question to a model, and its sampling from the second round on."""

    request: Request
    retry_sampling: Mapping[str, Any] | None = None

    @property
    def auto_rounds(self) -> int:
        """How many rounds a run sends by itself."""
        return 1 if self.retry_sampling is None else 2

    def build_round_request(self, round_number: int) -> Request:
        """Return the request of a round; the first is round 1."""
        if round_number == 1:
            return self.request
        sampling = self.request.sampling if self.retry_sampling is None else self.retry_sampling
        if round_number > self.auto_rounds:
            sampling = {**sampling, "seed": round_number}
        return replace_fields(self.request, sampling=sampling)


class RoundKeys:
    """The request keys of a chain, by round; with `chain`, keys of further rounds are built when they are needed."""

    def __init__(self, keys: Sequence[str] = (), chain: ReaskChain | None = None) -> None:
        self.keys = list(keys)
        self._chain = chain

    def get_key(self, round_number: int) -> str | None:
        """Return the key of a round, None when it is not known."""
        while len(self.keys) < round_number and self._chain is not None:
            self.keys.append(self._chain.build_round_request(len(self.keys) + 1).key)
        return self.keys[round_number - 1] if round_number <= len(self.keys) else None


@dataclass(frozen=True, slots=True)
class RejectReason:
    """Why a chain has no result: an error class, a message, and the request concerned with its attempts."""

    error: str
    message: str
    request_key: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Resolution(Generic[Parsed]):
    """The state of one chain by the answer log.

    Attributes:
        first_key: The request of round 1.
        request_key: The request whose answer counts: the first usable one, else the last that was answered.
        n_answers: How many rounds are answered, up to the one that counts.
        parsed: The result; None while no answer is usable.
        error: Why the last answer is unusable; None without an answer.
        next_key: The request that would be sent next; None after a usable answer, or where it is not known.
        failure: How that next request failed, if it did.
    """

    first_key: str
    request_key: str
    n_answers: int = 0
    parsed: Parsed | None = None
    error: RejectError | None = None
    next_key: str | None = None
    failure: FailedRequest | None = None

    @property
    def is_unanswered(self) -> bool:
        """Whether nothing came of the chain yet, neither an answer nor a failure."""
        return not self.n_answers and self.failure is None

    @property
    def reject_reason(self) -> RejectReason | None:
        """Why there is no result; None when there is one."""
        if self.parsed is not None:
            return None
        if self.failure is not None:
            failure = self.failure
            return RejectReason(failure.error, failure.message, failure.request_key, failure.attempts)
        if self.error is not None:
            return RejectReason(self.error.code, self.error.message, self.request_key, self.n_answers)
        return RejectReason(UNANSWERED, "no answer yet", self.request_key, 0)


def resolve_chains(
    answer_lookup: AnswerLookup,
    chains: Sequence[RoundKeys],
    parse: Callable[[int, str, Mapping[str, Any]], Parsed],
    failures: Mapping[str, FailedRequest],
) -> list[Resolution[Parsed]]:
    """Return the resolution of each chain, in order. Looks up all chains at once, round by round.

    Args:
        answer_lookup: The stored answers.
        chains: The keys of the chains.
        parse: Makes a result of (position in `chains`, request key, answer), or raises `RejectError`.
        failures: Requests that failed, by key.
    """
    resolutions: list[Resolution[Parsed]] = []
    open_keys: dict[int, str] = {}
    for index, round_keys in enumerate(chains):
        key = round_keys.get_key(1)
        assert key is not None
        resolutions.append(Resolution(key, key, next_key=key, failure=failures.get(key)))
        open_keys[index] = key
    first_keys = dict(open_keys)
    round_number = 1
    while open_keys:
        answers = answer_lookup.get(set(open_keys.values()), ANSWER_COLUMNS)
        next_keys: dict[int, str] = {}
        for index, key in open_keys.items():
            if key not in answers:
                continue
            try:
                parsed = parse(index, key, answers[key])
            except RejectError as error:
                next_key = chains[index].get_key(round_number + 1)
                failure = None if next_key is None else failures.get(next_key)
                resolutions[index] = Resolution(first_keys[index], key, round_number, None, error, next_key, failure)
                if next_key is not None:
                    next_keys[index] = next_key
            else:
                resolutions[index] = Resolution(first_keys[index], key, round_number, parsed)
        open_keys, round_number = next_keys, round_number + 1
    return resolutions
