"""Judging one source: a Yes/No request per rewrite and criterion, then the source's rows of `judged/<category>` anew.

The rows (`rows`) are derived from the stored answers and the profile's keep rule: moving a threshold sends nothing. A
second judge, where the profile has one, is asked the same; its verdicts stand beside the first one's in each row.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import ModelProfile, Profile
from mvl_assets.config.prompts import Prompt, judge_prompts, load_prompts
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.judging.cases import Case, JudgedRows, Judges, rulings
from mvl_assets.judging.kappa import Confusion
from mvl_assets.judging.keep import parse_rule
from mvl_assets.judging.verdict import Verdict
from mvl_assets.lake import sql
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.table import Published
from mvl_assets.lake_queries.rejects import publish_rejects, reject_table
from mvl_assets.model_stage.client import Asker, ProgressSink, model_ref
from mvl_assets.model_stage.dialogue import listed, pairs_of
from mvl_assets.model_stage.retry_policy import chosen
from mvl_assets.rewriting.build import messages_of, output_form
from mvl_assets.rewriting.requests import family_of

STAGE = "judge"
BATCH = 256
_REWRITE_COLUMNS = ["rewrite_id", "sample_id", "version_id", "conversations"]
_SAMPLE_COLUMNS = ["version_id", "conversations", "image_ids"]


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """What one call did.

    Requests: `wanted`, `reused` (answered before) and `left` of them (failed before and not asked again; see
    `rewriting.failed`); `sent` counts attempts. Rows: `rows` published, `kept` of them, the rest by `drop_reasons`,
    `blind` judged without the sample's pictures; `unusable` are rewrites that lack a verdict, by error class. `second`
    compares the two judges (Yes to every criterion); None without a second judge.
    """

    source: str
    wanted: int
    reused: int
    left: int
    sent: int
    rows: int
    kept: int
    blind: int
    drop_reasons: dict[str, int]
    unusable: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    cost: float
    seconds: float
    second: Confusion | None
    published: Published


def judge_source(
    lake: Lake,
    source: SourceSpec,
    profile: Profile,
    *,
    run_id: str,
    prompts: Mapping[str, Prompt] | None = None,
    retry: Collection[str] = (),
    progress: ProgressSink | None = None,
    endpoints: Sequence[Endpoint] | None = None,
    second_endpoints: Sequence[Endpoint] | None = None,
) -> JudgeReport:
    """Judges every row the source has in `rewritten/<category>` and publishes `judged/<category>` for it.

    `retry` names error classes (or `all`) whose rejects are asked once more. Raises `SourceError` for a source that is
    not in group B, `MvlError` for a keep rule that cannot be read (before anything is sent), `LeaseHeld` when another
    process judges it now.
    """
    started = time.monotonic()
    criteria = judge_prompts(load_prompts() if prompts is None else prompts, family_of(source))
    names = [p.criterion or p.name for p in criteria]
    models = [profile.model_for("judge"), *([profile.second_judge] if profile.second_judge else [])]
    rule = parse_rule(profile.keep.rule, profile.keep.without_key, names, second_judge=len(models) > 1)
    refs = [model_ref(model) for model in models]
    rewrites = lake.table(f"rewritten/{source.category}").count(sql.equals("source", source.slug))
    askers = []
    for place, (model, at) in enumerate(zip(models, (endpoints, second_endpoints), strict=False)):
        asker = Asker(
            lake, STAGE, source.slug, model, run_id, at, progress, retry=retry, total=len(criteria) * rewrites
        )
        first = asker.begin_at(criteria, rewrites)
        # Rewrite by rewrite, the criteria side by side: their prefix is equal, and the server's cache still holds it.
        asker.ask(r for case in cases_for(lake, source, criteria, [refs[place]], first) for r in case.requests[0])
        if retry:
            cases = cases_for(lake, source, criteria, [refs[place]])
            asker.ask(_following(lake.answers(STAGE, source.slug), cases, names, retry))
        askers.append(asker)
    failures = {key: failure for asker in askers for key, failure in asker.failures.items()}
    judges = Judges(criteria, *refs)
    rows = JudgedRows(source, judges, rule, lake.answers(STAGE, source.slug), failures, STAGE, run_id)
    table = lake.table(f"judged/{source.category}")
    published = table.publish(rows.batches(cases_for(lake, source, criteria, refs)), source.slug)
    publish_rejects(lake, STAGE, source.slug, [reject_table(rows.rejects, run_id)])
    return JudgeReport(
        source=source.slug,
        wanted=sum(asker.wanted for asker in askers),
        reused=sum(asker.reused for asker in askers),
        left=sum(asker.left for asker in askers),
        sent=sum(asker.sent for asker in askers),
        rows=published.rows,
        kept=rows.kept,
        blind=rows.blind,
        drop_reasons=dict(rows.dropped),
        unusable=dict(rows.unusable),
        prompt_tokens=sum(asker.prompt_tokens for asker in askers),
        completion_tokens=sum(asker.completion_tokens for asker in askers),
        cost=_cost(models, askers),
        seconds=time.monotonic() - started,
        second=rows.agreement if len(models) > 1 else None,
        published=published,
    )


def cases_for(
    lake: Lake, source: SourceSpec, criteria: Sequence[Prompt], models: Sequence[ModelRef], first: int = 0
) -> Iterator[Case]:
    """Every rewrite of the source with the requests to each model, those of the rewrites before the `first` last; no
    judge gets the original key (arXiv 2412.05237 §2)."""
    table = lake.table(f"rewritten/{source.category}")
    rewrites = table.rows(_REWRITE_COLUMNS, sql.equals("source", source.slug), first=first)
    while batch := list(islice(rewrites, BATCH)):
        samples = lake.index("samples").rows([row["version_id"] for row in batch], _SAMPLE_COLUMNS)
        for row in batch:
            sample = samples[row["version_id"]]
            asked = [judging_requests(criteria, row["conversations"], sample["image_ids"] or (), m) for m in models]
            yield Case(row, sample["conversations"], tuple(r for r, _ in asked), blind=asked[0][1])


def judging_requests(
    criteria: Sequence[Prompt], turns: Iterable[Mapping[str, str]], images: Sequence[str], model: ModelRef
) -> tuple[tuple[Request, ...], bool]:
    """One request per criterion about a conversation, and whether the model judges it without its pictures."""
    values = {"conversation": listed(pairs_of(turns))}
    asked = [messages_of(p, values, images, model) for p in criteria]
    requests = tuple(
        Request(messages, model, p.sampling, p.name, p.hash, output_form(p))
        for p, (messages, _) in zip(criteria, asked, strict=True)
    )
    return requests, any(blind for _, blind in asked)


def _following(
    log: AnswerLog, cases: Iterator[Case], criteria: Sequence[str], retry: Collection[str]
) -> Iterator[Request | None]:
    while batch := list(islice(cases, BATCH)):
        for found in rulings(log, batch, criteria):
            wrong = found.read
            due = wrong and not isinstance(wrong, Verdict) and chosen(wrong.error, retry)
            yield found.following if due else None


def _cost(models: Sequence[ModelProfile], askers: Sequence[Asker]) -> float:
    return sum(m.price.cost(a.prompt_tokens, a.completion_tokens) for m, a in zip(models, askers, strict=True))
