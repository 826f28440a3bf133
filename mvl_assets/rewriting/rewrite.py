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

from mvl_assets.common.digest import digest_hex
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import Prompt, load_prompts, rewrite_prompt
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.progress import Failure
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import REWRITTEN, Reject
from mvl_assets.lake.table import Published
from mvl_assets.lake_queries.rejects import publish_rejects, reject_table
from mvl_assets.model_stage.client import Asker, ProgressSink, model_ref
from mvl_assets.model_stage.dialogue import with_pictures
from mvl_assets.model_stage.reask import Found, Question, look_up
from mvl_assets.model_stage.retry_policy import chosen
from mvl_assets.rewriting.build import Ask
from mvl_assets.rewriting.parse import Dialogue, ParseError, parse_answer
from mvl_assets.rewriting.requests import about_requests, asks_for, count_samples, family_of

STAGE = "rewrite"
BATCH = 1024


@dataclass(frozen=True, slots=True)
class RewriteReport:
    """What one call did.

    Requests: `wanted` at first, `asked_again` after an unusable answer, `reused` of both (answered before), `left` of
    both (failed before, and not asked again; see `failed`); `sent` counts attempts. Rows: `rows` published, `blind` of
    them by a model that could not see the sample's pictures; `unusable` are the rejects by error class.
    """

    source: str
    samples: int
    wanted: int
    reused: int
    left: int
    sent: int
    asked_again: int
    rows: int
    blind: int
    unusable: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    published: Published


@dataclass(frozen=True, slots=True)
class Parsed:
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
    retry: Collection[str] = (),
    progress: ProgressSink | None = None,
    endpoints: Sequence[Endpoint] | None = None,
) -> RewriteReport:
    """Rewrites the source's samples in its category table and publishes `rewritten/<category>` for it.

    `limit` bounds whose requests may be sent; rows of answers that exist already are published all the same. `retry`
    names error classes (or `all`) whose rejects are asked once more. Raises `SourceError` for a source that is not in
    group B, `LeaseHeld` when another process rewrites it now.
    """
    started = time.monotonic()
    family = family_of(source)
    prompt = rewrite_prompt(load_prompts() if prompts is None else prompts, family)
    profile_model = profile.model_for("caption" if family == "caption" else "rewrite")
    model = model_ref(profile_model)
    most = limit if limit is not None else profile.rewrite_limit
    log = lake.answers(STAGE, source.slug)
    total = about_requests(lake, source, prompt, most)
    asker = Asker(lake, STAGE, source.slug, profile_model, run_id, endpoints, progress, retry=retry, total=total)
    samples = Counter[str]()
    first = asker.begin_at([prompt], count_samples(lake, source, most))
    asker.ask(a.request for a in _counted(asks_for(lake, source, prompt, model, most, first), samples))
    first_wanted = asker.wanted
    asks = (a for _, some in asks_for(lake, source, prompt, model, most) for a in some)
    asker.ask(_following(resolve(log, asks, prompt), retry))
    rows = _Rows(source, family, prompt, model, log, asker.failures, run_id)
    everything = asks_for(lake, source, prompt, model, None)
    published = lake.table(f"rewritten/{source.category}").publish(rows.batches(everything), source.slug)
    publish_rejects(lake, STAGE, source.slug, [reject_table(rows.rejects, run_id)])
    return RewriteReport(
        source=source.slug,
        samples=samples["samples"],
        wanted=first_wanted,
        reused=asker.reused,
        left=asker.left,
        sent=asker.sent,
        asked_again=asker.wanted - first_wanted,
        rows=published.rows,
        blind=rows.blind,
        unusable=dict(Counter(reject.error for reject in rows.rejects)),
        prompt_tokens=asker.prompt_tokens,
        completion_tokens=asker.completion_tokens,
        seconds=time.monotonic() - started,
        published=published,
    )


def resolve(log: AnswerLog, asks: Iterable[Ask], prompt: Prompt) -> Iterator[Found[Ask, Parsed]]:
    """Each ask with what is stored for it, in order."""

    def read(ask: Ask, _: Request, answer: Mapping[str, Any]) -> Parsed:
        try:
            return Parsed(parse_answer(prompt, answer["text"], answer["finish_reason"], ask.kept_question), None)
        except ParseError as error:
            return Parsed([], error)

    questions = (Question(ask, ask.request, prompt.ask_again) for ask in asks)
    return look_up(log, questions, read, lambda parsed: parsed.error is None)


def _counted(asked: Iterable[tuple[str, list[Ask]]], counts: Counter[str]) -> Iterator[Ask]:
    for _, asks in asked:
        counts["samples"] += 1
        yield from asks


def _following(found: Iterable[Found[Ask, Parsed]], retry: Collection[str]) -> Iterator[Request | None]:
    """The requests that follow an answer of no use: the one re-ask, and what is to be retried. None for any other."""
    for one in found:
        wrong = one.read.error if one.read else None
        due = wrong and (one.is_due or chosen(wrong.error, retry))
        yield one.following if due else None


class _Rows:
    """The rows and rejects of one source, made in one pass over its samples."""

    def __init__(
        self,
        source: SourceSpec,
        family: str,
        prompt: Prompt,
        model: ModelRef,
        log: AnswerLog,
        failures: Mapping[str, Failure],
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
        self.blind = 0

    def batches(self, asked: Iterable[tuple[str, list[Ask]]]) -> Iterator[pa.Table]:
        found = resolve(self.log, self._asks(asked), self.prompt)
        while batch := list(islice(found, BATCH)):
            rows = [row for one in batch for row in self._rows(one)]
            self.blind += sum(row["blind"] for row in rows)
            yield pa.Table.from_pylist(rows, schema=REWRITTEN.columns)

    def _asks(self, asked: Iterable[tuple[str, list[Ask]]]) -> Iterator[Ask]:
        for sample_id, asks in asked:
            if not asks:
                self._reject(sample_id, "no_question", "the sample has no question with an answer")
            yield from asks

    def _rows(self, found: Found[Ask, Parsed]) -> Iterator[dict[str, Any]]:
        ask, key = found.question.asked, found.request.key
        parsed = found.read or Parsed([], None)
        failure = self.failures.get(found.following.key) if found.following else None
        if failure is not None:
            self._reject(ask.sample_id, failure.error, failure.message, failure.request_key, failure.attempts)
        elif parsed.error is not None:
            self._reject(ask.sample_id, parsed.error.error, str(parsed.error), key, found.rounds)
        for ordinal, dialogue in enumerate(parsed.dialogues):
            yield {
                "rewrite_id": digest_hex(ask.sample_id, key, ordinal),
                "sample_id": ask.sample_id,
                "version_id": ask.version_id,
                "source": self.source.slug,
                "category": self.source.category,
                "family": self.family,
                "ordinal": ordinal,
                "conversations": with_pictures(dialogue, ask.n_images, ask.video),
                "request_key": key,
                "prompt": self.prompt.name,
                "prompt_hash": self.prompt.hash,
                "model": self.model.name,
                "model_revision": self.model.revision,
                "blind": ask.blind,
                "run_id": self.run_id,
            }

    def _reject(
        self, row_key: str, error: str, message: str, request_key: str | None = None, attempts: int = 1
    ) -> None:
        self.rejects.append(
            Reject(STAGE, self.source.slug, row_key, error, message, attempts=attempts, request_key=request_key)
        )
