"""Rewriting one source: ask what was never asked, then make the source's rows of `rewritten/<category>` anew.

The rows are always derived from the stored answers, all of them, so a parser that got better costs no request.
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
from mvl_assets.inference.progress import Failure
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.digest import digest_hex
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.rejects import publish_rejects, reject_table
from mvl_assets.lake.schema import REWRITTEN, Reject
from mvl_assets.lake.table import Published
from mvl_assets.profile import Profile
from mvl_assets.prompts import Prompt, load_prompts, rewrite_prompt
from mvl_assets.rewriting.asking import Asker, ProgressSink, model_ref
from mvl_assets.rewriting.build import Ask
from mvl_assets.rewriting.conversation import with_pictures
from mvl_assets.rewriting.parse import Dialogue, ParseError, parse_answer
from mvl_assets.rewriting.rows import asks_for, family_of

STAGE = "rewrite"
BATCH = 1024


@dataclass(frozen=True, slots=True)
class RewriteReport:
    """What one call did.

    Requests: `wanted` at first, `asked_again` after an unusable answer, `reused` of both (answered before); `sent`
    counts attempts. Rows: `rows` published, `blind` of them by a model that could not see the sample's pictures;
    `unusable` are the rejects by error class.
    """

    source: str
    samples: int
    wanted: int
    reused: int
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
class Resolved:
    """What the log says to one ask: dialogues, an error, or neither (not asked yet). `request` is the one that counts;
    `final` is False when the re-ask is still to come."""

    ask: Ask
    request: Request
    dialogues: list[Dialogue]
    error: ParseError | None
    final: bool
    attempts: int


def rewrite_source(
    lake: Lake,
    source: SourceSpec,
    profile: Profile,
    *,
    run_id: str,
    prompts: Mapping[str, Prompt] | None = None,
    limit: int | None = None,
    progress: ProgressSink | None = None,
    endpoints: Sequence[Endpoint] | None = None,
) -> RewriteReport:
    """Rewrites the source's samples in its category table and publishes `rewritten/<category>` for it.

    `limit` bounds whose requests may be sent; rows of answers that exist already are published all the same. Raises
    `SourceError` for a source that is not in group B, `LeaseHeld` when another process rewrites it now.
    """
    started = time.monotonic()
    family = family_of(source)
    prompt = rewrite_prompt(load_prompts() if prompts is None else prompts, family)
    profile_model = profile.model_for("caption" if family == "caption" else "rewrite")
    model = model_ref(profile_model)
    most = limit if limit is not None else profile.rewrite_limit
    log = lake.answers(STAGE, source.slug)
    asker = Asker(lake, STAGE, source.slug, profile_model, run_id, endpoints, progress)
    samples = Counter[str]()
    asker.ask(a.request for a in _counted(asks_for(lake, source, prompt, model, most), samples))
    first_wanted = asker.wanted
    asks = (a for _, some in asks_for(lake, source, prompt, model, most) for a in some)
    asker.ask(_second_requests(log, asks, prompt))
    rows = _Rows(source, family, prompt, model, log, asker.failures, run_id)
    everything = asks_for(lake, source, prompt, model, None)
    published = lake.table(f"rewritten/{source.category}").publish(rows.batches(everything), source.slug)
    publish_rejects(lake, STAGE, source.slug, [reject_table(rows.rejects, run_id)])
    return RewriteReport(
        source=source.slug,
        samples=samples["samples"],
        wanted=first_wanted,
        reused=asker.reused,
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


def resolve(log: AnswerLog, asks: Iterable[Ask], prompt: Prompt) -> Iterator[Resolved]:
    """Each ask with what is stored for it, in order; looks a batch of keys up at a time."""
    asks = iter(asks)
    columns = ["text", "finish_reason"]
    while batch := list(islice(asks, BATCH)):
        stored = log.get({a.request.key for a in batch}, columns)
        firsts = [_read(a, a.request, stored, prompt, attempts=1) for a in batch]
        seconds = {i: r for i, r in enumerate(a.again() for a in batch) if r and firsts[i].error}
        stored = log.get({r.key for r in seconds.values()}, columns) if seconds else {}
        for place, found in enumerate(firsts):
            second = seconds.get(place)
            if second is not None and second.key in stored:
                yield _read(found.ask, second, stored, prompt, attempts=2)
            else:
                yield found


def _read(ask: Ask, request: Request, stored: Mapping[str, Any], prompt: Prompt, attempts: int) -> Resolved:
    answer = stored.get(request.key)
    dialogues: list[Dialogue] = []
    error = None
    if answer is not None:
        try:
            dialogues = parse_answer(prompt, answer["text"], answer["finish_reason"], ask.kept_question)
        except ParseError as found:
            error = found
    final = attempts > 1 or ask.ask_again is None
    return Resolved(ask, request, dialogues, error, final, attempts)


def _counted(asked: Iterable[tuple[str, list[Ask]]], counts: Counter[str]) -> Iterator[Ask]:
    for _, asks in asked:
        counts["samples"] += 1
        yield from asks


def _second_requests(log: AnswerLog, asks: Iterable[Ask], prompt: Prompt) -> Iterator[Request]:
    for found in resolve(log, asks, prompt):
        if found.error is not None and not found.final and (again := found.ask.again()) is not None:
            yield again


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

    def _rows(self, found: Resolved) -> Iterator[dict[str, Any]]:
        ask, key = found.ask, found.request.key
        if found.error is not None:
            self._reject(ask.sample_id, found.error.error, str(found.error), key, found.attempts)
        elif not found.dialogues and (failure := self.failures.get(ask.request.key)):
            self._reject(ask.sample_id, failure.error, failure.message, key, failure.attempts)
        for ordinal, dialogue in enumerate(found.dialogues):
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
