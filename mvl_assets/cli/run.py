"""`mvl run`: the whole road in one process, from raw files to scores, through the same assets the UI shows.

Sources are read every time (what has not changed adds nothing); everything behind them runs only where it is missing or
out of date, unless `--force`. A partition that fails is reported and the others go on; the next run picks it up.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import click
import dagster as dg

from mvl_assets.catalog import load_catalog, partition_sources
from mvl_assets.cli.dagster_home import code_locations, instance, quiet_dagster
from mvl_assets.cli.staleness import Standing, Standings
from mvl_assets.defs import graph
from mvl_assets.defs.prompts import report_prompts
from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoints import warm_up

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
# The numbers of a materialization that are worth a place in its line.
SHOWN = (
    "dagster/row_count",
    "dagster/partition_row_count",
    "rejects",
    "requests_sent",
    "requests_reused",
    "kept",
    "packs",
    "fill",
    "steps",
    "loss first",
    "loss last",
)
# The event log keeps everything; the terminal gets one line a step.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
ASKING = ("rewritten", "judged")
# Partitions whose requests share one server: together they fill its batches.
ASKING_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Step:
    """One run: an asset and, where it has them, one of its partitions."""

    location: str
    key: dg.AssetKey
    partition: str | None

    @property
    def stage(self) -> str:
        return self.key.path[0]

    @property
    def name(self) -> str:
        return "/".join(self.key.path) + (f"[{self.partition}]" if self.partition else "")


@dataclass
class Tally:
    """What happened to the steps of one stage, in steps and seconds."""

    made: int = 0
    fresh: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0


class Road:
    """Drives the stages in order; steps of one stage in the order of the graph."""

    def __init__(self, say: Callable[[str], None], *, force: bool) -> None:
        self.instance = instance()
        self.locations = code_locations()
        self.jobs = {n: d.resolve_implicit_global_asset_job_def() for n, d in self.locations.items()}
        self.say = say
        self.force = force
        self.started = time.monotonic()
        self.tally: dict[str, Tally] = {}

    def sources(self, wanted: list[str]) -> list[str]:
        """Slugs to drive: the ones named, or all that have files."""
        catalog = load_catalog()
        for slug in wanted:
            if slug not in catalog:
                raise MvlError(f"there is no source {slug!r}", hint="`mvl sources` lists them")
        found = [s for s, spec in catalog.items() if (s in wanted if wanted else spec.root.is_dir())]
        if not found:
            raise MvlError("no source has files", hint="run `mvl miniature`, or put files under $MVL_HOME/raw/<slug>")
        return found

    def steps(self, stage: str, sources: list[str]) -> Iterator[Step]:
        """The stage's steps for these sources."""
        chosen = set(sources)
        for location, definitions in self.locations.items():
            asset_graph = definitions.resolve_asset_graph()
            for key in asset_graph.toposorted_asset_keys:
                if key.path[0] != stage or key not in asset_graph.materializable_asset_keys:
                    continue
                partitions = asset_graph.get(key).partitions_def
                if partitions is None:
                    yield Step(location, key, None)
                else:
                    yield from (Step(location, key, p) for p in partitions.get_partition_keys() if p in chosen)

    def drive(self, stage: str, sources: list[str]) -> Tally:
        """Runs a stage's steps that are missing or stale."""
        tally = self.tally.setdefault(stage, Tally())
        began = time.monotonic()
        standings = {n: Standings(d, self.instance) for n, d in self.locations.items()}
        todo: list[Step] = []
        for step in self.steps(stage, sources):
            # A partitioned step waits for nothing of its own stage; the others (a chain of checkpoints) may.
            if stage == "raw" or self.force or standings[step.location].of(step.key, step.partition).state != "fresh":
                todo.append(step)
            else:
                tally.fresh += 1
        self._all(todo, tally)
        tally.seconds += time.monotonic() - began
        return tally

    def _all(self, steps: list[Step], tally: Tally) -> None:
        workers = ASKING_AT_ONCE if steps and steps[0].stage in ASKING else 1
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda step: self._one(step, tally), steps))

    def _one(self, step: Step, tally: Tally) -> None:
        began = time.monotonic()
        result = self.jobs[step.location].execute_in_process(
            instance=self.instance,
            asset_selection=[step.key],
            partition_key=step.partition,
            raise_on_error=False,
            run_config=QUIET,
            tags={"mvl/driver": "mvl run"},
        )
        took, at = time.monotonic() - began, time.monotonic() - self.started
        if result.success:
            tally.made += 1
            self.say(f"{at:7.1f} s  {step.name}  {_facts(result)} ({took:.1f} s)")
        else:
            problem = _reason(result)
            tally.failed.append((step.name, problem))
            self.say(f"{at:7.1f} s  {step.name}  FAILED: {problem}")


def _reason(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error and error.cause:
                error = error.cause
            if error:
                return error.message.strip().splitlines()[0]
    return "the run failed; see its log in the UI"


def _facts(result: dg.ExecuteInProcessResult) -> str:
    """The numbers of a step worth a line."""
    words = []
    for event in result.get_asset_materialization_events():
        metadata = event.materialization.metadata
        for key in SHOWN:
            value = metadata.get(key)
            if value is not None and isinstance(value.value, int | float):
                words.append(f"{key.split('/')[-1].removeprefix('partition_')} {value.value:g}")
    return ", ".join(words)


@click.command(name="run")
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be given again.")
@click.option("--until", type=click.Choice(STAGES), default=STAGES[-1], help="Stop after this stage.")
@click.option("--force", is_flag=True, help="Run what is up to date too.")
def command(sources: tuple[str, ...], until: str, force: bool) -> None:
    """Materialise the whole road, or a part of it, in this process."""
    quiet_dagster()
    logging.getLogger("dagster").setLevel(logging.ERROR)
    road = Road(click.echo, force=force)
    chosen = road.sources(list(sources))
    stages = STAGES[: STAGES.index(until) + 1]
    click.echo(f"{len(chosen)} sources, {len(stages)} stages, lake {graph.settings().lake_root}")
    report_prompts(road.instance)
    rewritten = {s for c in graph.categories() for s in partition_sources(c) if load_catalog()[s].group == "B"}
    if "rewritten" in stages and rewritten & set(chosen):
        for name in dict.fromkeys(graph.profile().roles.values()):
            warm_up(graph.profile().models[name])
    for stage in stages:
        tally = road.drive(stage, chosen)
        done = f"{tally.made} made, {tally.fresh} up to date, {len(tally.failed)} failed"
        click.secho(f"-- {stage}: {done}, {tally.seconds:.1f} s", bold=True)
    _end(road)


def drive_stale(standings: list[Standing]) -> None:
    """Makes exactly these partitions again, stage by stage."""
    road = Road(click.echo, force=True)
    places = {(key, n) for n, d in road.locations.items() for key in d.resolve_asset_graph().materializable_asset_keys}
    for stage in STAGES:
        steps = [Step(n, s.key, s.partition) for s in standings for key, n in places if key == s.key]
        steps = [step for step in steps if step.stage == stage]
        if steps:
            road._all(steps, road.tally.setdefault(stage, Tally()))
    _end(road)


def _end(road: Road) -> None:
    from mvl_assets.cli.summary import summary

    click.echo(summary(road.instance, {stage: t.seconds for stage, t in road.tally.items()}))
    failed = [f for t in road.tally.values() for f in t.failed]
    for name, problem in failed:
        click.secho(f"failed: {name}: {problem}", fg="red", err=True)
    if failed:
        click.echo("run the same command again to go on from here", err=True)
        sys.exit(1)
