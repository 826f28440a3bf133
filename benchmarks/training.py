"""Training on this machine's CPU, compared with Hugging Face's Trainer and WebDataset: packing, planning and loading.

    python benchmarks/training.py --json [--parts fill step planning loader] [--repetitions 3] [--quick]

Parts, each from a fixed seed, repetitions interleaved, medians with minimum and maximum:
  fill      how full packs of 8,192 and 16,384 tokens are for a million samples of `sample_shapes`, with and without
            the limit of tiles; how evenly packs and single samples load 128 ranks. The maximum of both is 1.0
  step      loss tokens per second of two ranks: `mvl_training.trainer.main` as it is, reading and decoding included,
            under ZeRO-1, which exchanges gradients once a step as DDP does, against `hf_trainer.py`: in random order,
            grouped by length, and in random order with the head on loss tokens only, which leaves packing as the
            difference. A pack is as long as eight samples, so that both have equally many in a forward pass
  planning  rows counted per second and core; its floor is the tokenizer on the same texts
  loader    images per second from Lance, and from WebDataset through its shuffle buffer, over the same images: their
            bytes in random order, and with the rows and texts of their samples in the exact order of the plan, as
            training reads them, in place and from packed rows; samples per second with decoding; the floor of bytes is
            reading one file

`webdataset` is needed for the last part only: `pip install --target DIR webdataset`, then PYTHONPATH=DIR. Data has the
shape of the demo recipe (or `--recipe`); with `--json` the last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from PIL import Image
from sample_shapes import TEXT_ONLY_FRACTION, draw_image_size, draw_samples

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.rejects import RejectError
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.ingest.shard import SHARD_ROWS as INGEST_SHARD_ROWS
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import ImageRow
from mvl_assets.lake_queries import views
from mvl_assets.media.image import inspect_image
from mvl_training.data.batch_order import BatchOrder
from mvl_training.data.bin_packing import pack_bins
from mvl_training.data.pack_materializer import materialize_packs
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.packed_rows import open_packs
from mvl_training.data.packing import SHARD_ROWS, build_pack_plan, compute_max_tiles
from mvl_training.data.processing import SampleCost, SampleProcessor, load_tokenizer
from mvl_training.data.token_counts import PackableSample, count_mixture
from mvl_training.recipe import Recipe, load_recipe, parse_recipe

SEED = 20241206
STAGE: TrainingStage = "single_image"
PACKAGES = (
    "torch",
    "transformers",
    "deepspeed",
    "accelerate",
    "tokenizers",
    "pylance",
    "webdataset",
    "numpy",
    "pillow",
)
THRESHOLDS = {
    "speedup_vs_hf_trainer": 1.4,
    "fill_8k": 0.97,
    "fill_16k": 0.99,
    "loader_vs_webdataset": 1.5,
    "loader_share_below": 0.03,
}
HEADLINES = (
    *THRESHOLDS,
    "speedup_vs_length_grouped",
    "speedup_vs_head_on_loss_tokens",
    "planning_rows_per_second_and_core",
    "packing_rows_per_second_and_core",
    "loader_with_rows_vs_webdataset",
    "packed_rows_vs_webdataset",
)
N_LOADED_SAMPLES = 400
IMAGES_PER_FETCH = 256
N_RANKS, SAMPLES_PER_RANK, N_WARMUP_STEPS = 2, 8, 3
WORDS = ("the", "chart", "shows", "a", "red", "line", "above", "two", "bars", "that", "mean", "nothing", "in", "spring")


@dataclass(frozen=True, slots=True)
class BenchmarkSize:
    """Numbers of samples, rows, steps and repetitions to measure."""

    n_samples: int
    n_rows: int
    n_steps: int
    repetitions: int


FULL_SIZE = BenchmarkSize(n_samples=1_000_000, n_rows=2400, n_steps=10, repetitions=3)
QUICK_SIZE = BenchmarkSize(n_samples=20_000, n_rows=80, n_steps=5, repetitions=1)


def iter_chunks(values: list[Any], chunk_size: int) -> Iterator[list[Any]]:
    return (values[start : start + chunk_size] for start in range(0, len(values), chunk_size))


def summarize_values(values: list[float]) -> dict[str, Any]:
    """Return median, extremes and number of repetitions."""
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "repetitions": len(values),
    }


# -- fill ----------------------------------------------------------------------------------------------------------


def measure_fill(size: BenchmarkSize) -> dict[str, Any]:
    """Measure packs as the planner makes them, shard by shard."""
    grid = load_recipe("paper-7b").grid.to_tile_grid()
    results: dict[str, Any] = {"samples": size.n_samples}
    for name, length in (("8k", 8192), ("16k", 16384)):
        shapes = draw_samples(size.n_samples, grid, SEED, 8192)
        tokens, tiles = shapes.tokens_N, shapes.tiles_N
        max_tiles = compute_max_tiles(length, grid.patches_per_side)
        pack_tokens: list[int] = []
        n_unlimited_packs = 0
        cpu_start = time.process_time()
        for start in range(0, size.n_samples, SHARD_ROWS):
            pack_tokens += [
                sum(m.cost.n_tokens for m in p) for p in pack_shard(tokens, tiles, start, length, max_tiles)
            ]
        cpu_s = time.process_time() - cpu_start
        for start in range(0, size.n_samples, SHARD_ROWS):
            n_unlimited_packs += len(pack_shard(tokens, tiles, start, length, size.n_samples * 100))
        total_tokens = int(tokens.sum())
        results[f"fill_{name}"] = round(total_tokens / (len(pack_tokens) * length), 5)
        results[f"fill_{name}_without_tile_limit"] = round(total_tokens / (n_unlimited_packs * length), 5)
        results[f"max_tiles_{name}"] = max_tiles
        results[f"pack_seconds_{name}"] = round(cpu_s, 2)
        if name == "8k":
            results |= {
                "packing_rows_per_second_and_core": round(size.n_samples / cpu_s),
                "mean_tokens": round(float(tokens.mean()), 1),
                "p99_tokens": int(np.percentile(tokens, 99)),
                "even_128_ranks_packed": compute_straggler_efficiency(np.array(pack_tokens), 1),
                "even_128_ranks_single_samples": compute_straggler_efficiency(tokens, 2),
            }
    return results


def pack_shard(
    tokens_N: np.ndarray, tiles_N: np.ndarray, start: int, max_tokens: int, max_tiles: int
) -> list[list[PackableSample]]:
    shard = slice(start, start + SHARD_ROWS)
    pairs = zip(tokens_N[shard].tolist(), tiles_N[shard].tolist(), strict=True)
    members = [PackableSample(str(n), SampleCost(t, k, 1, 0, ""), "", "") for n, (t, k) in enumerate(pairs)]
    return pack_bins(members, max_tokens, max_tiles)


def compute_straggler_efficiency(lengths: np.ndarray, micro_steps: int, n_ranks: int = 128) -> float:
    """Return the mean tokens of a rank in a step over those of the slowest rank."""
    shuffled = np.random.default_rng(SEED).permutation(lengths)
    packs_per_step = n_ranks * micro_steps
    whole_steps = shuffled[: len(shuffled) // packs_per_step * packs_per_step]
    return (
        round(BatchOrder(len(whole_steps), packs_per_step, SEED).compute_straggler_efficiency(whole_steps, n_ranks), 4)
        if len(whole_steps)
        else 0.0
    )


# -- data ----------------------------------------------------------------------------------------------------------


def write_lake(root: Path, n_rows: int) -> Lake:
    """Write `mixture/single_image` with conversations with one image each, except for the text-only ones."""
    lake, rng = Lake(str(root)), np.random.default_rng(SEED)
    samples: list[dict[str, Any]] = []
    mixture: list[dict[str, Any]] = []
    # Fragments have the size of ingest's, which reading speed depends on.
    for row_numbers in iter_chunks(list(range(n_rows)), INGEST_SHARD_ROWS):
        images: list[ImageRow] = []
        for row_number in row_numbers:
            is_text_only = rng.random() < TEXT_ONLY_FRACTION
            images += [] if is_text_only else [draw_jpeg(rng)]
            image_ids = [] if is_text_only else [images[-1].image_id]
            question, answer = draw_text(rng, 10), draw_text(rng, 120 if is_text_only else 45)
            turns = [
                {"from": "human", "value": "<image>\n" * len(image_ids) + question},
                {"from": "gpt", "value": answer},
            ]
            row_key = {
                "sample_id": compute_digest("drawn", row_number),
                "version_id": compute_digest("drawn", row_number, 1),
            }
            row_key |= {"source": "drawn", "position": row_number}
            samples.append(
                {
                    **row_key,
                    "revision": 1,
                    "withdrawn": False,
                    "conversations": turns,
                    "image_ids": image_ids,
                    "video": None,
                }
                | {"content_hash": compute_digest(turns, image_ids)}
            )
            mixture.append(
                {**row_key, "row_id": compute_digest("mixture", row_number), "kind": "original", "category": "general"}
                | {"modality": "single_image", "repeat_index": 0}
            )
        lake.get_images("drawn").insert(images)
    for name, table_rows, partition_key in (("samples", samples, "drawn"), (f"mixture/{STAGE}", mixture, None)):
        table = lake.get_table(name)
        schema = table.spec.columns
        table.publish([pa.Table.from_pylist(table_rows, schema=schema)], partition_key)
    return lake


def draw_jpeg(rng: np.random.Generator) -> ImageRow:
    """Return smooth noise of a random size at quality 85."""
    noise = Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    noise.resize(draw_image_size(rng), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    data = buffer.getvalue()
    image_info = inspect_image(data)
    return ImageRow(
        compute_digest(data),
        data,
        image_info.format,
        image_info.width,
        image_info.height,
        image_info.n_frames,
        image_info.mode,
        image_info.phash,
    )


def draw_text(rng: np.random.Generator, median_words: int) -> str:
    return " ".join(rng.choice(WORDS, 1 + int(rng.lognormal(np.log(median_words), 0.7))))


# -- step ----------------------------------------------------------------------------------------------------------

HF_TRAINER_VARIANTS = {
    "hf_trainer": ["--order", "random"],
    "hf_trainer_length_grouped": ["--order", "group_by_length"],
    "hf_trainer_head_on_loss_tokens": ["--order", "random", "--head", "loss_tokens"],
}


def measure_step(size: BenchmarkSize, recipe: Recipe, lake: Lake, folder: Path) -> dict[str, Any]:
    """Measure our process and Hugging Face's one after the other; every second repetition in reverse order."""
    sample_plan = build_pack_plan(lake, STAGE, recipe, run_id="benchmark")
    data = recipe.to_dict()
    settings = data["stages"][STAGE]
    # Hugging Face's default is 8 samples per rank in one forward pass.
    pack_length = max(settings["max_seq_len"], round(SAMPLES_PER_RANK * sample_plan.n_tokens / sample_plan.n_samples))
    settings |= {"steps": size.n_steps, "global_batch_size": N_RANKS * SAMPLES_PER_RANK, "max_seq_len": pack_length}
    settings |= {"save_interval": 10**6, "loss_spike_factor": None, "zero_stage": 1}
    pack_report = build_pack_plan(lake, STAGE, parse_recipe(data), run_id="benchmark")
    recipe_file = folder / "recipe.yaml"
    recipe_file.write_text(yaml.safe_dump(data), encoding="utf-8")
    speeds: dict[str, list[float]] = {name: [] for name in ("ours", *HF_TRAINER_VARIANTS)}
    first_loss: dict[str, float] = {}
    data_wait_fractions = []
    for repetition in range(size.repetitions):
        for name in list(speeds)[:: -1 if repetition % 2 else 1]:
            out = folder / f"{name}-{repetition}"
            if name == "ours":
                metric_rows = run_student(recipe_file, lake, out)
                measured_rows = metric_rows[N_WARMUP_STEPS:]
                seconds = sum(metric_row["step_time_s"] for metric_row in measured_rows)
                speeds[name].append(sum(line["loss_tokens"] for line in measured_rows) / seconds)
                data_wait_fractions.append(sum(line["data_time_s"] for line in measured_rows) / seconds)
                first_loss[name] = metric_rows[0]["loss"]
            else:
                trainer_results = run_hf_trainer(
                    recipe_file, lake, out.with_suffix(".json"), size.n_steps, HF_TRAINER_VARIANTS[name]
                )
                speeds[name].append(
                    sum(trainer_results["loss_tokens"][N_WARMUP_STEPS:])
                    / sum(trainer_results["seconds"][N_WARMUP_STEPS:])
                )
                first_loss[name] = trainer_results["losses"][0]
    ratios = {name: [a / b for a, b in zip(speeds["ours"], speeds[name], strict=True)] for name in HF_TRAINER_VARIANTS}
    return {
        "ranks": N_RANKS,
        "mean_tokens": round(pack_report.n_tokens / pack_report.n_samples, 1),
        "plan_fill": round(pack_report.fill_ratio, 4),
        "pack_length": pack_length,
        "samples_per_step": settings["global_batch_size"],
        "loss_tokens_per_s": {name: summarize_values(values) for name, values in speeds.items()},
        "first_loss": {name: round(loss, 4) for name, loss in first_loss.items()},
        "speedup": {name: summarize_values(values) for name, values in ratios.items()},
        "loader_share": summarize_values(data_wait_fractions),
        "speedup_vs_hf_trainer": round(statistics.median(ratios["hf_trainer"]), 3),
        "speedup_vs_length_grouped": round(statistics.median(ratios["hf_trainer_length_grouped"]), 3),
        "speedup_vs_head_on_loss_tokens": round(statistics.median(ratios["hf_trainer_head_on_loss_tokens"]), 3),
    }


def run_student(recipe: Path, lake: Lake, out: Path) -> list[dict[str, Any]]:
    """Return the metrics of a training process; no step's time includes a checkpoint."""
    command = ["-m", "mvl_training.trainer.main", "--recipe", str(recipe), "--stage", STAGE, "--lake", lake.root]
    run_on_ranks([*command, "--out", str(out), "--allow-cpu"])
    return [json.loads(row_line) for row_line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def run_hf_trainer(recipe: Path, lake: Lake, out: Path, n_steps: int, extra_arguments: list[str]) -> dict[str, Any]:
    command = [str(Path(__file__).with_name("hf_trainer.py")), "--recipe", str(recipe), "--lake", lake.root]
    run_on_ranks([*command, "--out", str(out), "--steps", str(n_steps), *extra_arguments])
    results: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return results


def run_on_ranks(command: list[str]) -> None:
    n_threads = max(1, len(os.sched_getaffinity(0)) // N_RANKS)
    python_path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": str(n_threads), "TOKENIZERS_PARALLELISM": "false"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(N_RANKS)]
    process = subprocess.run(
        [*launcher, *command],
        env=environment | {"PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{process.stderr[-3000:]}")


# -- planning ------------------------------------------------------------------------------------------------------


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


# -- loader --------------------------------------------------------------------------------------------------------


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
    from mvl_training.data.pack_loader import PackLoader

    pack_loader = PackLoader(lake, STAGE, plan, processor)
    max_frames = recipe.get_stage(STAGE).max_frames
    materialize_packs(lake, STAGE, ProcessExecutor(1), max_frames=max_frames, run_id="benchmark")
    packed_loader = PackLoader(lake, STAGE, open_packs(lake, STAGE), processor)

    def open_webdataset() -> Any:
        return webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False).shuffle(1000)

    def fetch_image_bytes() -> int:
        return sum(len(lake.images.read_images(chunk)) for chunk in iter_chunks(image_ids, IMAGES_PER_FETCH))

    def read_packs(loader: PackLoader) -> int:
        return sum(
            len(raw_pack.rows[row_id]["image_ids"])
            for raw_pack in loader.reader.iter_raw_packs(range(len(plan)))
            if raw_pack.pack is not None
            for row_id in raw_pack.pack.row_ids
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
        for batch in pack_loader.iter_batches(range(len(plan))):
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


# -- all -----------------------------------------------------------------------------------------------------------


def describe_machine() -> dict[str, Any]:
    return {
        "seed": SEED,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "load_at_start": os.getloadavg()[0],
        "versions": dict(iter_package_versions()),
    }


def iter_package_versions() -> Iterator[tuple[str, str | None]]:
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, None


def measure_parts(parts: list[str], size: BenchmarkSize, recipe: Recipe, folder: Path) -> dict[str, Any]:
    figures = describe_machine()
    measurements: dict[str, Callable[[], dict[str, Any]]] = {"fill": lambda: measure_fill(size)}
    if set(parts) - set(measurements):
        lake = write_lake(folder / "lake", size.n_rows)
        measurements |= {
            "step": lambda: measure_step(size, recipe, lake, folder),
            "planning": lambda: measure_planning(size, recipe, lake),
            "loader": lambda: measure_loader(size, recipe, lake, folder),
        }
    for part in parts:
        started_at = time.monotonic()
        figures[part] = measurements[part]()
        figures[part]["took_seconds"] = round(time.monotonic() - started_at, 1)
    figures["load_at_end"] = os.getloadavg()[0]
    headline_results = {name: figures[part][name] for part in parts for name in HEADLINES if name in figures[part]}
    if "step" in parts:
        headline_results["loader_share_below"] = figures["step"]["loader_share"]["median"]
    thresholds_met = {
        n: v < THRESHOLDS[n] if n.endswith("below") else v >= THRESHOLDS[n]
        for n, v in headline_results.items()
        if n in THRESHOLDS
    }
    return {**headline_results, "thresholds": THRESHOLDS, "met": thresholds_met, **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    all_parts = ("fill", "step", "planning", "loader")
    parser.add_argument("--json", action="store_true", help="print the figures on one line")
    parser.add_argument("--parts", nargs="+", choices=all_parts, default=list(all_parts))
    parser.add_argument("--repetitions", type=int, help="repetitions of everything that is timed")
    parser.add_argument("--recipe", default="demo", help="name or path; trains its stage single_image")
    parser.add_argument("--quick", action="store_true", help="take seconds instead of minutes; figures mean nothing")
    options = parser.parse_args()
    size = QUICK_SIZE if options.quick else FULL_SIZE
    if options.repetitions:
        size = BenchmarkSize(size.n_samples, size.n_rows, size.n_steps, options.repetitions)
    with tempfile.TemporaryDirectory(prefix="mvl-benchmark-") as folder:
        figures = measure_parts(options.parts, size, load_recipe(options.recipe), Path(folder))
    print(json.dumps(figures) if options.json else json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
