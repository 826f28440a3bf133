"""From stored answers to the rows of `judged/<category>`. Nothing is sent from here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.prompts import Prompt, compute_criteria_hash
from mvl_assets.inference.progress import FailedRequest
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.judging.answer_match import matches_all_references
from mvl_assets.judging.kappa import Confusion, compute_confusion
from mvl_assets.judging.keep import JudgedPair, KeepRule, compute_min_p_yes
from mvl_assets.judging.verdict import Verdict, VerdictError, parse_verdict
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.schema import JUDGED, Reject
from mvl_assets.model_stage.dialogue import extract_qa_pairs
from mvl_assets.model_stage.reask import ReaskChain, Resolution, resolve_chains
from mvl_assets.model_stage.retry_policy import UNANSWERED

CASE_BATCH_SIZE = 256

VerdictResolution = Resolution[str, Verdict | VerdictError]
"""What the log says to one request of one criterion."""


@dataclass(frozen=True, slots=True)
class JudgeCase:
    """One rewrite with the requests that judge it: per judge, one per criterion in the order of the prompts. `n_blind`
    is about the first judge."""

    rewrite: Mapping[str, Any]
    original_turns: Sequence[Mapping[str, str]]
    requests: tuple[tuple[Request, ...], ...]
    blind: bool


@dataclass(frozen=True, slots=True)
class JudgePanel:
    """Who judges by which criteria."""

    criteria: Sequence[Prompt]
    first: ModelRef
    second: ModelRef | None = None

    @property
    def criterion_names(self) -> list[str]:
        return [p.criterion_name for p in self.criteria]


def resolve_verdicts(
    log: AnswerLog, cases: Sequence[JudgeCase], criterion_names: Sequence[str]
) -> list[VerdictResolution]:
    """In order: case by case, judge by judge, criterion by criterion."""
    chains = [
        ReaskChain(criterion, request, None)
        for case in cases
        for requests in case.requests
        for criterion, request in zip(criterion_names, requests, strict=True)
    ]
    return list(resolve_chains(log, chains, _try_parse_verdict, lambda read: isinstance(read, Verdict)))


def _try_parse_verdict(criterion: str, request: Request, answer: Mapping[str, Any]) -> Verdict | VerdictError:
    try:
        answer_fields = answer["text"], answer["finish_reason"], answer["first_token_logprobs"]
        return parse_verdict(criterion, request.key, *answer_fields)
    except VerdictError as problem:
        return problem


class JudgedRowBuilder:
    """The rows and rejects of one source, made in one pass over its rewrites.

    A rewrite that lacks a verdict of the first judge has rejects instead of a row, one per request without a verdict;
    one that lacks a verdict of the second has both, and its row says nothing of the second judge. `rejects_by_error` counts
    such rewrites by the error class of the first.
    """

    def __init__(
        self,
        source: SourceSpec,
        panel: JudgePanel,
        rule: KeepRule,
        log: AnswerLog,
        failures: Mapping[str, FailedRequest],
        stage: str,
        run_id: str,
    ) -> None:
        self.source = source
        self.panel = panel
        self.rule = rule
        self.rejects: list[Reject] = []
        self.rejects_by_error = Counter[str]()
        self.drop_reasons = Counter[str]()
        self.n_kept = 0
        self.n_blind = 0
        self._log = log
        self._failures = failures
        self._stage = stage
        self._run_id = run_id
        self._prompt_hash = compute_criteria_hash(panel.criteria)
        self._verdict_pairs = Counter[tuple[bool, bool]]()

    @property
    def judge_agreement(self) -> Confusion:
        """Of the two judges, over rewrites both gave a verdict on."""
        return compute_confusion(self._verdict_pairs.elements())

    def iter_batches(self, cases: Iterable[JudgeCase]) -> Iterator[pa.Table]:
        cases = iter(cases)
        while batch := list(islice(cases, CASE_BATCH_SIZE)):
            resolutions = iter(resolve_verdicts(self._log, batch, self.panel.criterion_names))
            rows = [row for case in batch if (row := self._build_row(case, resolutions)) is not None]
            yield pa.Table.from_pylist(rows, schema=JUDGED.columns)

    def _build_row(self, case: JudgeCase, resolutions: Iterator[VerdictResolution]) -> dict[str, Any] | None:
        verdicts_by_judge = [
            self._collect_verdicts(case, list(islice(resolutions, len(judge_requests))))
            for judge_requests in case.requests
        ]
        verdicts, second_verdicts = verdicts_by_judge[0], verdicts_by_judge[1] if len(verdicts_by_judge) > 1 else None
        if verdicts is None:
            return None
        rewrite = case.rewrite
        matches_reference = matches_all_references(
            extract_qa_pairs(rewrite["conversations"]), extract_qa_pairs(case.original_turns)
        )
        judged_pair = JudgedPair(verdicts, matches_reference, second_verdicts)
        drop_reason = self.rule.find_drop_reason(judged_pair)
        self.n_kept += drop_reason is None
        self.n_blind += case.blind
        if drop_reason is not None:
            self.drop_reasons[drop_reason] += 1
        second_all_yes = None if second_verdicts is None else all(v.is_yes for v in second_verdicts)
        if second_all_yes is not None:
            self._verdict_pairs[judged_pair.all_yes, second_all_yes] += 1
        panel = self.panel
        return {
            "judged_id": compute_digest(rewrite["rewrite_id"], [request.key for request in case.requests[0]]),
            "rewrite_id": rewrite["rewrite_id"],
            "sample_id": rewrite["sample_id"],
            "source": self.source.slug,
            "category": self.source.category,
            "family": self.source.family,
            "verdicts": _to_verdict_structs(verdicts),
            "all_yes": judged_pair.all_yes,
            "p_yes": judged_pair.p_yes,
            "matches_reference": matches_reference,
            "keep": drop_reason is None,
            "drop_reason": drop_reason,
            "keep_rule": self.rule.text,
            "prompt_hash": self._prompt_hash,
            "model": panel.first.name,
            "model_revision": panel.first.revision,
            "blind": case.blind,
            "run_id": self._run_id,
            "second_verdicts": None if second_verdicts is None else _to_verdict_structs(second_verdicts),
            "second_all_yes": second_all_yes,
            "second_p_yes": None if second_verdicts is None else compute_min_p_yes(second_verdicts),
            "second_model": panel.second.name if second_verdicts and panel.second else None,
            "second_model_revision": panel.second.revision if second_verdicts and panel.second else None,
        }

    def _collect_verdicts(self, case: JudgeCase, resolutions: Sequence[VerdictResolution]) -> list[Verdict] | None:
        """One verdict per criterion, or None and a reject for every request that gave none."""
        rejects = [
            self._add_reject(case, resolution)
            for resolution in resolutions
            if not isinstance(resolution.parsed, Verdict)
        ]
        if rejects:
            self.rejects_by_error[rejects[0].error] += 1
            return None
        return [ruling.parsed for ruling in resolutions if isinstance(ruling.parsed, Verdict)]

    def _add_reject(self, case: JudgeCase, resolution: VerdictResolution) -> Reject:
        failure = self._failures.get(resolution.next_request.key) if resolution.next_request else None
        if failure is not None:
            request_key, error, message, attempts = (
                failure.request_key,
                failure.error,
                failure.message,
                failure.attempts,
            )
        elif isinstance(resolution.parsed, VerdictError):
            request_key, error, message, attempts = (
                resolution.request.key,
                resolution.parsed.error,
                str(resolution.parsed),
                resolution.n_answers,
            )
        else:
            request_key, error, message, attempts = resolution.request.key, UNANSWERED, "no answer yet", 0
        row_key = case.rewrite["rewrite_id"]
        reject = Reject(
            self._stage, self.source.slug, row_key, error, message, attempts=attempts, request_key=request_key
        )
        self.rejects.append(reject)
        return reject


def _to_verdict_structs(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    return [
        {"criterion": v.criterion, "request_key": v.request_key, "verdict": v.is_yes, "p_yes": v.p_yes}
        for v in verdicts
    ]
