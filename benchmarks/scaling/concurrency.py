"""Processes that work side by side: their throughput against one process, and how many of them fail.

ingest_2   two ingests of different sources into one lake, one with images and one of text
publish_4  four processes that each publish a source into one table, beside half a million rows of others
shards_8   one source with images in eight shards of a quarter of the usual size, on a process per core
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.ingest import ingest
from mvl_assets.lake.lake import Lake
from scaling.commits import build_rows
from scaling.raw_sources import SEED, list_raw_sources, write_raw_sources
from scaling.workers import StateFile, WorkerError, read_result, start_worker

RUN_ID = "concurrency"
IMAGE_SOURCE, TEXT_SOURCE = "dvqa", "orca_math"
N_SHARDS, SHARD_ROWS = 8, ingest.SHARD_ROWS // 4
BATCH_ROWS = 8192
TABLE = "rewritten/general"
CONVERSATION = [{"from": "human", "value": "q" * 200}, {"from": "gpt", "value": "a" * 700}]
N_BESIDE, N_SOURCES_BESIDE = 500_000, 5
PUBLISHED_ROWS = 100_000

WorkerArguments = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same work twice: by workers one after the other, and by workers that run at the same time."""

    part: str
    apart: WorkerArguments
    together: WorkerArguments


def run_comparisons(folder: Path, n_rows: int, state: StateFile) -> dict[str, dict[str, Any]]:
    """Run all comparisons; the two sources that are ingested side by side have `n_rows` rows each."""
    raw = str(folder / "raw")
    ingests = [{"raw": raw, "slug": slug} for slug in (IMAGE_SOURCE, TEXT_SOURCE)]
    publishes = [{"source": f"source_{number}", "n_rows": PUBLISHED_ROWS} for number in range(4)]
    shards = {"raw": raw, "slug": IMAGE_SOURCE, "shard_rows": SHARD_ROWS}
    comparisons = {
        "ingest_2": Comparison("ingest", ingests, ingests),
        "publish_4": Comparison("publish", publishes, publishes),
        "shards_8": Comparison(
            "ingest_shards",
            [{**shards, "n_processes": 1}],
            [{**shards, "n_processes": len(os.sched_getaffinity(0))}],
        ),
    }
    for name, comparison in comparisons.items():
        if name not in state.results:
            shutil.rmtree(folder, ignore_errors=True)  # what a killed run has left
            n_image_rows = N_SHARDS * SHARD_ROWS if name == "shards_8" else n_rows
            write_raw_sources(Path(raw), {IMAGE_SOURCE: n_image_rows, TEXT_SOURCE: n_rows})
            state.put(name, _compare(comparison, folder))
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{name}: {state.results[name]}", file=sys.stderr)
    return {name: state.results[name] for name in comparisons}


def _compare(comparison: Comparison, folder: Path) -> dict[str, Any]:
    """Return `throughput` (rows per second at the same time over those apart), `failures`, and the seconds of both."""
    seconds, failures = {}, 0
    for mode, all_arguments in (("apart", comparison.apart), ("together", comparison.together)):
        lake = folder / mode
        if comparison.part == "publish":
            read_result(start_worker("publish_beside", {"folder": str(lake)}))
        started_at = time.perf_counter()
        workers = []
        for arguments in all_arguments:
            workers.append(start_worker(comparison.part, {"folder": str(lake), **arguments}))
            if mode == "apart":
                workers[-1].wait()
        for worker in workers:
            try:
                read_result(worker)
            except WorkerError:
                failures += 1
        seconds[mode] = time.perf_counter() - started_at
        shutil.rmtree(lake, ignore_errors=True)
    return {
        "throughput": round(seconds["apart"] / seconds["together"], 2),
        "failures": failures,
        **{f"{mode}_s": round(s, 1) for mode, s in seconds.items()},
        "load": round(os.getloadavg()[0], 1),
    }


# -- in a worker


def run_ingest(folder: str, raw: str, slug: str) -> dict[str, Any]:
    """Ingest one source in this process."""
    spec = _find_source(raw, slug)
    report = ingest.ingest_source(Lake(folder), spec, spec.root, run_id=RUN_ID)
    assert not report.reject_counts, report
    return {"rows": report.n_rows}


def ingest_shards(folder: str, raw: str, slug: str, shard_rows: int, n_processes: int) -> dict[str, Any]:
    """Ingest one source in shards of `shard_rows` rows."""
    ingest.SHARD_ROWS = shard_rows
    spec = _find_source(raw, slug)
    executor = ProcessExecutor(n_processes)
    report = ingest.ingest_source(Lake(folder), spec, spec.root, run_id=RUN_ID, executor=executor)
    assert not report.reject_counts, report
    return {"rows": report.n_rows}


def publish_beside(folder: str) -> dict[str, Any]:
    """Publish the rows of other sources."""
    for number in range(N_SOURCES_BESIDE):
        run_publish(folder, f"beside_{number}", N_BESIDE // N_SOURCES_BESIDE)
    return {"rows": N_BESIDE}


def run_publish(folder: str, source: str, n_rows: int) -> dict[str, Any]:
    """Publish one source with rows of 900 characters."""
    table = Lake(folder).get_table(TABLE)
    rng = np.random.default_rng([SEED, *source.encode()])

    def iter_tables() -> Iterator[pa.Table]:
        for start in range(0, n_rows, BATCH_ROWS):
            constants = {"source": source, "conversations": CONVERSATION}
            yield build_rows(table.spec, min(BATCH_ROWS, n_rows - start), rng, constants)

    published = table.publish(iter_tables(), source)
    assert published.n_rows == n_rows == table.count(f"source = '{source}'"), published
    return {"rows": n_rows}


def _find_source(raw: str, slug: str) -> SourceSpec:
    return next(spec for spec in list_raw_sources(Path(raw)) if spec.slug == slug)
