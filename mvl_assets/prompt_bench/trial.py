"""Asks a few rows with a prompt, and reads what the lake has of the same rows, in one form.

The stages are those of a run, restricted to a shard of the chosen rows; what a run would publish is returned instead.
Answers are stored beside those of runs, so that a repeat costs nothing, and a run with the same prompt neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mvl_assets.common.id_array import pack_ids
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import Prompt
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.judging.judge import JudgeStage, JudgeSubject
from mvl_assets.lake import sql
from mvl_assets.lake.answer_lookup import TRIED_ROWS
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.loop import ProgressCallback, StageRun
from mvl_assets.model_stage.shards import Shard
from mvl_assets.model_stage.stage import RequestCounts, RowRequests, ServedModel, TableStage
from mvl_assets.rewriting.rewrite import RewriteStage
from mvl_assets.stages import JUDGED, REWRITTEN

TRIAL_RUN = "try"
"""Run id of answers that a trial has asked for."""
_ANSWER_COLUMNS = ["text", "reasoning", "prompt_tokens", "completion_tokens"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rewrite or verdict that there is none of: the class of the error, and what is wrong."""

    error: str
    message: str


@dataclass(slots=True)
class Rewrite:
    """One rewrite.

    Attributes:
        row: Its row of `rewritten/<category>`, as far as it is needed here.
        judged: Its row of `judged/<category>`; None while it is not judged.
        refusals: Verdicts that are missing.
    """

    row: Mapping[str, Any]
    judged: Mapping[str, Any] | None = None
    refusals: list[Refusal] = field(default_factory=list)

    @property
    def is_kept(self) -> bool | None:
        """Whether the keep rule keeps it; None while it is not judged."""
        return None if self.judged is None else self.judged["keep"]


@dataclass(slots=True)
class SampleResult:
    """What became of one sample.

    Attributes:
        rewrites: Those that passed the checks.
        refusals: Those that did not, and answers that gave none.
        answers: The raw answers that count, with their tokens.
    """

    rewrites: list[Rewrite] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    answers: list[Mapping[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Trial:
    """The results of one prompt, or those that the lake has, by version id.

    Attributes:
        results: By version id.
        requests: What was needed and sent, verdicts included.
        cost: Of what was sent, in the currency of the models' prices.
    """

    results: dict[str, SampleResult]
    requests: RequestCounts = field(default_factory=RequestCounts)
    cost: float = 0.0

    def iter_rewrites(self) -> Iterator[Rewrite]:
        """Yield the rewrites of all samples."""
        for result in self.results.values():
            yield from result.rewrites


def try_rewriting(
    lake: Lake,
    source: SourceSpec,
    profile: Profile,
    prompts: Mapping[str, Prompt],
    version_ids: Sequence[str],
    *,
    may_send: bool = True,
    progress: ProgressCallback | None = None,
    endpoints: Sequence[Endpoint] | None = None,
) -> Trial:
    """Rewrite a few samples. Changes no table but that of answers.

    Args:
        lake: The lake.
        source: A source of group B.
        profile: Names the model and the checks.
        prompts: The prompts by name, that of the source's family among them.
        version_ids: The samples.
        may_send: False: only what is answered.
        progress: Called with the engine's progress.
        endpoints: Endpoints instead of the profile's.

    Raises:
        SourceError: The source is not in group B.
        LeaseHeld: Another process tries a prompt on the source.
        MvlError: A model server cannot be used.
    """
    stage = RewriteStage(lake, source, profile, prompts=prompts, run_id=TRIAL_RUN, endpoints=endpoints)
    stage.shard = _build_shard(version_ids, may_send)
    trial = Trial({version_id: SampleResult() for version_id in version_ids})
    keys_by_version: dict[str, list[str]] = {}
    with StageRun(lake, stage, TRIAL_RUN, progress=progress) as run:
        run.send()
        for subject, resolutions in run.iter_resolved():
            built = stage.build_rows(subject, resolutions)
            result = trial.results[subject.version_id]
            result.rewrites = [Rewrite(row) for row in built.rows]
            result.refusals = [Refusal(reject.error, reject.message) for reject in built.rejects]
            keys_by_version[subject.version_id] = [r.request_key for chain in resolutions for r in chain]
        trial.requests, trial.cost = run.counts, run.cost
    _add_answers(lake, stage, trial, keys_by_version)
    return trial


def try_judging(
    lake: Lake,
    source: SourceSpec,
    profile: Profile,
    prompts: Mapping[str, Prompt],
    trial: Trial,
    *,
    may_send: bool = True,
    progress: ProgressCallback | None = None,
    endpoints: Sequence[Sequence[Endpoint] | None] = (),
) -> Trial:
    """Return a trial's rewrites with verdicts on them. Changes no table but that of answers.

    Args:
        lake: The lake.
        source: A source of group B.
        profile: Names the judges and the keep rule.
        prompts: The prompts by name, the judges' among them.
        trial: Its rewrites need not be in the lake.
        may_send: False: only what is answered.
        progress: Called with the engine's progress.
        endpoints: Per judge, endpoints instead of the profile's.

    Raises:
        SourceError: The source is not in group B.
        LeaseHeld: Another process tries a prompt on the source.
        MvlError: A model server cannot be used, or the keep rule cannot be read.
    """
    judged = Trial(
        {
            version_id: SampleResult([Rewrite(r.row) for r in result.rewrites], result.refusals, result.answers)
            for version_id, result in trial.results.items()
        },
        trial.requests,
        trial.cost,
    )
    rewrites = {rewrite.row["rewrite_id"]: rewrite for rewrite in judged.iter_rewrites()}
    if not rewrites:
        return judged
    rows = [rewrite.row for rewrite in rewrites.values()]
    stage = _GivenRewritesStage(lake, source, profile, rows, prompts=prompts, endpoints=endpoints, may_send=may_send)
    with StageRun(lake, stage, TRIAL_RUN, progress=progress) as run:
        run.send()
        for subject, resolutions in run.iter_resolved():
            built = stage.build_rows(subject, resolutions)
            rewrite = rewrites[subject.rewrite_id]
            rewrite.judged = next(iter(built.rows), None)
            rewrite.refusals = [Refusal(reject.error, reject.message) for reject in built.rejects]
        judged.requests, judged.cost = trial.requests + run.counts, trial.cost + run.cost
    return judged


def read_current(lake: Lake, source: SourceSpec, samples: Sequence[Mapping[str, Any]]) -> Trial:
    """Return what the lake has of these samples (rows with `sample_id` and `version_id`)."""
    results = {sample["version_id"]: SampleResult() for sample in samples}
    rewrites = lake.get_table(REWRITTEN.get_table_name(source.category)).iter_rows(
        ["rewrite_id", "sample_id", "version_id", "conversations", "ordinal", "task_type"],
        sql.is_in("version_id", results),
        partition_key=source.slug,
    )
    by_id: dict[str, Rewrite] = {}
    for row in sorted(rewrites, key=lambda row: row["ordinal"]):
        by_id[row["rewrite_id"]] = Rewrite(row)
        results[row["version_id"]].rewrites.append(by_id[row["rewrite_id"]])
    judged = lake.get_table(JUDGED.get_table_name(source.category))
    for row in judged.iter_rows(None, sql.is_in("rewrite_id", by_id), partition_key=source.slug):
        by_id[row["rewrite_id"]].judged = row
    version_by_sample = {sample["sample_id"]: sample["version_id"] for sample in samples}
    condition = f"{sql.equals('source', source.slug)} AND {sql.is_in('row_key', [*version_by_sample, *by_id])}"
    for row in lake.get_table("rejects").iter_rows(["stage", "row_key", "error", "message"], condition):
        refusal = Refusal(row["error"], row["message"])
        if row["stage"] == REWRITTEN.name and row["row_key"] in version_by_sample:
            results[version_by_sample[row["row_key"]]].refusals.append(refusal)
        elif row["stage"] == JUDGED.name and row["row_key"] in by_id:
            by_id[row["row_key"]].refusals.append(refusal)
    return Trial(results)


class _GivenRewritesStage(JudgeStage):
    """Stage that judges rewrites at hand instead of those in the lake."""

    def __init__(
        self,
        lake: Lake,
        source: SourceSpec,
        profile: Profile,
        rewrites: Sequence[Mapping[str, Any]],
        *,
        prompts: Mapping[str, Prompt],
        endpoints: Sequence[Sequence[Endpoint] | None],
        may_send: bool,
    ) -> None:
        super().__init__(lake, source, profile, prompts=prompts, run_id=TRIAL_RUN, endpoints=endpoints)
        self._rewrites_by_id = {rewrite["rewrite_id"]: rewrite for rewrite in rewrites}
        self._may_send = may_send
        self.shard = _build_shard(list(self._rewrites_by_id), may_send)

    def iter_requests(
        self, model: ServedModel, rotate_from: int = 0, *, sendable_only: bool = False
    ) -> Iterator[RowRequests[JudgeSubject]]:
        rewrites = [(rewrite, self._may_send) for rewrite in self._rewrites_by_id.values()]
        return self._build_requests(model, rewrites, compare=model is self.judges[0])

    def rebuild_requests(
        self, model: ServedModel, subjects: Sequence[JudgeSubject]
    ) -> Iterator[RowRequests[JudgeSubject]]:
        rewrites = [(self._rewrites_by_id[subject.rewrite_id], True) for subject in subjects]
        return self._build_requests(model, rewrites, compare=False)


def _build_shard(ids: Sequence[str], may_send: bool) -> Shard:
    return Shard(TRIED_ROWS, pack_ids(ids), np.full(len(ids), may_send), len(ids))


def _add_answers(
    lake: Lake, stage: TableStage[Any, Any], trial: Trial, keys_by_version: Mapping[str, Sequence[str]]
) -> None:
    """Add the raw answers to the results."""
    lookup = lake.get_answer_lookup(stage.name, stage.source, stage.shard_name)
    answers = lookup.get({key for keys in keys_by_version.values() for key in keys}, _ANSWER_COLUMNS)
    for version_id, keys in keys_by_version.items():
        trial.results[version_id].answers = [answers[key] for key in keys if key in answers]
