"""The cost of one commit into tables that hold many rows: of 512 images, of 4,096 samples, of 512 answers.

The tables are filled in the layout that the pipeline leaves behind: fragments of one source each, in the catalog's
proportions, as large as ingest and compaction write them. Keys are as long as real ones; texts and images are a few
bytes, because no commit reads them. Commits go into the largest source, which is the worst case: look-ups by key
concern a source's rows. A stage keeps the answers of each source (and shard) in a table of its own, so the commits go
into one that holds half a shard, as soon as any answers are stored; `answers_in_one_log` are the same commits into a
single table that holds all of them. Row hashes are computed before the clock starts, so that they do not hide growth.
Commits into the full table and into one that was empty take turns, so that the machine's load is the same for both.
"""

from __future__ import annotations

import datetime as dt
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from mvl_assets.common.digest import KEY_SCHEME
from mvl_assets.ingest.shard import SHARD_IMAGE_BYTES, SHARD_ROWS
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import Answer, ImageRow
from mvl_assets.lake.schemas.table_spec import KEY_SCHEME_COLUMN, ROW_HASH_COLUMN, TableSpec
from mvl_assets.lake.table import ROWS_PER_FILE
from scaling.raw_sources import SEED, count_source_rows
from scaling.workers import StateFile, read_own_cpu_s, run_worker

# An ingest leaves a fragment of images per shard, which ends at 65,536 rows or 4 GB of images, whichever comes first.
# The paper's images have 340 kB on average (3.4 TB for 10 million), so bytes decide.
MEAN_IMAGE_BYTES = 340_000
IMAGES_PER_FRAGMENT = min(SHARD_ROWS, SHARD_IMAGE_BYTES // MEAN_IMAGE_BYTES)
BATCH_ROWS = {"images": 512, "samples": 4096, "answers": 512, "answers_in_one_log": 512}
N_COMMITS = 15
LARGEST_SOURCE, LARGEST_REWRITTEN_SOURCE = "multiui", "wit"
IMAGE_BYTES, CONTENT = 600, "x" * 200
CREATED_AT = dt.datetime(2024, 12, 6, tzinfo=dt.UTC)


def run_commits(folder: Path, stored_rows: Sequence[int], state: StateFile) -> dict[str, dict[int, dict[str, Any]]]:
    """Measure commits into every table at every number of stored rows; return the costs by table and number."""
    costs: dict[str, dict[int, dict[str, Any]]] = {}
    for table in BATCH_ROWS:
        for n_rows in stored_rows:
            key = f"commits/{table}/{n_rows}"
            if key not in state.results:
                shutil.rmtree(folder, ignore_errors=True)  # what a killed run has left
                arguments = {"folder": str(folder), "table": table, "n_rows": n_rows}
                run_worker("fill", arguments)
                state.run(key, "commit", arguments)
                shutil.rmtree(folder, ignore_errors=True)
            costs.setdefault(table, {})[n_rows] = result = state.results[key]
            print(
                f"{n_rows:>10,}  commit of {BATCH_ROWS[table]:,} {table:<18} {result['commit_cpu_ms']:8.1f} ms CPU "
                f"{result['wall_ms']:8.1f} ms, {result['growth']:.2f} of one into an empty table "
                f"(the first {result['first_cpu_ms']:.0f} ms CPU) "
                f"{result['peak_mb']:6.0f} MB  load {result['load']}",
                file=sys.stderr,
            )
    return costs


# -- filling


def fill_table(folder: str, table: str, n_rows: int) -> dict[str, Any]:
    """Store rows in a new lake; called in a worker."""
    lake, rng = Lake(folder), np.random.default_rng(SEED)
    if not n_rows:
        return {"rows": 0}
    if table in ("images", "samples"):
        for source, n_source_rows in count_source_rows(n_rows).items():
            # Samples are compacted at the end of an ingest: the source that is committed to is in the middle of one.
            rows_per_fragment = SHARD_ROWS if source == LARGEST_SOURCE else ROWS_PER_FILE
            rows_per_fragment = IMAGES_PER_FRAGMENT if table == "images" else rows_per_fragment
            _append_rows(lake, table, source, n_source_rows, rows_per_fragment, rng)
    else:
        log = lake.get_answer_log("rewritten", LARGEST_REWRITTEN_SOURCE)
        n_stored = n_rows if table == "answers_in_one_log" else SHARD_ROWS // 2
        # Logs are compacted as they grow, into few large fragments if they get long.
        for start in range(0, n_stored, SHARD_ROWS):
            rows = build_rows(log.table.spec, min(SHARD_ROWS, n_stored - start), rng)
            log.table.append_fragments([log.table.write_fragments([rows])])
        with log:
            log.maintain()
    return {"rows": n_rows}


def _append_rows(
    lake: Lake, name: str, source: str, n_rows: int, rows_per_fragment: int, rng: np.random.Generator
) -> None:
    table = lake.get_table(name)
    table.append_fragments(
        [
            table.write_fragments(
                [build_rows(table.spec, min(rows_per_fragment, n_rows - start), rng, {"source": source})], source
            )
            for start in range(0, n_rows, rows_per_fragment)
        ]
    )


def build_rows(
    spec: TableSpec, n_rows: int, rng: np.random.Generator, constants: Mapping[str, Any] | None = None
) -> pa.Table:
    """Return rows with new keys and row hashes, the given constants, and nulls elsewhere."""
    values = {KEY_SCHEME_COLUMN: KEY_SCHEME, **(constants or {})}
    columns = []
    for field in spec.schema:
        if field.name in (spec.key_column, ROW_HASH_COLUMN):
            columns.append(draw_ids(n_rows, rng))
        elif field.name in values:
            columns.append(pa.array([values[field.name]] * n_rows, field.type))
        elif field.name == "bytes":
            columns.append(lance.blob_array([b"image"] * n_rows))
        else:
            columns.append(pa.nulls(n_rows, field.type))
    return pa.Table.from_arrays(columns, schema=spec.schema)


def draw_ids(n_ids: int, rng: np.random.Generator) -> pa.StringArray:
    """Draw random ids of 32 hex characters."""
    offsets = np.arange(0, 32 * (n_ids + 1), 32, dtype=np.int32)
    return pa.StringArray.from_buffers(
        n_ids, pa.py_buffer(offsets.tobytes()), pa.py_buffer(rng.bytes(16 * n_ids).hex().encode())
    )


# -- committing


def measure_commits(folder: str, table: str, n_rows: int) -> dict[str, Any]:
    """Commit batches as the pipeline does, in turn into the full lake and into one that was empty at first.

    Returns:
        Milliseconds of the first commit into the full lake and the median of the others, `empty_cpu_ms` of those into
        the other lake, and `growth`, the median CPU time of the first over that of the second.
    """
    rng = np.random.default_rng(SEED + n_rows + 1)
    full_costs, empty_costs = [], []
    with _OPENERS[table](Lake(folder)) as full, _OPENERS[table](Lake(f"{folder}/empty")) as empty:
        for _ in range(1 + N_COMMITS):
            for (build_batch, commit), costs in ((full, full_costs), (empty, empty_costs)):
                batch = build_batch(BATCH_ROWS[table], rng)
                started_at, cpu_start = time.perf_counter(), read_own_cpu_s()
                commit(batch)
                costs.append((1000 * (time.perf_counter() - started_at), 1000 * (read_own_cpu_s() - cpu_start)))
    wall_ms, cpu_ms = zip(*full_costs[1:], strict=True)
    empty_cpu_ms = statistics.median(cpu for _, cpu in empty_costs[1:])
    return {
        "rows": n_rows,
        "first_wall_ms": round(full_costs[0][0], 1),
        "first_cpu_ms": round(full_costs[0][1], 1),
        "wall_ms": round(statistics.median(wall_ms), 1),
        "commit_cpu_ms": round(statistics.median(cpu_ms), 1),
        "empty_cpu_ms": round(empty_cpu_ms, 1),
        "growth": round(statistics.median(cpu_ms) / empty_cpu_ms, 2),
    }


Committer = tuple[Callable[[int, np.random.Generator], Any], Callable[[Any], Any]]


@contextmanager
def _open_images(lake: Lake) -> Iterator[Committer]:
    yield _build_images, lake.get_images(LARGEST_SOURCE).insert


@contextmanager
def _open_samples(lake: Lake) -> Iterator[Committer]:
    table = lake.get_table("samples")
    turns = [{"from": "human", "value": CONTENT}, {"from": "gpt", "value": CONTENT}]
    constants = {"source": LARGEST_SOURCE, "revision": 1, "withdrawn": False, "conversations": turns}
    yield (
        lambda n, rng: build_rows(table.spec, n, rng, constants),
        lambda rows: table.append_fragments([table.write_fragments([rows], LARGEST_SOURCE)]),
    )


@contextmanager
def _open_answers(lake: Lake) -> Iterator[Committer]:
    log = lake.get_answer_log("rewritten", LARGEST_REWRITTEN_SOURCE)
    with log:
        yield lambda n, rng: _build_answers(log, n, rng), log.append


_OPENERS = {
    "images": _open_images,
    "samples": _open_samples,
    "answers": _open_answers,
    "answers_in_one_log": _open_answers,
}


def _build_images(n_rows: int, rng: np.random.Generator) -> list[ImageRow]:
    data = bytes(IMAGE_BYTES)
    return [ImageRow(i, data, "JPEG", 224, 224, 1, "RGB", i[:16]) for i in draw_ids(n_rows, rng).to_pylist()]


def _build_answers(log: AnswerLog, n_rows: int, rng: np.random.Generator) -> list[Answer]:
    return [
        Answer(
            request_key=key,
            source=log.source,
            stage=log.stage,
            model="fake",
            model_revision="1",
            prompt="rewrite_general",
            prompt_hash="0" * 32,
            text=CONTENT,
            finish_reason="stop",
            prompt_tokens=50,
            completion_tokens=20,
            first_token_logprobs=None,
            latency_s=0.05,
            attempts=1,
            run_id="",
            created_at=CREATED_AT,
        )
        for key in draw_ids(n_rows, rng).to_pylist()
    ]
