"""Asking the same thing more than once: an answer of no use may be followed by another request, with a key of its own.

Round 1 is the request itself. Round 2 has the prompt's `ask_again` sampling laid over its own; every run asks it. Later
rounds, and round 2 of a prompt without `ask_again`, add a seed and are asked only when somebody says so. All answers
stay stored; the first that is of use counts, so a better parser may take back an earlier round for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Generic, TypeVar

from mvl_assets.inference.request import Request
from mvl_assets.lake.answers import AnswerLog

BATCH = 1024
COLUMNS = ["text", "finish_reason", "first_logprobs"]

Asked = TypeVar("Asked")
Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Question(Generic[Asked]):
    """What is asked (`asked` is the caller's own), and its sampling from the second round on."""

    asked: Asked
    request: Request
    ask_again: Mapping[str, Any] | None

    def round(self, number: int) -> Request:
        if number == 1:
            return self.request
        sampling = self.request.sampling if self.ask_again is None else self.ask_again
        if number > self.rounds:
            sampling = {**sampling, "seed": number}
        return replace(self.request, sampling=sampling)

    @property
    def rounds(self) -> int:
        """How many a run asks by itself."""
        return 1 if self.ask_again is None else 2


@dataclass(frozen=True, slots=True)
class Found(Generic[Asked, Read]):
    """What the log says to a question.

    `read` is None when it was never answered; `request` is the one whose answer counts (the last, while none is of
    use). `rounds` counts the answers. `following` is what would be asked next, None after an answer of use.
    """

    question: Question[Asked]
    request: Request
    read: Read | None
    rounds: int
    following: Request | None

    @property
    def is_due(self) -> bool:
        """Whether a run asks the following request without being told to."""
        return self.following is not None and self.rounds < self.question.rounds


def look_up(
    log: AnswerLog,
    questions: Iterable[Question[Asked]],
    read: Callable[[Asked, Request, Mapping[str, Any]], Read],
    is_useful: Callable[[Read], bool],
) -> Iterator[Found[Asked, Read]]:
    """Each question with what is stored for it, in order; looks a batch of keys up at a time."""
    questions = iter(questions)
    while batch := list(islice(questions, BATCH)):
        yield from _look_up(log, batch, read, is_useful)


def _look_up(
    log: AnswerLog,
    batch: Sequence[Question[Asked]],
    read: Callable[[Asked, Request, Mapping[str, Any]], Read],
    is_useful: Callable[[Read], bool],
) -> list[Found[Asked, Read]]:
    found: list[Found[Asked, Read]] = [Found(q, q.request, None, 0, q.request) for q in batch]
    open_places = dict(enumerate(q.request for q in batch))
    number = 1
    while open_places:
        stored = log.get({request.key for request in open_places.values()}, COLUMNS)
        following: dict[int, Request] = {}
        for place, request in open_places.items():
            question = found[place].question
            if request.key not in stored:
                continue
            said = read(question.asked, request, stored[request.key])
            after = None if is_useful(said) else question.round(number + 1)
            found[place] = Found(question, request, said, number, after)
            if after is not None:
                following[place] = after
        open_places, number = following, number + 1
    return found
