"""The job `make_up_to_date` and its schedule: make again what is out of date, and what was made from it.

The job starts a backfill, which shows every partition and can be stopped. It sends requests to models (only those that
have no answer yet), so its schedule is off until a person switches it on.
Concept: https://docs.dagster.io/guides/automate/schedules
"""

# No `from __future__ import annotations`: Dagster reads the annotations of the op as they are.
import dagster as dg

from mvl_assets.defs.prompts import report_edited_prompts
from mvl_assets.orchestration.dagster_internals import AssetGraph, AssetPartition, submit_backfill
from mvl_assets.orchestration.out_of_date import list_out_of_date
from mvl_assets.stages import CHECKPOINT, EVALUATION, PACK_PLAN, PACKED_ROWS, STAGE_NAMES

REFRESH_JOB = "make_up_to_date"
TRAINING_STAGE_NAMES = frozenset(stage.name for stage in (PACK_PLAN, PACKED_ROWS, CHECKPOINT, EVALUATION))


class RefreshConfig(dg.Config):
    """What the job makes again.

    Attributes:
        train: Also pack plans, checkpoints and evaluations.
    """

    train: bool = False


def submit_refresh(instance: dg.DagsterInstance, asset_graph: AssetGraph, *, train: bool) -> list[AssetPartition]:
    """Start one backfill of what is out of date and of everything made from it, and return these partitions."""
    report_edited_prompts(instance)
    stages = [name for name in STAGE_NAMES if train or name not in TRAINING_STAGE_NAMES]
    partitions = list_out_of_date(asset_graph, instance, stages)
    if partitions:
        submit_backfill(instance, asset_graph, partitions, f"out of date: {len(partitions)} partitions")
    return partitions


@dg.op(description="Find what is out of date, and start one backfill of it.")
def start_backfill(context: dg.OpExecutionContext, config: RefreshConfig) -> None:
    """Start the backfill and log what it makes."""
    partitions = submit_refresh(context.instance, context.repository_def.asset_graph, train=config.train)
    names = [key.to_user_string() + (f"[{name}]" if name else "") for key, name in partitions]
    context.log.info(f"backfill (under Runs, Backfills) of {', '.join(names)}" if names else "nothing is out of date")


@dg.job(
    name=REFRESH_JOB,
    description="Make again what is out of date (an edited prompt, another model, changed rows) and everything made"
    " from it, as one backfill. What was never made is left out. Only requests without an answer are sent.",
)
def make_up_to_date() -> None:
    """Start a backfill of what is out of date."""
    start_backfill()


NIGHTLY_SCHEDULE = dg.ScheduleDefinition(
    name="make_up_to_date_nightly",
    job=make_up_to_date,
    cron_schedule="0 3 * * *",
    description="Every night at three; off until it is switched on, because it may send requests to models.",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)


@dg.definitions
def defs() -> dg.Definitions:
    """Return the job and its schedule."""
    return dg.Definitions(jobs=[make_up_to_date], schedules=[NIGHTLY_SCHEDULE])
