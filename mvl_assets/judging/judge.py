"""Judging one source: a Yes/No request per rewrite and criterion, then the source's rows of `judged/<category>`.

The rows are derived from the stored answers and the profile's keep rule, so moving a threshold sends nothing. A second
judge, where the profile has one, is asked the same; each row holds the verdicts of both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from itertools import islice
from typing import Any

from mvl_assets.common.batches import iter_batches
from mvl_assets.common.digest import compute_digest
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import (
    Prompt,
    compute_criteria_hash,
    get_judge_prompts,
    list_expected_tokens,
    load_prompts,
)
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.judging.answer_match import matches_all_references
from mvl_assets.judging.kappa import Confusion, compute_confusion
from mvl_assets.judging.keep import JudgedPair, compute_min_p_yes, parse_keep_rule
from mvl_assets.judging.verdict import Verdict, parse_verdict
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import Reject
from mvl_assets.lake.table_reader import TableReader
from mvl_assets.model_stage.dialogue import extract_qa_pairs, format_pairs
from mvl_assets.model_stage.loop import ProgressCallback
from mvl_assets.model_stage.messages import build_messages, build_output_form
from mvl_assets.model_stage.parts import StageReport
from mvl_assets.model_stage.reask import ReaskChain, Resolution
from mvl_assets.model_stage.samples import build_sample_filter, resolve_prompt_family, snapshot_if_exists
from mvl_assets.model_stage.sharded_run import run_table_stage
from mvl_assets.model_stage.shards import Shard, ShardRow, get_leading_bits
from mvl_assets.model_stage.stage import BuiltRows, RowRequests, ServedModel, TableStage
from mvl_assets.stages import JUDGED, REWRITTEN

REWRITE_BATCH_SIZE = 256
_REWRITE_COLUMNS = ["rewrite_id", "sample_id", "version_id", "conversations"]
_SAMPLE_COLUMNS = ["version_id", "conversations", "image_ids"]


@dataclass(frozen=True, kw_only=True)
class JudgeReport(StageReport):
    """What one run of judging did. `rejects_by_error` counts rewrites that lack a verdict.

    Attributes:
        kept: Rows that the keep rule keeps.
        drop_reasons: Dropped rows by reason.
        judge_agreement: How the two judges compare (Yes to every criterion); None without a second judge.
    """

    kept: int
    drop_reasons: dict[str, int]
    judge_agreement: Confusion | None


@dataclass(frozen=True, slots=True)
class JudgeSubject:
    """The parts of a rewrite that its row needs. `matches_reference` is None if there is nothing to compare with."""

    rewrite_id: str
    sample_id: str
    matches_reference: bool | None
    blind: bool


class JudgeStage(TableStage[JudgeSubject, Verdict]):
    """Stage that judges the rewrites of a source.

    A rewrite that lacks a verdict of the first judge has rejects instead of a row, one per request without a verdict.
    One that lacks a verdict of the second judge has rejects and a row, with the second judge's columns null.

    Args:
        lake: The lake.
        source: A source of group B.
        profile: Names the judges and the keep rule.
        prompts: The prompts by name; None takes those of the profile.
        limit: Only the rewrites of the samples that rewriting takes under the same limit; None takes all.
        run_id: The run that rows are marked with.
        endpoints: Per judge, endpoints instead of the profile's.

    Raises:
        SourceError: The source is not in group B.
        MvlError: The keep rule cannot be read.
    """

    name = JUDGED.name

    def __init__(
        self,
        lake: Lake,
        source: SourceSpec,
        profile: Profile,
        *,
        prompts: Mapping[str, Prompt] | None = None,
        limit: int | None = None,
        run_id: str = "",
        endpoints: Sequence[Sequence[Endpoint] | None] = (None, None),
    ) -> None:
        self.criteria = get_judge_prompts(
            load_prompts(profile=profile) if prompts is None else prompts, resolve_prompt_family(source)
        )
        criterion_names = [criterion.criterion_name for criterion in self.criteria]
        profiles = [profile.get_model("judge"), *([profile.second_judge] if profile.second_judge else [])]
        self.rule = parse_keep_rule(
            profile.keep.rule, profile.keep.no_reference, criterion_names, second_judge=len(profiles) > 1
        )
        self.source = source.slug
        self.run_id = run_id
        self.table = JUDGED.get_table_name(source.category)
        self.models = [
            ServedModel.from_profile(model, model_endpoints)
            for model, model_endpoints in zip(profiles, endpoints, strict=False)
        ]
        self.prompt_hashes = [criterion.hash for criterion in self.criteria]
        self.expected_tokens = list_expected_tokens(self.criteria)
        self.tally = Counter()
        self._lake = lake
        self._spec = source
        self._limit = limit
        self._criteria_hash = compute_criteria_hash(self.criteria)

    def iter_requests(
        self, model: ServedModel, rotate_from: int = 0, *, sendable_only: bool = False
    ) -> Iterator[RowRequests[JudgeSubject]]:
        if self.shard is not None:
            selected = self._iter_shard_rewrites(self.shard, rotate_from, sendable_only)
        else:
            selected = (
                (rewrite, may_send)
                for rewrite, may_send in self._iter_rewrites(_REWRITE_COLUMNS, rotate_from)
                if may_send or not sendable_only
            )
        while batch := list(islice(selected, REWRITE_BATCH_SIZE)):
            # The rows are made of the first judge's subjects; a plan makes none.
            yield from self._build_requests(model, batch, compare=model is self.models[0] and not sendable_only)

    def rebuild_requests(
        self, model: ServedModel, subjects: Sequence[JudgeSubject]
    ) -> Iterator[RowRequests[JudgeSubject]]:
        ids = [subject.rewrite_id for subject in subjects]
        rewrites = self._lake.get_index(self._rewrites_name, self.source).read_rows(ids, _REWRITE_COLUMNS)
        return self._build_requests(model, [(rewrites[rewrite_id], True) for rewrite_id in ids], compare=False)

    def parse(
        self, subject: JudgeSubject, position: int, request_key: str, answer: Mapping[str, Any], length_factor: int = 1
    ) -> Verdict:
        return parse_judge_answer(self.criteria[position], request_key, answer)

    def build_rows(self, subject: JudgeSubject, resolutions: Sequence[Sequence[Resolution[Verdict]]]) -> BuiltRows:
        verdicts_by_judge: list[list[Verdict] | None] = []
        rejects: list[Reject] = []
        errors: list[str] = []
        for judge_resolutions in resolutions:
            reasons = [reason for resolution in judge_resolutions if (reason := resolution.reject_reason) is not None]
            rejects += [self.build_reject(subject.rewrite_id, reason) for reason in reasons]
            errors += [reason.error for reason in reasons[:1]]
            verdicts = [resolution.parsed for resolution in judge_resolutions if resolution.parsed is not None]
            verdicts_by_judge.append(None if reasons else verdicts)
        first_verdicts, second_verdicts = verdicts_by_judge[0], verdicts_by_judge[1] if self.models[1:] else None
        if first_verdicts is None:
            return BuiltRows((), rejects, errors)
        # The keys of round 1, so that a re-ask does not change the row's id.
        request_keys = [resolution.first_key for resolution in resolutions[0]]
        return BuiltRows([self._build_row(subject, request_keys, first_verdicts, second_verdicts)], rejects, errors)

    def iter_shard_rows(self) -> Iterator[ShardRow]:
        # A request holds the whole rewrite, so equal ones are about equal text, whatever images they are about.
        for rewrite, may_send in self._iter_rewrites(["rewrite_id", "sample_id", "conversations"]):
            digest = compute_digest("shard", format_pairs(extract_qa_pairs(rewrite["conversations"])))
            yield ShardRow(rewrite["rewrite_id"], get_leading_bits(digest), may_send, len(self.criteria))

    def count_rows(self) -> int:
        return self._n_rows if self.shard is None else len(self.shard)

    def estimate_request_count(self) -> int:
        return len(self.criteria) * self.count_rows()

    @property
    def _rewrites_name(self) -> str:
        return REWRITTEN.get_table_name(self._spec.category)

    @cached_property
    def _rewrites(self) -> TableReader:
        return snapshot_if_exists(self._lake.get_table(self._rewrites_name))

    @cached_property
    def _n_rows(self) -> int:
        return self._rewrites.count(partition_key=self.source)

    def _iter_rewrites(self, columns: Sequence[str], rotate_from: int = 0) -> Iterator[tuple[dict[str, Any], bool]]:
        """Yield the source's rewrites with whether they may be sent."""
        is_within_limit = build_sample_filter(self._lake, self._spec, self._limit)
        rewrites = self._rewrites.iter_rows(columns, rotate_from=rotate_from, partition_key=self.source)
        return ((rewrite, is_within_limit(rewrite["sample_id"])) for rewrite in rewrites)

    def _iter_shard_rewrites(
        self, shard: Shard, rotate_from: int, sendable_only: bool
    ) -> Iterator[tuple[dict[str, Any], bool]]:
        index = self._lake.get_index(self._rewrites_name, self.source)
        for batch in iter_batches(shard.iter_rows(rotate_from, sendable_only=sendable_only), REWRITE_BATCH_SIZE):
            rewrites = index.read_rows([rewrite_id for rewrite_id, _ in batch], _REWRITE_COLUMNS)
            yield from ((rewrites[rewrite_id], may_send) for rewrite_id, may_send in batch)

    def _build_requests(
        self, model: ServedModel, rewrites: Sequence[tuple[Mapping[str, Any], bool]], *, compare: bool
    ) -> Iterator[RowRequests[JudgeSubject]]:
        """Yield the requests about rewrites, given with whether they may be sent.

        The criteria of a rewrite come one after the other: their prefix is equal, and the server's cache still holds
        it. No judge gets the reference answer (arXiv 2412.05237 §2); `compare` compares the rewrite with it here.
        """
        version_ids = [rewrite["version_id"] for rewrite, _ in rewrites]
        samples = self._lake.get_index("samples", self.source).read_rows(version_ids, _SAMPLE_COLUMNS)
        for rewrite, may_send in rewrites:
            sample = samples[rewrite["version_id"]]
            turns = rewrite["conversations"]
            requests, blind = build_judge_requests(self.criteria, turns, sample["image_ids"] or (), model.ref)
            matches_reference = (
                matches_all_references(extract_qa_pairs(turns), extract_qa_pairs(sample["conversations"]))
                if compare
                else None
            )
            subject = JudgeSubject(rewrite["rewrite_id"], rewrite["sample_id"], matches_reference, blind)
            yield RowRequests(subject, [ReaskChain(request) for request in requests], may_send)

    def _build_row(
        self,
        subject: JudgeSubject,
        request_keys: Sequence[str],
        verdicts: Sequence[Verdict],
        second_verdicts: Sequence[Verdict] | None,
    ) -> dict[str, Any]:
        judged_pair = JudgedPair(verdicts, subject.matches_reference, second_verdicts)
        drop_reason = self.rule.find_drop_reason(judged_pair)
        self.tally["dropped", drop_reason] += 1
        second_all_yes = None if second_verdicts is None else all(v.is_yes for v in second_verdicts)
        if second_all_yes is not None:
            self.tally["verdicts", judged_pair.all_yes, second_all_yes] += 1
        first = self.models[0].ref
        second = None if second_verdicts is None else self.models[1].ref
        return {
            "judged_id": compute_digest(subject.rewrite_id, request_keys),
            "rewrite_id": subject.rewrite_id,
            "sample_id": subject.sample_id,
            "source": self.source,
            "category": self._spec.category,
            "family": self._spec.family,
            "verdicts": _to_verdict_structs(verdicts),
            "all_yes": judged_pair.all_yes,
            "p_yes": judged_pair.p_yes,
            "matches_reference": subject.matches_reference,
            "keep": drop_reason is None,
            "drop_reason": drop_reason,
            "keep_rule": self.rule.text,
            "prompt_hash": self._criteria_hash,
            "model": first.name,
            "model_revision": first.revision,
            "blind": subject.blind,
            "run_id": self.run_id,
            "second_verdicts": None if second_verdicts is None else _to_verdict_structs(second_verdicts),
            "second_all_yes": second_all_yes,
            "second_p_yes": None if second_verdicts is None else compute_min_p_yes(second_verdicts),
            "second_model": None if second is None else second.name,
            "second_model_revision": None if second is None else second.revision,
        }


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
    """Judge every row that the source has in `rewritten/<category>` and publish `judged/<category>` for it.

    Args:
        lake: The lake.
        source: A source of group B.
        profile: Names the judges and the keep rule.
        run_id: The run that rows are marked with.
        prompts: The prompts by name; None takes those of the profile.
        retry_error_classes: Error classes, or `all`, whose rejects are asked once more.
        progress: Called with the engine's progress.
        endpoints: Endpoints of the first judge instead of the profile's.
        second_endpoints: The same for the second judge.

    Raises:
        SourceError: The source is not in group B.
        MvlError: The keep rule cannot be read; nothing was sent.
        LeaseHeld: Another process is judging the source.
    """
    build_stage = partial(
        JudgeStage,
        source=source,
        profile=profile,
        prompts=load_prompts(profile=profile) if prompts is None else prompts,
        run_id=run_id,
        endpoints=(endpoints, second_endpoints),
    )
    report = run_table_stage(
        lake, build_stage, profile.executor, retry_error_classes=retry_error_classes, progress=progress
    )
    counts_by_reason = {key[1]: n for key, n in report.tally.items() if key[0] == "dropped"}
    verdict_pairs = Counter({key[1:]: n for key, n in report.tally.items() if key[0] == "verdicts"})
    return JudgeReport(
        **{field.name: getattr(report, field.name) for field in fields(report)},
        kept=counts_by_reason.pop(None, 0),
        drop_reasons=counts_by_reason,
        judge_agreement=compute_confusion(verdict_pairs.elements()) if profile.second_judge else None,
    )


def build_judge_requests(
    criteria: Sequence[Prompt], turns: Iterable[Mapping[str, str]], image_ids: Sequence[str], model: ModelRef
) -> tuple[list[Request], bool]:
    """Return one request per criterion about a conversation.

    Args:
        criteria: One prompt per criterion.
        turns: Turns of the conversation, human and gpt in turn.
        image_ids: Images of the conversation, in order.
        model: The judge.

    Returns:
        The requests in the order of `criteria`, and whether the images were left out (blind).
    """
    values = {"conversation": format_pairs(extract_qa_pairs(turns))}
    messages_by_criterion = [build_messages(criterion, values, image_ids, model) for criterion in criteria]
    requests = [
        Request(messages, model, criterion.sampling, criterion.name, criterion.hash, build_output_form(criterion))
        for criterion, (messages, _) in zip(criteria, messages_by_criterion, strict=True)
    ]
    return requests, any(blind for _, blind in messages_by_criterion)


def parse_judge_answer(criterion: Prompt, request_key: str, answer: Mapping[str, Any]) -> Verdict:
    """Return the verdict of a stored answer.

    Raises:
        VerdictError: The answer is not a verdict.
    """
    return parse_verdict(
        criterion.criterion_name,
        request_key,
        answer["text"],
        answer["finish_reason"],
        answer["first_token_logprobs"],
        is_constrained=answer.get("output_form") not in ("openai", "none"),
    )


def _to_verdict_structs(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    return [
        {"criterion": v.criterion, "request_key": v.request_key, "verdict": v.is_yes, "p_yes": v.p_yes}
        for v in verdicts
    ]
