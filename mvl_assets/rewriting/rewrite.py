"""Rewriting one source: a request per sample or pair, then the source's rows of `rewritten/<category>`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from mvl_assets.answer_matching.brevity import strip_brevity_request
from mvl_assets.common.batches import iter_batches
from mvl_assets.common.digest import compute_digest
from mvl_assets.common.rejects import RejectError
from mvl_assets.common.text_facts import describe_conversation
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import Prompt, get_rewrite_prompt, list_expected_tokens, load_prompts
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import Reject
from mvl_assets.lake.table_reader import TableReader
from mvl_assets.model_stage.dialogue import QAPair, attach_image_markers, extract_qa_pairs, strip_markers
from mvl_assets.model_stage.loop import ProgressCallback
from mvl_assets.model_stage.parts import StageReport
from mvl_assets.model_stage.reask import ReaskChain, Resolution
from mvl_assets.model_stage.samples import build_sample_filter, resolve_prompt_family, snapshot_if_exists
from mvl_assets.model_stage.sharded_run import run_table_stage
from mvl_assets.model_stage.shards import ShardRow, get_leading_bits
from mvl_assets.model_stage.stage import BuiltRows, RowRequests, ServedModel, TableStage
from mvl_assets.rewriting.build import build_requests, list_prompt_inputs
from mvl_assets.rewriting.checks.table import CHECKS, Drop, find_drop
from mvl_assets.rewriting.parse import Dialogue, parse_answer
from mvl_assets.stages import CATEGORY, REWRITTEN

SAMPLE_BATCH_SIZE = 256
SCAN_BATCH_SIZE = 8192
_SAMPLE_COLUMNS = ["sample_id", "version_id", "conversations", "image_ids", "video"]


@dataclass(frozen=True, slots=True)
class RewriteSubject:
    """The parts of a sample that its rows need.

    Attributes:
        originals: Its pairs, without image markers.
        preserved_questions: The question that is kept, markers included, or None, per request.
    """

    sample_id: str
    version_id: str
    n_images: int
    has_video: bool
    blind: bool
    originals: tuple[QAPair, ...]
    preserved_questions: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class CheckedAnswer:
    """The dialogues of an answer that passed the checks, with their places in it, and those that were dropped."""

    dialogues: Sequence[tuple[int, Dialogue]]
    drops: Sequence[Drop]


class RewriteStage(TableStage[RewriteSubject, CheckedAnswer]):
    """Stage that rewrites the samples of a source.

    Args:
        lake: The lake.
        source: A source of group B.
        profile: Names the model, and the limit where `limit` does not.
        prompts: The prompts by name; None takes those of the profile.
        limit: How many samples requests may be sent for, by hash. Rows of stored answers are published beyond it, too.
        run_id: The run that rows are marked with.
        endpoints: Endpoints instead of the profile's.

    Raises:
        SourceError: The source is not in group B.
    """

    name = REWRITTEN.name

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
        self.table = REWRITTEN.get_table_name(source.category)
        self.models = [ServedModel.from_profile(profile.get_rewriter(family), endpoints)]
        self.prompt = get_rewrite_prompt(load_prompts(profile=profile) if prompts is None else prompts, family)
        self.prompt_hashes = [self.prompt.hash]
        self.expected_tokens = list_expected_tokens([self.prompt])
        self.reasks = True
        self.tally = Counter()
        self._lake = lake
        self._spec = source
        self._family = family
        self._uses_reasoning = profile.get_rewriter(family).reasoning == "rationale"
        self._checks = {name: CHECKS[name] for name in profile.list_checks()}
        self._limit = limit if limit is not None else profile.rewrite_limit

    def iter_requests(
        self, model: ServedModel, rotate_from: int = 0, *, sendable_only: bool = False
    ) -> Iterator[RowRequests[RewriteSubject]]:
        if self.shard is not None:
            selected = self.shard.iter_rows(rotate_from, sendable_only=sendable_only)
        else:
            selected = (
                (row["version_id"], may_send)
                for row, may_send in self._iter_samples(["sample_id", "version_id"], rotate_from)
                if may_send or not sendable_only
            )
        for batch in iter_batches(selected, SAMPLE_BATCH_SIZE):
            yield from self._build_requests(model, batch)

    def rebuild_requests(
        self, model: ServedModel, subjects: Sequence[RewriteSubject]
    ) -> Iterator[RowRequests[RewriteSubject]]:
        return self._build_requests(model, [(subject.version_id, True) for subject in subjects])

    def parse(
        self,
        subject: RewriteSubject,
        position: int,
        request_key: str,
        answer: Mapping[str, Any],
        length_factor: int = 1,
    ) -> CheckedAnswer:
        preserved_question = subject.preserved_questions[position]
        parsed = parse_answer(
            self.prompt,
            self._add_rationale(answer),
            answer["finish_reason"],
            preserved_question,
            is_lengthened=length_factor > 1,
            is_constrained=answer.get("output_form") != "none",
        )
        originals = subject.originals
        if preserved_question is not None:
            stripped = strip_brevity_request(strip_markers(preserved_question))
            originals = tuple(pair for pair in originals if strip_brevity_request(pair.question) == stripped)
        dialogues: list[tuple[int, Dialogue]] = []
        drops: list[Drop] = []
        for ordinal, dialogue in enumerate(parsed):
            drop = find_drop(
                self._checks,
                ordinal,
                dialogue,
                originals,
                is_preserved=preserved_question is not None,
                family=self._family,
            )
            if drop is None:
                dialogues.append((ordinal, dialogue))
            else:
                drops.append(drop)
        if not dialogues and drops:
            raise RejectError(drops[0].reason, drops[0].message)
        return CheckedAnswer(dialogues, drops)

    def _add_rationale(self, answer: Mapping[str, Any]) -> str:
        """Return the text of an answer, behind the thoughts where these are its rationale."""
        text, reasoning = answer["text"], answer.get("reasoning")
        is_rationale = self._uses_reasoning and self.prompt.output == "text" and reasoning and text.strip()
        return f"{reasoning}\n\n{text}" if is_rationale else text

    def build_rows(
        self, subject: RewriteSubject, resolutions: Sequence[Sequence[Resolution[CheckedAnswer]]]
    ) -> BuiltRows:
        (chains,) = resolutions
        rejects: list[Reject] = []
        if not chains:
            reject = Reject(
                self.name, self.source, subject.sample_id, "no_question", "the sample has no question with an answer"
            )
            rejects.append(reject)
        rows: list[dict[str, Any]] = []
        for resolution in chains:
            # A chain that was not sent yet, because of a limit, is not a reject.
            if (reason := resolution.reject_reason) and not resolution.is_unanswered:
                rejects.append(self.build_reject(subject.sample_id, reason))
            if resolution.parsed is not None:
                rows += self._build_dialogue_rows(subject, resolution.request_key, resolution.parsed.dialogues)
                # Without the key of the request: its answer is used, so that there is nothing to retry.
                rejects += [
                    Reject(self.name, self.source, subject.sample_id, drop.reason, drop.message, position=drop.ordinal)
                    for drop in resolution.parsed.drops
                ]
        return BuiltRows(rows, rejects, [reject.error for reject in rejects])

    def iter_shard_rows(self) -> Iterator[ShardRow]:
        columns = ["sample_id", "version_id", "image_group_id", "n_turns"]
        sees_images = self.prompt.modality == "vision" and self.models[0].ref.supports_images
        for batch in iter_batches(self._iter_samples(columns), SCAN_BATCH_SIZE):
            # Requests with images are equal for equal images only; others for equal text.
            without_images = [
                row["version_id"] for row, _ in batch if not sees_images or row["image_group_id"] == row["sample_id"]
            ]
            text_digests = self._compute_text_digests(without_images)
            for row, may_send in batch:
                digest = text_digests.get(row["version_id"], row["image_group_id"])
                yield ShardRow(row["version_id"], get_leading_bits(digest), may_send, self._estimate_requests(row))

    def count_rows(self) -> int:
        return self._n_rows if self.shard is None else len(self.shard)

    def estimate_request_count(self, model: ServedModel | None = None) -> int:
        return self._estimated_requests if self.shard is None else self.shard.n_requests

    @cached_property
    def _samples(self) -> TableReader:
        return snapshot_if_exists(self._lake.get_table(CATEGORY.get_table_name(self._spec.category)))

    @cached_property
    def _n_rows(self) -> int:
        return self._samples.count(partition_key=self.source)

    @cached_property
    def _estimated_requests(self) -> int:
        """An estimate of the requests; one that several samples share counts several times."""
        n_samples = n_requests = 0
        for row in self._samples.iter_rows(["n_turns"], None, SCAN_BATCH_SIZE, partition_key=self.source):
            n_samples += 1
            n_requests += self._estimate_requests(row)
        limit = self._limit
        return n_requests if limit is None or limit >= n_samples else round(n_requests * limit / n_samples)

    def _estimate_requests(self, row: Mapping[str, Any]) -> int:
        return max(1, (row["n_turns"] or 0) // 2) if self.prompt.unit == "pair" else 1

    def _iter_samples(self, columns: Sequence[str], rotate_from: int = 0) -> Iterator[tuple[dict[str, Any], bool]]:
        """Yield the source's rows of its category with whether they may be sent."""
        is_within_limit = build_sample_filter(self._lake, self._spec, self._limit)
        rows = self._samples.iter_rows(columns, None, SCAN_BATCH_SIZE, rotate_from, partition_key=self.source)
        return ((row, is_within_limit(row["sample_id"])) for row in rows)

    def _compute_text_digests(self, version_ids: Sequence[str]) -> dict[str, str]:
        """Return a digest of what the prompt takes from each sample's text, by version id."""
        samples = self._lake.get_index("samples", self.source).read_rows(version_ids, ["conversations"])
        return {
            version_id: compute_digest("shard", list_prompt_inputs(self.prompt, sample["conversations"]))
            for version_id, sample in samples.items()
        }

    def _build_requests(
        self, model: ServedModel, versions: Sequence[tuple[str, bool]]
    ) -> Iterator[RowRequests[RewriteSubject]]:
        """Yield the requests about samples, given by version id and whether they may be sent."""
        version_ids = [version_id for version_id, _ in versions]
        samples = self._lake.get_index("samples", self.source).read_rows(version_ids, _SAMPLE_COLUMNS)
        for version_id, may_send in versions:
            sample = samples[version_id]
            requests = build_requests(sample, self.prompt, model.ref)
            subject = RewriteSubject(
                sample["sample_id"],
                version_id,
                n_images=len(sample["image_ids"] or ()),
                has_video=sample["video"] is not None,
                blind=any(request.blind for request in requests),
                originals=tuple(
                    QAPair(strip_markers(pair.question), strip_markers(pair.answer))
                    for pair in extract_qa_pairs(sample["conversations"])
                ),
                preserved_questions=tuple(request.preserved_question for request in requests),
            )
            chains = [
                ReaskChain(request.request, self.prompt.retry_sampling, can_lengthen=True) for request in requests
            ]
            yield RowRequests(subject, chains, may_send)

    def _build_dialogue_rows(
        self, subject: RewriteSubject, request_key: str, dialogues: Iterable[tuple[int, Dialogue]]
    ) -> Iterator[dict[str, Any]]:
        model = self.models[0].ref
        for ordinal, dialogue in dialogues:
            conversation = attach_image_markers(dialogue, subject.n_images, subject.has_video)
            yield {
                "rewrite_id": compute_digest(subject.sample_id, request_key, ordinal),
                "sample_id": subject.sample_id,
                "version_id": subject.version_id,
                "source": self.source,
                "category": self._spec.category,
                "family": self._family,
                "ordinal": ordinal,
                "task_type": dialogue[0].task_type,
                "conversations": conversation,
                **describe_conversation(conversation),
                "request_key": request_key,
                "prompt": self.prompt.name,
                "prompt_hash": self.prompt.hash,
                "model": model.name,
                "model_revision": model.revision,
                "blind": subject.blind,
                "run_id": self.run_id,
            }


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
) -> StageReport:
    """Rewrite the source's samples in its category table and publish `rewritten/<category>` for it.

    Args:
        lake: The lake.
        source: A source of group B.
        profile: Names the model and the limit.
        run_id: The run that rows are marked with.
        prompts: The prompts by name; None takes those of the profile.
        limit: See `RewriteStage`.
        retry_error_classes: Error classes, or `all`, whose rejects are asked once more.
        progress: Called with the engine's progress.
        endpoints: Endpoints instead of the profile's.

    Raises:
        SourceError: The source is not in group B.
        LeaseHeld: Another process is rewriting the source.
    """
    build_stage = partial(
        RewriteStage,
        source=source,
        profile=profile,
        prompts=load_prompts(profile=profile) if prompts is None else prompts,
        limit=limit,
        run_id=run_id,
        endpoints=endpoints,
    )
    return run_table_stage(
        lake, build_stage, profile.executor, retry_error_classes=retry_error_classes, progress=progress
    )
