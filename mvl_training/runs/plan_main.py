"""Command line of `planning.build_pack_plan`, which plans a stage, and of the forecast of its steps on several ranks.

    python -m mvl_training.runs.plan_main --recipe … --stage … --lake … --run-id … --out FILE

A process of its own, because planning needs the tokenizer, and the forecast torch. Under Dagster it logs its progress
through Pipes; its report is a JSON file either way.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, PipesContext, open_dagster_pipes

from mvl_assets.common.atomic_write import write_text_atomic
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.execution.create import create_executor
from mvl_assets.lake.lake import Lake
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.planning import build_pack_plan
from mvl_training.model.cost_model import compute_recipe_sizes
from mvl_training.recipe import load_recipe
from mvl_training.runs.lockstep import forecast_all_sizes

# Every line becomes a row in the event log's database.
PROGRESS_INTERVAL_S = 5.0


def main(arguments: Sequence[str]) -> int:
    """Plan a stage and write the report; return the exit code."""
    parser = argparse.ArgumentParser(prog="mvl_training.runs.plan_main", description="Plan a stage")
    parser.add_argument("--recipe", required=True, help="name or path")
    parser.add_argument("--stage", required=True, choices=TRAINING_STAGES)
    parser.add_argument("--lake", required=True, help="root of the tables")
    parser.add_argument("--run-id", required=True)
    parser.add_argument("--out", required=True, type=Path, help="where the report goes, as JSON")
    options = parser.parse_args(arguments)
    lake, recipe = Lake(options.lake), load_recipe(options.recipe)
    with _open_pipes() as pipes:
        report = build_pack_plan(
            lake,
            options.stage,
            recipe,
            run_id=options.run_id,
            executor=create_executor(load_profile(load_settings().profile).executor),
            progress_callback=_build_progress_logger(pipes.log.info if pipes is not None else _write_line),
        )
    plan = PackPlan(lake, options.stage)
    forecasts = forecast_all_sizes(recipe, options.stage, compute_recipe_sizes(recipe), plan, len(plan))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    report_fields = asdict(report) | {"lockstep": [asdict(forecast) for forecast in forecasts]}
    write_text_atomic(options.out, json.dumps(report_fields, indent=1))
    return 0


def _open_pipes() -> AbstractContextManager[PipesContext | None]:
    return open_dagster_pipes() if DAGSTER_PIPES_CONTEXT_ENV_VAR in os.environ else nullcontext()


def _build_progress_logger(log: Callable[[str], Any]) -> Callable[[int, int], None]:
    last_logged_at = time.monotonic()

    def log_progress(n_counted: int, n_rows: int) -> None:
        nonlocal last_logged_at
        if n_counted >= n_rows or time.monotonic() - last_logged_at >= PROGRESS_INTERVAL_S:
            last_logged_at = time.monotonic()
            log(f"counted {n_counted:,} of {n_rows:,} rows")

    return log_progress


def _write_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except MvlError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
