"""Training on this machine's CPU, compared with Hugging Face's Trainer and WebDataset: packing, planning and loading.

    python benchmarks/training.py --json [--parts packing plan step planning loader] [--repetitions 3] [--quick]

Parts, each from a fixed seed, repetitions interleaved, medians with minimum and maximum:
  packing   how evenly the packs of the stages of paper-7b load 8 to 128 simulated ranks that wait for each other in
            every micro-step, by floating-point operations, for a million samples of `runs.sample_shapes`, against one
            sample per pack; what a micro-step costs; how full packs of 8,192 and 16,384 tokens are at 8 ranks
  plan      seconds and peak memory of a new process that publishes the plan of 10,000, 100,000 and a million counted
            samples of paper-7b, opens it and packs all steps for 8 ranks
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
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from training_parts.common import FULL_SIZE, QUICK_SIZE, SEED, BenchmarkSize
from training_parts.data import write_lake
from training_parts.loader import measure_loader, measure_planning
from training_parts.packing import measure_packing
from training_parts.plan import measure_plan
from training_parts.step import measure_step

from mvl_training.recipe import Recipe, load_recipe

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
    "lockstep_8": 0.95,
    "lockstep_64": 0.93,
    "lockstep_128": 0.90,
    "loader_vs_webdataset": 1.5,
    "loader_share_below": 0.03,
}
HEADLINES = (
    *THRESHOLDS,
    "lockstep_efficiency",
    "fill_8k",
    "fill_16k",
    "speedup_vs_length_grouped",
    "speedup_vs_head_on_loss_tokens",
    "planning_rows_per_second_and_core",
    "packing_rows_per_second_and_core",
    "plan_minutes",
    "plan_peak_mb",
    "plan_growth",
    "loader_with_rows_vs_webdataset",
    "packed_rows_vs_webdataset",
)


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
    measurements: dict[str, Callable[[], dict[str, Any]]] = {
        "packing": lambda: measure_packing(size),
        "plan": lambda: measure_plan(size, folder),
    }
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
    all_parts = ("packing", "plan", "step", "planning", "loader")
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
