"""One training step of a 7B model on one GPU, beside the machine's ceilings and the step of the released code.

    python benchmarks/gpu_step.py --json [--tiny] [--steps 3]

Needs torch 2.10 or newer with CUDA, transformers 5, pydantic, PyYAML, Pillow; no lake, no DeepSpeed and no weights:
they are random, in the sizes of the recipe `paper-7b`. On a machine without pydantic:

    pip download --only-binary :all: --python-version 3.12 --no-deps -d wheels \\
        pydantic==2.14.3 pydantic-core==2.47.0 annotated-types typing-inspection      # where there is a network
    pip install --no-index --no-deps --target site wheels/*.whl
    PYTHONPATH=site python benchmarks/gpu_step.py --json

Measured, interleaved, medians with minimum and maximum, on the same samples (drawn by `length_law`):
  reference   one sample at a time, SDPA, gradient checkpointing, all logits at once: the released training's step
  dense       packed, one mask of the whole sequence, all logits at once
  ours        `mvl_training.model.student_model.Student`: samples attend within themselves (varlen), the head in parts; at 8k and 16k,
              with checkpointing and, at 8k, without
Each in target tokens per second, share of the peak (989 TFLOP/s, dense bf16) and of the measured GEMM, and peak memory.
Loss and gradient norm of `reference` and `ours` are compared, also in fp32 on two layers. Pictures are decoded and cut
on all cores to see whether they keep up. All weights learn under AdamW with bf16 states, the only ones that fit beside
8 billion weights on one card; nothing is said of scaling. `--tiny` runs the same code on a CPU in seconds.
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

PEAK = 989e12
SEED = 20241206
BARS = {"mfu_8k": 0.40, "mfu_16k": 0.40, "speedup_vs_reference": 1.3, "parity_loss": 1e-2, "parity_norm": 1e-2}
LAKE_ONLY = ("lance", "lancedb", "duckdb", "pyarrow", "imagehash", "av")


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules of the lake's libraries that are not installed: imported on the way to the model, never used here."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        return (
            importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in self.absent else None
        )

    def __init__(self) -> None:
        self.absent = [name for name in LAKE_ONLY if importlib.util.find_spec(name) is None]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: MagicMock()  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        return None


sys.meta_path.append(StandIns())

from length_law import draw  # noqa: E402
from PIL import Image  # noqa: E402

from mvl_assets.media.image import standardise  # noqa: E402
from mvl_assets.media.tiles import TileGrid, cut_anyres  # noqa: E402
from mvl_training.data.bin_packing import pack  # noqa: E402
from mvl_training.data.chat_format import IGNORE, Encoded  # noqa: E402
from mvl_training.data.pack_loader import Packed, collate  # noqa: E402
from mvl_training.data.packing import max_tiles  # noqa: E402
from mvl_training.data.processing import Counts, Sample  # noqa: E402
from mvl_training.data.token_counts import Member  # noqa: E402
from mvl_training.model import student_model  # noqa: E402
from mvl_training.model.cost_model import flops_of_sample, sizes_of_model  # noqa: E402
from mvl_training.recipe import Recipe, load_recipe  # noqa: E402


@dataclass(frozen=True, slots=True)
class Work:
    """The samples of one pack: together, and each as transformers' own model takes it. `flops` of one step."""

    packed: Packed
    single: list[dict[str, torch.Tensor]]
    targets: int
    tokens: int
    samples: int
    flops: float


def recipe_of(*, tiny: bool, layers: int | None = None) -> Recipe:
    """`paper-7b`, or its shape in small; `layers` of both towers instead of all."""
    data = load_recipe("paper-7b").as_data()
    text, seen = data["language"]["sizes"], data["vision"]["sizes"]
    if tiny:
        text |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
        text |= {"num_key_value_heads": 2, "vocab_size": 512}
        seen |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
        seen |= {"image_size": 56}
        data["grid"] |= {"tile": 56, "patch": 14}
    if layers:
        text["num_hidden_layers"], seen["num_hidden_layers"] = layers, layers + 1
    return Recipe.model_validate(data)


def build(recipe: Recipe, device: torch.device, dtype: torch.dtype) -> student_model.Student:
    """Random weights, made on the device; all learn but the post-layernorm, which nothing uses."""
    torch.manual_seed(SEED)
    text, seen = student_model.tower_configs(recipe)
    config = student_model.llava_config(recipe, text, seen, image=text.vocab_size - 2, video=text.vocab_size - 1)
    torch.set_default_dtype(dtype)
    try:
        with device:
            llava = student_model.LlavaOnevisionForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(torch.float32)
    student = student_model.Student(llava, recipe.grid.build())
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(student_model.part_of(name) is not None)
        if name.endswith("image_newline"):
            torch.nn.init.normal_(parameter, std=1 / math.sqrt(parameter.numel()))
    return student.train()


def works(student: student_model.Student, recipe: Recipe, length: int, count: int, device: torch.device) -> list[Work]:
    """`count` packs of up to `length` tokens, as a plan has them."""
    grid = recipe.grid.build()
    vocabulary = student.llava.config.text_config.vocab_size
    drawn = draw(40 * count, grid, SEED, length)
    sizes_3N = (drawn.tokens_N.tolist(), drawn.tiles_N.tolist(), drawn.targets_N.tolist())
    members = [
        Member(str(n), Counts(tokens, tiles, targets, 0, ""), "", "")
        for n, (tokens, tiles, targets) in enumerate(zip(*sizes_3N, strict=True))
    ]
    packs = pack(members, length, max_tiles(length, grid.side))
    rng = np.random.default_rng(SEED)
    rng.shuffle(packs)
    sizes, stage = sizes_of_model(student.llava, grid), recipe.stage("single_image")
    found = []
    for members in packs[:count]:
        samples, single = [], []
        for n in (int(m.row_id) for m in members):
            layouts = (drawn.layouts[drawn.picture_N[n]],) if drawn.picture_N[n] >= 0 else ()
            visual = sum(y.tokens for y in layouts)
            ids = rng.integers(0, vocabulary - 2, visual + int(drawn.text_N[n])).astype(np.int32)
            ids[4 : 4 + visual] = vocabulary - 2
            labels = np.full(len(ids), IGNORE, dtype=np.int32)
            labels[-int(drawn.targets_N[n]) :] = ids[-int(drawn.targets_N[n]) :]
            pixels = rng.integers(0, 256, (sum(y.tiles for y in layouts), 3, grid.tile, grid.tile), dtype=np.uint8)
            samples.append(Sample(str(n), Encoded(ids, labels), pixels, layouts))
            size = drawn.sizes[drawn.picture_N[n]][::-1] if layouts else None
            single.append(alone(samples[-1], size, device))
        batch = collate(samples, (vocabulary - 2, vocabulary - 1), grid.tile).to(device)
        counts = [m.counts for m in members]
        flops = sum(flops_of_sample(sizes, stage, c.tokens, c.tiles, c.targets) for c in counts)
        found.append(Work(batch, single, batch.n_targets, batch.ids_1L.shape[1], len(samples), flops))
    return found


def alone(sample: Sample, size: tuple[int, int] | None, device: torch.device) -> dict[str, torch.Tensor]:
    """A sample for transformers' forward; `size` is its picture's (height, width)."""
    inputs = {
        "input_ids": torch.from_numpy(sample.encoded.ids)[None].long(),
        "labels": torch.from_numpy(sample.encoded.labels)[None].long(),
    }
    if size is not None:
        inputs["pixel_values"] = torch.from_numpy(sample.tiles)[None]
        inputs["image_sizes"] = torch.tensor([size])
    return {name: value.to(device) for name, value in inputs.items()}


# -- the steps -----------------------------------------------------------------------------------------------------


def reference(student: student_model.Student, work: Work) -> float:
    total = 0.0
    for inputs in work.single:
        given = dict(inputs)
        targets = int((given["labels"][:, 1:] != IGNORE).sum())
        if "pixel_values" in given:
            dtype = student.llava.get_input_embeddings().weight.dtype
            given["pixel_values"] = (given["pixel_values"].float() / 127.5 - 1.0).to(dtype)
        loss = student.llava(**given, use_cache=False).loss * (targets / work.targets)
        loss.backward()
        total += float(loss.detach())
    return total


def dense(student: student_model.Student, work: Work) -> float:
    batch = work.packed
    places = torch.arange(batch.ids_1L.shape[1], device=batch.ids_1L.device)
    sample_L = torch.bucketize(places, batch.bounds_N[1:], right=True)
    seen_LL = (sample_L[:, None] == sample_L) & (places[:, None] >= places)
    hidden = student.llava.model.language_model(
        inputs_embeds=student.embed(batch),
        position_ids=batch.positions_1L,
        attention_mask=seen_LL[None, None],
        use_cache=False,
    ).last_hidden_state[0]
    logits = student.llava.lm_head(hidden).float()
    loss = torch.nn.functional.cross_entropy(logits, batch.targets_L, ignore_index=IGNORE, reduction="sum")
    loss = loss / work.targets
    loss.backward()
    return float(loss.detach())


def ours(student: student_model.Student, work: Work) -> float:
    loss = student(work.packed) / work.targets
    loss.backward()
    return float(loss.detach())


@dataclass(frozen=True, slots=True)
class Case:
    """A way to take a step: which attention, with gradient checkpointing or without, on packs of which length."""

    step: Callable[[student_model.Student, Work], float]
    attention: str
    checkpointing: bool
    length: str

    def prepare(self, student: student_model.Student, tokens: int) -> None:
        student.llava.model.language_model.set_attn_implementation(self.attention)
        student.head_calls = -(-tokens // student.HEAD_ROWS)
        if self.checkpointing:
            student.llava.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            student.llava.gradient_checkpointing_disable()


CASES = {
    "reference": Case(reference, "sdpa", True, "8k"),
    "dense": Case(dense, "sdpa", True, "8k"),
    "ours_8k": Case(ours, student_model.varlen_attention.NAME, True, "8k"),
    "ours_8k_no_checkpointing": Case(ours, student_model.varlen_attention.NAME, False, "8k"),
    "ours_16k": Case(ours, student_model.varlen_attention.NAME, True, "16k"),
}


def measure(
    student: student_model.Student, packs: dict[str, list[Work]], steps: int, device: torch.device, gemm: float
) -> dict[str, Any]:
    """Every case on every pack, interleaved; a case that does not fit is said to be out of memory."""
    learning = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-6, weight_decay=0.0, fused=device.type == "cuda")
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    peak: dict[str, float] = {}
    for turn in range(1 + steps):  # the first warms up
        for name, case in CASES.items():
            if name in peak and math.isnan(peak[name]):
                continue
            work = packs[case.length][turn % len(packs[case.length])]
            case.prepare(student, work.tokens)
            reset_peak(device)
            try:
                began = clock(device)
                case.step(student, work)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if turn:
                    seconds[name].append((clock(device) - began) / work.flops)
                    peak[name] = max(peak.get(name, 0.0), peak_gib(device))
            except torch.OutOfMemoryError:
                peak[name] = math.nan
                optimizer.zero_grad(set_to_none=True)
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return {name: figures(CASES[name], packs, seconds[name], peak[name], gemm) for name in CASES}


def figures(
    case: Case, packs: dict[str, list[Work]], seconds_per_flop: Sequence[float], peak: float, gemm: float
) -> dict[str, Any]:
    """Packs differ a little in work, so times are kept per operation; tokens per second are of the mean pack."""
    if math.isnan(peak):
        return {"out_of_memory": True}
    every = packs[case.length]
    mean = {
        name: statistics.fmean(getattr(w, name) for w in every) for name in ("flops", "targets", "tokens", "samples")
    }
    speeds = [1 / s for s in seconds_per_flop]
    flops = statistics.median(speeds)
    return {
        "tflops": {
            k: round(f(speeds) / 1e12, 4) for k, f in (("median", statistics.median), ("min", min), ("max", max))
        },
        "mfu": round(flops / PEAK, 4),
        "share_of_gemm": round(flops / gemm, 4),
        "seconds": round(mean["flops"] / flops, 4),
        **{
            f"{name}_per_second": round(mean[name] * flops / mean["flops"], 3)
            for name in ("targets", "tokens", "samples")
        },
        "peak_gib": round(peak, 2),
    }


def parity(student: student_model.Student, work: Work) -> dict[str, float]:
    """Relative differences of loss and gradient norm between `reference` and `ours` on the same samples."""
    found = {}
    for name in ("reference", "ours_8k"):
        CASES[name].prepare(student, work.tokens)
        loss = CASES[name].step(student, work)
        squares = [p.grad.float().square().sum() for p in student.parameters() if p.grad is not None]
        found[name] = (loss, float(torch.stack(squares).sum().sqrt()))
        student.zero_grad(set_to_none=True)
    pairs = zip(found["reference"], found["ours_8k"], strict=True)
    loss, norm = (abs(a - b) / abs(a) for a, b in pairs)
    return {
        "loss": loss,
        "norm": norm,
        "loss_reference": found["reference"][0],
        "norm_reference": found["reference"][1],
    }


# -- the machine ---------------------------------------------------------------------------------------------------


def ceilings(device: torch.device, dtype: torch.dtype, *, tiny: bool) -> dict[str, float]:
    """FLOP/s of one large matrix product, and bytes per second of a copy (read and written)."""
    side, size = (256, 1 << 20) if tiny else (8192, 1 << 30)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product = best(lambda: torch.mm(a, b), device)
    copy = best(lambda: target.copy_(source), device)
    return {
        "gemm_tflops": round(2 * side**3 / product / 1e12, 4),
        "copy_gb_per_second": round(2 * size / copy / 1e9, 2),
    }


def best(work: Callable[[], object], device: torch.device, calls: int = 10) -> float:
    """Seconds of one call, the median of five series after one to warm up."""
    series = []
    for _ in range(6):
        began = clock(device)
        for _ in range(calls):
            work()
        series.append((clock(device) - began) / calls)
    return statistics.median(series[1:])


def decode(seconds: float, cores: int) -> float:
    """Pictures of 899 x 1024 decoded, standardised and cut to tiles per second, in `cores` threads."""
    noise = np.random.default_rng(SEED).integers(0, 255, (128, 112, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((899, 1024), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    grid = load_recipe("paper-7b").grid.build()
    with ThreadPoolExecutor(cores) as pool:
        return sum(pool.map(decoded, *zip(*[(buffer.getvalue(), grid, seconds)] * cores, strict=True)))


def decoded(data: bytes, grid: TileGrid, seconds: float) -> float:
    done, began = 0, time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        cut_anyres(standardise(data), grid)
        done += 1
    return done / passed


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated() / (1 << 30) if device.type == "cuda" else 0.0


def versions() -> Iterator[tuple[str, str]]:
    for package in ("torch", "transformers", "numpy", "pillow"):
        with suppress(importlib.metadata.PackageNotFoundError):
            yield package, version(package)


# -- all -----------------------------------------------------------------------------------------------------------


def run(*, tiny: bool, steps: int) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    pictures = decode(0.5 if tiny else 5.0, cores)
    device = torch.device("cpu" if tiny else "cuda")
    dtype = torch.float32 if tiny else torch.bfloat16
    found: dict[str, Any] = {
        "device": "cpu" if tiny else torch.cuda.get_device_name(),
        "cores": cores,
        "versions": dict(versions()),
        "ceilings": ceilings(device, dtype, tiny=tiny),
    }
    lengths = {"8k": 512, "16k": 1024} if tiny else {"8k": 8192, "16k": 16384}

    shallow = recipe_of(tiny=tiny, layers=2)
    student = build(shallow, device, torch.float32)
    found["parity_fp32_two_layers"] = parity(student, works(student, shallow, lengths["8k"], 1, device)[0])
    del student

    recipe = recipe_of(tiny=tiny)
    student = build(recipe, device, dtype)
    found["parameters"] = sum(p.numel() for p in student.parameters())
    packs = {name: works(student, recipe, length, 2, device) for name, length in lengths.items()}
    found["packs"] = {name: [(w.samples, w.tokens) for w in every] for name, every in packs.items()}
    found["parity"] = parity(student, packs["8k"][0])
    steps_found = measure(student, packs, steps, device, found["ceilings"]["gemm_tflops"] * 1e12)
    found["steps"] = steps_found

    ours_8k, before = steps_found["ours_8k"], steps_found["reference"]
    needed = max(f.get("samples_per_second", 0.0) for name, f in steps_found.items() if name.startswith("ours"))
    found["decode"] = {"pictures_per_second": round(pictures, 1), "needed": needed, "keeps_up": pictures > needed}
    flat = {
        "mfu_8k": max(steps_found[n].get("mfu", 0.0) for n in ("ours_8k", "ours_8k_no_checkpointing")),
        "mfu_16k": steps_found["ours_16k"].get("mfu", 0.0),
        "parity_loss": found["parity"]["loss"],
        "parity_norm": found["parity"]["norm"],
    }
    if "mfu" in ours_8k and "mfu" in before:
        flat["speedup_vs_reference"] = round(ours_8k["targets_per_second"] / before["targets_per_second"], 3)
    met = {n: v <= BARS[n] if n.startswith("parity") else v >= BARS[n] for n, v in flat.items()}
    return {**flat, "bars": BARS, "met": met, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="the figures on one line instead of readable")
    parser.add_argument("--tiny", action="store_true", help="a toy on the CPU: the code path, no figures")
    parser.add_argument("--steps", type=int, default=3, help="measured steps of each case")
    chosen = parser.parse_args()
    if not chosen.tiny and not torch.cuda.is_available():
        raise SystemExit("no CUDA device is at hand; --tiny runs the code path on the CPU")
    result = run(tiny=chosen.tiny, steps=chosen.steps)
    print(json.dumps(result) if chosen.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
