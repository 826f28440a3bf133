"""`mvl run`: the whole road from raw files to scores, through the same assets the UI shows.

Sources are read every time (what has not changed adds nothing); everything behind them runs only where it is missing or
out of date, unless `--force`. A partition that fails is reported and the others go on; the next run picks it up.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import click
import dagster as dg

from mvl_assets.catalog import load_catalog, source_named
from mvl_assets.cli.abandoned import end_abandoned
from mvl_assets.cli.failures import Problem
from mvl_assets.cli.pool import run_beside
from mvl_assets.cli.runner import Done, Runner, Step
from mvl_assets.cli.summary import summary
from mvl_assets.defs import graph
from mvl_assets.defs.prompts import report_prompts
from mvl_assets.defs.staleness import Standing, Standings
from mvl_assets.errors import MachineError, MvlError
from mvl_assets.fetch.overview import is_fetchable
from mvl_assets.inference.endpoints import warm_up
from mvl_assets.settings import settings

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
ASKING = ("rewritten", "judged")
# Partitions whose requests share one server: together they fill its batches.
ASKING_AT_ONCE = 3


@dataclass
class Tally:
    """What happened to the steps of one stage, in steps and seconds."""

    made: int = 0
    fresh: int = 0
    failed: list[tuple[str, Problem]] = field(default_factory=list)
    seconds: float = 0.0


class Road:
    """Drives the stages in order; steps of one stage in the order of the graph."""

    def __init__(self, *, force: bool) -> None:
        self.runner = Runner()
        end_abandoned(self.runner.instance)
        self.graphs = {n: d.resolve_asset_graph() for n, d in self.runner.locations.items()}
        self.force = force
        self.started = time.monotonic()
        self.tally: dict[str, Tally] = {stage: Tally() for stage in STAGES}

    def steps(self, stage: str, sources: list[str]) -> Iterator[Step]:
        """The stage's steps for these sources."""
        chosen = set(sources)
        for location, asset_graph in self.graphs.items():
            for key in asset_graph.toposorted_asset_keys:
                if key.path[0] != stage or key not in asset_graph.materializable_asset_keys:
                    continue
                partitions = asset_graph.get(key).partitions_def
                names = [None] if partitions is None else [p for p in partitions.get_partition_keys() if p in chosen]
                yield from (Step(location, tuple(key.path), name) for name in names)

    def drive(self, stage: str, sources: list[str]) -> Tally:
        """Runs a stage's steps that are missing or stale."""
        began = time.monotonic()
        tally = self.tally[stage]
        standings = {n: Standings(g, self.runner.instance) for n, g in self.graphs.items()}
        todo: list[Step] = []
        for step in self.steps(stage, sources):
            # What the files hold is known only by reading them.
            fresh = standings[step.location].of(dg.AssetKey(step.key), step.partition).state == "fresh"
            if fresh and stage != "raw" and not self.force:
                tally.fresh += 1
            else:
                todo.append(step)
        self.make(todo, tally)
        tally.seconds += time.monotonic() - began
        return tally

    def make(self, steps: list[Step], tally: Tally) -> None:
        """Runs steps of one stage; those that ask a model several at a time, in processes of their own. Raises
        `MachineError` for a failure that every other step would meet too."""
        beside = len(steps) > 1 and steps[0].stage in ASKING
        with closing(run_beside(steps, ASKING_AT_ONCE) if beside else self._in_turn(steps)) as done:
            for one in done:
                at = time.monotonic() - self.started
                if one.problem is None:
                    tally.made += 1
                    click.echo(f"{at:7.1f} s  {one.step.name}  {one.facts} ({one.seconds:.1f} s)")
                elif one.problem.stops:
                    raise MachineError(f"{one.step.name}: {one.problem.message}", hint=one.problem.hint)
                else:
                    tally.failed.append((one.step.name, one.problem))
                    click.secho(f"{at:7.1f} s  {one.step.name}  FAILED: {one.problem.line}", fg="red")

    def _in_turn(self, steps: Iterable[Step]) -> Generator[Done, None, None]:
        yield from map(self.runner.run, steps)

    def end(self) -> None:
        """Prints the summary; exits with 1 when a step failed."""
        click.echo(summary(self.runner.instance, {stage: t.seconds for stage, t in self.tally.items()}))
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
    catalog, profile = load_catalog(), graph.profile()
    declared = profile.sources
    for slug in (*wanted, *([] if declared == "all" else declared)):
        source_named(slug)
    if wanted:
        return [slug for slug in catalog if slug in wanted]
    found = [
        slug
        for slug, spec in catalog.items()
        if (declared == "all" or slug in declared) and (spec.root.is_dir() or (profile.fetch and is_fetchable(spec)))
    ]
    if not found:
        raise MvlError("no source has files", hint=f"run `mvl miniature`, or put files under {settings().raw}/<slug>")
    return found


def warm_up_models(sources: list[str]) -> None:
    """Starts the local servers the run will need, so that they load while the sources are read."""
    if any(load_catalog()[slug].group == "B" for slug in sources):
        for name in dict.fromkeys(graph.profile().roles.values()):
            warm_up(graph.profile().models[name])


@click.command(name="run")
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be given again.")
@click.option("--until", type=click.Choice(STAGES), default=STAGES[-1], help="Stop after this stage.")
@click.option("--force", is_flag=True, help="Run what is up to date too.")
def command(sources: tuple[str, ...], until: str, force: bool) -> None:
    """Materialise the whole road, or a part of it."""
    # `kill` ends the run as Ctrl-C does: what has arrived is stored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chosen = sources_to_drive(sources)
    stages = STAGES[: STAGES.index(until) + 1]
    click.echo(f"{len(chosen)} sources, {len(stages)} stages, lake {settings().lake_root}")
    if "rewritten" in stages:
        warm_up_models(chosen)
    road = Road(force=force)
    report_prompts(road.runner.instance)
    for stage in stages:
        tally = road.drive(stage, chosen)
        done = f"{tally.made} made, {tally.fresh} up to date, {len(tally.failed)} failed"
        click.secho(f"-- {stage}: {done}, {tally.seconds:.1f} s", bold=True)
    road.end()


def drive_stale(standings: list[Standing]) -> None:
    """Makes exactly these partitions again, stage by stage."""
    road = Road(force=True)
    for stage in STAGES:
        steps = [
            Step(location, tuple(standing.key.path), standing.partition)
            for standing in standings
            for location, asset_graph in road.graphs.items()
            if standing.key.path[0] == stage and standing.key in asset_graph.materializable_asset_keys
        ]
        road.make(steps, road.tally[stage])
    road.end()
