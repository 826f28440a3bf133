"""Cost of the lake: an append of answers, a publish, a mixture.

    python benchmarks/lake.py --json lake.json

Each figure is the median of its repetitions with minimum and maximum, and the CPU time, which other work on the machine
disturbs less. The floor of an append is writing and fsyncing the same bytes to one plain file. The mixture is built in
a separate process, so that peak memory is that of the mixture alone. Rows come from a fixed seed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
from peak_memory import read_peak_rss_mb

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.profile import load_profile
from mvl_assets.curation.mixing import build_mixture
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import ANSWERS, CATEGORY, JUDGED, REWRITTEN
from mvl_assets.lake.schemas.rows import Answer

SEED = 20241206
PACKAGES = ("pylance", "duckdb", "pyarrow", "numpy")
CATEGORIES = ("general", "ocr", "chart", "caption")


@dataclass(frozen=True, slots=True)
class ElapsedTime:
    """Wall time, and CPU time of all threads, in seconds."""

    wall_s: float
    cpu_s: float


def time_call(call: Callable[..., object], *args: object) -> ElapsedTime:
    wall_start, cpu_start = time.perf_counter(), time.process_time()
    call(*args)
    return ElapsedTime(time.perf_counter() - wall_start, time.process_time() - cpu_start)


def summarize_times(times: list[ElapsedTime], unit: str = "s", **extra_fields: Any) -> dict[str, Any]:
    scale = 1000 if unit == "ms" else 1
    cpu_median = round(scale * statistics.median(t.cpu_s for t in times), 3)
    return summarize_values([scale * t.wall_s for t in times], unit, cpu_median=cpu_median, **extra_fields)


def summarize_values(values: list[float], unit: str, **extra_fields: Any) -> dict[str, Any]:
    return {
        "unit": unit,
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "repetitions": len(values),
        **extra_fields,
    }


def build_answers(start: int, n_answers: int) -> list[Answer]:
    """Return answers with 700 characters of text each."""
    rng = random.Random(SEED + start)
    created_at = dt.datetime(2024, 12, 6, tzinfo=dt.UTC)
    return [
        Answer(
            request_key=compute_digest("request", n),
            source="synthetic",
            stage="rewrite",
            model="model",
            model_revision="1",
            prompt="general",
            prompt_hash=compute_digest("prompt"),
            text=rng.randbytes(350).hex(),
            finish_reason="stop",
            prompt_tokens=500,
            completion_tokens=200,
            first_token_logprobs=None,
            latency_s=1.5,
            attempts=1,
            run_id="run",
            created_at=created_at,
        )
        for n in range(start, start + n_answers)
    ]


def measure_append(
    folder: Path, rows_per_commit: int = 100, n_warmup: int = 5, repetitions: int = 60
) -> dict[str, Any]:
    """Measure a durable commit of answers, and writing and fsyncing the same bytes to a plain file."""
    commit_times, floor_times = [], []
    plain_dir = folder / "plain"
    plain_dir.mkdir()
    with Lake(str(folder / "lake")).get_answer_log("rewritten", "synthetic") as log:
        for repetition in range(n_warmup + repetitions):  # interleaved: both see the same load
            batch = build_answers(repetition * rows_per_commit, rows_per_commit)
            commit_times.append(time_call(log.append, batch))
            data = to_ipc_bytes(batch)
            floor_times.append(time_call(write_fsynced, plain_dir / f"{repetition}.arrow", data))
    return {
        "rows_per_commit": rows_per_commit,
        "commit": summarize_times(commit_times[n_warmup:], "ms"),
        "floor": summarize_times(floor_times[n_warmup:], "ms", bytes=len(data)),
    }


def to_ipc_bytes(batch: list[Answer]) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist([asdict(a) for a in batch], schema=ANSWERS.schema)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def write_fsynced(path: Path, data: bytes) -> None:
    with path.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    parent = os.open(path.parent, os.O_RDONLY)
    os.fsync(parent)
    os.close(parent)


def iter_category_tables(category: str, n_rows: int, varied_license: str = "x") -> Iterator[pa.Table]:
    for start in range(0, n_rows, 5000):
        yield pa.Table.from_pylist(
            [
                {
                    "sample_id": compute_digest(category, n),
                    "version_id": compute_digest(category, n, 1),
                    "source": category,
                    "category": category,
                    "group": "B",
                    "modality": "single_image",
                    "image_group_id": compute_digest("image group", category, n),
                    "license": varied_license if n % 100 == 0 else "x",
                    "n_images": 1,
                    "n_turns": 2,
                    "n_chars": 400,
                }
                for n in range(start, min(n_rows, start + 5000))
            ],
            schema=CATEGORY.columns,
        )


def measure_publish(folder: Path, n_rows: int = 100_000, repetitions: int = 3) -> dict[str, Any]:
    """Measure a first publish of a partition, one with equal content, and one with 1% of the rows changed."""
    first_times, unchanged_times, changed_times = [], [], []
    original_tables, changed_tables = (
        list(iter_category_tables("ocr", n_rows)),
        list(iter_category_tables("ocr", n_rows, "y")),
    )
    for repetition in range(repetitions):
        table = Lake(str(folder / f"lake{repetition}")).get_table("category/ocr")
        first_times.append(time_call(table.publish, original_tables, "ocr"))
        unchanged_times.append(time_call(table.publish, original_tables, "ocr"))
        changed_times.append(time_call(table.publish, changed_tables, "ocr"))
    return {
        "rows": n_rows,
        "first": summarize_times(first_times),
        "equal": summarize_times(unchanged_times),
        "one_percent_changed": summarize_times(changed_times),
    }


def measure_mixture(folder: Path, n_candidates: int = 200_000, repetitions: int = 3) -> dict[str, Any]:
    """Measure `single_image` from samples of four categories, half of them with a kept rewrite."""
    publish_candidates(Lake(str(folder / "lake")), n_candidates)
    child_reports = []
    for seed in range(repetitions):
        command = [sys.executable, __file__, "--mix", str(folder / "lake"), str(n_candidates), str(seed)]
        child_reports.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return {
        "candidates": n_candidates,
        "rows": child_reports[0]["rows"],
        "mix": summarize_times([ElapsedTime(report["wall_s"], report["cpu_s"]) for report in child_reports]),
        "peak_rss": summarize_values(
            [report["peak_mb"] for report in child_reports], "MB", before=round(child_reports[0]["before_mb"], 3)
        ),
    }


def publish_candidates(lake: Lake, n_candidates: int) -> None:
    n_per_category = n_candidates // len(CATEGORIES)
    for category in CATEGORIES:
        lake.get_table(f"category/{category}").publish(iter_category_tables(category, n_per_category), category)
        rewrites, verdicts = [], []
        for n in range(n_per_category // 2):
            sample_fields = {"sample_id": compute_digest(category, n), "source": category, "category": category}
            rewrite_id = compute_digest("rewrite", category, n)
            version_id = compute_digest(category, n, 1)
            conversations = [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "because"}]
            rewrites.append(
                {**sample_fields, "rewrite_id": rewrite_id, "version_id": version_id, "conversations": conversations}
            )
            verdicts.append(
                {**sample_fields, "judged_id": compute_digest("j", rewrite_id), "rewrite_id": rewrite_id, "keep": True}
            )
        rewritten_table = pa.Table.from_pylist(rewrites, schema=REWRITTEN.columns)
        lake.get_table(f"rewritten/{category}").publish([rewritten_table], category)
        judged_table = pa.Table.from_pylist(verdicts, schema=JUDGED.columns)
        lake.get_table(f"judged/{category}").publish([judged_table], category)


def mix_once(root: str, n_candidates: int, seed: int) -> None:
    """Build a mixture of 90% of the candidates and print its figures as JSON, in a process of `measure_mixture`."""
    base_profile = load_profile("paper")
    shares = dict.fromkeys(CATEGORIES, 1.0)
    mixture_settings = {"shares": shares, "single_image": n_candidates * 9 // 10, "seed": seed}
    profile = base_profile.model_copy(
        update={"mixture": base_profile.mixture.model_copy(update=mixture_settings), "holdout_fraction": 0.01}
    )
    peak_mb_before = read_peak_rss_mb()
    elapsed = time_call(lambda: build_mixture(Lake(root), profile, "single_image", run_id="benchmark"))
    rows = Lake(root).get_table("mixture/single_image").count()
    print(json.dumps(asdict(elapsed) | {"before_mb": peak_mb_before, "peak_mb": read_peak_rss_mb(), "rows": rows}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--folder", type=Path, help="folder on the disk to measure; default: temporary")
    parser.add_argument("--mix", nargs=3, metavar=("LAKE", "CANDIDATES", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.mix:
        mix_once(options.mix[0], int(options.mix[1]), int(options.mix[2]))
        return
    figures: dict[str, Any] = {
        "seed": SEED,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_at_start": os.getloadavg()[0],
        "versions": {p: version(p) for p in PACKAGES},
    }
    for measure in (measure_append, measure_publish, measure_mixture):
        with tempfile.TemporaryDirectory(prefix="mvl-benchmark-", dir=options.folder) as folder:
            figures[measure.__name__.removeprefix("measure_")] = measure(Path(folder))
    figures["load_at_end"] = os.getloadavg()[0]
    text = json.dumps(figures, indent=2)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
