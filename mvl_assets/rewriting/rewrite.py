"""Rewriting one source: ask what was never asked, then make the source's rows of `rewritten/<category>` anew.

The rows are always derived from the stored answers, all of them, so a parser that got better costs no request.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import Prompt, get_rewrite_prompt, load_prompts
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.progress import FailedRequest
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import REWRITTEN, Reject
from mvl_assets.lake.table import PublishResult
from mvl_assets.lake_queries.rejects import build_reject_table, publish_rejects
from mvl_assets.model_stage.client import ModelStageClient, ProgressCallback, to_model_ref
from mvl_assets.model_stage.dialogue import attach_image_markers
from mvl_assets.model_stage.reask import ReaskChain, Resolution, resolve_chains
from mvl_assets.model_stage.retry_policy import is_retry_requested
from mvl_assets.rewriting.build import RewriteRequest
from mvl_assets.rewriting.parse import Dialogue, ParseError, parse_answer
from mvl_assets.rewriting.requests import count_samples, estimate_request_count, iter_requests, resolve_prompt_family

REWRITE_STAGE = "rewrite"
ROW_BATCH_SIZE = 1024


@dataclass(frozen=True, slots=True)
class RewriteReport:
    """What one call did.

    Requests: `requested` at first, `reasked` after an unusable answer, `cache_hits` of both (answered before), `skipped` of
    both (failed before, and not asked again; see `failed`); `attempts_sent` counts attempts. Rows: `n_rows` published, `n_blind` of
    them by a model that could not see the sample's pictures; `rejects_by_error` are the rejects by error class.
    """

    source: str
    samples: int
    requested: int
    cache_hits: int
    skipped: int
    attempts_sent: int
    reask_requests: int
    rows: int
    blind: int
    rejects_by_error: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    published: PublishResult


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """One stored answer as the parser reads it: dialogues, or why there are none."""

    dialogues: list[Dialogue]
    error: ParseError | None


def rewrite_source(
    lake: Lake,
    source: SourceSpec,
    profile: Profile,
    *,
    run_id: str,
    prompts: Mapping[str, Prompt] | None = None,
    limit: int | None = None,
    retry_error_classes: Collection[str] = (),
    progress: ProgressCallback | None = None,
    endpoints: Sequence[Endpoint] | None = None,
) -> RewriteReport:
    """Rewrites the source's samples in its category table and publishes `rewritten/<category>` for it.

    `limit` bounds whose requests may be sent; rows of answers that exist already are published all the same. `retry_error_classes`
    names error classes (or `all`) whose rejects are asked once more. Raises `SourceError` for a source that is not in
    group B, `LeaseHeld` when another process rewrites it now.
    """
    started = time.monotonic()
    family = resolve_prompt_family(source)
    prompt = get_rewrite_prompt(load_prompts() if prompts is None else prompts, family)
    model_profile = profile.get_rewriter(family)
    model = to_model_ref(model_profile)
    sample_limit = limit if limit is not None else profile.rewrite_limit
    log = lake.get_answer_log(REWRITE_STAGE, source.slug)
    total = estimate_request_count(lake, source, prompt, sample_limit)
    client = ModelStageClient(
        lake,
        REWRITE_STAGE,
        source.slug,
        model_profile,
        run_id,
        endpoints,
        progress,
        retry_error_classes=retry_error_classes,
        total=total,
    )
    sample_counter = Counter[str]()
    resume_offset = client.compute_resume_offset([prompt], count_samples(lake, source, sample_limit))
    client.send_requests(
        a.request
        for a in _iter_counting_samples(
            iter_requests(lake, source, prompt, model, sample_limit, resume_offset), sample_counter
        )
    )
    first_requested = client.requested
    rewrite_requests = (
        a for _, sample_requests in iter_requests(lake, source, prompt, model, sample_limit) for a in sample_requests
    )
    client.send_requests(_iter_reasks(resolve_answers(log, rewrite_requests, prompt), retry_error_classes))
    row_builder = _RewriteRowBuilder(source, family, prompt, model, log, client.failures, run_id)
    requests_by_sample = iter_requests(lake, source, prompt, model, None)
    published = lake.get_table(f"rewritten/{source.category}").publish(
        row_builder.iter_batches(requests_by_sample), source.slug
    )
    publish_rejects(lake, REWRITE_STAGE, source.slug, [build_reject_table(row_builder.rejects, run_id)])
    return RewriteReport(
        source=source.slug,
        samples=sample_counter["samples"],
        requested=first_requested,
        cache_hits=client.cache_hits,
        skipped=client.skipped,
        attempts_sent=client.attempts_sent,
        reask_requests=client.requested - first_requested,
        rows=published.n_rows,
        blind=row_builder.n_blind,
        rejects_by_error=dict(Counter(reject.error for reject in row_builder.rejects)),
        prompt_tokens=client.prompt_tokens,
        completion_tokens=client.completion_tokens,
        seconds=time.monotonic() - started,
        published=published,
    )


def resolve_answers(
    log: AnswerLog, rewrite_requests: Iterable[RewriteRequest], prompt: Prompt
) -> Iterator[Resolution[RewriteRequest, ParsedAnswer]]:
    """Each ask with what is stored for it, in order."""

    def parse(rewrite_request: RewriteRequest, _: Request, answer: Mapping[str, Any]) -> ParsedAnswer:
        try:
            return ParsedAnswer(
                parse_answer(prompt, answer["text"], answer["finish_reason"], rewrite_request.preserved_question), None
            )
        except ParseError as error:
            return ParsedAnswer([], error)

    chains = (
        ReaskChain(rewrite_request, rewrite_request.request, prompt.retry_sampling)
        for rewrite_request in rewrite_requests
    )
    return resolve_chains(log, chains, parse, lambda parsed: parsed.error is None)


def _iter_counting_samples(
    requests_by_sample: Iterable[tuple[str, list[RewriteRequest]]], sample_counter: Counter[str]
) -> Iterator[RewriteRequest]:
    for _, rewrite_requests in requests_by_sample:
        sample_counter["samples"] += 1
        yield from rewrite_requests


def _iter_reasks(
    resolutions: Iterable[Resolution[RewriteRequest, ParsedAnswer]], retry_error_classes: Collection[str]
) -> Iterator[Request | None]:
    """The requests that follow an answer of no use: the one re-ask, and what is to be retried. None for any other."""
    for resolution in resolutions:
        parse_error = resolution.parsed.error if resolution.parsed else None
        should_send = parse_error and (
            resolution.should_send or is_retry_requested(parse_error.error, retry_error_classes)
        )
        yield resolution.next_request if should_send else None


class _RewriteRowBuilder:
    """The rows and rejects of one source, made in one pass over its samples."""

    def __init__(
        self,
        source: SourceSpec,
        family: str,
        prompt: Prompt,
        model: ModelRef,
        log: AnswerLog,
        failures: Mapping[str, FailedRequest],
        run_id: str,
    ) -> None:
        self.source = source
        self.family = family
        self.prompt = prompt
        self.model = model
        self.log = log
        self.failures = failures
        self.run_id = run_id
        self.rejects: list[Reject] = []
        self.n_blind = 0

    def iter_batches(self, requests_by_sample: Iterable[tuple[str, list[RewriteRequest]]]) -> Iterator[pa.Table]:
        resolutions = resolve_answers(self.log, self._iter_requests(requests_by_sample), self.prompt)
        while batch := list(islice(resolutions, ROW_BATCH_SIZE)):
            rows = [row for resolution in batch for row in self._build_rows(resolution)]
            self.n_blind += sum(row["blind"] for row in rows)
            yield pa.Table.from_pylist(rows, schema=REWRITTEN.columns)

    def _iter_requests(
        self, requests_by_sample: Iterable[tuple[str, list[RewriteRequest]]]
    ) -> Iterator[RewriteRequest]:
        for sample_id, rewrite_requests in requests_by_sample:
            if not rewrite_requests:
                self._add_reject(sample_id, "no_question", "the sample has no question with an answer")
            yield from rewrite_requests

    def _build_rows(self, resolution: Resolution[RewriteRequest, ParsedAnswer]) -> Iterator[dict[str, Any]]:
        rewrite_request, request_key = resolution.chain.subject, resolution.request.key
        parsed = resolution.parsed or ParsedAnswer([], None)
        failure = self.failures.get(resolution.next_request.key) if resolution.next_request else None
        if failure is not None:
            self._add_reject(
                rewrite_request.sample_id, failure.error, failure.message, failure.request_key, failure.attempts
            )
        elif parsed.error is not None:
            self._add_reject(
                rewrite_request.sample_id, parsed.error.error, str(parsed.error), request_key, resolution.n_answers
            )
        for ordinal, dialogue in enumerate(parsed.dialogues):
            yield {
                "rewrite_id": compute_digest(rewrite_request.sample_id, request_key, ordinal),
                "sample_id": rewrite_request.sample_id,
                "version_id": rewrite_request.version_id,
                "source": self.source.slug,
                "category": self.source.category,
                "family": self.family,
                "ordinal": ordinal,
                "conversations": attach_image_markers(dialogue, rewrite_request.n_images, rewrite_request.has_video),
                "request_key": request_key,
                "prompt": self.prompt.name,
                "prompt_hash": self.prompt.hash,
                "model": self.model.name,
                "model_revision": self.model.revision,
                "blind": rewrite_request.blind,
                "run_id": self.run_id,
            }

    def _add_reject(
        self, row_key: str, error: str, message: str, request_key: str | None = None, attempts: int = 1
    ) -> None:
        self.rejects.append(
            Reject(REWRITE_STAGE, self.source.slug, row_key, error, message, attempts=attempts, request_key=request_key)
        )
