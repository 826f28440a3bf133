"""Plans the packs of a stage: `python -m mvl_training.data.plan_main --recipe … --stage … --lake … --run-id … --out FILE`.

Belongs here: the command line around `packing.plan_stage`, which needs the tokenizer and is therefore launched rather
than called. Under Dagster it logs its progress through Pipes; its report is a JSON file either way.
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

from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.data.packing import plan_stage
from mvl_training.recipe import STAGES, load_recipe

# Every line is a row of the event log's database.
SECONDS_BETWEEN_LINES = 5.0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="mvl_training.data.plan_main", description="Plan the packs of a stage")
    parser.add_argument("--recipe", required=True, help="name or path")
    parser.add_argument("--stage", required=True, choices=STAGES)
    parser.add_argument("--lake", required=True, help="root of the tables")
    parser.add_argument("--run-id", required=True)
    parser.add_argument("--out", required=True, type=Path, help="where the report goes, as JSON")
    options = parser.parse_args(arguments)
    with _pipes() as pipes:
        report = plan_stage(
            Lake(options.lake),
            options.stage,
            load_recipe(options.recipe),
            run_id=options.run_id,
            progress=_progress(pipes.log.info if pipes is not None else _say),
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    part = options.out.with_suffix(".part")
    part.write_text(json.dumps(asdict(report), indent=1), encoding="utf-8")
    part.replace(options.out)
    return 0


def _pipes() -> AbstractContextManager[PipesContext | None]:
    return open_dagster_pipes() if DAGSTER_PIPES_CONTEXT_ENV_VAR in os.environ else nullcontext()


def _progress(say: Callable[[str], Any]) -> Callable[[int, int], None]:
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say(f"counted {done:,} of {total:,} rows")

    return progress


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except MvlError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
