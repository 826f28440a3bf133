"""Ingest of synthetic JPEG rows, beside the floors it cannot go under on this machine.

    python benchmarks/ingest.py [--rows 2000] [--repeats 3] [--seed 0] [--json]

Measured, each in a process of its own, interleaved, medians with minimum and maximum:
  ingest        `ingest_source` of a LLaVA JSON with one 640 x 480 JPEG a row into an empty lake
  again         the same once more: nothing is new
  decode_floor  sha256 + header + full decode of the same files with Pillow, in as many threads as ingest uses
  append_floor  the same bytes appended to a bare Lance table, in batches of 64 MB
With `--json` the last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CASES = ("ingest", "again", "decode_floor", "append_floor")
PACKAGES = ("pylance", "pyarrow", "pillow", "numpy", "ImageHash")
BATCH = 64 << 20


def write_rows(folder: Path, rows: int, seed: int) -> int:
    """The raw source below `folder`; returns its pictures' bytes. Smooth noise: about 70 kB a picture at quality 85."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    listed, total = [], 0
    for n in range(rows):
        small = Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
        (folder / "images" / f"{n}.jpg").write_bytes(buffer.getvalue())
        total += buffer.tell()
        talk = [{"from": "human", "value": f"<image>\nQuestion {n}?"}, {"from": "gpt", "value": "An answer. " * 20}]
        listed.append({"id": str(n), "image": f"{n}.jpg", "conversations": talk})
    (folder / "rows.json").write_text(json.dumps(listed), encoding="utf-8")
    return total


def measure(case: str, raw: Path, lake: Path) -> dict[str, float]:
    """Seconds and peak memory (MB, of this process) of one case."""
    if case in ("ingest", "again"):
        from mvl_assets.catalog import SourceSpec
        from mvl_assets.ingest.ingest import ingest_source
        from mvl_assets.lake.lake import Lake

        spec = SourceSpec(
            slug="bench", title="Bench", category="general", group="A", modality="single_image", format="llava_json"
        )
        begun = time.perf_counter()
        report = ingest_source(Lake(str(lake)), spec, raw, run_id="bench")
        seconds = time.perf_counter() - begun
        assert (report.new > 0) == (case == "ingest"), report
    else:
        begun = time.perf_counter()
        decode(raw) if case == "decode_floor" else append(raw, lake)
        seconds = time.perf_counter() - begun
    return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def decode(raw: Path) -> None:
    import hashlib

    def look(path: Path) -> None:
        data = path.read_bytes()
        hashlib.sha256(data).digest()
        image = Image.open(io.BytesIO(data), formats=("JPEG",))
        assert image.size == (640, 480)
        image.load()

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(look, sorted(raw.glob("images/*.jpg"))):
            pass


def append(raw: Path, lake: Path) -> None:
    import lance
    import pyarrow as pa

    schema = pa.schema([("name", pa.string()), lance.blob_field("bytes")])

    def batches() -> Iterator[list[tuple[str, bytes]]]:
        held: list[tuple[str, bytes]] = []
        for path in sorted(raw.glob("images/*.jpg")):
            held.append((path.name, path.read_bytes()))
            if sum(len(data) for _, data in held) >= BATCH:
                yield held
                held = []
        yield held

    for held in batches():
        columns = [pa.array([name for name, _ in held]), lance.blob_array([data for _, data in held])]
        lance.write_dataset(pa.table(columns, schema=schema), f"{lake}/bare.lance", mode="append")


def run(rows: int, repeats: int, seed: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory(prefix="mvl-bench-") as folder:
        raw = Path(folder) / "raw"
        size = write_rows(raw, rows, seed)
        for repeat in range(repeats + 1):
            for case in CASES:
                lake = Path(folder) / f"lake-{repeat}"
                command = [sys.executable, __file__, "--case", case, "--raw", str(raw), "--lake", str(lake)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                if repeat:  # the first round warms the page cache
                    found[case].append(json.loads(done.stdout.splitlines()[-1]))
    return {
        "benchmark": "ingest",
        "rows": rows,
        "mb": round(size / 1e6, 1),
        "seed": seed,
        "repeats": repeats,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "cases": {case: summary(runs, rows, size) for case, runs in found.items()},
        "raw": found,
    }


def summary(runs: list[dict[str, float]], rows: int, size: int) -> dict[str, float]:
    seconds = [r["seconds"] for r in runs]
    middle = statistics.median(seconds)
    return {
        "seconds": round(middle, 3),
        "seconds_min": round(min(seconds), 3),
        "seconds_max": round(max(seconds), 3),
        "rows_per_s": round(rows / middle, 1),
        "mb_per_s": round(size / 1e6 / middle, 1),
        "peak_mb": round(max(r["peak_mb"] for r in runs), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--raw", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--lake", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case is not None:
        print(json.dumps(measure(args.case, args.raw, args.lake)))
        return
    result = run(args.rows, args.repeats, args.seed)
    print(", ".join(f"{name} {number}" for name, number in result["versions"].items()))
    print(f"{'case':14}{'rows/s':>10}{'MB/s':>9}{'seconds':>10}{'min':>8}{'max':>8}{'peak MB':>9}")
    for case, line in result["cases"].items():
        print(
            f"{case:14}{line['rows_per_s']:>10}{line['mb_per_s']:>9}{line['seconds']:>10}"
            f"{line['seconds_min']:>8}{line['seconds_max']:>8}{line['peak_mb']:>9}"
        )
    if args.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
