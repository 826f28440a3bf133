"""Judging one source: a Yes/No request per rewrite and criterion, then the source's rows of `judged/<category>`.

The rows are derived from the stored answers and the profile's keep rule, so moving a threshold sends nothing. The other
judges of a panel, where the profile has one, are asked the same, and each row holds the verdicts of all. A judge whose
server gives no log-probabilities is asked several times (`votes`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from itertools import zip_longest
from typing import Any

from mvl_assets.common.batches import iter_batches
from mvl_assets.common.digest import compute_digest
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import (
    Prompt,
    compute_judging_hash,
    get_judge_prompts,
    get_probe_prompt,
    list_expected_tokens,
    load_prompts,
)
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.judging.judge_requests import build_judge_requests, parse_judge_answer
from mvl_assets.judging.keep import (
    GOOD,
    NO_LABEL,
    JudgedPair,
    compute_min_p_yes,
    list_criterion_names,
    parse_keep_rule,
)
from mvl_assets.judging.label_history import LabelHistory
from mvl_assets.judging.panel import (
    ALL_CRITERIA,
    PanelAgreement,
    VerdictPattern,
    combine_verdicts,
    compute_panel_agreement,
)
from mvl_assets.judging.reference import matches_all_references
from mvl_assets.judging.text_only_probe import (
    ANSWERABLE_WITHOUT_IMAGE,
    ProbedPair,
    build_probe_request,
    list_probed_pairs,
    parse_probe_answer,
    resolve_image_need,
)
from mvl_assets.judging.verdict import Verdict
from mvl_assets.judging.votes import build_vote_chains, count_votes, forecast_votes
from mvl_assets.lake import sql
from mvl_assets.lake.answer_lookup import AnswerLookup
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import Reject
from mvl_assets.lake.table_reader import TableReader
from mvl_assets.model_stage.dialogue import extract_qa_pairs, format_pairs
from mvl_assets.model_stage.due_requests import resolve_questions
from mvl_assets.model_stage.loop import ProgressCallback
from mvl_assets.model_stage.parts import StageReport
from mvl_assets.model_stage.reask import ReaskChain, Resolution, RoundKeys
from mvl_assets.model_stage.samples import build_sample_filter, resolve_prompt_family, snapshot_if_exists
from mvl_assets.model_stage.sharded_run import run_table_stage
from mvl_assets.model_stage.shards import Shard, ShardRow, get_leading_bits
from mvl_assets.model_stage.stage import (
    NO_FOLLOW_UPS,
    BuiltRows,
    FollowUpForecast,
    RowRequests,
    ServedModel,
    TableStage,
)
from mvl_assets.stages import JUDGED, REWRITTEN

REWRITE_BATCH_SIZE = 256
_REWRITE_COLUMNS = ["rewrite_id", "sample_id", "version_id", "conversations"]
_SAMPLE_COLUMNS = ["version_id", "conversations", "image_ids"]
# Answers that may lack a P(yes): without log-probabilities, or not constrained to begin with Yes or No.
_MAY_LACK_P_YES = "(first_token_logprobs IS NULL OR first_token_logprobs = '{}' OR output_form IN ('openai', 'none'))"


@dataclass(frozen=True, kw_only=True)
class JudgeReport(StageReport):
    """What one run of judging did. `rejects_by_error` counts rewrites that lack a verdict.

    Attributes:
        kept: Rows that the keep rule keeps.
        drop_reasons: Dropped rows by reason.
        panel_agreement: How the judges of a panel agree, by criterion and in all; empty without a panel.
    """

    kept: int
    drop_reasons: dict[str, int]
    panel_agreement: dict[str, PanelAgreement]


@dataclass(frozen=True, slots=True)
class JudgeSubject:
    """The parts of a rewrite that its row needs.

    Attributes:
        matches_reference: None if there is nothing to compare with.
        probed_pairs: The pairs that are asked about without their picture, where that is what is asked.
    """

    rewrite_id: str
    sample_id: str
    matches_reference: bool | None
    blind: bool
    probed_pairs: tuple[ProbedPair, ...] = ()


class JudgeStage(TableStage[JudgeSubject, Verdict]):
    """Stage that judges the rewrites of a source.

    A rewrite that lacks a verdict of the first judge has rejects instead of a row, one per request without a verdict.
    One that lacks a verdict of another judge of the panel, a vote, or an answer without the picture has rejects and a
    row.

    Args:
        lake: The lake.
        source: A source of group B.
        profile: Names the judges and the keep rule.
        prompts: The prompts by name; None takes those of the profile.
        limit: Only the rewrites of the samples that rewriting takes under the same limit; None takes all.
        run_id: The run that rows are marked with.
        endpoints: Per judge, endpoints instead of the profile's; those of the first judges are enough. After the last
            judge's come those of the model that is asked without pictures.

    Attributes:
        judges: The judge and the others of the panel.
        prober: The model that is asked without pictures; None where nobody is.
        probe_prompt: What it is asked.

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
        endpoints: Sequence[Sequence[Endpoint] | None] = (),
    ) -> None:
        prompts = load_prompts(profile=profile) if prompts is None else prompts
        self.criteria = get_judge_prompts(prompts, resolve_prompt_family(source), reference=profile.gives_reference)
        self.rule = parse_keep_rule(profile.keep_rule, list_criterion_names(prompts))
        self.source = source.slug
        self.run_id = run_id
        self.table = JUDGED.get_table_name(source.category)
        self.judges = [
            ServedModel.from_profile(model, model_endpoints)
            for model, model_endpoints in zip_longest(profile.judges.values(), endpoints[: len(profile.judges)])
        ]
        self.prober: ServedModel | None = None
        self.probe_prompt: Prompt | None = None
        if profile.prober is not None:
            self.prober = ServedModel.from_profile(profile.prober, next(iter(endpoints[len(self.judges) :]), None))
            self.probe_prompt = get_probe_prompt(prompts)
        self.models = self.judges if self.prober is None else [*self.judges, self.prober]
        used_prompts = self.criteria if self.probe_prompt is None else [*self.criteria, self.probe_prompt]
        self.prompt_hashes = [prompt.hash for prompt in used_prompts]
        self.expected_tokens = list_expected_tokens(used_prompts)
        self.tally = Counter()
        self._lake = lake
        self._spec = source
        self._limit = limit
        self._profile = profile
        # By the position of a judge, the model as which it is asked for further votes.
        self._voters: dict[int, ServedModel] = {}
        self._judging_hash = compute_judging_hash(self.criteria, self.probe_prompt, profile.prober)

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
        for batch in iter_batches(selected, REWRITE_BATCH_SIZE):
            # The rows are made of the first judge's subjects; a plan makes none.
            yield from self._build_requests(model, batch, compare=model is self.judges[0] and not sendable_only)

    def rebuild_requests(
        self, model: ServedModel, subjects: Sequence[JudgeSubject]
    ) -> Iterator[RowRequests[JudgeSubject]]:
        ids = [subject.rewrite_id for subject in subjects]
        rewrites = self._lake.get_index(self._rewrites_name, self.source).read_rows(ids, _REWRITE_COLUMNS)
        return self._build_requests(model, [(rewrites[rewrite_id], True) for rewrite_id in ids], compare=False)

    def parse(
        self, subject: JudgeSubject, position: int, request_key: str, answer: Mapping[str, Any], length_factor: int = 1
    ) -> Verdict:
        if subject.probed_pairs:
            return parse_probe_answer(subject.probed_pairs[position], request_key, answer)
        # Of further votes, every round is about all criteria.
        return parse_judge_answer(self.criteria[position % len(self.criteria)], request_key, answer)

    def choose_follow_up_models(self) -> Sequence[ServedModel]:
        """Return the judges that are asked for further votes: their answers may lack a P(yes)."""
        self._voters = {}
        if self._profile.n_votes > 1:
            answer_lookup = self._get_answer_lookup()
            for position, model in enumerate(self.judges):
                conditions = [
                    sql.equals("model", model.ref.name),
                    sql.equals("model_revision", model.ref.revision),
                    sql.is_in("prompt_hash", self.prompt_hashes),
                    _MAY_LACK_P_YES,
                ]
                if answer_lookup.has_match(" AND ".join(conditions)):
                    self._voters[position] = replace(model)
        return list(self._voters.values())

    def forecast_follow_ups(self, model: ServedModel) -> FollowUpForecast:
        for judge, served_model in zip(self._profile.judges.values(), self.judges, strict=True):
            if served_model is model:
                return forecast_votes(judge, self._profile.n_votes)
        return NO_FOLLOW_UPS

    def build_rows(self, subject: JudgeSubject, resolutions: Sequence[Sequence[Resolution[Verdict]]]) -> BuiltRows:
        verdicts_by_judge: list[list[Verdict] | None] = []
        rejects: list[Reject] = []
        errors: list[str] = []
        votes_by_judge = dict(zip(self._voters, resolutions[len(self.models) :], strict=True))
        probe_resolutions = [] if self.prober is None else resolutions[len(self.judges)]
        for position, judge_resolutions in enumerate(resolutions[: len(self.judges)]):
            votes = votes_by_judge.get(position, ())
            all_reasons = [resolution.reject_reason for resolution in (*judge_resolutions, *votes)]
            reasons = [reason for reason in all_reasons if reason is not None]
            rejects += [self.build_reject(subject.rewrite_id, reason) for reason in reasons]
            errors += [reason.error for reason in reasons[:1]]
            verdicts = [resolution.parsed for resolution in judge_resolutions if resolution.parsed is not None]
            if len(verdicts) < len(self.criteria):
                verdicts_by_judge.append(None)
            elif votes:
                n_criteria = len(self.criteria)
                verdicts_by_judge.append([count_votes(v, votes[n::n_criteria]) for n, v in enumerate(verdicts)])
            else:
                verdicts_by_judge.append(verdicts)
        probe_reasons = [resolution.reject_reason for resolution in probe_resolutions]
        rejects += [self.build_reject(subject.rewrite_id, reason) for reason in probe_reasons if reason is not None]
        if verdicts_by_judge[0] is None:
            return BuiltRows((), rejects, errors)
        # The keys of round 1, so that a re-ask does not change the row's id.
        request_keys = [resolution.first_key for resolution in resolutions[0]]
        needs_image = resolve_image_need(probe_resolutions)
        return BuiltRows([self._build_row(subject, request_keys, verdicts_by_judge, needs_image)], rejects, errors)

    def iter_shard_rows(self) -> Iterator[ShardRow]:
        # A request holds the whole rewrite, so equal ones are about equal text, whatever images they are about.
        for rewrite, may_send in self._iter_rewrites(["rewrite_id", "sample_id", "conversations"]):
            digest = compute_digest("shard", format_pairs(extract_qa_pairs(rewrite["conversations"])))
            yield ShardRow(rewrite["rewrite_id"], get_leading_bits(digest), may_send, len(self.criteria))

    def count_rows(self) -> int:
        return self._n_rows if self.shard is None else len(self.shard)

    def estimate_request_count(self, model: ServedModel | None = None) -> int:
        if model is not None and model is self.prober:
            return self.count_rows()
        is_voter = any(model is voter for voter in self._voters.values())
        return len(self.criteria) * self.count_rows() * (self._profile.n_votes if is_voter else 1)

    @property
    def _rewrites_name(self) -> str:
        return REWRITTEN.get_table_name(self._spec.category)

    @cached_property
    def _rewrites(self) -> TableReader:
        return snapshot_if_exists(self._lake.get_table(self._rewrites_name))

    @cached_property
    def _n_rows(self) -> int:
        return self._rewrites.count(partition_key=self.source)

    @cached_property
    def _labels(self) -> dict[str, str]:
        """What people say of pairs, by rewrite; nothing where the rule does not ask."""
        return LabelHistory(self._lake).read_resolved(self.source) if self.rule.uses_labels else {}

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
        it. `compare` compares the rewrite with the source's answers.
        """
        voter = next((voter for voter in self._voters.values() if voter is model), None)
        answer_lookup = None if voter is None else self._get_answer_lookup()
        version_ids = [rewrite["version_id"] for rewrite, _ in rewrites]
        samples = self._lake.get_index("samples", self.source).read_rows(version_ids, _SAMPLE_COLUMNS)
        for rewrite, may_send in rewrites:
            sample = samples[rewrite["version_id"]]
            turns = rewrite["conversations"]
            pairs, references = extract_qa_pairs(turns), extract_qa_pairs(sample["conversations"])
            if self.probe_prompt is not None and model is self.prober:
                probed_pairs = list_probed_pairs(pairs, references, sample["image_ids"] or ())
                subject = JudgeSubject(rewrite["rewrite_id"], rewrite["sample_id"], None, False, tuple(probed_pairs))
                probes = [build_probe_request(self.probe_prompt, pair, model.ref) for pair in probed_pairs]
                yield RowRequests(subject, [ReaskChain(probe) for probe in probes], may_send)
                continue
            requests, blind = build_judge_requests(
                self.criteria, turns, sample["image_ids"] or (), model.ref, references
            )
            matches_reference = matches_all_references(pairs, references) if compare else None
            subject = JudgeSubject(rewrite["rewrite_id"], rewrite["sample_id"], matches_reference, blind)
            chains = [ReaskChain(request) for request in requests]
            if answer_lookup is not None:
                chains = self._build_vote_chains(subject, chains, answer_lookup)
            yield RowRequests(subject, chains, may_send)

    def _build_vote_chains(
        self, subject: JudgeSubject, chains: Sequence[ReaskChain], answer_lookup: AnswerLookup
    ) -> list[ReaskChain]:
        """Return the further votes on a rewrite whose verdicts, given by `chains`, lack a P(yes); none on others."""
        questions = [(subject, position) for position in range(len(chains))]
        resolutions = resolve_questions(self, answer_lookup, questions, [RoundKeys(chain=c) for c in chains], {})
        verdicts = [resolution.parsed for resolution in resolutions]
        if None in verdicts or all(verdict.p_yes is not None for verdict in verdicts if verdict is not None):
            return []
        requests = [chain.request for chain in chains]
        return build_vote_chains(requests, self._profile.n_votes, self._profile.judging.vote_temperature)

    def _get_answer_lookup(self) -> AnswerLookup:
        return self._lake.get_answer_lookup(self.name, self.source, self.shard_name)

    def _build_row(
        self,
        subject: JudgeSubject,
        request_keys: Sequence[str],
        verdicts_by_judge: Sequence[Sequence[Verdict] | None],
        needs_image: bool | None,
    ) -> dict[str, Any]:
        first_verdicts = verdicts_by_judge[0]
        assert first_verdicts is not None
        panel_verdicts = combine_verdicts(verdicts_by_judge, self._profile.judging.panel_rule)
        label = self._labels.get(subject.rewrite_id, NO_LABEL)
        judged_pair = JudgedPair(panel_verdicts, subject.matches_reference, label)
        drop_reason = self.rule.find_drop_reason(judged_pair)
        probe = self._profile.judging.text_only_probe
        if drop_reason is None and probe is not None and probe.drop and needs_image is False and label != GOOD:
            drop_reason = ANSWERABLE_WITHOUT_IMAGE
        self.tally["dropped", drop_reason] += 1
        if len(verdicts_by_judge) > 1:
            for criterion, pattern in _iter_patterns(verdicts_by_judge):
                self.tally["verdicts", criterion, pattern] += 1
        judge = self.judges[0].ref
        panel = [
            {
                "model": model.ref.name,
                "model_revision": model.ref.revision,
                "verdicts": None if verdicts is None else _to_verdict_structs(verdicts),
                "all_yes": None if verdicts is None else all(v.is_yes for v in verdicts),
                "p_yes": None if verdicts is None else compute_min_p_yes(verdicts),
            }
            for model, verdicts in zip(self.judges[1:], verdicts_by_judge[1:], strict=True)
        ]
        return {
            "judged_id": compute_digest(subject.rewrite_id, request_keys),
            "rewrite_id": subject.rewrite_id,
            "sample_id": subject.sample_id,
            "source": self.source,
            "category": self._spec.category,
            "family": self._spec.family,
            "verdicts": _to_verdict_structs(first_verdicts),
            "all_yes": judged_pair.all_yes,
            "p_yes": judged_pair.p_yes,
            "matches_reference": subject.matches_reference,
            "keep": drop_reason is None,
            "drop_reason": drop_reason,
            "keep_rule": self.rule.text,
            "prompt_hash": self._judging_hash,
            "model": judge.name,
            "model_revision": judge.revision,
            "blind": subject.blind,
            "run_id": self.run_id,
            "panel": panel or None,
            "needs_image": needs_image,
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
    panel_endpoints: Sequence[Sequence[Endpoint] | None] = (),
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
        panel_endpoints: The same for the other judges of the panel, in its order, and after them for the model that is
            asked without pictures.

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
        endpoints=(endpoints, *panel_endpoints),
    )
    report = run_table_stage(
        lake, build_stage, profile.executor, retry_error_classes=retry_error_classes, progress=progress
    )
    counts_by_reason = {key[1]: n for key, n in report.tally.items() if key[0] == "dropped"}
    patterns_by_criterion: dict[str, Counter[VerdictPattern]] = defaultdict(Counter)
    for key, n in report.tally.items():
        if key[0] == "verdicts":
            patterns_by_criterion[key[1]][key[2]] += n
    return JudgeReport(
        **{field.name: getattr(report, field.name) for field in fields(report)},
        kept=counts_by_reason.pop(None, 0),
        drop_reasons=counts_by_reason,
        panel_agreement={
            criterion: compute_panel_agreement(patterns) for criterion, patterns in patterns_by_criterion.items()
        },
    )


def _iter_patterns(verdicts_by_judge: Sequence[Sequence[Verdict] | None]) -> Iterator[tuple[str, VerdictPattern]]:
    """Yield what the judges of a panel say of each criterion, and whether they say Yes to all."""
    for position, first in enumerate(verdicts_by_judge[0] or ()):
        yield first.criterion, tuple(None if v is None else v[position].is_yes for v in verdicts_by_judge)
    yield ALL_CRITERIA, tuple(None if v is None else all(verdict.is_yes for verdict in v) for v in verdicts_by_judge)


def _to_verdict_structs(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    return [
        {
            "criterion": v.criterion,
            "request_key": v.request_key,
            "verdict": v.is_yes,
            "p_yes": v.p_yes,
            "p_yes_from": v.p_yes_from,
            "vote_keys": list(v.vote_keys) or None,
        }
        for v in verdicts
    ]
