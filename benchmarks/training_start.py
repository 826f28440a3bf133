"""Seconds and memory from the start of a rank to its first packs, by the number of rows: packed rows need no index.

    python benchmarks/training_start.py --json [--rows 200000 1000000 4000000 12000000] [--repetitions 3]

A synthetic plan is written once per size, with texts and images of a few hundred bytes, in as many shards as a real
one. Then a new process opens it as rank 3 of 8 and reads its first 2,048 rows, in packs of up to eight; measured are
the time and the growth of memory since its imports, medians with minimum and maximum. The floor is reading as many
bytes from one file. `measure_training_start` is what `scale.py` calls.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from peak_memory import read_peak_rss_mb

from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.packed_rows import build_packed_table
from mvl_training.data.batch_order import BatchOrder
from mvl_training.data.pack_materializer import SHARD_ROWS
from mvl_training.data.packed_rows import PackedRows, open_packs
from mvl_training.data.step_packs import PackLimits, StepPacker

STAGE: TrainingStage = "single_image"
IMAGE_BYTES = 300
RANK, WORLD_SIZE = 3, 8
SAMPLES_PER_STEP = 512
PACK_TOKENS = 800
FIRST_ROWS = 2048
SHARDS_PER_COMMIT = 64
SIZES = (200_000, 1_000_000, 4_000_000, 12_000_000)


def write_packed_rows(lake: Lake, n_rows: int) -> None:
    """Write a synthetic plan and its packed rows."""
    plan = lake.get_table(f"pack_plan/{STAGE}")
    # Of the plan only the number of rows and the version of its table are looked at.
    plan.append_fragments([plan.write_fragments(_iter_plan_batches(n_rows, plan.spec.columns))])
    table = lake.get_table(f"packed_rows/{STAGE}")
    table.create()
    template = _build_shard()
    written = []
    for start in range(0, n_rows, SHARD_ROWS):
        positions = np.arange(start, min(start + SHARD_ROWS, n_rows))
        new_columns = {
            "planned_id": _format_ids(positions),
            "position": pa.array(positions),
            "plan_table_version": pa.array([plan.version] * len(positions), pa.int64()),
        }
        shard = template.slice(0, len(positions))
        for name, column in new_columns.items():
            shard = shard.set_column(shard.schema.get_field_index(name), shard.schema.field(name), column)
        written.append(table.write_fragments([shard]))
        if len(written) == SHARDS_PER_COMMIT or start + SHARD_ROWS >= n_rows:
            table.append_fragments(written)
            written = []


def _iter_plan_batches(n_rows: int, schema: pa.Schema) -> Iterator[pa.Table]:
    for start in range(0, n_rows, 65_536):
        positions = np.arange(start, min(start + 65_536, n_rows))
        columns = {"planned_id": _format_ids(positions), "position": pa.array(positions)}
        nulls = {name: pa.nulls(len(positions), schema.field(name).type) for name in schema.names}
        yield pa.table({**nulls, **columns}, schema=schema)


def _format_ids(positions: np.ndarray) -> pa.Array:
    return pa.array([f"{position:032x}" for position in positions.tolist()])


def _build_shard() -> pa.Table:
    rng = np.random.default_rng(20241206)
    rows: list[dict[str, Any]] = []
    for _ in range(SHARD_ROWS):
        image_ids = [rng.bytes(16).hex()]
        rows.append(
            {
                "row_id": rng.bytes(16).hex(),
                "conversations": [
                    {"from": "human", "value": "<image>\nWhat does it show?"},
                    {"from": "gpt", "value": rng.bytes(60).hex()},
                ],
                "image_ids": image_ids,
                "stored_image_ids": image_ids,
                "stored_image_sizes": [IMAGE_BYTES],
                "image_bytes": rng.bytes(IMAGE_BYTES),
                "n_tokens": 100,
                "n_tiles": 1,
                "n_loss_tokens": 50,
                "plan_version": "synthetic",
                "planned_id": "",
            }
        )
    return build_packed_table(rows)


def start_rank(lake_root: str) -> dict[str, float]:
    """Open the packed rows as a rank does and read its first packs; return seconds and growth of memory in MB."""
    memory_before = read_peak_rss_mb()
    started_at = time.perf_counter()
    packed = open_packs(Lake(lake_root), STAGE)
    assert isinstance(packed, PackedRows)
    order = BatchOrder(len(packed), SAMPLES_PER_STEP, seed=0)
    limits = PackLimits(PACK_TOKENS, max_tiles=PACK_TOKENS)
    packer = StepPacker(packed, order, lambda counts: counts.n_tokens * 1e9, limits, WORLD_SIZE)
    opened_at = time.perf_counter()
    # In the middle of the data, as after a resume.
    first_step, n_steps = order.steps_per_epoch // 2, FIRST_ROWS * WORLD_SIZE // SAMPLES_PER_STEP
    packs = [
        pack
        for step in range(first_step, min(first_step + n_steps, order.steps_per_epoch))
        for pack in packer.pack_step(step).packs_by_rank[RANK]
    ]
    n_rows = sum(len(raw_pack.planned_rows) for raw_pack in packed.iter_raw_packs(packs))
    assert n_rows == sum(map(len, packs))
    return {
        "open_seconds": round(opened_at - started_at, 4),
        "seconds": round(time.perf_counter() - started_at, 4),
        "memory_mb": round(read_peak_rss_mb() - memory_before, 1),
    }


def measure_training_start(folder: Path, sizes: Sequence[int] = SIZES, repetitions: int = 3) -> dict[str, Any]:
    """Return seconds and memory of a rank's start by number of rows, and the growth from the smallest to the largest.

    Args:
        folder: Where the synthetic lakes are written; about 0.3 GB per million rows, one size at a time.
        sizes: Numbers of rows.
        repetitions: Starts per size.
    """
    by_rows: dict[str, Any] = {}
    for n_rows in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as lake_root:
            started_at = time.perf_counter()
            write_packed_rows(Lake(lake_root), n_rows)
            write_seconds = time.perf_counter() - started_at
            starts = [_start_in_new_process(lake_root) for _ in range(repetitions)]
            by_rows[str(n_rows)] = {
                **{name: _summarize([start[name] for start in starts]) for name in starts[0]},
                "write_seconds": round(write_seconds, 1),
                "floor_seconds": _measure_floor(Path(lake_root)),
            }
    first, last = (by_rows[str(n_rows)] for n_rows in (min(sizes), max(sizes)))
    growth = {name: round(last[name]["median"] / first[name]["median"], 2) for name in ("seconds", "memory_mb")}
    return {"rank_start": by_rows, "rank_start_growth": growth}


def _start_in_new_process(lake_root: str) -> dict[str, float]:
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "benchmarks")])}
    code = "import json, sys, training_start; print(json.dumps(training_start.start_rank(sys.argv[1])))"
    output = subprocess.run(
        [sys.executable, "-c", code, lake_root], env=environment, capture_output=True, text=True, check=True
    ).stdout
    figures: dict[str, float] = json.loads(output.splitlines()[-1])
    return figures


def _measure_floor(lake_root: Path) -> float:
    """Return the seconds of reading the bytes of the first packs from one file."""
    file = max((lake_root / "packed_rows").rglob("*.lance"), key=lambda path: path.stat().st_size * path.is_file())
    n_bytes = file.stat().st_size * FIRST_ROWS // SHARD_ROWS
    started_at = time.perf_counter()
    with file.open("rb") as stream:
        stream.read(n_bytes)
    return round(time.perf_counter() - started_at, 5)


def _summarize(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures on one line")
    parser.add_argument("--rows", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mvl-benchmark-") as folder:
        figures = measure_training_start(Path(folder), options.rows, options.repetitions)
    figures |= {"load": os.getloadavg()[0], "cores": len(os.sched_getaffinity(0))}
    print(json.dumps(figures) if options.json else json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
