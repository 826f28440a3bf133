"""What the lake costs: an append of answers, a publish, a mixture.

    python benchmarks/lake.py --json lake.json

Each figure is the median of its repetitions with the smallest and largest beside it, and the processor time, which
other work on the machine disturbs less. An append is shown beside its floor: writing and fsyncing the same bytes to one
plain file. The mixture runs in a process of its own, so its peak of memory is its own. Rows come from a fixed seed.
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

from mvl_assets.common.digest import digest_hex
from mvl_assets.config.profile import load_profile
from mvl_assets.curation.mixing import mix
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import ANSWERS, CATEGORY, JUDGED, REWRITTEN, Answer

SEED = 20241206
PACKAGES = ("pylance", "duckdb", "pyarrow", "numpy")
CATEGORIES = ("general", "ocr", "chart", "caption")


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds on the clock, and of processor time in all threads."""

    wall: float
    cpu: float


def timed(work: Callable[..., object], *given: object) -> Took:
    wall, cpu = time.perf_counter(), time.process_time()
    work(*given)
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


def measured(times: list[Took], unit: str = "s", **more: Any) -> dict[str, Any]:
    scale = 1000 if unit == "ms" else 1
    cpu = round(scale * statistics.median(t.cpu for t in times), 3)
    return spread([scale * t.wall for t in times], unit, cpu_median=cpu, **more)


def spread(values: list[float], unit: str, **more: Any) -> dict[str, Any]:
    return {
        "unit": unit,
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "repetitions": len(values),
        **more,
    }


def answers(start: int, count: int) -> list[Answer]:
    """Answers with 700 characters of text each."""
    chance = random.Random(SEED + start)
    made = dt.datetime(2024, 12, 6, tzinfo=dt.UTC)
    return [
        Answer(
            request_key=digest_hex("request", n),
            source="drawn",
            stage="rewrite",
            model="model",
            model_revision="1",
            prompt="general",
            prompt_hash=digest_hex("prompt"),
            text=chance.randbytes(350).hex(),
            finish_reason="stop",
            prompt_tokens=500,
            completion_tokens=200,
            first_logprobs=None,
            latency_s=1.5,
            attempts=1,
            run_id="run",
            created_at=made,
        )
        for n in range(start, start + count)
    ]


def append(folder: Path, rows: int = 100, warm: int = 5, repetitions: int = 60) -> dict[str, Any]:
    """One durable commit of `rows` answers, and the same bytes written and fsynced to a plain file."""
    ours, floor = [], []
    plain = folder / "plain"
    plain.mkdir()
    with Lake(str(folder / "lake")).answers("rewrite", "drawn") as log:
        for turn in range(warm + repetitions):  # interleaved: both see the same machine
            batch = answers(turn * rows, rows)
            ours.append(timed(log.append, batch))
            data = ipc_bytes(batch)
            floor.append(timed(write_durably, plain / f"{turn}.arrow", data))
    return {
        "rows_per_commit": rows,
        "commit": measured(ours[warm:], "ms"),
        "floor": measured(floor[warm:], "ms", bytes=len(data)),
    }


def ipc_bytes(batch: list[Answer]) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist([asdict(a) for a in batch], schema=ANSWERS.schema)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    parent = os.open(path.parent, os.O_RDONLY)
    os.fsync(parent)
    os.close(parent)


def category_rows(category: str, count: int, says: str = "x") -> Iterator[pa.Table]:
    for start in range(0, count, 5000):
        yield pa.Table.from_pylist(
            [
                {
                    "sample_id": digest_hex(category, n),
                    "version_id": digest_hex(category, n, 1),
                    "source": category,
                    "category": category,
                    "group": "B",
                    "modality": "single_image",
                    "picture_key": digest_hex("picture", category, n),
                    "license": says if n % 100 == 0 else "x",
                    "n_images": 1,
                    "n_turns": 2,
                    "n_chars": 400,
                }
                for n in range(start, min(count, start + 5000))
            ],
            schema=CATEGORY.columns,
        )


def publish(folder: Path, rows: int = 100_000, repetitions: int = 3) -> dict[str, Any]:
    """A partition for the first time, again with equal content, and again with 1% of its rows changed."""
    first, equal, changed = [], [], []
    some, others = list(category_rows("ocr", rows)), list(category_rows("ocr", rows, "y"))
    for turn in range(repetitions):
        table = Lake(str(folder / f"lake{turn}")).table("category/ocr")
        first.append(timed(table.publish, some, "ocr"))
        equal.append(timed(table.publish, some, "ocr"))
        changed.append(timed(table.publish, others, "ocr"))
    return {
        "rows": rows,
        "first": measured(first),
        "equal": measured(equal),
        "one_percent_changed": measured(changed),
    }


def mixture(folder: Path, candidates: int = 200_000, repetitions: int = 3) -> dict[str, Any]:
    """`single_image` from `candidates` samples of four categories, half of them with a kept rewrite."""
    fill(Lake(str(folder / "lake")), candidates)
    said = []
    for seed in range(repetitions):
        command = [sys.executable, __file__, "--mix", str(folder / "lake"), str(candidates), str(seed)]
        said.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return {
        "candidates": candidates,
        "rows": said[0]["rows"],
        "mix": measured([Took(s["wall"], s["cpu"]) for s in said]),
        "peak_rss": spread([s["peak_mb"] for s in said], "MB", before=round(said[0]["before_mb"], 3)),
    }


def fill(lake: Lake, candidates: int) -> None:
    each = candidates // len(CATEGORIES)
    for category in CATEGORIES:
        lake.table(f"category/{category}").publish(category_rows(category, each), category)
        rewrites, verdicts = [], []
        for n in range(each // 2):
            of = {"sample_id": digest_hex(category, n), "source": category, "category": category}
            rewrite_id = digest_hex("rewrite", category, n)
            version_id = digest_hex(category, n, 1)
            said = [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "because"}]
            rewrites.append({**of, "rewrite_id": rewrite_id, "version_id": version_id, "conversations": said})
            verdicts.append({**of, "judged_id": digest_hex("j", rewrite_id), "rewrite_id": rewrite_id, "keep": True})
        made = pa.Table.from_pylist(rewrites, schema=REWRITTEN.columns)
        lake.table(f"rewritten/{category}").publish([made], category)
        judged = pa.Table.from_pylist(verdicts, schema=JUDGED.columns)
        lake.table(f"judged/{category}").publish([judged], category)


def mix_once(root: str, candidates: int, seed: int) -> None:
    """The measured process of `mixture`: takes 90% of what there is, prints its figures as JSON."""
    base = load_profile("paper")
    shares = dict.fromkeys(CATEGORIES, 1.0)
    sizes = {"shares": shares, "single_image": candidates * 9 // 10, "seed": seed}
    profile = base.model_copy(update={"mixture": base.mixture.model_copy(update=sizes), "holdout": 0.01})
    before = peak_mb()
    took = timed(lambda: mix(Lake(root), profile, "single_image", run_id="benchmark"))
    rows = Lake(root).table("mixture/single_image").count()
    print(json.dumps(asdict(took) | {"before_mb": before, "peak_mb": peak_mb(), "rows": rows}))


def peak_mb() -> float:
    """Of this process alone; `getrusage` would begin with the size of the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--folder", type=Path, help="where to write (the disk that is measured); default: temporary")
    parser.add_argument("--mix", nargs=3, metavar=("LAKE", "CANDIDATES", "SEED"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.mix:
        mix_once(chosen.mix[0], int(chosen.mix[1]), int(chosen.mix[2]))
        return
    figures: dict[str, Any] = {
        "seed": SEED,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_at_start": os.getloadavg()[0],
        "versions": {p: version(p) for p in PACKAGES},
    }
    for work in (append, publish, mixture):
        with tempfile.TemporaryDirectory(prefix="mvl-benchmark-", dir=chosen.folder) as folder:
            figures[work.__name__] = work(Path(folder))
    figures["load_at_end"] = os.getloadavg()[0]
    text = json.dumps(figures, indent=2)
    if chosen.json:
        chosen.json.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
