"""`mvl run`: the whole road from raw files to scores, through the same assets the UI shows.

Sources are read every time (what has not changed adds nothing); everything behind them runs only where it is missing or
out of date, or has requests that failed by chance, unless `--force`. A partition is judged while others are still
rewritten. One that fails is reported and the others go on; the next run picks it up.
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

from mvl_assets.config.catalog import load_catalog, source_named
from mvl_assets.config.settings import settings
from mvl_assets.defs.prompts import report_prompts
from mvl_assets.errors import MachineError, MvlError
from mvl_assets.fetch.overview import is_fetchable
from mvl_assets.inference.endpoints import warm_up
from mvl_assets.inference.progress import Progress
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.retry_policy import groups
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.asset_status import Standing, Standings
from mvl_assets.orchestration.stage_progress import listen
from mvl_assets.runner import selection
from mvl_assets.runner.asset_steps import Done, Runner, Step
from mvl_assets.runner.orphaned_runs import end_abandoned
from mvl_assets.runner.pipelining import SAY_EVERY_S, run_beside
from mvl_assets.runner.summary import summary
from mvl_assets.runner.user_errors import Problem

STAGES = (
    "raw",
    "category",
    "rewritten",
    "judged",
    "curation",
    "mixture",
    "export",
    "pack_plan",
    "checkpoint",
    "evaluation",
)
# Stages whose assets are tables, or parts of tables, of their own.
TABLES = frozenset({"category", "rewritten", "judged", "curation", "mixture", "pack_plan"})
# Stages that ask a model, with the name of what they ask in the lake.
ASKING = {"rewritten": "rewrite", "judged": "judge"}


@dataclass
class Tally:
    """What happened to the steps of one stage, in steps and seconds."""

    made: int = 0
    fresh: int = 0
    failed: list[tuple[str, Problem]] = field(default_factory=list)
    seconds: float = 0.0


def _pair(step: Step) -> tuple[str, str | None]:
    """Category and source: what a rewriting and the judging behind it share."""
    return step.key[1], step.partition


class Road:
    """Drives the stages in order; steps of one stage in the order of the graph."""

    def __init__(self, *, force: bool, keys: frozenset[dg.AssetKey] | None = None) -> None:
        self.runner = Runner()
        end_abandoned(self.runner.instance)
        self.graphs = {n: d.resolve_asset_graph() for n, d in self.runner.locations.items()}
        self.lake = Lake(settings().lake_root)
        self.force = force
        self.keys = keys
        self.started = time.monotonic()
        self.tally: dict[str, Tally] = {stage: Tally() for stage in STAGES}
        self._said = self.started
        listen(self._heard)

    def steps(self, stage: str, sources: list[str]) -> Iterator[Step]:
        """The stage's steps for these sources."""
        chosen = set(sources)
        for location, asset_graph in self.graphs.items():
            for key in asset_graph.toposorted_asset_keys:
                if key.path[0] != stage or key not in asset_graph.materializable_asset_keys:
                    continue
                if self.keys is not None and key not in self.keys:
                    continue
                partitions = asset_graph.get(key).partitions_def
                names = [None] if partitions is None else [p for p in partitions.get_partition_keys() if p in chosen]
                yield from (Step(location, tuple(key.path), name) for name in names)

    def drive(self, stage: str, sources: list[str]) -> None:
        """Runs the stage's steps that are missing or out of date."""
        began = time.monotonic()
        self._take(map(self.runner.run, self._todo(self.steps(stage, sources))))
        self.tally[stage].seconds += time.monotonic() - began

    def drive_asking(self, stages: Sequence[str], sources: list[str]) -> None:
        """Runs the steps of rewriting, judging or both that are missing or out of date. What is judged behind a
        rewriting is looked at when that has ended."""
        first = self._todo(self.steps("rewritten", sources)) if "rewritten" in stages else []
        rewriting = {_pair(step) for step in first}
        judging = {_pair(step): step for step in self.steps("judged", sources)} if "judged" in stages else {}
        now = self._todo(step for pair, step in judging.items() if pair not in rewriting)

        def behind(done: Step) -> list[Step]:
            return self._todo([judging[_pair(done)]]) if _pair(done) in judging else []

        self.ask([*first, *now], behind)

    def make(self, steps: list[Step]) -> None:
        """Runs exactly these steps, all of one stage or all of rewriting and judging."""
        if not steps or steps[0].stage not in ASKING:
            self._take(map(self.runner.run, steps))
            return
        rewriting = {_pair(step) for step in steps if step.stage == "rewritten"}
        behind = {_pair(step): step for step in steps if step.stage == "judged" and _pair(step) in rewriting}
        now = [step for step in steps if step not in behind.values()]
        self.ask(now, lambda done: [behind[_pair(done)]] if _pair(done) in behind else [])

    def ask(self, steps: list[Step], behind: Callable[[Step], list[Step]]) -> None:
        """Runs steps that ask a model, and what is `behind` each rewriting that went well: those of one source in this
        process, those of several in processes of their own."""
        began = time.monotonic()

        def then(done: Done) -> list[Step]:
            if done.step.stage != "rewritten":
                return []
            self.tally["rewritten"].seconds = time.monotonic() - began
            return behind(done.step) if done.problem is None else []

        alone = len({step.partition for step in steps}) < 2
        self._take(self._one_by_one(deque(steps), then) if alone else run_beside(steps, then, self.lake, self._say))
        self.tally["judged"].seconds = time.monotonic() - began - self.tally["rewritten"].seconds

    def _one_by_one(self, steps: deque[Step], then: Callable[[Done], list[Step]]) -> Iterator[Done]:
        while steps:
            done = self.runner.run(steps.popleft())
            yield done
            steps.extend(then(done))

    def _todo(self, steps: Iterable[Step]) -> list[Step]:
        """Those of the steps that have to run; the others are counted as fresh."""
        standings = {n: Standings(g, self.runner.instance) for n, g in self.graphs.items()}
        again = self._failed_by_chance()
        todo: list[Step] = []
        for step in steps:
            fresh = standings[step.location].of(dg.AssetKey(step.key), step.partition).state == "fresh"
            # What the files hold is known only by reading them.
            is_asked_again = (step.stage, step.partition) in again
            if fresh and step.stage != "raw" and not self.force and not is_asked_again and self._is_stored(step):
                self.tally[step.stage].fresh += 1
            else:
                todo.append(step)
        return todo

    def _is_stored(self, step: Step) -> bool:
        """Whether the lake has as many rows of the step as were made last. Dagster remembers that they were made, but
        the lake may be another one now, or have lost them in a purge."""
        if step.stage not in TABLES:
            return True
        wanted = dg.AssetRecordsFilter(
            dg.AssetKey(step.key), asset_partitions=[step.partition] if step.partition else None
        )
        made = self.runner.instance.fetch_materializations(wanted, limit=1).records
        told = made[0].asset_materialization if made else None
        count = "dagster/partition_row_count" if step.partition else "dagster/row_count"
        if told is None or count not in told.metadata:
            return True
        table = self.lake.table("/".join(step.key))
        own = sql.equals(table.spec.partition or "", step.partition) if step.partition else None
        return told.metadata[count].value == table.count(own)

    def _failed_by_chance(self) -> set[tuple[str, str | None]]:
        """(stage, source) of partitions with requests that failed and that a run asks again by itself."""
        names = {asked: stage for stage, asked in ASKING.items()}
        return {(names[g.stage], g.source) for g in groups(self.lake, list(names)) if g.asked_again}

    def _take(self, ended: Iterator[Done]) -> None:
        """Says and counts what became of each step. Raises `MachineError` for a failure that every other step would
        meet too."""
        with ExitStack() as stack:
            if isinstance(ended, Generator):
                stack.enter_context(closing(ended))
            for one in ended:
                tally = self.tally[one.step.stage]
                if one.problem is None:
                    tally.made += 1
                    self._say(f"{one.step.name}  {one.facts} ({one.seconds:.1f} s)")
                elif one.problem.stops:
                    raise MachineError(f"{one.step.name}: {one.problem.message}", hint=one.problem.hint)
                else:
                    tally.failed.append((one.step.name, one.problem))
                    self._say(f"{one.step.name}  FAILED: {one.problem.line}", fg="red")

    def _heard(self, _: str, progress: Progress) -> None:
        """Of steps in this process; those of others report through the flow."""
        if time.monotonic() - self._said >= SAY_EVERY_S:
            self._said = time.monotonic()
            self._say(progress.line())

    def _say(self, line: str, fg: str | None = None) -> None:
        click.secho(f"{time.monotonic() - self.started:7.1f} s  {line}", fg=fg)

    def end(self) -> None:
        """Prints the summary; exits with 1 when a step failed."""
        click.echo(summary(self.runner.instance, {stage: t.seconds for stage, t in self.tally.items()}))
        self.end_if_failed()

    def end_if_failed(self) -> None:
        """Names the steps that failed and exits with 1, if there are any."""
        failed = [f for t in self.tally.values() for f in t.failed]
        for name, problem in failed:
            click.secho(f"error: {name}: {problem.line}", fg="red", err=True)
            if problem.hint:
                click.echo(f"  what to do: {problem.hint}", err=True)
        if failed:
            click.echo("run the same command again to go on from here", err=True)
            sys.exit(1)


def sources_to_drive(wanted: tuple[str, ...]) -> list[str]:
    """The slugs named, or the profile's that have files or, where it says so, can be fetched."""
    catalog, declared = load_catalog(), asset_keys.chosen_sources()
    for slug in wanted:
        source_named(slug)
    if wanted:
        return [slug for slug in catalog if slug in wanted]
    fetches = asset_keys.profile().fetch
    found = [s for s in declared if catalog[s].root.is_dir() or (fetches and is_fetchable(catalog[s]))]
    if not found:
        raise MvlError("no source has files", hint=f"run `mvl demo-data`, or put files under {settings().raw}/<slug>")
    return found


def warm_up_models(sources: list[str]) -> None:
    """Starts the local servers the run will need, so that they load while the sources are read."""
    if any(load_catalog()[slug].group == "B" for slug in sources):
        for name in dict.fromkeys(asset_keys.profile().roles.values()):
            warm_up(asset_keys.profile().models[name])


@click.command(name="run")
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be given again.")
@click.option("--select", metavar="SELECTION", help=selection.HELP)
@click.option("--until", type=click.Choice(STAGES), default=STAGES[-1], help="Stop after this stage.")
@click.option("--force", is_flag=True, help="Run what is up to date too.")
def command(sources: tuple[str, ...], select: str | None, until: str, force: bool) -> None:
    """Materialise the whole road, or a part of it."""
    # `kill` ends the run as Ctrl-C does: what has arrived is stored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chosen = sources_to_drive(sources)
    keys = None if select is None else selection.selected(select)
    stages = [
        stage
        for stage in STAGES[: STAGES.index(until) + 1]
        if keys is None or any(key.path[0] == stage for key in keys)
    ]
    if not stages:
        made = ", ".join(STAGES[: STAGES.index(until) + 1])
        raise MvlError(f"--select {select!r} selects nothing of the stages to run", hint=f"these are {made}")
    click.echo(f"{len(chosen)} sources, {len(stages)} stages, lake {settings().lake_root}")
    if ASKING.keys() & set(stages):
        warm_up_models(chosen)
    road = Road(force=force, keys=keys)
    report_prompts(road.runner.instance)
    asking = [stage for stage in stages if stage in ASKING]
    for stage in stages:
        if stage not in ASKING:
            road.drive(stage, chosen)
        elif stage == asking[0]:
            road.drive_asking(asking, chosen)
        tally = road.tally[stage]
        done = f"{tally.made} made, {tally.fresh} up to date, {len(tally.failed)} failed"
        click.secho(f"-- {stage}: {done}, {tally.seconds:.1f} s", bold=True)
    road.end()


def drive_stale(standings: list[Standing]) -> None:
    """Makes exactly these partitions again, stage by stage."""
    road = Road(force=True)
    steps = [
        Step(location, tuple(standing.key.path), standing.partition)
        for standing in standings
        for location, asset_graph in road.graphs.items()
        if standing.key in asset_graph.materializable_asset_keys
    ]
    for stage in STAGES:
        if stage != "judged":
            together = ASKING if stage == "rewritten" else (stage,)
            road.make([step for step in steps if step.stage in together])
    road.end()
