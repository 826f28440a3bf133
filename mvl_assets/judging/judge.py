"""Judging one source: a Yes/No request per rewrite and criterion, then the source's rows of `judged/<category>` anew.

The rows are derived from the stored answers and the profile's keep rule: moving a threshold sends nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from mvl_assets.catalog import SourceSpec
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.judging.agreement import answers_agree
from mvl_assets.judging.keep import Judgement, KeepRule, parse_rule
from mvl_assets.judging.verdict import Verdict, VerdictError, read_verdict
from mvl_assets.lake import sql
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.digest import digest_hex
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.rejects import publish_rejects, reject_table
from mvl_assets.lake.schema import JUDGED, Reject
from mvl_assets.lake.table import Published
from mvl_assets.profile import Profile
from mvl_assets.prompts import Prompt, criteria_hash, judge_prompts, load_prompts
from mvl_assets.rewriting.asking import Asker, ProgressSink, model_ref
from mvl_assets.rewriting.build import messages_of, output_form
from mvl_assets.rewriting.conversation import listed, pairs_of
from mvl_assets.rewriting.rows import family_of

STAGE = "judge"
BATCH = 256
_REWRITE_COLUMNS = ["rewrite_id", "sample_id", "version_id", "conversations"]
_SAMPLE_COLUMNS = ["version_id", "conversations", "image_ids"]


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """What one call did.

    Requests: `wanted`, `reused` of them (answered before), `sent` counts attempts. Rows: `rows` published, `kept` of
    them, the rest by `drop_reasons`, `blind` judged without the sample's pictures; `unusable` are rejects by error.
    """

    source: str
    wanted: int
    reused: int
    sent: int
    rows: int
    kept: int
    blind: int
    drop_reasons: dict[str, int]
    unusable: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    published: Published


@dataclass(frozen=True, slots=True)
class Case:
    """One rewrite with the requests that judge it, one per criterion in the order of the prompts."""

    rewrite: Mapping[str, Any]
    original: Sequence[Mapping[str, str]]
    requests: tuple[Request, ...]
    blind: bool


def judge_source(
    lake: Lake,
    source: SourceSpec,
    profile: Profile,
    *,
    run_id: str,
    prompts: Mapping[str, Prompt] | None = None,
    progress: ProgressSink | None = None,
    endpoints: Sequence[Endpoint] | None = None,
) -> JudgeReport:
    """Judges every row the source has in `rewritten/<category>` and publishes `judged/<category>` for it.

    Raises `SourceError` for a source that is not in group B, `MvlError` for a keep rule that cannot be read (before
    anything is sent), `LeaseHeld` when another process judges it now.
    """
    started = time.monotonic()
    family = family_of(source)
    criteria = judge_prompts(load_prompts() if prompts is None else prompts, family)
    rule = parse_rule(profile.keep.rule, profile.keep.without_key, [p.criterion or p.name for p in criteria])
    profile_model = profile.model_for("judge")
    model = model_ref(profile_model)
    asker = Asker(lake, STAGE, source.slug, profile_model, run_id, endpoints, progress)
    # Rewrite by rewrite, the criteria side by side: their prefix is equal, and the server's cache still holds it.
    asker.ask(request for case in cases_for(lake, source, criteria, model) for request in case.requests)
    rows = _Rows(source, family, criteria, model, rule, lake.answers(STAGE, source.slug), asker, run_id)
    table = lake.table(f"judged/{source.category}")
    published = table.publish(rows.batches(cases_for(lake, source, criteria, model)), source.slug)
    publish_rejects(lake, STAGE, source.slug, [reject_table(rows.rejects, run_id)])
    return JudgeReport(
        source=source.slug,
        wanted=asker.wanted,
        reused=asker.reused,
        sent=asker.sent,
        rows=published.rows,
        kept=rows.kept,
        blind=rows.blind,
        drop_reasons=dict(rows.dropped),
        unusable=dict(Counter(reject.error for reject in rows.rejects)),
        prompt_tokens=asker.prompt_tokens,
        completion_tokens=asker.completion_tokens,
        seconds=time.monotonic() - started,
        published=published,
    )


def cases_for(lake: Lake, source: SourceSpec, criteria: Sequence[Prompt], model: ModelRef) -> Iterator[Case]:
    """Every rewrite of the source with its requests; the judge does not get the original key (arXiv 2412.05237 §2)."""
    table = lake.table(f"rewritten/{source.category}")
    rewrites = table.rows(_REWRITE_COLUMNS, sql.equals("source", source.slug))
    while batch := list(islice(rewrites, BATCH)):
        samples = lake.index("samples").rows([row["version_id"] for row in batch], _SAMPLE_COLUMNS)
        for row in batch:
            sample = samples[row["version_id"]]
            values = {"conversation": listed(pairs_of(row["conversations"]))}
            asked = [messages_of(p, values, sample["image_ids"] or (), model) for p in criteria]
            requests = tuple(
                Request(messages, model, p.sampling, p.name, p.hash, output_form(p))
                for p, (messages, _) in zip(criteria, asked, strict=True)
            )
            yield Case(row, sample["conversations"], requests, blind=any(blind for _, blind in asked))


class _Rows:
    """The rows and rejects of one source, made in one pass over its rewrites."""

    def __init__(
        self,
        source: SourceSpec,
        family: str,
        criteria: Sequence[Prompt],
        model: ModelRef,
        rule: KeepRule,
        log: AnswerLog,
        asker: Asker,
        run_id: str,
    ) -> None:
        self.source = source
        self.family = family
        self.criteria = criteria
        self.model = model
        self.rule = rule
        self.log = log
        self.asker = asker
        self.run_id = run_id
        self.prompt_hash = criteria_hash(criteria)
        self.rejects: list[Reject] = []
        self.dropped = Counter[str]()
        self.kept = 0
        self.blind = 0

    def batches(self, cases: Iterable[Case]) -> Iterator[pa.Table]:
        cases = iter(cases)
        while batch := list(islice(cases, BATCH)):
            keys = {request.key for case in batch for request in case.requests}
            stored = self.log.get(keys, ["text", "finish_reason", "first_logprobs"])
            rows = [row for case in batch if (row := self._row(case, stored)) is not None]
            yield pa.Table.from_pylist(rows, schema=JUDGED.columns)

    def _row(self, case: Case, stored: Mapping[str, Any]) -> dict[str, Any] | None:
        verdicts = self._verdicts(case, stored)
        if verdicts is None:
            return None
        rewrite = case.rewrite
        agreed = answers_agree(pairs_of(rewrite["conversations"]), pairs_of(case.original))
        judgement = Judgement(verdicts, agreed)
        reason = self.rule.drop_reason(judgement)
        self.kept += reason is None
        self.blind += case.blind
        if reason is not None:
            self.dropped[reason] += 1
        return {
            "judged_id": digest_hex(rewrite["rewrite_id"], [request.key for request in case.requests]),
            "rewrite_id": rewrite["rewrite_id"],
            "sample_id": rewrite["sample_id"],
            "source": self.source.slug,
            "category": self.source.category,
            "family": self.family,
            "verdicts": [
                {"criterion": v.criterion, "request_key": v.request_key, "verdict": v.yes, "p_yes": v.p_yes}
                for v in verdicts
            ],
            "all_yes": judgement.all_yes,
            "p_yes": judgement.p_yes,
            "answer_agrees": agreed,
            "keep": reason is None,
            "drop_reason": reason,
            "keep_rule": self.rule.text,
            "prompt_hash": self.prompt_hash,
            "model": self.model.name,
            "model_revision": self.model.revision,
            "blind": case.blind,
            "run_id": self.run_id,
        }

    def _verdicts(self, case: Case, stored: Mapping[str, Any]) -> list[Verdict] | None:
        """One verdict per criterion, or None and a reject for the first that is missing."""
        verdicts = []
        for prompt, request in zip(self.criteria, case.requests, strict=True):
            answer, failure = stored.get(request.key), self.asker.failures.get(request.key)
            if answer is None:
                error, message = (failure.error, failure.message) if failure else ("unanswered", "no answer yet")
                self._reject(case, request, error, message, failure.attempts if failure else 0)
                return None
            try:
                verdict = read_verdict(
                    prompt.criterion or prompt.name,
                    request.key,
                    answer["text"],
                    answer["finish_reason"],
                    answer["first_logprobs"],
                )
            except VerdictError as problem:
                self._reject(case, request, problem.error, str(problem), 1)
                return None
            verdicts.append(verdict)
        return verdicts

    def _reject(self, case: Case, request: Request, error: str, message: str, attempts: int) -> None:
        row_key = case.rewrite["rewrite_id"]
        self.rejects.append(
            Reject(STAGE, self.source.slug, row_key, error, message, attempts=attempts, request_key=request.key)
        )
