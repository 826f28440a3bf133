r"""One training step of a 7B model on one GPU, compared with the machine's ceilings and the released code's step.

    python benchmarks/gpu_step.py --json [--tiny] [--steps 3]

Needs torch 2.10 or newer with CUDA, transformers 5, pydantic, PyYAML and Pillow, but no lake, DeepSpeed or pretrained
weights: they are random, in the sizes of the recipe `paper-7b`. On a machine without pydantic:

    pip download --only-binary :all: --python-version 3.12 --no-deps -d wheels \
        pydantic==2.14.3 pydantic-core==2.47.0 annotated-types typing-inspection      # on a machine with a network
    pip install --no-index --no-deps --target site wheels/*.whl
    PYTHONPATH=site python benchmarks/gpu_step.py --json

Measured, interleaved, medians with minimum and maximum, on the same samples (from `mvl_training.runs.sample_shapes`):
  reference   one sample at a time, SDPA, gradient checkpointing, all logits at once: the released training's step
  dense       packed, one mask of the whole sequence, all logits at once
  ours        `LlavaOnevisionStudent` as it trains: samples attend within themselves (varlen), the head in chunks;
              at 8k and 16k with gradient checkpointing, and at 8k without
Each in loss tokens per second, share of the peak (989 TFLOP/s, dense bf16) and of the measured GEMM, and peak memory.
Loss and gradient norm of `reference` and `ours` are compared, also in fp32 on two layers. Images are decoded and tiled
on all cores to see whether they keep up. All weights are trained by AdamW with bf16 states, because fp32 states of 8
billion weights do not fit on one GPU; scaling over GPUs is not measured. `--tiny` runs the same code on a CPU in
seconds.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import math
import os
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

PEAK_FLOPS = 989e12
SEED = 20241206
THRESHOLDS = {"mfu_8k": 0.40, "mfu_16k": 0.40, "speedup_vs_reference": 1.3, "parity_loss": 1e-2, "parity_norm": 1e-2}
LAKE_ONLY_PACKAGES = ("lance", "lancedb", "duckdb", "pyarrow", "imagehash", "av")


class StubModuleFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import hook with stubs for missing libraries of the lake, which are imported indirectly but not used here."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        return (
            importlib.machinery.ModuleSpec(name, self, is_package=True)
            if name.split(".")[0] in self.missing_packages
            else None
        )

    def __init__(self) -> None:
        self.missing_packages = [name for name in LAKE_ONLY_PACKAGES if importlib.util.find_spec(name) is None]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: MagicMock()  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        return None


sys.meta_path.append(StubModuleFinder())

from PIL import Image  # noqa: E402

from mvl_assets.media.image import standardise_image  # noqa: E402
from mvl_assets.media.tiles import TileGrid, cut_anyres  # noqa: E402
from mvl_training.data.chat_format import IGNORE_INDEX, EncodedSample  # noqa: E402
from mvl_training.data.pack_loader import PackedBatch, collate  # noqa: E402
from mvl_training.data.pack_plan import SampleCounts  # noqa: E402
from mvl_training.data.processing import ProcessedSample  # noqa: E402
from mvl_training.data.step_packs import PackLimits, pack_samples  # noqa: E402
from mvl_training.data.students.llava_onevision import build_blank_tiles  # noqa: E402
from mvl_training.model import student_model, varlen_attention  # noqa: E402
from mvl_training.model.cost_model import build_sample_flops, compute_model_sizes  # noqa: E402
from mvl_training.model.students import llava_onevision  # noqa: E402
from mvl_training.model.students.llava_onevision import LlavaOnevisionStudent  # noqa: E402
from mvl_training.recipe import Recipe, load_recipe  # noqa: E402
from mvl_training.runs.sample_shapes import draw_samples  # noqa: E402


@dataclass(frozen=True, slots=True)
class StepWorkload:
    """The samples of one pack, joined and each as inputs of transformers' own model. `flops` are those of one step."""

    batch: PackedBatch
    sample_inputs: list[dict[str, torch.Tensor]]
    n_loss_tokens: int
    n_tokens: int
    n_samples: int
    flops: float


def build_recipe(*, tiny: bool, n_layers: int | None = None) -> Recipe:
    """Return `paper-7b` or a tiny version of it, optionally with `n_layers` layers in both towers."""
    data = load_recipe("paper-7b").to_dict()
    text_sizes, vision_sizes = data["language"]["sizes"], data["vision"]["sizes"]
    if tiny:
        text_sizes |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
        text_sizes |= {"num_key_value_heads": 2, "vocab_size": 512}
        vision_sizes |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
        vision_sizes |= {"image_size": 56}
        data["grid"] |= {"tile": 56, "patch": 14}
    if n_layers:
        text_sizes["num_hidden_layers"], vision_sizes["num_hidden_layers"] = n_layers, n_layers + 1
    return Recipe.model_validate(data)


def build_student(recipe: Recipe, device: torch.device, dtype: torch.dtype) -> LlavaOnevisionStudent:
    """Return a student with random weights; all are trained but the unused post-layernorm."""
    torch.manual_seed(SEED)
    text_config, vision_config = llava_onevision.load_tower_configs(recipe)
    config = llava_onevision.build_llava_config(
        recipe,
        text_config,
        vision_config,
        image_token_id=text_config.vocab_size - 2,
        video_token_id=text_config.vocab_size - 1,
    )
    torch.set_default_dtype(dtype)
    try:
        with device:
            llava = llava_onevision.LlavaOnevisionForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(torch.float32)
    student = LlavaOnevisionStudent(llava, recipe.grid.to_tile_grid())
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(llava_onevision.find_model_component(name) is not None)
        if name.endswith("image_newline"):
            torch.nn.init.normal_(parameter, std=1 / math.sqrt(parameter.numel()))
    return student.train()


def build_workloads(
    student: LlavaOnevisionStudent, recipe: Recipe, max_tokens: int, n_packs: int, device: torch.device
) -> list[StepWorkload]:
    """Return `n_packs` packs of up to `max_tokens` tokens, as training makes them."""
    grid = recipe.grid.to_tile_grid()
    vocab_size = student.llava.config.text_config.vocab_size
    shapes = draw_samples(40 * n_packs, grid, SEED, max_tokens)
    counts = SampleCounts(shapes.tokens_N, shapes.loss_tokens_N, shapes.tiles_N)
    flops_N = build_sample_flops(compute_model_sizes(student), recipe.get_stage("single_image"))(counts)
    (packs,) = pack_samples(
        np.arange(len(flops_N)),
        counts,
        flops_N,
        PackLimits.from_tokens(max_tokens, grid.patches_per_side**2),
        world_size=1,
    ).packs_by_rank
    rng = np.random.default_rng(SEED)
    rng.shuffle(packs)  # the largest come first
    workloads = []
    for pack in packs[:n_packs]:
        samples, sample_inputs = [], []
        for n in pack:
            layouts = (shapes.layouts[shapes.image_index_N[n]],) if shapes.image_index_N[n] >= 0 else ()
            n_visual_tokens = sum(layout.n_tokens for layout in layouts)
            ids = rng.integers(0, vocab_size - 2, n_visual_tokens + int(shapes.text_tokens_N[n])).astype(np.int32)
            ids[4 : 4 + n_visual_tokens] = vocab_size - 2
            labels = np.full(len(ids), IGNORE_INDEX, dtype=np.int32)
            labels[-int(shapes.loss_tokens_N[n]) :] = ids[-int(shapes.loss_tokens_N[n]) :]
            pixels = rng.integers(
                0, 256, (sum(layout.n_tiles for layout in layouts), 3, grid.tile_size, grid.tile_size), dtype=np.uint8
            )
            samples.append(ProcessedSample(str(n), EncodedSample(ids, labels), pixels, layouts))
            size = shapes.image_sizes[shapes.image_index_N[n]][::-1] if layouts else None
            sample_inputs.append(to_hf_inputs(samples[-1], size, device))
        batch = collate(samples, (vocab_size - 2, vocab_size - 1), build_blank_tiles(grid.tile_size)).to(device)
        n_tokens, flops = batch.input_ids_1L.shape[1], float(flops_N[pack].sum())
        workloads.append(StepWorkload(batch, sample_inputs, batch.n_loss_tokens, n_tokens, len(samples), flops))
    return workloads


def to_hf_inputs(
    sample: ProcessedSample, image_size: tuple[int, int] | None, device: torch.device
) -> dict[str, torch.Tensor]:
    """Return a sample for transformers' forward; `image_size` is (height, width)."""
    inputs = {
        "input_ids": torch.from_numpy(sample.encoded.input_ids)[None].long(),
        "labels": torch.from_numpy(sample.encoded.labels)[None].long(),
    }
    if image_size is not None:
        inputs["pixel_values"] = torch.from_numpy(sample.tiles)[None]
        inputs["image_sizes"] = torch.tensor([image_size])
    return {name: value.to(device) for name, value in inputs.items()}


# -- the steps -----------------------------------------------------------------------------------------------------


def run_reference_step(student: LlavaOnevisionStudent, workload: StepWorkload) -> float:
    total_loss = 0.0
    for inputs in workload.sample_inputs:
        model_inputs = dict(inputs)
        n_loss_tokens = int((model_inputs["labels"][:, 1:] != IGNORE_INDEX).sum())
        if "pixel_values" in model_inputs:
            dtype = student.llava.get_input_embeddings().weight.dtype
            model_inputs["pixel_values"] = (model_inputs["pixel_values"].float() / 127.5 - 1.0).to(dtype)
        loss = student.llava(**model_inputs, use_cache=False).loss * (n_loss_tokens / workload.n_loss_tokens)
        loss.backward()
        total_loss += float(loss.detach())
    return total_loss


def run_dense_step(student: LlavaOnevisionStudent, workload: StepWorkload) -> float:
    batch = workload.batch
    positions_L = torch.arange(batch.input_ids_1L.shape[1], device=batch.input_ids_1L.device)
    sample_L = torch.bucketize(positions_L, batch.cu_seqlens[1:], right=True)
    attention_mask_LL = (sample_L[:, None] == sample_L) & (positions_L[:, None] >= positions_L)
    hidden = student.llava.model.language_model(
        inputs_embeds=student.embed_inputs(batch),
        position_ids=batch.position_ids_1L,
        attention_mask=attention_mask_LL[None, None],
        use_cache=False,
    ).last_hidden_state[0]
    logits = student.llava.lm_head(hidden).float()
    loss = torch.nn.functional.cross_entropy(logits, batch.targets_L, ignore_index=IGNORE_INDEX, reduction="sum")
    loss = loss / workload.n_loss_tokens
    loss.backward()
    return float(loss.detach())


def run_student_step(student: LlavaOnevisionStudent, workload: StepWorkload) -> float:
    loss = student(workload.batch) / workload.n_loss_tokens
    loss.backward()
    return float(loss.detach())


@dataclass(frozen=True, slots=True)
class StepCase:
    """A way to take a step: attention, gradient checkpointing, and length of the packs."""

    run_step: Callable[[LlavaOnevisionStudent, StepWorkload], float]
    attention: str
    checkpointing: bool
    length_name: str

    def prepare(self, student: LlavaOnevisionStudent, n_tokens: int) -> None:
        student.llava.model.language_model.set_attn_implementation(self.attention)
        student.n_head_chunks = -(-n_tokens // student_model.HEAD_CHUNK_TOKENS)
        if self.checkpointing:
            student.llava.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            student.llava.gradient_checkpointing_disable()


STEP_CASES = {
    "reference": StepCase(run_reference_step, "sdpa", True, "8k"),
    "dense": StepCase(run_dense_step, "sdpa", True, "8k"),
    "ours_8k": StepCase(run_student_step, varlen_attention.ATTENTION_NAME, True, "8k"),
    "ours_8k_no_checkpointing": StepCase(run_student_step, varlen_attention.ATTENTION_NAME, False, "8k"),
    "ours_16k": StepCase(run_student_step, varlen_attention.ATTENTION_NAME, True, "16k"),
}


def measure_cases(
    student: LlavaOnevisionStudent,
    workloads_by_length: dict[str, list[StepWorkload]],
    steps: int,
    device: torch.device,
    gemm_flops: float,
) -> dict[str, Any]:
    """Measure every case on every pack, interleaved; a case that does not fit is reported as out of memory."""
    trainable_parameters = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable_parameters, lr=1e-6, weight_decay=0.0, fused=device.type == "cuda")
    seconds_per_flop_by_case: dict[str, list[float]] = {name: [] for name in STEP_CASES}
    peak_gib_by_case: dict[str, float] = {}
    for repetition in range(1 + steps):  # the first warms up
        for name, case in STEP_CASES.items():
            if name in peak_gib_by_case and math.isnan(peak_gib_by_case[name]):
                continue
            workload = workloads_by_length[case.length_name][repetition % len(workloads_by_length[case.length_name])]
            case.prepare(student, workload.n_tokens)
            reset_peak(device)
            try:
                started_at = read_synchronized_clock(device)
                case.run_step(student, workload)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if repetition:
                    seconds_per_flop_by_case[name].append(
                        (read_synchronized_clock(device) - started_at) / workload.flops
                    )
                    peak_gib_by_case[name] = max(peak_gib_by_case.get(name, 0.0), read_peak_memory_gib(device))
            except torch.OutOfMemoryError:
                peak_gib_by_case[name] = math.nan
                optimizer.zero_grad(set_to_none=True)
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return {
        name: summarize_case(
            STEP_CASES[name], workloads_by_length, seconds_per_flop_by_case[name], peak_gib_by_case[name], gemm_flops
        )
        for name in STEP_CASES
    }


def summarize_case(
    case: StepCase,
    workloads_by_length: dict[str, list[StepWorkload]],
    seconds_per_flop: Sequence[float],
    peak_memory_gib: float,
    gemm_flops: float,
) -> dict[str, Any]:
    """Summarize times per operation, since packs differ in work; tokens per second are of the mean pack."""
    if math.isnan(peak_memory_gib):
        return {"out_of_memory": True}
    workloads = workloads_by_length[case.length_name]
    mean_workload = {
        name: statistics.fmean(getattr(workload, name) for workload in workloads)
        for name in ("flops", "n_loss_tokens", "n_tokens", "n_samples")
    }
    flops_per_second = [1 / s for s in seconds_per_flop]
    median_flops = statistics.median(flops_per_second)
    return {
        "tflops": {
            k: round(f(flops_per_second) / 1e12, 4)
            for k, f in (("median", statistics.median), ("min", min), ("max", max))
        },
        "mfu": round(median_flops / PEAK_FLOPS, 4),
        "share_of_gemm": round(median_flops / gemm_flops, 4),
        "seconds": round(mean_workload["flops"] / median_flops, 4),
        **{
            f"{name.removeprefix('n_')}_per_s": round(mean_workload[name] * median_flops / mean_workload["flops"], 3)
            for name in ("n_loss_tokens", "n_tokens", "n_samples")
        },
        "peak_gib": round(peak_memory_gib, 2),
    }


def measure_parity(student: LlavaOnevisionStudent, workload: StepWorkload) -> dict[str, float]:
    """Return relative differences of loss and gradient norm between `reference` and `ours` on the same samples."""
    loss_and_norm_by_case = {}
    for name in ("reference", "ours_8k"):
        STEP_CASES[name].prepare(student, workload.n_tokens)
        loss = STEP_CASES[name].run_step(student, workload)
        squares = [p.grad.float().square().sum() for p in student.parameters() if p.grad is not None]
        loss_and_norm_by_case[name] = (loss, float(torch.stack(squares).sum().sqrt()))
        student.zero_grad(set_to_none=True)
    pairs = zip(loss_and_norm_by_case["reference"], loss_and_norm_by_case["ours_8k"], strict=True)
    loss, norm = (abs(a - b) / abs(a) for a, b in pairs)
    return {
        "loss": loss,
        "norm": norm,
        "loss_reference": loss_and_norm_by_case["reference"][0],
        "norm_reference": loss_and_norm_by_case["reference"][1],
    }


# -- the machine ---------------------------------------------------------------------------------------------------


def measure_ceilings(device: torch.device, dtype: torch.dtype, *, tiny: bool) -> dict[str, float]:
    """Return FLOP/s of one large matrix product, and bytes per second of a copy (read and written)."""
    side, n_bytes = (256, 1 << 20) if tiny else (8192, 1 << 30)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    matmul_s = time_calls(lambda: torch.mm(a, b), device)
    copy_s = time_calls(lambda: target.copy_(source), device)
    return {
        "gemm_tflops": round(2 * side**3 / matmul_s / 1e12, 4),
        "copy_gb_per_second": round(2 * n_bytes / copy_s / 1e9, 2),
    }


def time_calls(call: Callable[[], object], device: torch.device, n_calls: int = 10) -> float:
    """Return the seconds of one call: the median of five series after one to warm up."""
    call_times = []
    for _ in range(6):
        started_at = read_synchronized_clock(device)
        for _ in range(n_calls):
            call()
        call_times.append((read_synchronized_clock(device) - started_at) / n_calls)
    return statistics.median(call_times[1:])


def measure_decode_rate(seconds: float, cores: int) -> float:
    """Return images of 899 x 1024 decoded, standardised and tiled per second, in `cores` threads."""
    noise = np.random.default_rng(SEED).integers(0, 255, (128, 112, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((899, 1024), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    grid = load_recipe("paper-7b").grid.to_tile_grid()
    with ThreadPoolExecutor(cores) as pool:
        return sum(pool.map(decode_for, *zip(*[(buffer.getvalue(), grid, seconds)] * cores, strict=True)))


def decode_for(data: bytes, grid: TileGrid, seconds: float) -> float:
    n_decoded, started_at = 0, time.monotonic()
    while (elapsed_s := time.monotonic() - started_at) < seconds:
        cut_anyres(standardise_image(data), grid)
        n_decoded += 1
    return n_decoded / elapsed_s


def read_synchronized_clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def read_peak_memory_gib(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated() / (1 << 30) if device.type == "cuda" else 0.0


def iter_package_versions() -> Iterator[tuple[str, str]]:
    for package in ("torch", "transformers", "numpy", "pillow"):
        with suppress(importlib.metadata.PackageNotFoundError):
            yield package, version(package)


# -- all -----------------------------------------------------------------------------------------------------------


def run_benchmark(*, tiny: bool, steps: int) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    images_per_second = measure_decode_rate(0.5 if tiny else 5.0, cores)
    device = torch.device("cpu" if tiny else "cuda")
    dtype = torch.float32 if tiny else torch.bfloat16
    results: dict[str, Any] = {
        "device": "cpu" if tiny else torch.cuda.get_device_name(),
        "cores": cores,
        "versions": dict(iter_package_versions()),
        "ceilings": measure_ceilings(device, dtype, tiny=tiny),
    }
    lengths = {"8k": 512, "16k": 1024} if tiny else {"8k": 8192, "16k": 16384}

    shallow_recipe = build_recipe(tiny=tiny, n_layers=2)
    student = build_student(shallow_recipe, device, torch.float32)
    results["parity_fp32_two_layers"] = measure_parity(
        student, build_workloads(student, shallow_recipe, lengths["8k"], 1, device)[0]
    )
    del student

    recipe = build_recipe(tiny=tiny)
    student = build_student(recipe, device, dtype)
    results["parameters"] = sum(p.numel() for p in student.parameters())
    workloads_by_length = {
        name: build_workloads(student, recipe, length, 2, device) for name, length in lengths.items()
    }
    results["packs"] = {
        name: [(workload.n_samples, workload.n_tokens) for workload in workloads]
        for name, workloads in workloads_by_length.items()
    }
    results["parity"] = measure_parity(student, workloads_by_length["8k"][0])
    step_results = measure_cases(student, workloads_by_length, steps, device, results["ceilings"]["gemm_tflops"] * 1e12)
    results["steps"] = step_results

    student_8k, reference_8k = step_results["ours_8k"], step_results["reference"]
    required_images_per_second = max(
        case_result.get("samples_per_s", 0.0) for name, case_result in step_results.items() if name.startswith("ours")
    )
    results["decode"] = {
        "images_per_s": round(images_per_second, 1),
        "required": required_images_per_second,
        "keeps_up": images_per_second > required_images_per_second,
    }
    headline_results = {
        "mfu_8k": max(step_results[n].get("mfu", 0.0) for n in ("ours_8k", "ours_8k_no_checkpointing")),
        "mfu_16k": step_results["ours_16k"].get("mfu", 0.0),
        "parity_loss": results["parity"]["loss"],
        "parity_norm": results["parity"]["norm"],
    }
    if "mfu" in student_8k and "mfu" in reference_8k:
        headline_results["speedup_vs_reference"] = round(
            student_8k["loss_tokens_per_s"] / reference_8k["loss_tokens_per_s"], 3
        )
    thresholds_met = {
        n: v <= THRESHOLDS[n] if n.startswith("parity") else v >= THRESHOLDS[n] for n, v in headline_results.items()
    }
    return {**headline_results, "thresholds": THRESHOLDS, "met": thresholds_met, **results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures on one line")
    parser.add_argument("--tiny", action="store_true", help="run a toy model on the CPU; the figures mean nothing")
    parser.add_argument("--steps", type=int, default=3, help="measured steps of each case")
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        raise SystemExit("no CUDA device is found; --tiny runs the same code on the CPU")
    result = run_benchmark(tiny=options.tiny, steps=options.steps)
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
