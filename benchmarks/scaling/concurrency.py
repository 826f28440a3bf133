"""Processes that work side by side: their throughput against one process, and how many of them fail.

ingest_2   two ingests of different sources, into one lake
publish_4  four processes that each publish a source into one table, beside half a million rows of others
shards_8   eight shards of one source, ingested by processes of this machine
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.lake.lake import Lake
from scaling.commits import build_rows
from scaling.raw_sources import SEED, list_raw_sources, write_raw_sources
from scaling.workers import StateFile, WorkerError, read_result, start_worker

RUN_ID = "concurrency"
BATCH_ROWS = 8192
TABLE = "rewritten/general"
CONVERSATION = [{"from": "human", "value": "q" * 200}, {"from": "gpt", "value": "a" * 700}]
INGESTED_SOURCES = ("dvqa", "orca_math")
"""One with images and one of text."""
N_BESIDE, N_SOURCES_BESIDE = 500_000, 5
PUBLISHED_ROWS = 100_000


def run_ingest(folder: str, raw: str, slug: str) -> dict[str, Any]:
    """Ingest one source; called in a worker."""
    (spec,) = [spec for spec in list_raw_sources(Path(raw)) if spec.slug == slug]
    report = ingest_source(Lake(folder), spec, spec.root, run_id=RUN_ID)
    return {"rows": report.n_rows}


def publish_beside(folder: str) -> dict[str, Any]:
    """Publish the rows of other sources; called in a worker."""
    for k in range(N_SOURCES_BESIDE):
        run_publish(folder, f"beside_{k}", N_BESIDE // N_SOURCES_BESIDE)
    return {"rows": N_BESIDE}


def run_publish(folder: str, source: str, n_rows: int) -> dict[str, Any]:
    """Publish one source with rows of 900 characters; called in a worker."""
    table = Lake(folder).get_table(TABLE)
    rng = np.random.default_rng([SEED, *source.encode()])

    def iter_tables() -> Iterator[pa.Table]:
        for start in range(0, n_rows, BATCH_ROWS):
            constants = {"source": source, "conversations": CONVERSATION}
            yield build_rows(table.spec, min(BATCH_ROWS, n_rows - start), rng, constants)

    published = table.publish(iter_tables(), source)
    assert published.n_rows == n_rows == table.count(f"source = '{source}'"), published
    return {"rows": n_rows}


def run_comparisons(folder: Path, n_rows: int, state: StateFile) -> dict[str, dict[str, Any]]:
    """Run all comparisons; the ingests read `n_rows` rows of each source."""
    raw = folder / "raw"
    cases = {
        "ingest_2": ("ingest", [{"raw": str(raw), "slug": slug} for slug in INGESTED_SOURCES]),
        "publish_4": ("publish", [{"source": f"source_{k}", "n_rows": PUBLISHED_ROWS} for k in range(4)]),
    }
    for name, (part, arguments) in cases.items():
        if name not in state.results:
            shutil.rmtree(folder, ignore_errors=True)  # what a killed run has left
            if part == "ingest":
                write_raw_sources(raw, dict.fromkeys(INGESTED_SOURCES, n_rows))
            state.put(name, _compare(part, arguments, folder))
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{name}: {state.results[name]}", file=sys.stderr)
    return {name: state.results[name] for name in cases}


def _compare(part: str, arguments: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    """Run workers one after the other and then at the same time, each time in a new lake.

    Returns:
        `throughput`, rows per second of all at the same time over those of one after the other; `failures` of those
        that ran at the same time; and the seconds of both.
    """
    seconds, failures = {}, 0
    for mode in ("apart", "together"):
        lake = folder / mode
        if part == "publish":
            read_result(start_worker("publish_beside", {"folder": str(lake)}))
        started_at = time.perf_counter()
        workers = []
        for worker_arguments in arguments:
            workers.append(start_worker(part, {"folder": str(lake), **worker_arguments}))
            if mode == "apart":
                workers[-1].wait()
        for worker in workers:
            try:
                read_result(worker)
            except WorkerError:
                failures += mode == "together"
        seconds[mode] = time.perf_counter() - started_at
        shutil.rmtree(lake, ignore_errors=True)
    return {
        "throughput": round(seconds["apart"] / seconds["together"], 2),
        "failures": failures,
        **{f"{mode}_s": round(s, 1) for mode, s in seconds.items()},
        "load": round(os.getloadavg()[0], 1),
    }
