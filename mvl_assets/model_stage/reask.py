"""Re-asks: an unusable answer may be followed by a request with other sampling, hence with another key.

| round | request | sent |
|---|---|---|
| first | the request itself | always |
| retry | the prompt's `retry_sampling` over its own; only where there is one | after an unusable answer |
| longer | that with more room, see `length_limits`; only where `can_lengthen` | after an answer that was cut |
| later ones | the sampling of the retry and a seed | on request (`mvl retry`) |

An answer that was cut is followed by the longer round at once; a retry that was cut, too. All answers stay stored; the
first usable one counts, so a better parser may make an earlier round usable without sending a request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from typing import Any, Generic, TypeVar

from mvl_assets.common.rejects import RejectError
from mvl_assets.inference.progress import FailedRequest
from mvl_assets.inference.request import Request, TokenUse
from mvl_assets.lake.answer_lookup import AnswerLookup
from mvl_assets.model_stage.length_limits import LENGTH_ERRORS, LONGER_FACTOR, lengthen_request
from mvl_assets.model_stage.retry_policy import UNANSWERED

ANSWER_COLUMNS = [
    "text",
    "finish_reason",
    "first_token_logprobs",
    "reasoning",
    "output_form",
    "prompt_tokens",
    "completion_tokens",
]

Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class ReaskChain:
    """One question to a model, its sampling from the second round on, and whether a cut answer is asked for again."""

    request: Request
    retry_sampling: Mapping[str, Any] | None = None
    can_lengthen: bool = False

    @property
    def auto_rounds(self) -> int:
        """How many rounds a run may send by itself."""
        return 1 + (self.retry_sampling is not None) + self.can_lengthen

    @property
    def longer_round(self) -> int | None:
        """The round with more room, the last of `auto_rounds`; None where there is none."""
        return self.auto_rounds if self.can_lengthen else None

    def build_round_request(self, round_number: int) -> Request:
        """Return the request of a round; the first is round 1."""
        if round_number == 1:
            return self.request
        sampling = self.request.sampling if self.retry_sampling is None else self.retry_sampling
        if round_number == self.longer_round:
            return lengthen_request(self.request, sampling)
        if round_number > self.auto_rounds:
            # Not counting the longer round: seeds are part of the keys of stored answers.
            sampling = {**sampling, "seed": round_number - self.can_lengthen}
        return replace_fields(self.request, sampling=sampling)


class RoundKeys:
    """The request keys of a chain, by round; with `chain`, keys of further rounds are built when they are needed.

    Args:
        keys: The keys that are known, from the first round on.
        chain: The chain.
        longer_round: `ReaskChain.longer_round`, where there is no `chain`.
    """

    def __init__(
        self, keys: Sequence[str] = (), chain: ReaskChain | None = None, longer_round: int | None = None
    ) -> None:
        self.keys = list(keys)
        self.longer_round = longer_round if chain is None else chain.longer_round
        self._chain = chain

    def get_key(self, round_number: int) -> str | None:
        """Return the key of a round, None when it is not known."""
        while len(self.keys) < round_number and self._chain is not None:
            self.keys.append(self._chain.build_round_request(len(self.keys) + 1).key)
        return self.keys[round_number - 1] if round_number <= len(self.keys) else None

    def skips_round(self, round_number: int, error: RejectError) -> bool:
        """Return whether a round without an answer is not what follows an answer with this error."""
        if self.longer_round is None or round_number > self.longer_round:
            return False
        return (error.code in LENGTH_ERRORS) != (round_number == self.longer_round)


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
        next_round: The round that would be sent next, unless the answer is usable.
        parsed: The result; None while no answer is usable.
        error: Why the last answer is unusable; None without an answer.
        token_use: The tokens of that answer, where the server has counted them.
        next_key: The request that would be sent next; None after a usable answer, or where it is not known.
        failure: How that next request failed, if it did.
    """

    first_key: str
    request_key: str
    n_answers: int = 0
    next_round: int = 1
    parsed: Parsed | None = None
    error: RejectError | None = None
    token_use: TokenUse | None = None
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
    parse: Callable[[int, str, Mapping[str, Any], int], Parsed],
    failures: Mapping[str, FailedRequest],
) -> list[Resolution[Parsed]]:
    """Return the resolution of each chain, in order. Looks up all chains at once, round by round.

    Args:
        answer_lookup: The stored answers.
        chains: The keys of the chains.
        parse: Makes a result of (position in `chains`, request key, answer, length factor), or raises `RejectError`;
            the factor is how much longer than its prompt says the answer may be.
        failures: Requests that failed, by key.
    """
    resolutions: list[Resolution[Parsed]] = []
    open_keys: dict[int, str] = {}
    for index, round_keys in enumerate(chains):
        key = round_keys.get_key(1)
        assert key is not None
        resolutions.append(Resolution(key, key, next_key=key, failure=failures.get(key)))
        open_keys[index] = key
    while open_keys:
        answers = answer_lookup.get(set(open_keys.values()), ANSWER_COLUMNS)
        next_keys: dict[int, str] = {}
        for index, key in open_keys.items():
            round_keys, resolution = chains[index], resolutions[index]
            round_number, error, n_answers = resolution.next_round, resolution.error, resolution.n_answers
            last_key, token_use = resolution.request_key, resolution.token_use
            if key in answers:
                length_factor = LONGER_FACTOR if round_number == round_keys.longer_round else 1
                n_answers, last_key, token_use = n_answers + 1, key, _get_token_use(answers[key])
                try:
                    parsed = parse(index, key, answers[key], length_factor)
                except RejectError as parse_error:
                    error = parse_error
                else:
                    resolutions[index] = Resolution(resolution.first_key, key, n_answers, parsed=parsed)
                    continue
            elif error is None or not round_keys.skips_round(round_number, error):
                continue
            next_key = round_keys.get_key(round_number + 1)
            resolutions[index] = Resolution(
                resolution.first_key,
                last_key,
                n_answers,
                round_number + 1,
                error=error,
                token_use=token_use,
                next_key=next_key,
                failure=None if next_key is None else failures.get(next_key),
            )
            if next_key is not None:
                next_keys[index] = next_key
        open_keys = next_keys
    return resolutions


def _get_token_use(answer: Mapping[str, Any]) -> TokenUse | None:
    """Return the tokens of a stored answer; None of a server that does not count them."""
    prompt_tokens, completion_tokens = answer.get("prompt_tokens"), answer.get("completion_tokens")
    return TokenUse(prompt_tokens, completion_tokens) if prompt_tokens and completion_tokens else None
