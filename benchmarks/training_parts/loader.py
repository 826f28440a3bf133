"""Planning, and loaders: Lance as training reads it against WebDataset."""

from __future__ import annotations

import io
import json
import statistics
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mvl_assets.common.rejects import RejectError
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries import views
from mvl_training.data.pack_materializer import materialize_packs
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.packed_rows import open_packs
from mvl_training.data.planning import build_pack_plan
from mvl_training.data.processing import SampleProcessor, load_tokenizer
from mvl_training.data.raw_packs import FrameLimits
from mvl_training.data.token_counts import count_mixture
from mvl_training.recipe import Recipe
from training_parts.common import SEED, STAGE, BenchmarkSize, iter_chunks, summarize_values

N_LOADED_SAMPLES = 400
IMAGES_PER_FETCH = 256
PACK_SAMPLES = 8


def measure_planning(size: BenchmarkSize, recipe: Recipe, lake: Lake) -> dict[str, Any]:
    """Measure rows per second of one process, and of the tokenizer alone; longer texts would cost more."""
    tokenizer = load_tokenizer(recipe)
    texts = [turn["value"] for row in views.iter_mixture_rows(lake, STAGE) for turn in row["conversations"]]
    n_rows = lake.get_table(f"mixture/{STAGE}").count()
    count_rates, tokenizer_rates = [], []
    for _ in range(max(3, size.repetitions)):
        cpu_s = measure_cpu_seconds(
            lambda: sum(1 for _ in count_mixture(lake, STAGE, recipe, executor=ProcessExecutor(1)))
        )
        count_rates.append(n_rows / cpu_s)
        tokenizer_rates.append(n_rows / measure_cpu_seconds(lambda: [tokenizer.encode(text) for text in texts]))
    return {
        "rows": n_rows,
        "planning_rows_per_second_and_core": round(statistics.median(count_rates)),
        "rows_per_second_and_core": summarize_values(count_rates),
        "floor_tokenizer_rows_per_second_and_core": summarize_values(tokenizer_rates),
        "extrapolated_core_minutes_for_12M_rows": round(12e6 / statistics.median(count_rates) / 60, 1),
    }


def measure_cpu_seconds(call: Callable[[], object]) -> float:
    """Return CPU seconds of all threads, which other work on the machine disturbs least."""
    cpu_start = time.process_time()
    call()
    return time.process_time() - cpu_start


def measure_loader(size: BenchmarkSize, recipe: Recipe, lake: Lake, folder: Path) -> dict[str, Any]:
    """Measure Lance in the plan's order against WebDataset from its tar file through its shuffle buffer."""
    if find_spec("webdataset") is None:
        return {"skipped": "webdataset is not installed (pip install --target DIR webdataset; PYTHONPATH=DIR)"}
    import webdataset

    build_pack_plan(lake, STAGE, recipe, run_id="benchmark")
    tar = write_tar(lake, folder / "rows.tar")
    rows = list(views.iter_mixture_rows(lake, STAGE))
    image_ids = np.random.default_rng(SEED).permutation([i for row in rows for i in row["image_ids"]]).tolist()
    processor = SampleProcessor.for_stage(recipe, STAGE, load_tokenizer(recipe))
    plan = PackPlan(lake, STAGE)
    packs = list(iter_chunks(list(range(len(plan))), PACK_SAMPLES))
    from mvl_training.data.pack_loader import PackLoader

    pack_loader = PackLoader(lake, STAGE, plan, processor)
    limits = FrameLimits.for_stage(recipe, STAGE)
    materialize_packs(lake, STAGE, ProcessExecutor(1), frame_limits=limits, run_id="benchmark")
    packed_loader = PackLoader(lake, STAGE, open_packs(lake, STAGE), processor)

    def open_webdataset() -> Any:
        return webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False).shuffle(1000)

    def fetch_image_bytes() -> int:
        return sum(len(lake.images.read_images(chunk)) for chunk in iter_chunks(image_ids, IMAGES_PER_FETCH))

    def read_packs(loader: PackLoader) -> int:
        return sum(
            len(raw_pack.rows[row_id]["image_ids"])
            for raw_pack in loader.reader.iter_raw_packs(packs)
            for row_id in (planned_row.row_id for planned_row in raw_pack.planned_rows)
        )

    def build_webdataset_samples() -> int:
        n_samples = 0
        for sample in open_webdataset():
            with suppress(RejectError):
                processor.build_sample(json.loads(sample["json"]), {"0": sample.get("jpg", b"")})
                n_samples += 1
            if n_samples == N_LOADED_SAMPLES:
                break
        return n_samples

    def load_packs() -> int:
        n_samples = 0
        for batch in pack_loader.iter_batches(packs):
            n_samples += len(batch.row_ids)
            if n_samples >= N_LOADED_SAMPLES:
                break
        return n_samples

    loaders: dict[str, Callable[[], int]] = {
        "lance_as_training_reads": lambda: read_packs(pack_loader),
        "lance_packed_rows": lambda: read_packs(packed_loader),
        "lance_bytes": fetch_image_bytes,
        "webdataset": lambda: sum(len(sample["jpg"]) > 0 for sample in open_webdataset() if "jpg" in sample),
        "samples_lance": load_packs,
        "samples_webdataset": build_webdataset_samples,
        "floor_file": lambda: bool(tar.read_bytes()) * len(image_ids),
    }
    speeds: dict[str, list[float]] = {name: [] for name in loaders}
    for repetition in range(1 + 3 * size.repetitions):
        for name, load in loaders.items():
            if name.startswith("samples") and repetition > size.repetitions:
                continue
            started_at = time.perf_counter()
            n_items = load()
            if repetition:  # the first is to warm the page cache
                speeds[name].append(n_items / (time.perf_counter() - started_at))

    def compute_webdataset_speedup(name: str) -> float:
        return round(statistics.median(a / b for a, b in zip(speeds[name], speeds["webdataset"], strict=True)), 3)

    return {
        "images": len(image_ids),
        "mean_image_kb": round(tar.stat().st_size / len(image_ids) / 1000, 1),
        "rows_per_second": {name: summarize_values(values) for name, values in speeds.items()},
        "loader_vs_webdataset": compute_webdataset_speedup("lance_bytes"),
        "loader_with_rows_vs_webdataset": compute_webdataset_speedup("lance_as_training_reads"),
        "packed_rows_vs_webdataset": compute_webdataset_speedup("lance_packed_rows"),
    }


def write_tar(lake: Lake, file: Path) -> Path:
    """Write the mixture in WebDataset's form: `<n>.json` and `<n>.jpg`."""
    with tarfile.open(file, "w") as tar:
        for n, row in enumerate(views.iter_mixture_rows(lake, STAGE)):
            row_fields = {"row_id": row["row_id"], "conversations": row["conversations"], "video": None}
            row_fields["image_ids"] = ["0"] * len(row["image_ids"])
            members = [("json", json.dumps(row_fields).encode())]
            members += [("jpg", data) for data in lake.images.read_images(row["image_ids"]).values()]
            for extension, data in members:
                entry = tarfile.TarInfo(f"{n:08d}.{extension}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return file
