"""From stored answers to the rows of `judged/<category>`. Nothing is sent from here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from mvl_assets.common.digest import digest_hex
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.prompts import Prompt, criteria_hash
from mvl_assets.inference.progress import Failure
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.judging.answer_match import answers_agree
from mvl_assets.judging.kappa import Confusion, confusion
from mvl_assets.judging.keep import Judgement, KeepRule, least_p_yes
from mvl_assets.judging.verdict import Verdict, VerdictError, read_verdict
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.schema import JUDGED, Reject
from mvl_assets.model_stage.dialogue import pairs_of
from mvl_assets.model_stage.reask import Found, Question, look_up
from mvl_assets.model_stage.retry_policy import UNANSWERED

BATCH = 256

Ruling = Found[str, Verdict | VerdictError]
"""What the log says to one request of one criterion."""


@dataclass(frozen=True, slots=True)
class Case:
    """One rewrite with the requests that judge it: per judge, one per criterion in the order of the prompts. `blind`
    is about the first judge."""

    rewrite: Mapping[str, Any]
    original: Sequence[Mapping[str, str]]
    requests: tuple[tuple[Request, ...], ...]
    blind: bool


@dataclass(frozen=True, slots=True)
class Judges:
    """Who judges by which criteria."""

    criteria: Sequence[Prompt]
    first: ModelRef
    second: ModelRef | None = None

    @property
    def names(self) -> list[str]:
        return [p.criterion or p.name for p in self.criteria]


def rulings(log: AnswerLog, cases: Sequence[Case], criteria: Sequence[str]) -> list[Ruling]:
    """In order: case by case, judge by judge, criterion by criterion."""
    questions = [
        Question(criterion, request, None)
        for case in cases
        for requests in case.requests
        for criterion, request in zip(criteria, requests, strict=True)
    ]
    return list(look_up(log, questions, _read, lambda read: isinstance(read, Verdict)))


def _read(criterion: str, request: Request, answer: Mapping[str, Any]) -> Verdict | VerdictError:
    try:
        said = answer["text"], answer["finish_reason"], answer["first_logprobs"]
        return read_verdict(criterion, request.key, *said)
    except VerdictError as problem:
        return problem


class JudgedRows:
    """The rows and rejects of one source, made in one pass over its rewrites.

    A rewrite that lacks a verdict of the first judge has rejects instead of a row, one per request without a verdict;
    one that lacks a verdict of the second has both, and its row says nothing of the second judge. `unusable` counts
    such rewrites by the error class of the first.
    """

    def __init__(
        self,
        source: SourceSpec,
        judges: Judges,
        rule: KeepRule,
        log: AnswerLog,
        failures: Mapping[str, Failure],
        stage: str,
        run_id: str,
    ) -> None:
        self.source = source
        self.judges = judges
        self.rule = rule
        self.rejects: list[Reject] = []
        self.unusable = Counter[str]()
        self.dropped = Counter[str]()
        self.kept = 0
        self.blind = 0
        self._log = log
        self._failures = failures
        self._stage = stage
        self._run_id = run_id
        self._prompt_hash = criteria_hash(judges.criteria)
        self._both = Counter[tuple[bool, bool]]()

    @property
    def agreement(self) -> Confusion:
        """Of the two judges, over rewrites both gave a verdict on."""
        return confusion(self._both.elements())

    def batches(self, cases: Iterable[Case]) -> Iterator[pa.Table]:
        cases = iter(cases)
        while batch := list(islice(cases, BATCH)):
            found = iter(rulings(self._log, batch, self.judges.names))
            rows = [row for case in batch if (row := self._row(case, found)) is not None]
            yield pa.Table.from_pylist(rows, schema=JUDGED.columns)

    def _row(self, case: Case, found: Iterator[Ruling]) -> dict[str, Any] | None:
        several = [self._verdicts(case, list(islice(found, len(asked)))) for asked in case.requests]
        verdicts, second = several[0], several[1] if len(several) > 1 else None
        if verdicts is None:
            return None
        rewrite = case.rewrite
        agreed = answers_agree(pairs_of(rewrite["conversations"]), pairs_of(case.original))
        judgement = Judgement(verdicts, agreed, second)
        reason = self.rule.drop_reason(judgement)
        self.kept += reason is None
        self.blind += case.blind
        if reason is not None:
            self.dropped[reason] += 1
        second_all_yes = None if second is None else all(v.yes for v in second)
        if second_all_yes is not None:
            self._both[judgement.all_yes, second_all_yes] += 1
        judges = self.judges
        return {
            "judged_id": digest_hex(rewrite["rewrite_id"], [request.key for request in case.requests[0]]),
            "rewrite_id": rewrite["rewrite_id"],
            "sample_id": rewrite["sample_id"],
            "source": self.source.slug,
            "category": self.source.category,
            "family": self.source.family,
            "verdicts": _listed(verdicts),
            "all_yes": judgement.all_yes,
            "p_yes": judgement.p_yes,
            "answer_agrees": agreed,
            "keep": reason is None,
            "drop_reason": reason,
            "keep_rule": self.rule.text,
            "prompt_hash": self._prompt_hash,
            "model": judges.first.name,
            "model_revision": judges.first.revision,
            "blind": case.blind,
            "run_id": self._run_id,
            "second_verdicts": None if second is None else _listed(second),
            "second_all_yes": second_all_yes,
            "second_p_yes": None if second is None else least_p_yes(second),
            "second_model": judges.second.name if second and judges.second else None,
            "second_model_revision": judges.second.revision if second and judges.second else None,
        }

    def _verdicts(self, case: Case, found: Sequence[Ruling]) -> list[Verdict] | None:
        """One verdict per criterion, or None and a reject for every request that gave none."""
        missing = [self._reject(case, ruling) for ruling in found if not isinstance(ruling.read, Verdict)]
        if missing:
            self.unusable[missing[0].error] += 1
            return None
        return [ruling.read for ruling in found if isinstance(ruling.read, Verdict)]

    def _reject(self, case: Case, ruling: Ruling) -> Reject:
        failure = self._failures.get(ruling.following.key) if ruling.following else None
        if failure is not None:
            key, error, message, attempts = failure.request_key, failure.error, failure.message, failure.attempts
        elif isinstance(ruling.read, VerdictError):
            key, error, message, attempts = ruling.request.key, ruling.read.error, str(ruling.read), ruling.rounds
        else:
            key, error, message, attempts = ruling.request.key, UNANSWERED, "no answer yet", 0
        row_key = case.rewrite["rewrite_id"]
        reject = Reject(self._stage, self.source.slug, row_key, error, message, attempts=attempts, request_key=key)
        self.rejects.append(reject)
        return reject


def _listed(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    return [
        {"criterion": v.criterion, "request_key": v.request_key, "verdict": v.yes, "p_yes": v.p_yes} for v in verdicts
    ]
