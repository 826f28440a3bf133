"""How costs grow with the number of rows: single commits, every stage of the pipeline, and processes side by side.

    python benchmarks/scale.py --json                # under 20 minutes on two cores
    python benchmarks/scale.py --full --folder DIR   # up to 12 million rows: hours, resumable (`make rehearsal`)

Five parts, chosen by `--parts`:

  commits      One commit of 512 images, of 4,096 samples, of 512 answers, into tables that hold 0, 1, 5 and 10 million
               rows (`scaling.commits`).
  rehearsal    Synthetic rows over the sources of the catalog, in its proportions, through every stage, at several
               numbers of rows (`scaling.raw_sources`, `scaling.stages`). Models are fake servers in processes of their
               own, and every request is sent. Each stage at each size is a process of its own.
  concurrency  Two ingests at once, four publishes into one table, eight shards of one source (`scaling.concurrency`).
  executors    Shards that do nothing, on processes of this machine and on Ray, where it is installed.
  training_start  Seconds and memory until a rank has its first packs (`training_start.py`).

Everything is measured in worker processes: CPU time with all children, imports left out, and the largest high-water
mark of any process. CPU time is what to compare, because other work disturbs wall time most. Results go into
`state.jsonl` in the folder as soon as they are there; a run that was killed goes on after the last of them, and what
its last, unfinished worker had used is added to the next attempt's.

At the end come the tables of README.md, and as the last line one JSON object:

  commit_growth      CPU of a commit at the largest number of stored rows over that into an empty table, by table
  stage_growth       CPU per row at the largest number of rows over that at the smallest, by stage
  marginal_growth    the same for added rows alone: (cost of the last step up) / (cost of the first step up), so that
                     what a stage costs before its first row cannot hide growth; from three sizes on
  peak_mb            largest peak memory of any process, and `peaks_mb` by stage and size
  parallel_failures  processes that failed: ingest_2, publish_4, shards_8; `parallel_throughput` is against one process
  leftovers          files and versions that the lake holds at the end of each size, by table family
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from scaling.tables import format_tables
from scaling.workers import StateFile, measure_part

QUICK_SIZES, FULL_SIZES = (20_000, 60_000, 200_000), (200_000, 1_000_000, 4_000_000, 12_000_000)
RANK_START_ROWS = (200_000, 1_000_000)
STORED_ROWS = (0, 1_000_000, 5_000_000, 10_000_000)
PACKAGES = ("pylance", "pyarrow", "duckdb", "pillow", "numpy", "aiohttp", "ray")


def run_worker_part(part: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run one part in this process; only what the part needs is imported, before its clock starts."""
    if part == "stage":
        from scaling.stages import run_stage as run
    elif part == "fill":
        from scaling.commits import fill_table as run
    elif part == "commit":
        from scaling.commits import measure_commits as run
    elif part == "ingest":
        from scaling.concurrency import run_ingest as run
    elif part == "ingest_shards":
        from scaling.concurrency import ingest_shards as run
    elif part == "publish":
        from scaling.concurrency import run_publish as run
    elif part == "publish_beside":
        from scaling.concurrency import publish_beside as run
    elif part == "executor":
        from scaling.executors import measure_executor as run
    else:
        raise SystemExit(f"no part is called {part!r}")
    return measure_part(run, arguments)


def report_commits(options: argparse.Namespace) -> dict[str, Any]:
    from scaling.commits import run_commits

    state = StateFile(options.folder / "state.jsonl")
    costs = run_commits(options.folder / "commits", options.stored, state)
    growth = {table: by_size[max(options.stored)]["growth"] for table, by_size in costs.items()}
    return {"commit_growth": growth, "commits": costs}


def report_rehearsal(options: argparse.Namespace) -> dict[str, Any]:
    from scaling.rehearsal import compute_growth, run_rehearsal
    from scaling.stages import STAGES

    results = run_rehearsal(options.folder, options.sizes, options.stages or list(STAGES), keep=options.keep)
    leftovers = results.pop("leftovers")
    growth = compute_growth(results, options.sizes)
    return {
        "stage_growth": {stage: figures["total"] for stage, figures in growth.items()},
        "marginal_growth": {stage: figures["marginal"] for stage, figures in growth.items() if "marginal" in figures},
        "peaks_mb": {stage: {n: r["peak_mb"] for n, r in by_size.items()} for stage, by_size in results.items()},
        "stages": results,
        "leftovers": leftovers,
    }


def report_concurrency(options: argparse.Namespace) -> dict[str, Any]:
    from scaling.concurrency import run_comparisons

    state = StateFile(options.folder / "state.jsonl")
    comparisons = run_comparisons(options.folder / "concurrency", options.parallel_rows, state)
    return {
        "parallel_failures": {name: c["failures"] for name, c in comparisons.items() if "failures" in c},
        "parallel_throughput": {name: c["throughput"] for name, c in comparisons.items() if "throughput" in c},
        "parallel": comparisons,
    }


def read_versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def find_peaks(value: Any) -> Iterator[float]:
    """Yield every `peak_mb` in a result."""
    if isinstance(value, dict):
        if "peak_mb" in value:
            yield value["peak_mb"]
        for inner in value.values():
            yield from find_peaks(inner)


def report_executors(options: argparse.Namespace) -> dict[str, Any]:
    from scaling.executors import run_executors

    return {"executors": run_executors(StateFile(options.folder / "state.jsonl"))}


def report_training_start(options: argparse.Namespace) -> dict[str, Any]:
    from training_start import measure_training_start

    state = StateFile(options.folder / "state.jsonl")
    sizes = FULL_SIZES if options.full else RANK_START_ROWS
    if "training_start" not in state.results:
        state.put("training_start", measure_training_start(options.folder, sizes))
    print(f"training start: {state.results['training_start']}", file=sys.stderr)
    return state.results["training_start"]


REPORTS = {
    "commits": report_commits,
    "rehearsal": report_rehearsal,
    "concurrency": report_concurrency,
    "executors": report_executors,
    "training_start": report_training_start,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the rehearsal up to 12 million rows; takes hours")
    parser.add_argument("--parts", nargs="+", choices=REPORTS, default=list(REPORTS))
    parser.add_argument("--sizes", type=int, nargs="+", help="rows of the rehearsal, ascending")
    parser.add_argument("--stages", nargs="+", help="only these stages of the rehearsal, in this order")
    parser.add_argument("--stored", type=int, nargs="+", default=STORED_ROWS, help="rows stored before the commits")
    parser.add_argument("--parallel-rows", type=int, default=20_000, help="rows of each source that is ingested")
    parser.add_argument("--folder", type=Path, help="state, files and lakes; a finished state is shown again")
    parser.add_argument("--keep", action="store_true", help="keep files and lakes of the rehearsal")
    parser.add_argument("--json", action="store_true", help="the same; the last line always is one JSON object")
    parser.add_argument("--worker", nargs=2, metavar=("PART", "ARGUMENTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(run_worker_part(options.worker[0], json.loads(options.worker[1]))))
        return
    options.sizes = options.sizes or (FULL_SIZES if options.full else QUICK_SIZES)
    is_temporary = options.folder is None
    options.folder = (options.folder or Path(tempfile.mkdtemp(prefix="mvl-scale-"))).absolute()
    result: dict[str, Any] = {
        "benchmark": "scale",
        "cores": len(os.sched_getaffinity(0)),
        "load_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": read_versions(),
        "sizes": options.sizes,
    }
    started_at = time.monotonic()
    try:
        for part, report in REPORTS.items():
            if part in options.parts:
                result |= report(options)
    finally:
        if is_temporary:
            shutil.rmtree(options.folder, ignore_errors=True)
    result["peak_mb"] = max(find_peaks(result), default=None)
    result["seconds"] = round(time.monotonic() - started_at, 1)
    result["load_at_end"] = round(os.getloadavg()[0], 2)
    print(format_tables(result), file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
