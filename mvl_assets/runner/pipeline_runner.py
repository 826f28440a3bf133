"""`mvl run`: the whole pipeline from raw files to scores, through the same assets that the UI shows.

Sources are read every time (what has not changed adds nothing). Everything downstream runs only where it is missing or
stale, or has requests that failed by chance, unless `--force` is given. A partition is judged while others are still
being rewritten. A partition that fails is reported, the later stages leave its source out, and the other sources go on;
the next run picks it up.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import click
import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.config.catalog import SourceSpec, get_source, load_catalog
from mvl_assets.config.profile import Profile
from mvl_assets.config.settings import load_settings
from mvl_assets.defs.prompts import report_edited_prompts
from mvl_assets.errors import InfrastructureError, MvlError
from mvl_assets.fetch.overview import format_missing_hint
from mvl_assets.inference.endpoints import warm_up
from mvl_assets.inference.local_server.server import list_servers
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.retry_policy import has_auto_retried_requests
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.asset_status import AssetStatus, AssetStatusResolver
from mvl_assets.orchestration.stage_progress import add_listener
from mvl_assets.readers.files import is_demo_source
from mvl_assets.runner import selection
from mvl_assets.runner.asset_steps import AssetStep, StepResult, StepRunner
from mvl_assets.runner.display import RunDisplay
from mvl_assets.runner.orphaned_runs import fail_orphaned_runs
from mvl_assets.runner.pipelining import run_pipelined
from mvl_assets.runner.reject_warnings import build_answer_warning, build_ingest_warning
from mvl_assets.runner.summary import render_summary
from mvl_assets.runner.training_obstacle import find_training_obstacle
from mvl_assets.runner.user_errors import ErrorReport
from mvl_assets.stages import EXPORT, JUDGED, MODEL_STAGES, RAW, REWRITTEN, STAGE_NAMES, STAGES_BY_NAME

WARNING_STATUS = 3
MODEL_STAGE_NAMES = tuple(stage.name for stage in MODEL_STAGES)
PIPELINED_STAGE_NAMES = (REWRITTEN.name, JUDGED.name)


@dataclass
class StageTally:
    """Counts of one stage's steps by outcome, and the seconds they took."""

    materialized: int = 0
    fresh: int = 0
    failed: list[tuple[str, ErrorReport]] = field(default_factory=list)
    skipped: int = 0
    seconds: float = 0.0

    @property
    def n_steps(self) -> int:
        """Steps of the run, whatever became of them."""
        return self.materialized + self.fresh + len(self.failed) + self.skipped

    def format_counts(self) -> str:
        """Return the counts as a person reads them."""
        counts = f"{self.materialized} made, {self.fresh} up to date, {len(self.failed)} failed"
        return counts + (f", {self.skipped} skipped because an earlier stage failed" if self.skipped else "")


def _get_category_and_source(step: AssetStep) -> tuple[str, str | None]:
    """Return category and source, which a step of rewriting and the step that judges it share."""
    return step.key[1], step.partition_key


class PipelineRunner:
    """Runs the stages in order, and the steps of one stage in the order of the graph."""

    def __init__(self, *, force: bool, selected_keys: frozenset[dg.AssetKey] | None = None) -> None:
        self.step_runner = StepRunner()
        fail_orphaned_runs(self.step_runner.instance)
        self.asset_graphs = {n: d.resolve_asset_graph() for n, d in self.step_runner.locations.items()}
        self.lake = Lake(load_settings().lake_root)
        self.force = force
        self.selected_keys = selected_keys
        self.tallies: dict[str, StageTally] = {name: StageTally() for name in STAGE_NAMES}
        self.failed_sources: set[str] = set()
        # Assets of all sources together that failed, or that were skipped behind one.
        self.failed_keys: set[dg.AssetKey] = set()
        self.rechecked_steps: set[AssetStep] = set()
        self.warnings: dict[str, str] = {}
        self.n_rejected = 0
        self.display = RunDisplay()
        add_listener(self.display.report_progress)

    def iter_steps(self, stage: str, sources: list[str]) -> Iterator[AssetStep]:
        """Yield the stage's steps for these sources."""
        selected_sources = set(sources)
        for location, asset_graph in self.asset_graphs.items():
            for key in asset_graph.toposorted_asset_keys:
                if key.path[0] != stage or key not in asset_graph.materializable_asset_keys:
                    continue
                if self.selected_keys is not None and key not in self.selected_keys:
                    continue
                partitions_def = asset_graph.get(key).partitions_def
                partition_keys = (
                    [None]
                    if partitions_def is None
                    else [
                        p
                        for p in partitions_def.get_partition_keys(dynamic_partitions_store=self.step_runner.instance)
                        if p in selected_sources
                    ]
                )
                yield from (AssetStep(location, tuple(key.path), partition_key) for partition_key in partition_keys)

    def find_steps(self, status: AssetStatus) -> Iterator[AssetStep]:
        """Yield the step that makes the partition of a status."""
        for location, asset_graph in self.asset_graphs.items():
            if status.key in asset_graph.materializable_asset_keys:
                yield AssetStep(location, tuple(status.key.path), status.partition_key)

    def iter_stale_steps(self) -> Iterator[AssetStep]:
        """Yield the steps that would make what is stale now."""
        for asset_graph in self.asset_graphs.values():
            for status in AssetStatusResolver(asset_graph, self.step_runner.instance).iter_statuses():
                if status.state == "stale":
                    yield from self.find_steps(status)

    def run_stage(self, stage: str, sources: list[str]) -> None:
        """Run the stage's steps that are missing or stale."""
        started_at = time.monotonic()
        steps = self._list_pending_steps(self.iter_steps(stage, sources))
        self.display.begin_stage(stage, len(steps))
        self._collect(map(self.step_runner.run, steps))
        self.tallies[stage].seconds += time.monotonic() - started_at

    def run_model_stages(self, stages: Sequence[str], sources: list[str]) -> None:
        """Run the steps of rewriting, judging or both that are missing or stale.

        Whether a rewritten partition has to be judged is decided when it is rewritten.
        """
        rewrite_steps = (
            self._list_pending_steps(self.iter_steps(REWRITTEN.name, sources)) if REWRITTEN.name in stages else []
        )
        rewrite_pairs = {_get_category_and_source(step) for step in rewrite_steps}
        judge_steps = (
            {_get_category_and_source(step): step for step in self.iter_steps(JUDGED.name, sources)}
            if JUDGED.name in stages
            else {}
        )
        ready_judge_steps = self._list_pending_steps(
            step for pair, step in judge_steps.items() if pair not in rewrite_pairs
        )

        def list_downstream_steps(rewrite_step: AssetStep) -> list[AssetStep]:
            return (
                self._list_pending_steps([judge_steps[_get_category_and_source(rewrite_step)]])
                if _get_category_and_source(rewrite_step) in judge_steps
                else []
            )

        self.run_model_steps([*rewrite_steps, *ready_judge_steps], list_downstream_steps)

    def run_steps(self, steps: list[AssetStep]) -> None:
        """Run exactly these steps, all of one stage or all of rewriting and judging, but for sources that failed."""
        steps = [step for step in steps if not self._skip_after_failure(step)]
        if not steps or steps[0].stage not in PIPELINED_STAGE_NAMES:
            self.display.begin_stage(steps[0].stage if steps else "", len(steps))
            self._collect(map(self.step_runner.run, steps))
            return
        rewrite_pairs = {_get_category_and_source(step) for step in steps if step.stage == REWRITTEN.name}
        downstream_steps = {
            _get_category_and_source(step): step
            for step in steps
            if step.stage == JUDGED.name and _get_category_and_source(step) in rewrite_pairs
        }
        ready_steps = [step for step in steps if step not in downstream_steps.values()]
        self.run_model_steps(
            ready_steps,
            lambda done: (
                [downstream_steps[_get_category_and_source(done)]]
                if _get_category_and_source(done) in downstream_steps
                else []
            ),
        )

    def run_model_steps(
        self, steps: list[AssetStep], list_downstream_steps: Callable[[AssetStep], list[AssetStep]]
    ) -> None:
        """Run steps that ask a model, and what `list_downstream_steps` names after each rewriting that succeeds.

        Steps of one source run in this process, those of several sources in worker processes.
        """
        started_at = time.monotonic()

        def list_next_steps(result: StepResult) -> list[AssetStep]:
            if result.step.stage != REWRITTEN.name:
                return []
            self.tallies[REWRITTEN.name].seconds = time.monotonic() - started_at
            next_steps = list_downstream_steps(result.step) if result.error is None else []
            self.display.add_steps(len(next_steps))
            return next_steps

        self.display.begin_stage(" and ".join(sorted({step.stage for step in steps}, reverse=True)), len(steps))
        is_single_source = len({step.partition_key for step in steps}) < 2
        self._collect(
            self._run_sequentially(deque(steps), list_next_steps)
            if is_single_source
            else run_pipelined(steps, list_next_steps, self.lake, self.display.report_progress)
        )
        self.tallies[JUDGED.name].seconds = time.monotonic() - started_at - self.tallies[REWRITTEN.name].seconds

    def _run_sequentially(
        self, steps: deque[AssetStep], list_next_steps: Callable[[StepResult], list[AssetStep]]
    ) -> Iterator[StepResult]:
        while steps:
            result = self.step_runner.run(steps.popleft())
            yield result
            steps.extend(list_next_steps(result))

    def _list_pending_steps(self, steps: Iterable[AssetStep]) -> list[AssetStep]:
        """Return the steps that have to run; the others are counted as fresh."""
        status_resolvers = {n: AssetStatusResolver(g, self.step_runner.instance) for n, g in self.asset_graphs.items()}
        pending: list[AssetStep] = []
        for step in steps:
            if self._skip_after_failure(step):
                continue
            is_fresh = (
                status_resolvers[step.location].get_status(dg.AssetKey(step.key), step.partition_key).state == "fresh"
            )
            is_auto_retried = (
                step.stage in MODEL_STAGE_NAMES
                and step.partition_key is not None
                and has_auto_retried_requests(self.lake, step.stage, step.partition_key)
            )
            # Only reading the files of a raw source tells whether they changed.
            if is_fresh and step.stage == RAW.name:
                self.rechecked_steps.add(step)
            if (
                is_fresh
                and step.stage != RAW.name
                and not self.force
                and not is_auto_retried
                and self._has_all_rows(step)
            ):
                self.tallies[step.stage].fresh += 1
            else:
                pending.append(step)
        return pending

    def _skip_after_failure(self, step: AssetStep) -> bool:
        """Return whether what the step needs failed in this run, and count the step if so.

        That is an earlier stage of its source, or an asset upstream that is of all sources.
        """
        key = dg.AssetKey(step.key)
        has_failed_parent = not self.failed_keys.isdisjoint(self.asset_graphs[step.location].get(key).parent_keys)
        if has_failed_parent and step.partition_key is None:
            self.failed_keys.add(key)
        if not has_failed_parent and step.partition_key not in self.failed_sources:
            return False
        self.tallies[step.stage].skipped += 1
        return True

    def _has_all_rows(self, step: AssetStep) -> bool:
        """Return whether the lake has as many rows of the step as its last materialization made.

        Dagster remembers the materialization, but the lake may be another one now, or have lost rows in a purge.
        """
        if not STAGES_BY_NAME[step.stage].counts_rows:
            return True
        records_filter = dg.AssetRecordsFilter(
            dg.AssetKey(step.key), asset_partitions=[step.partition_key] if step.partition_key else None
        )
        records = self.step_runner.instance.fetch_materializations(records_filter, limit=1).records
        materialization = records[0].asset_materialization if records else None
        row_count_key = metadata_keys.PARTITION_ROW_COUNT if step.partition_key else metadata_keys.ROW_COUNT
        if materialization is None or row_count_key not in materialization.metadata:
            return True
        table = self.lake.get_table("/".join(step.key))
        return materialization.metadata[row_count_key].value == table.count(partition_key=step.partition_key)

    def _collect(self, results: Iterator[StepResult]) -> None:
        """Log and count the result of each step.

        Raises:
            InfrastructureError: A step failed for a reason that would fail every other step, too.
        """
        with ExitStack() as stack:
            stack.callback(self.display.remove_bars)
            if isinstance(results, Generator):
                stack.enter_context(closing(results))
            for result in results:
                tally = self.tallies[result.step.stage]
                self.display.finish_step(result.step.name)
                if result.error is None:
                    if result.step in self.rechecked_steps and _is_unchanged(result):
                        tally.fresh += 1
                    else:
                        tally.materialized += 1
                    self.display.log(f"{result.step.name}  {result.summary} ({result.seconds:.1f} s)")
                    if result.step.stage == RAW.name:
                        self._check_ingest(result)
                    elif result.step.stage in MODEL_STAGE_NAMES and result.step.partition_key is not None:
                        self._check_answers(result, result.step.partition_key)
                elif result.error.is_fatal:
                    raise InfrastructureError(f"{result.step.name}: {result.error.message}", hint=result.error.hint)
                else:
                    tally.failed.append((result.step.name, result.error))
                    if result.step.partition_key is None:
                        self.failed_keys.add(dg.AssetKey(result.step.key))
                    else:
                        self.failed_sources.add(result.step.partition_key)
                    self.display.log(f"{result.step.name}  FAILED: {result.error.first_line}", is_error=True)
                    if result.error.hint:
                        self.display.log(f"  what to do: {result.error.hint}", is_error=True)

    def _check_ingest(self, result: StepResult) -> None:
        """Note what is wrong with a source that was read, and say when the profile has cut it short."""
        source = get_source(result.step.key[1])
        n_rows = round(result.figures.get(metadata_keys.ROWS_READ, 0))
        self.n_rejected += round(result.figures.get(metadata_keys.REJECTED, 0))
        if (warning := build_ingest_warning(self.lake, source, n_rows)) is not None:
            self.warnings[warning] = f"`mvl rejects --source {source.slug}` shows file, row and reason"
        profile = asset_keys.load_active_profile()
        if profile.limit is not None and n_rows >= profile.limit and not is_demo_source(source.root):
            self.display.log(f"{source.slug}: the profile {profile.name} takes {profile.limit:,} of its rows, by hash")

    def _check_answers(self, result: StepResult, slug: str) -> None:
        """Note that most answers of a model could not be used."""
        stage, n_rows = result.step.stage, round(result.figures.get(metadata_keys.PARTITION_ROW_COUNT, 0))
        if (warning := build_answer_warning(self.lake, stage, get_source(slug), n_rows)) is not None:
            self.warnings[warning] = (
                f"`mvl rejects --stage {stage} --source {slug}` shows reasons and answers; is this the right model and"
                " prompt? `mvl retry` asks again"
            )

    def finish(self) -> None:
        """Print the summary, and exit with 1 when a step failed, or else with `WARNING_STATUS` after a warning."""
        seconds_by_stage = {stage: tally.seconds for stage, tally in self.tallies.items() if tally.n_steps}
        click.echo(render_summary(self.step_runner.instance, seconds_by_stage))
        for server in list_servers():
            if server.state in ("ready", "starting"):
                click.echo(
                    f"the model server {server.name} ({server.memory_mib / 1024:.1f} GiB) stays up until it has been"
                    f" idle for {server.idle_timeout_s / 60:.0f} minutes; `mvl serve stop` ends it now"
                )
        if self.n_rejected:
            click.echo(f"{_format_count(self.n_rejected, 'row')} rejected: `mvl rejects` shows file, row and reason")
        for warning, hint in self.warnings.items():
            click.secho(f"warning: {warning}", fg="yellow", err=True)
            click.echo(f"  what to do: {hint}", err=True)
        self.exit_if_failed()
        if self.warnings:
            sys.exit(WARNING_STATUS)

    def exit_if_failed(self) -> None:
        """Name the steps that failed and exit with 1, if there are any."""
        failed = [f for t in self.tallies.values() for f in t.failed]
        for name, error in failed:
            click.secho(f"error: {name}: {error.first_line}", fg="red", err=True)
            if error.hint:
                click.echo(f"  what to do: {error.hint}", err=True)
        if failed:
            click.echo("run the same command again to continue from here", err=True)
            sys.exit(1)


def _is_unchanged(result: StepResult) -> bool:
    """Return whether reading a source again found nothing new."""
    keys = (metadata_keys.ROWS_NEW, metadata_keys.ROWS_CHANGED, metadata_keys.ROWS_WITHDRAWN)
    return not any(result.figures.get(key) for key in keys)


def resolve_sources(slugs: tuple[str, ...]) -> list[str]:
    """Return the slugs named, or else the profile's sources that have files or, where it says so, can be fetched.

    Raises:
        MvlError: A slug is unknown or not among the profile's sources, or no source has files.
    """
    for slug in slugs:
        _require_in_graph(get_source(slug))
    if slugs:
        return [slug for slug in load_catalog() if slug in slugs]
    available_slugs = asset_keys.list_available_sources()
    if not available_slugs:
        raise MvlError(
            "no source has files", hint=f"run `mvl demo-data`, or put files under {load_settings().raw_dir}/<slug>"
        )
    return available_slugs


def _format_count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def format_limits(profile: Profile) -> str:
    """Return what the profile takes of each source at most; "" for a profile without limits."""
    limits = [
        *([f"{profile.limit:,} rows are read"] if profile.limit is not None else []),
        *([f"{profile.rewrite_limit:,} samples are rewritten"] if profile.rewrite_limit is not None else []),
    ]
    return f"the profile {profile.name} limits each source: at most {' and '.join(limits)}" if limits else ""


def _require_in_graph(source: SourceSpec) -> None:
    if source.slug in asset_keys.list_graph_sources():
        return
    if source.slug not in asset_keys.list_profile_sources():
        raise MvlError(
            f"{source.slug} is not among the sources of the profile {asset_keys.load_active_profile().name}",
            hint="add it to `sources` in the profile, or choose another profile with MVL_PROFILE",
        )
    raise MvlError(f"{source.slug}: the folder {source.root} does not exist", hint=format_missing_hint(source))


def warm_up_models(sources: list[str]) -> None:
    """Start the local servers that the run will need, so that they load while the sources are read."""
    if any(load_catalog()[slug].group == "B" for slug in sources):
        for name in asset_keys.load_active_profile().model_names:
            warm_up(asset_keys.load_active_profile().models[name])


@click.command(name="run")
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be given again.")
@click.option("--select", metavar="SELECTION", help=selection.SELECT_HELP)
@click.option(
    "--until",
    type=click.Choice(STAGE_NAMES),
    help="Stop after this stage. Default: the last one, or export where nothing can be trained.",
)
@click.option("--force", is_flag=True, help="Run what is fresh, too.")
def command(sources: tuple[str, ...], select: str | None, until: str | None, force: bool) -> None:
    """Materialise the whole pipeline, or a part of it.

    Exit status: 0 all is well; 1 a step failed; 3 all was made, but most rows of a source or most answers about it
    were rejected, or a file breaks off; 130 interrupted.
    """
    # `kill` ends the run like Ctrl-C: answers that arrived are stored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    slugs = resolve_sources(sources)
    keys = None if select is None else selection.resolve_selection(select)
    obstacle = find_training_obstacle() if until is None and keys is None else None
    last_stage = until or (EXPORT.name if obstacle is not None else STAGE_NAMES[-1])
    candidates = STAGE_NAMES[: STAGE_NAMES.index(last_stage) + 1]
    stages = [stage for stage in candidates if keys is None or any(key.path[0] == stage for key in keys)]
    if not stages:
        raise MvlError(
            f"--select {select!r} selects nothing of the stages to run", hint=f"these are {', '.join(candidates)}"
        )
    counts = f"{_format_count(len(slugs), 'source')}, {_format_count(len(stages), 'stage')}"
    click.echo(f"{counts}, lake {load_settings().lake_root}")
    if limits := format_limits(asset_keys.load_active_profile()):
        click.echo(limits)
    if obstacle is not None:
        click.echo(f"nothing is trained: {obstacle}")
    if set(MODEL_STAGE_NAMES) & set(stages):
        warm_up_models(slugs)
    pipeline_runner = PipelineRunner(force=force, selected_keys=keys)
    report_edited_prompts(pipeline_runner.step_runner.instance)
    pipelined_stages = [stage for stage in stages if stage in PIPELINED_STAGE_NAMES]
    for stage in stages:
        # Judging runs together with rewriting.
        if pipeline_runner.failed_sources.issuperset(slugs) and stage != JUDGED.name:
            click.echo(f"every source failed: {stage} and the stages after it are left as they are")
            break
        if stage not in PIPELINED_STAGE_NAMES:
            pipeline_runner.run_stage(stage, slugs)
        elif stage == pipelined_stages[0]:
            pipeline_runner.run_model_stages(pipelined_stages, slugs)
        tally = pipeline_runner.tallies[stage]
        click.secho(f"-- {stage}: {tally.format_counts()}, {tally.seconds:.1f} s", bold=True)
    pipeline_runner.finish()


def run_stale(statuses: list[AssetStatus], *, downstream: bool = False) -> None:
    """Materialise exactly these partitions again, stage by stage.

    Args:
        statuses: Stale partitions.
        downstream: Go on with what was up to date and becomes stale by that, until nothing does.
    """
    pipeline_runner = PipelineRunner(force=True)
    # What was stale from the start and was not asked for stays as it is.
    handled_steps = set(pipeline_runner.iter_stale_steps())
    steps = [step for status in statuses for step in pipeline_runner.find_steps(status)]
    while steps:
        handled_steps.update(steps)
        for stage in STAGE_NAMES:
            if stage != JUDGED.name:
                stage_group = PIPELINED_STAGE_NAMES if stage == REWRITTEN.name else (stage,)
                pipeline_runner.run_steps([step for step in steps if step.stage in stage_group])
        steps = [s for s in pipeline_runner.iter_stale_steps() if s not in handled_steps] if downstream else []
    pipeline_runner.finish()
