"""Judging one source: a Yes/No request per rewrite and criterion, then the source's rows of `judged/<category>` anew.

The rows (`n_rows`) are derived from the stored answers and the profile's keep rule: moving a threshold sends nothing. A
second judge, where the profile has one, is asked the same; its verdicts stand beside the first one's in each row.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import ModelProfile, Profile
from mvl_assets.config.prompts import Prompt, get_judge_prompts, load_prompts
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.judging.cases import JudgeCase, JudgedRowBuilder, JudgePanel, resolve_verdicts
from mvl_assets.judging.kappa import Confusion
from mvl_assets.judging.keep import parse_keep_rule
from mvl_assets.judging.verdict import Verdict
from mvl_assets.lake import sql
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.table import PublishResult
from mvl_assets.lake_queries.rejects import build_reject_table, publish_rejects
from mvl_assets.model_stage.client import ModelStageClient, ProgressCallback, to_model_ref
from mvl_assets.model_stage.dialogue import extract_qa_pairs, format_pairs
from mvl_assets.model_stage.retry_policy import is_retry_requested
from mvl_assets.rewriting.build import build_messages, build_output_form
from mvl_assets.rewriting.requests import resolve_prompt_family

JUDGE_STAGE = "judge"
REWRITE_BATCH_SIZE = 256
_REWRITE_COLUMNS = ["rewrite_id", "sample_id", "version_id", "conversations"]
_SAMPLE_COLUMNS = ["version_id", "conversations", "image_ids"]


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """What one call did.

    Requests: `requested`, `cache_hits` (answered before) and `skipped` of them (failed before and not asked again; see
    `rewriting.failed`); `attempts_sent` counts attempts. Rows: `n_rows` published, `n_kept` of them, the rest by `drop_reasons`,
    `n_blind` judged without the sample's pictures; `rejects_by_error` are rewrites that lack a verdict, by error class. `judge_agreement`
    compares the two judges (Yes to every criterion); None without a second judge.
    """

    source: str
    requested: int
    cache_hits: int
    skipped: int
    attempts_sent: int
    rows: int
    kept: int
    blind: int
    drop_reasons: dict[str, int]
    rejects_by_error: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    cost: float
    seconds: float
    judge_agreement: Confusion | None
    published: PublishResult


def judge_source(
    lake: Lake,
    source: SourceSpec,
    profile: Profile,
    *,
    run_id: str,
    prompts: Mapping[str, Prompt] | None = None,
    retry_error_classes: Collection[str] = (),
    progress: ProgressCallback | None = None,
    endpoints: Sequence[Endpoint] | None = None,
    second_endpoints: Sequence[Endpoint] | None = None,
) -> JudgeReport:
    """Judges every row the source has in `rewritten/<category>` and publishes `judged/<category>` for it.

    `retry_error_classes` names error classes (or `all`) whose rejects are asked once more. Raises `SourceError` for a source that is
    not in group B, `MvlError` for a keep rule that cannot be read (before anything is sent), `LeaseHeld` when another
    process judges it now.
    """
    started = time.monotonic()
    criteria = get_judge_prompts(load_prompts() if prompts is None else prompts, resolve_prompt_family(source))
    criterion_names = [p.criterion_name for p in criteria]
    models = [profile.get_model("judge"), *([profile.second_judge] if profile.second_judge else [])]
    rule = parse_keep_rule(profile.keep.rule, profile.keep.no_reference, criterion_names, second_judge=len(models) > 1)
    model_refs = [to_model_ref(model) for model in models]
    n_rewrites = lake.get_table(f"rewritten/{source.category}").count(sql.equals("source", source.slug))
    clients = []
    for index, (model, model_endpoints) in enumerate(zip(models, (endpoints, second_endpoints), strict=False)):
        client = ModelStageClient(
            lake,
            JUDGE_STAGE,
            source.slug,
            model,
            run_id,
            model_endpoints,
            progress,
            retry_error_classes=retry_error_classes,
            total=len(criteria) * n_rewrites,
        )
        resume_offset = client.compute_resume_offset(criteria, n_rewrites)
        # Rewrite by rewrite, the criteria side by side: their prefix is equal, and the server's cache still holds it.
        client.send_requests(
            r
            for case in iter_cases(lake, source, criteria, [model_refs[index]], resume_offset)
            for r in case.requests[0]
        )
        if retry_error_classes:
            cases = iter_cases(lake, source, criteria, [model_refs[index]])
            client.send_requests(
                _iter_reasks(lake.get_answer_log(JUDGE_STAGE, source.slug), cases, criterion_names, retry_error_classes)
            )
        clients.append(client)
    failures = {key: failure for asker in clients for key, failure in asker.failures.items()}
    judges = JudgePanel(criteria, *model_refs)
    row_builder = JudgedRowBuilder(
        source, judges, rule, lake.get_answer_log(JUDGE_STAGE, source.slug), failures, JUDGE_STAGE, run_id
    )
    table = lake.get_table(f"judged/{source.category}")
    published = table.publish(row_builder.iter_batches(iter_cases(lake, source, criteria, model_refs)), source.slug)
    publish_rejects(lake, JUDGE_STAGE, source.slug, [build_reject_table(row_builder.rejects, run_id)])
    return JudgeReport(
        source=source.slug,
        requested=sum(asker.requested for asker in clients),
        cache_hits=sum(asker.cache_hits for asker in clients),
        skipped=sum(asker.skipped for asker in clients),
        attempts_sent=sum(asker.attempts_sent for asker in clients),
        rows=published.n_rows,
        kept=row_builder.n_kept,
        blind=row_builder.n_blind,
        drop_reasons=dict(row_builder.drop_reasons),
        rejects_by_error=dict(row_builder.rejects_by_error),
        prompt_tokens=sum(asker.prompt_tokens for asker in clients),
        completion_tokens=sum(asker.completion_tokens for asker in clients),
        cost=_compute_cost(models, clients),
        seconds=time.monotonic() - started,
        judge_agreement=row_builder.judge_agreement if len(models) > 1 else None,
        published=published,
    )


def iter_cases(
    lake: Lake, source: SourceSpec, criteria: Sequence[Prompt], models: Sequence[ModelRef], rotate_from: int = 0
) -> Iterator[JudgeCase]:
    """Every rewrite of the source with the requests to each model, those of the rewrites before the `rotate_from` last; no
    judge gets the original key (arXiv 2412.05237 §2)."""
    table = lake.get_table(f"rewritten/{source.category}")
    rewrites = table.iter_rows(_REWRITE_COLUMNS, sql.equals("source", source.slug), rotate_from=rotate_from)
    while batch := list(islice(rewrites, REWRITE_BATCH_SIZE)):
        samples = lake.get_index("samples").read_rows([row["version_id"] for row in batch], _SAMPLE_COLUMNS)
        for row in batch:
            sample = samples[row["version_id"]]
            requests_by_model = [
                build_judge_requests(criteria, row["conversations"], sample["image_ids"] or (), m) for m in models
            ]
            yield JudgeCase(
                row, sample["conversations"], tuple(r for r, _ in requests_by_model), blind=requests_by_model[0][1]
            )


def build_judge_requests(
    criteria: Sequence[Prompt], turns: Iterable[Mapping[str, str]], image_ids: Sequence[str], model: ModelRef
) -> tuple[tuple[Request, ...], bool]:
    """One request per criterion about a conversation, and whether the model judges it without its pictures."""
    values = {"conversation": format_pairs(extract_qa_pairs(turns))}
    messages_by_criterion = [build_messages(p, values, image_ids, model) for p in criteria]
    requests = tuple(
        Request(messages, model, p.sampling, p.name, p.hash, build_output_form(p))
        for p, (messages, _) in zip(criteria, messages_by_criterion, strict=True)
    )
    return requests, any(blind for _, blind in messages_by_criterion)


def _iter_reasks(
    log: AnswerLog, cases: Iterator[JudgeCase], criterion_names: Sequence[str], retry_error_classes: Collection[str]
) -> Iterator[Request | None]:
    while batch := list(islice(cases, REWRITE_BATCH_SIZE)):
        for resolution in resolve_verdicts(log, batch, criterion_names):
            verdict_or_error = resolution.parsed
            should_send = (
                verdict_or_error
                and not isinstance(verdict_or_error, Verdict)
                and is_retry_requested(verdict_or_error.error, retry_error_classes)
            )
            yield resolution.next_request if should_send else None


def _compute_cost(models: Sequence[ModelProfile], clients: Sequence[ModelStageClient]) -> float:
    return sum(m.price.compute_cost(a.prompt_tokens, a.completion_tokens) for m, a in zip(models, clients, strict=True))
