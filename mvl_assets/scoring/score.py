"""Scoring one source: a request per original and per rewrite of a sample of it, then its rows of `scored/<category>`.

The sample is the samples with the smallest ids that have a rewrite, the same ones every time; of each, the original
and one rewrite, drawn by hash. So the two are about the same images, and differences are taken within samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from mvl_assets.common.batches import iter_batches
from mvl_assets.common.digest import compute_digest
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import Prompt, get_score_prompt, list_expected_tokens, load_prompts
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.dialogue import extract_qa_pairs, format_pairs
from mvl_assets.model_stage.loop import ProgressCallback
from mvl_assets.model_stage.messages import build_messages, build_output_form
from mvl_assets.model_stage.parts import StageReport
from mvl_assets.model_stage.reask import ReaskChain, Resolution
from mvl_assets.model_stage.samples import resolve_prompt_family, snapshot_if_exists
from mvl_assets.model_stage.sharded_run import run_table_stage
from mvl_assets.model_stage.shards import ShardRow, get_leading_bits
from mvl_assets.model_stage.stage import BuiltRows, RowRequests, ServedModel, TableStage
from mvl_assets.scoring.answer_kinds import classify_answer
from mvl_assets.scoring.scores import Scores, parse_scores
from mvl_assets.stages import REWRITTEN, SCORED

ROW_BATCH_SIZE = 256
# How many samples are held while the smallest ids are looked for, over the number that is wanted.
HELD_FACTOR = 4
ORIGINAL_KIND, REWRITTEN_KIND = "original", "rewritten"


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """One conversation to score.

    Attributes:
        rewrite_id: The rewrite; None for the original.
    """

    sample_id: str
    version_id: str
    rewrite_id: str | None

    @property
    def row_id(self) -> str:
        """Id of the conversation."""
        return self.version_id if self.rewrite_id is None else self.rewrite_id


@dataclass(frozen=True, slots=True)
class ScoreSubject:
    """The parts of a conversation that its row needs."""

    row: ScoredRow
    answer_chars: int
    answer_kind: str
    blind: bool


class ScoreStage(TableStage[ScoreSubject, Scores]):
    """Stage that scores a sample of the originals and rewrites of a source.

    Args:
        lake: The lake.
        source: A source of group B.
        profile: Names the model and how many samples are scored.
        prompts: The prompts by name; None takes those of the profile.
        limit: How many samples at most, where that is fewer than the profile says.
        run_id: The run that rows are marked with.
        endpoints: Endpoints instead of the profile's.

    Raises:
        SourceError: The source is not in group B.
    """

    name = SCORED.name

    def __init__(
        self,
        lake: Lake,
        source: SourceSpec,
        profile: Profile,
        *,
        prompts: Mapping[str, Prompt] | None = None,
        limit: int | None = None,
        run_id: str = "",
        endpoints: Sequence[Endpoint] | None = None,
    ) -> None:
        family = resolve_prompt_family(source)
        self.source = source.slug
        self.run_id = run_id
        self.table = SCORED.get_table_name(source.category)
        self.models = [ServedModel.from_profile(profile.get_model("score"), endpoints)]
        self.prompt = get_score_prompt(load_prompts(profile=profile) if prompts is None else prompts, family)
        self.prompt_hashes = [self.prompt.hash]
        self.expected_tokens = list_expected_tokens([self.prompt])
        self.reasks = self.prompt.retry_sampling is not None
        self.tally = Counter()
        self._lake = lake
        self._spec = source
        self._n_samples = profile.score_rows if limit is None else min(limit, profile.score_rows)

    def iter_requests(
        self, model: ServedModel, rotate_from: int = 0, *, sendable_only: bool = False
    ) -> Iterator[RowRequests[ScoreSubject]]:
        if self.shard is None:
            selected = iter([*self._rows[rotate_from:], *self._rows[:rotate_from]])
        else:
            rows_by_id = {row.row_id: row for row in self._rows}
            selected = (rows_by_id[row_id] for row_id, _ in self.shard.iter_rows(rotate_from))
        for batch in iter_batches(selected, ROW_BATCH_SIZE):
            yield from self._build_requests(model.ref, batch)

    def rebuild_requests(
        self, model: ServedModel, subjects: Sequence[ScoreSubject]
    ) -> Iterator[RowRequests[ScoreSubject]]:
        return self._build_requests(model.ref, [subject.row for subject in subjects])

    def parse(
        self, subject: ScoreSubject, position: int, request_key: str, answer: Mapping[str, Any], length_factor: int = 1
    ) -> Scores:
        assert self.prompt.schema is not None
        return parse_scores(self.prompt.schema, answer["text"], answer["finish_reason"])

    def build_rows(self, subject: ScoreSubject, resolutions: Sequence[Sequence[Resolution[Scores]]]) -> BuiltRows:
        ((resolution,),) = resolutions
        if (reason := resolution.reject_reason) is not None:
            return BuiltRows(
                (), [self.build_reject(subject.row.rewrite_id or subject.row.sample_id, reason)], [reason.error]
            )
        assert resolution.parsed is not None
        row, model = subject.row, self.models[0].ref
        scored_row = {
            "scored_id": compute_digest(row.row_id, resolution.first_key),
            "rewrite_id": row.rewrite_id,
            "sample_id": row.sample_id,
            "version_id": row.version_id,
            "source": self.source,
            "category": self._spec.category,
            "family": self._spec.family,
            "kind": ORIGINAL_KIND if row.rewrite_id is None else REWRITTEN_KIND,
            "content": resolution.parsed.content,
            "relevance": resolution.parsed.relevance,
            "answer_chars": subject.answer_chars,
            "answer_kind": subject.answer_kind,
            "request_key": resolution.request_key,
            "prompt": self.prompt.name,
            "prompt_hash": self.prompt.hash,
            "model": model.name,
            "model_revision": model.revision,
            "blind": subject.blind,
            "run_id": self.run_id,
        }
        return BuiltRows([scored_row])

    def iter_shard_rows(self) -> Iterator[ShardRow]:
        # A request holds the whole conversation, so equal ones are about equal text.
        for batch in iter_batches(self._rows, ROW_BATCH_SIZE):
            for row, turns, _ in self._read_conversations(batch):
                digest = compute_digest("shard", format_pairs(extract_qa_pairs(turns)))
                yield ShardRow(row.row_id, get_leading_bits(digest), True, 1)

    def count_rows(self) -> int:
        return len(self._rows) if self.shard is None else len(self.shard)

    def estimate_request_count(self, model: ServedModel | None = None) -> int:
        return self.count_rows()

    @cached_property
    def _rows(self) -> list[ScoredRow]:
        """The conversations to score: per sample the original, then the rewrite."""
        rewrites = snapshot_if_exists(self._lake.get_table(self._rewrites_name)).iter_rows(
            ["rewrite_id", "sample_id", "version_id", "ordinal"], partition_key=self.source
        )
        by_sample: dict[str, tuple[tuple[str, str], ScoredRow]] = {}
        for rewrite in rewrites if self._n_samples else ():
            sample_id = rewrite["sample_id"]
            row = ScoredRow(sample_id, rewrite["version_id"], rewrite["rewrite_id"])
            # By the rewrite's place in its answer: its id is another one with each prompt.
            rank = (compute_digest("scored", sample_id, rewrite["ordinal"]), rewrite["rewrite_id"])
            by_sample[sample_id] = min(by_sample.get(sample_id, (rank, row)), (rank, row), key=lambda pair: pair[0])
            if len(by_sample) > HELD_FACTOR * self._n_samples:
                by_sample = {kept_id: by_sample[kept_id] for kept_id in sorted(by_sample)[: self._n_samples]}
        return [
            row
            for sample_id in sorted(by_sample)[: self._n_samples]
            for rewritten in (by_sample[sample_id][1],)
            for row in (ScoredRow(sample_id, rewritten.version_id, None), rewritten)
        ]

    @property
    def _rewrites_name(self) -> str:
        return REWRITTEN.get_table_name(self._spec.category)

    def _read_conversations(
        self, rows: Sequence[ScoredRow]
    ) -> Iterator[tuple[ScoredRow, Sequence[Mapping[str, str]], Sequence[str]]]:
        """Yield each row with its turns and the images of its sample."""
        version_ids = list(dict.fromkeys(row.version_id for row in rows))
        samples = self._lake.get_index("samples", self.source).read_rows(version_ids, ["conversations", "image_ids"])
        rewrite_ids = [row.rewrite_id for row in rows if row.rewrite_id is not None]
        rewrites = self._lake.get_index(self._rewrites_name, self.source).read_rows(rewrite_ids, ["conversations"])
        for row in rows:
            sample = samples[row.version_id]
            turns = (sample if row.rewrite_id is None else rewrites[row.rewrite_id])["conversations"]
            yield row, turns, sample["image_ids"] or ()

    def _build_requests(self, model: ModelRef, rows: Sequence[ScoredRow]) -> Iterator[RowRequests[ScoreSubject]]:
        for row, turns, image_ids in self._read_conversations(rows):
            pairs = extract_qa_pairs(turns)
            messages, blind = build_messages(self.prompt, {"conversation": format_pairs(pairs)}, image_ids, model)
            request = Request(
                messages,
                model,
                self.prompt.sampling,
                self.prompt.name,
                self.prompt.hash,
                build_output_form(self.prompt),
            )
            subject = ScoreSubject(
                row,
                answer_chars=sum(len(pair.answer) for pair in pairs),
                answer_kind=classify_answer(pairs[0].answer if pairs else ""),
                blind=blind,
            )
            yield RowRequests(subject, [ReaskChain(request, self.prompt.retry_sampling)])


def score_source(
    lake: Lake,
    source: SourceSpec,
    profile: Profile,
    *,
    run_id: str,
    prompts: Mapping[str, Prompt] | None = None,
    retry_error_classes: Collection[str] = (),
    progress: ProgressCallback | None = None,
    endpoints: Sequence[Endpoint] | None = None,
) -> StageReport:
    """Score a sample of the source's originals and rewrites and publish `scored/<category>` for it.

    Args:
        lake: The lake.
        source: A source of group B.
        profile: Names the model and how many samples are scored.
        run_id: The run that rows are marked with.
        prompts: The prompts by name; None takes those of the profile.
        retry_error_classes: Error classes, or `all`, whose rejects are asked once more.
        progress: Called with the engine's progress.
        endpoints: Endpoints instead of the profile's.

    Raises:
        SourceError: The source is not in group B.
        LeaseHeld: Another process is scoring the source.
    """
    build_stage = partial(
        ScoreStage,
        source=source,
        profile=profile,
        prompts=load_prompts(profile=profile) if prompts is None else prompts,
        run_id=run_id,
        endpoints=endpoints,
    )
    return run_table_stage(
        lake, build_stage, profile.executor, retry_error_classes=retry_error_classes, progress=progress
    )
