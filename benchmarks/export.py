"""Cost of exports by format, beside a copy of the same bytes, `datasets.to_parquet` and WebDataset's `ShardWriter`.

    python benchmarks/export.py --rows 20000 100000 --json export.json

A lake of synthetic rows is made for each size: one JPEG per row, a question and an answer of two sentences, a mixture
in shuffled order. Each case is a process of its own; its figures leave out imports and include its children. The floor
reads the files of the images table and writes the bytes to one file. Peers get their rows from the reader of exports,
in one process. Their versions and the load are printed. Rows come from a fixed seed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
from peak_memory import read_peak_rss_mb
from PIL import Image

from mvl_assets.common.batches import iter_batches
from mvl_assets.common.digest import compute_digest
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_stage import ExportOptions, Layout, export_stage
from mvl_assets.export.formats.registry import FORMATS, get_format
from mvl_assets.export.row_reader import iter_row_groups
from mvl_assets.export.shard_plan import PART_ROWS
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import SAMPLES
from mvl_assets.lake.schemas.rows import ImageRow
from mvl_assets.lake.schemas.training_tables import MIXTURE
from mvl_assets.lake_queries.row_addresses import open_mixture_addresses
from mvl_assets.media.image import encode_image

SEED = 20241206
STAGE, SOURCE = "single_image", "synthetic"
PACKAGES = ("pylance", "duckdb", "pyarrow", "datasets", "webdataset")
IMAGES_PER_COMMIT = 4096
PEERS = ("floor", "datasets", "ShardWriter")


@dataclass(frozen=True, slots=True)
class Case:
    """A format in a layout, or a peer."""

    name: str
    layout: Layout = "auto"

    def __str__(self) -> str:
        return self.name if self.layout == "auto" else f"{self.name}:{self.layout}"


CASES = [
    *(Case(name) for name in PEERS),
    *(Case(name) for name in FORMATS),
    Case("llava_json", "shards"),
]


def fill_lake(root: Path, n_rows: int, image_kb: int) -> int:
    """Make a lake of `n_rows` and return the bytes of its images."""
    lake = Lake(str(root))
    rng = random.Random(SEED)
    noise = Image.frombytes("RGB", (320, 240), rng.randbytes(320 * 240 * 3))
    start = encode_image(noise)[: image_kb * 1000 - 16]

    def iter_images() -> Iterator[ImageRow]:
        for number in range(n_rows):
            # What follows the end of a JPEG is ignored, so one encoding gives as many files as rows.
            data = start + number.to_bytes(16, "little")
            yield ImageRow(compute_digest(data), data, "JPEG", 320, 240, 1, "RGB", "0" * 16)

    image_ids = []
    for images in iter_batches(iter_images(), IMAGES_PER_COMMIT):
        lake.get_images(SOURCE).insert(images)
        image_ids += [image.image_id for image in images]
    samples = [_build_sample(number, image_id) for number, image_id in enumerate(image_ids)]
    lake.get_table("samples").publish([pa.Table.from_pylist(samples, schema=SAMPLES.columns)], SOURCE)
    rng.shuffle(samples)
    mixture = [_build_mixture_row(position, sample) for position, sample in enumerate(samples)]
    lake.get_table(f"mixture/{STAGE}").publish([pa.Table.from_pylist(mixture, schema=MIXTURE.columns)])
    return n_rows * len(start)


def _build_sample(number: int, image_id: str) -> dict[str, Any]:
    sample_id = compute_digest(SOURCE, number)
    return {
        "version_id": compute_digest(sample_id, 1),
        "sample_id": sample_id,
        "source": SOURCE,
        "revision": 1,
        "withdrawn": False,
        "position": number,
        "conversations": [
            {"from": "human", "value": f"<image>\nWhat does picture number {number} show, and how can one tell?"},
            {"from": "gpt", "value": f"It shows noise, as each pixel has its own colour. Its number is {number}. " * 6},
        ],
        "image_ids": [image_id],
        "content_hash": compute_digest(number),
    }


def _build_mixture_row(position: int, sample: dict[str, Any]) -> dict[str, Any]:
    names = ("sample_id", "version_id", "source")
    return {
        "row_id": compute_digest("row", sample["sample_id"]),
        "position": position,
        "kind": "original",
        "category": "general",
        "modality": "single_image",
        "license": "cc-by-4.0",
        "repeat_index": 0,
        **{name: sample[name] for name in names},
    }


def run_case(case: Case, root: Path, out: Path, n_processes: int) -> dict[str, Any]:
    """Run a case in this process and return its figures."""
    lake = Lake(str(root))
    calls: dict[str, Callable[[], Any]] = {
        "floor": lambda: copy_images(root, out),
        "datasets": lambda: write_with_datasets(lake, out),
        "ShardWriter": lambda: write_with_shard_writer(lake, out),
    }
    if case.name in calls:
        call = calls[case.name]
    else:
        format_, options = get_format(case.name), ExportOptions(layout=case.layout)

        def call() -> None:
            export_stage(lake, STAGE, ExportFolder(str(out)), format_, options, ProcessExecutor(n_processes))

    if case.name in ("datasets", "ShardWriter"):
        importlib.import_module("datasets" if case.name == "datasets" else "webdataset")
    wall_start, cpu_start = time.perf_counter(), _read_cpu_s()
    call()
    wall_s, cpu_s = time.perf_counter() - wall_start, _read_cpu_s() - cpu_start
    child_peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"wall_s": wall_s, "cpu_s": cpu_s, "peak_mb": max(read_peak_rss_mb(), child_peak_mb)}


def _read_cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def copy_images(root: Path, out: Path) -> None:
    """Read the files of the images table and write them to one file."""
    out.mkdir(parents=True)
    with (out / "bytes").open("wb") as target:
        for path in sorted((root / "images.lance" / "data").rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    shutil.copyfileobj(file, target, 8 << 20)
        target.flush()
        os.fsync(target.fileno())


def iter_rows(root: str) -> Iterator[dict[str, Any]]:
    """Yield rows with their images as peers take them."""
    lake = Lake(root)
    with open_mixture_addresses(lake, STAGE, PART_ROWS, with_provenance=True) as book:
        for part in range(len(book.measure_parts())):
            for group in iter_row_groups(lake, book.read(part, part + 1), "raw"):
                for row in group.rows:
                    files = [group.file_by_id[image_id] for image_id in row.image_ids]
                    images = [{"bytes": file.data, "path": file.name} for file in files]
                    yield {"id": row.row_id, "images": images, "messages": row.messages, **row.provenance}


def write_with_datasets(lake: Lake, out: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features.from_arrow_schema(FORMATS["parquet"].schema.remove(3))  # type: ignore[attr-defined]
    rows = datasets.Dataset.from_generator(
        iter_rows, features=features, cache_dir=str(out / "cache"), gen_kwargs={"root": lake.root}
    )
    rows.to_parquet(str(out / "rows.parquet"))


def write_with_shard_writer(lake: Lake, out: Path) -> None:
    import webdataset

    out.mkdir(parents=True)
    with webdataset.ShardWriter(str(out / "train-%05d.tar"), maxsize=1e9, maxcount=1 << 20, verbose=0) as writer:
        for row in iter_rows(lake.root):
            (image,) = row.pop("images")
            writer.write({"__key__": row["id"], "json": row, "0.jpg": image["bytes"]})


def measure(
    cases: list[Case], n_rows: int, image_kb: int, repetitions: int, n_processes: int, folder: Path
) -> list[dict]:
    """Run all cases at one size, interleaved, each in a process, and return a line of figures for each."""
    root = folder / str(n_rows)
    n_bytes = fill_lake(root / "lake", n_rows, image_kb)
    runs: dict[Case, list[dict[str, Any]]] = {case: [] for case in cases}
    for _ in range(repetitions):
        for case in cases:
            command = [sys.executable, __file__, "--case", str(case), str(root / "lake"), str(root / "out")]
            done = subprocess.run(
                [*command, "--processes", str(n_processes)], capture_output=True, text=True, check=True, cwd=Path.cwd()
            )
            runs[case].append(json.loads(done.stdout.splitlines()[-1]))
            shutil.rmtree(root / "out")
    shutil.rmtree(root)
    lines = []
    for case, case_runs in runs.items():
        median = {name: statistics.median(run[name] for run in case_runs) for name in case_runs[0]}
        lines.append(
            {
                "case": str(case),
                "rows": n_rows,
                "rows_per_s": round(n_rows / median["wall_s"]),
                "mb_per_s": round(n_bytes / 1e6 / median["wall_s"], 1),
                "cpu_ms_per_row": round(1000 * median["cpu_s"] / n_rows, 3),
                "peak_mb": round(median["peak_mb"]),
            }
        )
        print("  ".join(f"{name} {value}" for name, value in lines[-1].items()), flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--image-kb", type=int, default=80)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cases", nargs="*", default=[str(case) for case in CASES])
    parser.add_argument("--folder", type=Path, help="where lakes and exports are made; default: a temporary folder")
    parser.add_argument("--json", action="store_true", help="the same; the last line always is one JSON object")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    case_by_name = {str(case): case for case in CASES}
    if arguments.case:
        name, root, out = arguments.case
        print(json.dumps(run_case(case_by_name[name], Path(root), Path(out), arguments.processes)))
        return
    versions = {name: version(name) for name in PACKAGES}
    print(f"Python {platform.python_version()}, {versions}, seed {SEED}, load {os.getloadavg()[0]:.1f}")
    cases = [case_by_name[name] for name in arguments.cases]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        os.environ["MVL_SCRATCH"] = f"{folder}/scratch"
        lines = [
            line
            for n_rows in arguments.rows
            for line in measure(
                cases, n_rows, arguments.image_kb, arguments.repetitions, arguments.processes, Path(folder)
            )
        ]
    print(json.dumps({"versions": versions, "seed": SEED, "load": os.getloadavg()[0], "figures": lines}))


if __name__ == "__main__":
    main()
