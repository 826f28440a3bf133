r"""A training step of paper-7b on one GPU, through DeepSpeed, the training loop and the loader, and what each costs.

    python benchmarks/gpu_step.py --json [--tiny] [--steps 3]

Measured on the same samples, a small lake of JPEG images and texts in the lengths of `mvl_training.runs.sample_shapes`:
  loop_8k, loop_16k   steps of `mvl_training.trainer.loop.train` as a training runs them: packs of 8,192 or 16,384
                      tokens read from Lance, decoded and tiled by its own loader, ZeRO-3 on one rank, gradient
                      checkpointing, fused AdamW with states in fp32, clipping; from the end of one step to the end
                      of the next
  reference           the released training's step through the same engine: one sample at a time, SDPA, all logits at
                      once; its samples are loaded beforehand, so its loader costs nothing
  alone_8k, alone_16k forward and backward of packs without all that; alone_8k_no_checkpointing without recomputation
  loader              samples per second of the loader alone, in the threads that training gives it
Each in loss tokens per second, share of the data sheet's bf16 peak (`mfu`; recomputation does not count) and of a
measured matrix product (`share_of_gemm`), and peak memory. `parity` compares loss, gradient norm and gradient of a pack
in packed attention (on CUDA in bf16: varlen) with those of its samples one by one, and as `..._if_joined` with what
they would be if samples saw each other; `parity_fp32_two_layers` does so in fp32.

Weights are random, in the sizes of paper-7b, and all of them learn. Weights, gradients and optimizer states of eight
billion parameters take 18 bytes each, which no single GPU has: the language tower is cut to as many layers as fit by
the forecast of memory (`layers` of `layers_of_recipe`; 21 of 28 on 141 GB), and operations are counted for what
is there. Its embedding, head and vision tower are whole, so they weigh more than in the whole model. A step has 32
samples, what one of eight ranks has. Exchange between GPUs is not measured. Each part's figures go to stderr as soon as
they are there; stdout gets all of them.

Runs in the environment of a training (`make setup EXTRAS=train`) and needs no network. Where torch with CUDA and
transformers are there and nothing can be installed from a network, carry wheels for that machine's Python, in the
versions of pyproject.toml, of:

    pylance pyarrow duckdb msgspec license-expression boolean.py ImageHash pdqhash scipy psutil python-dateutil six
    pydantic pydantic-core annotated-types typing-inspection PyYAML pillow einops hjson msgpack deepspeed

    pip download --only-binary :all: --python-version 3.12 --no-deps -d wheels NAME==VERSION ...
    pip wheel --no-deps --no-build-isolation -w wheels deepspeed==VERSION        # published as source; needs torch
    pip install --no-index --no-deps --target site wheels/*.whl                  # on the machine with the GPU
    PYTHONPATH=site python benchmarks/gpu_step.py --json

`--tiny` runs the same code on a CPU in a minute; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1]))

from gpu_step_parts.common import Ceilings, RunSize, choose_run_size
from gpu_step_parts.data import StepData, build_step_packer, open_step_data, write_tokenizer
from gpu_step_parts.machine import iter_package_versions, measure_ceilings
from gpu_step_parts.model import build_recipe, build_student, count_fitting_layers, count_layers, get_vocab_size
from gpu_step_parts.model_alone import measure_model_alone, measure_parity
from gpu_step_parts.training_loop import build_training_engine, measure_loader, measure_loop, measure_reference
from training_parts.common import STAGE

from mvl_training.recipe import Recipe, load_recipe
from mvl_training.trainer.export import DTYPE_BY_PRECISION
from mvl_training.trainer.main import init_distributed

AT_LEAST = {"mfu_8k": 0.40, "mfu_16k": 0.40, "speedup_vs_reference": 1.3}
AT_MOST = {"parity_loss": 1e-2, "parity_norm": 1e-2, "loader_wait_share": 0.03}
STRETCH_MFU = 0.48


class FigureCollector:
    """The figures so far; what a part measured is printed to stderr at once."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}

    def measure(self, name: str, measure: Callable[..., dict[str, Any]], *args: Any, **kwargs: Any) -> None:
        """Add the figures of a part, or why it has none."""
        started_at = time.monotonic()
        try:
            part = measure(*args, **kwargs)
        except Exception as error:  # the figures of the other parts were expensive
            part = {"error": f"{type(error).__name__}: {error}"[:1000]}
        self.figures[name] = part | {"took_seconds": round(time.monotonic() - started_at, 1)}
        print(json.dumps({name: self.figures[name]}), file=sys.stderr, flush=True)


def run_benchmark(*, tiny: bool, steps: int, folder: Path) -> dict[str, Any]:
    device = torch.device("cpu" if tiny else "cuda")
    run_size = choose_run_size(tiny=tiny, n_steps=steps)
    init_distributed()
    ceilings, copy_gb_per_s = measure_ceilings(device, torch.float32 if tiny else torch.bfloat16)
    tokenizer_dir = write_tokenizer(folder / "tokenizer", get_vocab_size(tiny=tiny))
    n_layers = None
    if not tiny:
        n_layers = count_fitting_layers(run_size, tokenizer_dir, torch.cuda.get_device_properties(0).total_memory)
    recipes = {name: build_recipe(run_size, tokenizer_dir, name, n_layers=n_layers) for name in run_size.pack_tokens}
    data = open_step_data(run_size, recipes["8k"], folder / "lake")
    collector = FigureCollector()
    collector.figures |= {
        "device": "cpu" if tiny else torch.cuda.get_device_name(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": dict(iter_package_versions()),
        "ceilings": {
            "peak_tflops": ceilings.peak_flops / 1e12,
            "gemm_tflops": round(ceilings.gemm_flops / 1e12, 4),
            "copy_gb_per_s": round(copy_gb_per_s, 2),
        },
        "layers": count_layers(recipes["8k"]),
        "layers_of_recipe": count_layers(load_recipe("paper-7b")),
        "optimizer_states": "fp32",
        "zero_stage": recipes["8k"].get_stage(STAGE).zero_stage,
        "samples_per_step": run_size.samples_per_step,
    }
    shallow_recipe = build_recipe(run_size, tokenizer_dir, "8k", n_layers=2, precision="fp32")
    student = build_student(shallow_recipe, device, torch.float32)
    collector.measure("parity_fp32_two_layers", measure_parity, student, data, shallow_recipe, device)
    del student
    measure_models(collector, recipes, data, ceilings, device)
    gc.collect()  # of the models, before the engine takes all memory
    measure_steps(collector, recipes, data, run_size, ceilings, device)
    return summarize_figures(collector.figures)


def measure_models(
    collector: FigureCollector, recipes: dict[str, Recipe], data: StepData, ceilings: Ceilings, device: torch.device
) -> None:
    """Measure the model alone, and compare it with the reference."""
    recipe = recipes["8k"]
    student = build_student(recipe, device, DTYPE_BY_PRECISION[recipe.get_stage(STAGE).precision])
    collector.figures["parameters"] = sum(p.numel() for p in student.parameters())
    collector.measure("parity", measure_parity, student, data, recipe, device)
    for name, length_name, checkpointing in (
        ("alone_8k", "8k", True),
        ("alone_16k", "16k", True),
        ("alone_8k_no_checkpointing", "8k", False),
    ):
        args = (student, data, recipes[length_name], ceilings, device)
        collector.measure(name, measure_model_alone, *args, checkpointing=checkpointing)


def measure_steps(
    collector: FigureCollector,
    recipes: dict[str, Recipe],
    data: StepData,
    run_size: RunSize,
    ceilings: Ceilings,
    device: torch.device,
) -> None:
    """Measure the loader, and steps through DeepSpeed."""
    engine, sizes = build_training_engine(recipes["16k"], device)
    packer = build_step_packer(data, recipes["8k"], sizes)
    collector.measure("loader", measure_loader, data, packer, run_size.n_warmup_steps + run_size.n_steps, device)
    # The reference, which may take the most memory, is last: an engine that failed in a step is not used again.
    for name, measure, length_name in (
        ("loop_8k", measure_loop, "8k"),
        ("loop_16k", measure_loop, "16k"),
        ("reference", measure_reference, "8k"),
    ):
        if any("error" in collector.figures.get(part, {}) for part in ("loop_8k", "loop_16k")):
            collector.figures[name] = {"error": "skipped, because an earlier part failed"}
            continue
        collector.measure(name, measure, engine, sizes, data, recipes[length_name], run_size, ceilings)


def summarize_figures(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the figures behind those that have a threshold, and whether they meet it; what has no figure fails."""
    loop_8k, loop_16k, reference = figures["loop_8k"], figures["loop_16k"], figures["reference"]
    headlines: dict[str, float | None] = {
        "mfu_8k": loop_8k.get("mfu"),
        "mfu_16k": loop_16k.get("mfu"),
        "speedup_vs_reference": None,
        "parity_loss": figures["parity"].get("loss"),
        "parity_norm": figures["parity"].get("norm"),
        "loader_wait_share": max(
            (loop["loader_wait_share"] for loop in (loop_8k, loop_16k) if "mfu" in loop), default=None
        ),
    }
    if "mfu" in loop_8k and "mfu" in reference:
        headlines["speedup_vs_reference"] = round(loop_8k["loss_tokens_per_s"] / reference["loss_tokens_per_s"], 3)
    met = {name: value is not None and value >= AT_LEAST[name] for name, value in headlines.items() if name in AT_LEAST}
    met |= {name: value is not None and value <= AT_MOST[name] for name, value in headlines.items() if name in AT_MOST}
    for length_name in ("8k", "16k"):
        alone, loop = figures[f"alone_{length_name}"], figures[f"loop_{length_name}"]
        if alone.get("share_of_gemm") and "share_of_gemm" in loop:
            loop["share_of_model_alone"] = round(loop["share_of_gemm"] / alone["share_of_gemm"], 4)
    fastest_loop = max(loop_8k.get("samples_per_s", 0.0), loop_16k.get("samples_per_s", 0.0))
    figures["loader"] |= {
        "required_samples_per_s": fastest_loop,
        "keeps_up": figures["loader"].get("samples_per_s", 0.0) > fastest_loop,
    }
    return {
        **headlines,
        "thresholds": AT_LEAST | AT_MOST,
        "met": met,
        "pass": all(met.values()),
        "stretch_mfu": STRETCH_MFU,
        "stretch_met": all((headlines[name] or 0.0) >= STRETCH_MFU for name in ("mfu_8k", "mfu_16k")),
        **figures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures on one line")
    parser.add_argument("--tiny", action="store_true", help="run a toy model on the CPU; the figures mean nothing")
    parser.add_argument("--steps", type=int, default=3, help="measured steps of each case")
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        raise SystemExit("no CUDA device is found; --tiny runs the same code on the CPU")
    started_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mvl-benchmark-") as folder:
        try:
            figures = run_benchmark(tiny=options.tiny, steps=options.steps, folder=Path(folder))
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
    figures["took_seconds"] = round(time.monotonic() - started_at, 1)
    print(json.dumps(figures) if options.json else json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
