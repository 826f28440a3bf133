"""Seconds and memory from the start of a rank to its first packs, by the number of rows: packed rows need no index.

    python benchmarks/training_start.py --json [--rows 200000 1000000 4000000 12000000] [--repetitions 3]

A synthetic plan of packs of eight rows is written once per size, with texts and images of a few hundred bytes, in as
many shards as a real one. Then a new process opens it as rank 3 of 8 and reads its first 256 packs; measured are the
time and the growth of memory since its imports, medians with minimum and maximum. The floor is reading as many bytes
from one file. `measure_training_start` is what `scale.py` calls.
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
from mvl_training.data.pack_materializer import PACKED_ROW_NAMES, SHARD_PACKS
from mvl_training.data.packed_rows import PackedRows, open_packs

STAGE: TrainingStage = "single_image"
ROWS_PER_PACK = 8
IMAGE_BYTES = 300
RANK, WORLD_SIZE = 3, 8
SAMPLES_PER_STEP = 512
FIRST_PACKS = 256
SHARDS_PER_COMMIT = 64
SIZES = (200_000, 1_000_000, 4_000_000, 12_000_000)


def write_packed_rows(lake: Lake, n_rows: int) -> None:
    """Write a synthetic plan and its packed rows."""
    n_packs = n_rows // ROWS_PER_PACK
    plan = lake.get_table(f"pack_plan/{STAGE}")
    # Of the plan only the number of packs and the version of its table are looked at.
    plan.append_fragments([plan.write_fragments(_iter_plan_batches(n_packs, plan.spec.columns))])
    table = lake.get_table(f"packed_rows/{STAGE}")
    table.create()
    template = _build_shard()
    written = []
    for start in range(0, n_packs, SHARD_PACKS):
        n_shard_packs = min(SHARD_PACKS, n_packs - start)
        positions = np.arange(start, start + n_shard_packs)
        new_columns = {
            "pack_id": _format_ids(positions),
            "position": pa.array(positions),
            "n_samples_before": pa.array(positions * ROWS_PER_PACK),
            "plan_table_version": pa.array([plan.version] * n_shard_packs, pa.int64()),
        }
        shard = template.slice(0, n_shard_packs)
        for name, column in new_columns.items():
            shard = shard.set_column(shard.schema.get_field_index(name), shard.schema.field(name), column)
        written.append(table.write_fragments([shard]))
        if len(written) == SHARDS_PER_COMMIT or start + SHARD_PACKS >= n_packs:
            table.append_fragments(written)
            written = []


def _iter_plan_batches(n_packs: int, schema: pa.Schema) -> Iterator[pa.Table]:
    for start in range(0, n_packs, 65_536):
        positions = np.arange(start, min(start + 65_536, n_packs))
        columns = {"pack_id": _format_ids(positions), "position": pa.array(positions)}
        nulls = {name: pa.nulls(len(positions), schema.field(name).type) for name in schema.names}
        yield pa.table({**nulls, **columns}, schema=schema)


def _format_ids(positions: np.ndarray) -> pa.Array:
    return pa.array([f"{position:032x}" for position in positions.tolist()])


def _build_shard() -> pa.Table:
    rng = np.random.default_rng(20241206)
    packs = []
    for _ in range(SHARD_PACKS):
        image_ids = [rng.bytes(16).hex() for _ in range(ROWS_PER_PACK)]
        rows: list[dict[str, Any]] = [
            {
                **dict.fromkeys(PACKED_ROW_NAMES),
                "row_id": rng.bytes(16).hex(),
                "conversations": [
                    {"from": "human", "value": "<image>\nWhat does it show?"},
                    {"from": "gpt", "value": rng.bytes(60).hex()},
                ],
                "image_ids": [image_id],
            }
            for image_id in image_ids
        ]
        packs.append(
            {
                "rows": rows,
                "lengths": [100] * ROWS_PER_PACK,
                "image_ids": image_ids,
                "image_sizes": [IMAGE_BYTES] * ROWS_PER_PACK,
                "image_bytes": rng.bytes(ROWS_PER_PACK * IMAGE_BYTES),
                "n_samples": ROWS_PER_PACK,
                "n_tokens": 100 * ROWS_PER_PACK,
                "n_tiles": ROWS_PER_PACK,
                "n_loss_tokens": 50 * ROWS_PER_PACK,
                "plan_version": "synthetic",
                "pack_id": "",
            }
        )
    return build_packed_table(packs)


def start_rank(lake_root: str) -> dict[str, float]:
    """Open the packed rows as a rank does and read its first packs; return seconds and growth of memory in MB."""
    memory_before = read_peak_rss_mb()
    started_at = time.perf_counter()
    packed = open_packs(Lake(lake_root), STAGE)
    assert isinstance(packed, PackedRows)
    order = BatchOrder.from_plan(packed, SAMPLES_PER_STEP, seed=0)
    opened_at = time.perf_counter()
    # In the middle of the data, as after a resume.
    step = order.steps_per_epoch // 2
    packed.read_counts(order.list_step_packs(step))
    positions = [p for n in range(FIRST_PACKS) for p in order.list_rank_packs(step + n, RANK, WORLD_SIZE)][:FIRST_PACKS]
    n_image_bytes = sum(sum(map(len, raw_pack.image_data.values())) for raw_pack in packed.iter_raw_packs(positions))
    assert n_image_bytes == IMAGE_BYTES * ROWS_PER_PACK * len([p for p in positions if p is not None])
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
    n_bytes = file.stat().st_size * FIRST_PACKS // SHARD_PACKS
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
