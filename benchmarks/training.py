"""Training on this machine's CPU, beside Hugging Face's Trainer and WebDataset: what packing, planning and loading do.

    python benchmarks/training.py --json [--parts fill step planning loader] [--pairs 3] [--quick]

Parts, each from a fixed seed, repetitions interleaved, medians with minimum and maximum:
  fill      how full packs of 8,192 and 16,384 tokens are on a million samples of `length_law`, with and without the cap
            on tiles; how evenly 128 ranks are loaded by packs and by single samples. 1.0 is the ceiling of both
  step      target tokens per second of two ranks: `mvl_training.trainer.main` as it is, reading and decoding included, under
            ZeRO-1, which exchanges gradients once a step as DDP does, against `hf_trainer.py`: random order, sorted by
            length, and random with the head on the targets alone, which leaves the packing as the difference. A pack
            is as long as eight samples, so that both sides pass as many samples forward at a time
  planning  rows counted per second and core; its floor is the tokenizer on the same texts
  loader    pictures per second from Lance and from WebDataset through its shuffle buffer, over the same pictures: their
            bytes alone in random order, and with the rows and texts of their samples in the exact order of the plan,
            as training reads them; samples per second with decoding; the floor of bytes is reading one file

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
from length_law import TEXT_ONLY, draw, picture_size
from PIL import Image

from mvl_assets.common.digest import digest_hex
from mvl_assets.ingest.ingest import PICTURE_ROWS
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import ImageRow
from mvl_assets.lake_queries import views
from mvl_assets.media.image import inspect
from mvl_training.data.batch_order import Order
from mvl_training.data.bin_packing import pack
from mvl_training.data.chat_format import Unusable
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.packing import SHARD, max_tiles, plan_stage
from mvl_training.data.processing import Counts, SampleProcessor, load_tokens
from mvl_training.data.token_counts import Member, count_mixture
from mvl_training.recipe import Recipe, StageName, load_recipe, parse_recipe

SEED = 20241206
STAGE: StageName = "single_image"
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
TARGETS = {
    "speedup_vs_hf_trainer": 1.4,
    "fill_8k": 0.97,
    "fill_16k": 0.99,
    "loader_vs_webdataset": 1.5,
    "loader_share_below": 0.03,
}
HEADLINES = (
    *TARGETS,
    "speedup_vs_length_grouped",
    "speedup_vs_head_on_targets",
    "planning_rows_per_second_and_core",
    "packing_rows_per_second_and_core",
    "loader_with_rows_vs_webdataset",
)
SAMPLES_MADE = 400
TOGETHER = 256
RANKS, SAMPLES_PER_RANK, WARM_STEPS = 2, 8, 3
WORDS = ("the", "chart", "shows", "a", "red", "line", "above", "two", "bars", "that", "mean", "nothing", "in", "spring")


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    samples: int
    rows: int
    steps: int
    pairs: int


FULL = Size(samples=1_000_000, rows=2400, steps=10, pairs=3)
QUICK = Size(samples=20_000, rows=80, steps=5, pairs=1)


def groups(values: list[Any], size: int) -> Iterator[list[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def spread(values: list[float]) -> dict[str, Any]:
    """Median, extremes and number of repetitions."""
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "repetitions": len(values),
    }


# -- fill ----------------------------------------------------------------------------------------------------------


def fill(size: Size) -> dict[str, Any]:
    """Packs as the planner makes them, shard by shard."""
    grid = load_recipe("paper-7b").grid.build()
    found: dict[str, Any] = {"samples": size.samples}
    for name, length in (("8k", 8192), ("16k", 16384)):
        drawn = draw(size.samples, grid, SEED, 8192)
        tokens, tiles = drawn.tokens_N, drawn.tiles_N
        cap = max_tiles(length, grid.side)
        packs: list[int] = []
        loose = 0
        began = time.process_time()
        for start in range(0, size.samples, SHARD):
            packs += [sum(m.counts.tokens for m in p) for p in packed(tokens, tiles, start, length, cap)]
        seconds = time.process_time() - began
        for start in range(0, size.samples, SHARD):
            loose += len(packed(tokens, tiles, start, length, size.samples * 100))
        total = int(tokens.sum())
        found[f"fill_{name}"] = round(total / (len(packs) * length), 5)
        found[f"fill_{name}_without_tile_cap"] = round(total / (loose * length), 5)
        found[f"tile_cap_{name}"] = cap
        found[f"pack_seconds_{name}"] = round(seconds, 2)
        if name == "8k":
            found |= {
                "packing_rows_per_second_and_core": round(size.samples / seconds),
                "mean_tokens": round(float(tokens.mean()), 1),
                "p99_tokens": int(np.percentile(tokens, 99)),
                "even_128_ranks_packed": evenness(np.array(packs), 1),
                "even_128_ranks_single_samples": evenness(tokens, 2),
            }
    return found


def packed(tokens_N: np.ndarray, tiles_N: np.ndarray, start: int, length: int, cap: int) -> list[list[Member]]:
    shard = slice(start, start + SHARD)
    pairs = zip(tokens_N[shard].tolist(), tiles_N[shard].tolist(), strict=True)
    members = [Member(str(n), Counts(t, k, 1, 0, ""), "", "") for n, (t, k) in enumerate(pairs)]
    return pack(members, length, cap)


def evenness(lengths: np.ndarray, micro_steps: int, ranks: int = 128) -> float:
    """Mean work of a rank in a step over the work of the rank that all others wait for, with work as tokens."""
    shuffled = np.random.default_rng(SEED).permutation(lengths)
    per_step = ranks * micro_steps
    whole = shuffled[: len(shuffled) // per_step * per_step]
    return round(Order(len(whole), per_step, SEED).evenness(whole, ranks), 4) if len(whole) else 0.0


# -- data ----------------------------------------------------------------------------------------------------------


def write_lake(root: Path, rows: int) -> Lake:
    """`mixture/single_image` of `rows` conversations, each with a picture of its own but for the text-only ones."""
    lake, rng = Lake(str(root)), np.random.default_rng(SEED)
    samples: list[dict[str, Any]] = []
    mixture: list[dict[str, Any]] = []
    for numbers in groups(list(range(rows)), PICTURE_ROWS):  # commits of ingest's size: speed goes with theirs
        pictures: list[ImageRow] = []
        for n in numbers:
            alone = rng.random() < TEXT_ONLY
            pictures += [] if alone else [jpeg(rng)]
            ids = [] if alone else [pictures[-1].image_id]
            question, answer = said(rng, 10), said(rng, 120 if alone else 45)
            turns = [
                {"from": "human", "value": "<image>\n" * len(ids) + question},
                {"from": "gpt", "value": answer},
            ]
            key = {"sample_id": digest_hex("drawn", n), "version_id": digest_hex("drawn", n, 1)}
            key |= {"source": "drawn", "position": n}
            samples.append(
                {**key, "revision": 1, "withdrawn": False, "conversations": turns, "image_ids": ids, "video": None}
                | {"content_hash": digest_hex(turns, ids)}
            )
            mixture.append(
                {**key, "row_id": digest_hex("mixture", n), "kind": "original", "category": "general"}
                | {"modality": "single_image", "copy": 0}
            )
        lake.images.insert(pictures)
    for name, content, where in (("samples", samples, "drawn"), (f"mixture/{STAGE}", mixture, None)):
        table = lake.table(name)
        schema = pa.schema([f for f in table.schema if f.name != "row_hash"])
        table.publish([pa.Table.from_pylist(content, schema=schema)], where)
    return lake


def jpeg(rng: np.random.Generator) -> ImageRow:
    """Smooth noise of a drawn size at quality 85."""
    noise = Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    noise.resize(picture_size(rng), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    data = buffer.getvalue()
    info = inspect(data)
    return ImageRow(digest_hex(data), data, info.format, info.width, info.height, info.frames, info.mode, info.phash)


def said(rng: np.random.Generator, median: int) -> str:
    return " ".join(rng.choice(WORDS, 1 + int(rng.lognormal(np.log(median), 0.7))))


# -- step ----------------------------------------------------------------------------------------------------------

RIVALS = {
    "hf_trainer": ["--order", "random"],
    "hf_trainer_length_grouped": ["--order", "group_by_length"],
    "hf_trainer_head_on_targets": ["--order", "random", "--head", "targets"],
}


def step(size: Size, recipe: Recipe, lake: Lake, folder: Path) -> dict[str, Any]:
    """Our process and the rivals', one after the other, `pairs` times; every second time in reverse."""
    alone = plan_stage(lake, STAGE, recipe, run_id="benchmark")
    data = recipe.as_data()
    settings = data["stages"][STAGE]
    # The rivals' default is 8 samples a rank, of which one forward pass holds all.
    length = max(settings["length"], round(SAMPLES_PER_RANK * alone.tokens / alone.samples))
    settings |= {"steps": size.steps, "batch": RANKS * SAMPLES_PER_RANK, "length": length}
    settings |= {"save_every": 10**6, "spike": None, "zero": 1}
    report = plan_stage(lake, STAGE, parse_recipe(data), run_id="benchmark")
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    speeds: dict[str, list[float]] = {name: [] for name in ("ours", *RIVALS)}
    first_loss: dict[str, float] = {}
    shares = []
    for pair in range(size.pairs):
        for name in list(speeds)[:: -1 if pair % 2 else 1]:
            out = folder / f"{name}-{pair}"
            if name == "ours":
                lines = ours(file, lake, out)
                measured = lines[WARM_STEPS:]
                seconds = sum(line["seconds"] for line in measured)
                speeds[name].append(sum(line["targets"] for line in measured) / seconds)
                shares.append(sum(line["data_wait"] for line in measured) / seconds)
                first_loss[name] = lines[0]["loss"]
            else:
                took = rival(file, lake, out.with_suffix(".json"), size.steps, RIVALS[name])
                speeds[name].append(sum(took["targets"][WARM_STEPS:]) / sum(took["seconds"][WARM_STEPS:]))
                first_loss[name] = took["losses"][0]
    ratios = {name: [a / b for a, b in zip(speeds["ours"], speeds[name], strict=True)] for name in RIVALS}
    return {
        "ranks": RANKS,
        "mean_tokens": round(report.tokens / report.samples, 1),
        "plan_fill": round(report.fill, 4),
        "pack_length": length,
        "samples_per_step": settings["batch"],
        "target_tokens_per_second": {name: spread(values) for name, values in speeds.items()},
        "first_loss": {name: round(loss, 4) for name, loss in first_loss.items()},
        "speedup": {name: spread(values) for name, values in ratios.items()},
        "loader_share": spread(shares),
        "speedup_vs_hf_trainer": round(statistics.median(ratios["hf_trainer"]), 3),
        "speedup_vs_length_grouped": round(statistics.median(ratios["hf_trainer_length_grouped"]), 3),
        "speedup_vs_head_on_targets": round(statistics.median(ratios["hf_trainer_head_on_targets"]), 3),
    }


def ours(recipe: Path, lake: Lake, out: Path) -> list[dict[str, Any]]:
    """The metrics of a whole training process; its last step's time holds no checkpoint."""
    command = ["-m", "mvl_training.trainer.main", "--recipe", str(recipe), "--stage", STAGE, "--lake", lake.root]
    on_ranks([*command, "--out", str(out)])
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def rival(recipe: Path, lake: Lake, out: Path, steps: int, more: list[str]) -> dict[str, Any]:
    command = [str(Path(__file__).with_name("hf_trainer.py")), "--recipe", str(recipe), "--lake", lake.root]
    on_ranks([*command, "--out", str(out), "--steps", str(steps), *more])
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def on_ranks(command: list[str]) -> None:
    threads = max(1, len(os.sched_getaffinity(0)) // RANKS)
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(RANKS)]
    done = subprocess.run(
        [*launcher, *command], env=environment | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")


# -- planning ------------------------------------------------------------------------------------------------------


def planning(size: Size, recipe: Recipe, lake: Lake) -> dict[str, Any]:
    """Rows per second of one process, and of the tokenizer alone. Texts are short here: longer ones cost more."""
    tokens = load_tokens(recipe)
    texts = [turn["value"] for row in views.mixture_rows(lake, STAGE) for turn in row["conversations"]]
    rows = lake.table(f"mixture/{STAGE}").count()
    counted, floor = [], []
    for _ in range(max(3, size.pairs)):
        counted.append(rows / cpu(lambda: sum(1 for _ in count_mixture(lake, STAGE, recipe, processes=1))))
        floor.append(rows / cpu(lambda: [tokens.text(text) for text in texts]))
    return {
        "rows": rows,
        "planning_rows_per_second_and_core": round(statistics.median(counted)),
        "rows_per_second_and_core": spread(counted),
        "floor_tokenizer_rows_per_second_and_core": spread(floor),
        "extrapolated_core_minutes_for_12M_rows": round(12e6 / statistics.median(counted) / 60, 1),
    }


def cpu(work: Callable[[], object]) -> float:
    """Processor seconds of all threads: other work on the machine disturbs them least."""
    began = time.process_time()
    work()
    return time.process_time() - began


# -- loader --------------------------------------------------------------------------------------------------------


def loader(size: Size, recipe: Recipe, lake: Lake, folder: Path) -> dict[str, Any]:
    """Lance in the plan's order against WebDataset from its tar file through its shuffle buffer."""
    if find_spec("webdataset") is None:
        return {"skipped": "webdataset is not installed (pip install --target DIR webdataset; PYTHONPATH=DIR)"}
    import webdataset

    plan_stage(lake, STAGE, recipe, run_id="benchmark")
    tar = write_tar(lake, folder / "rows.tar")
    rows = list(views.mixture_rows(lake, STAGE))
    ids = np.random.default_rng(SEED).permutation([i for row in rows for i in row["image_ids"]]).tolist()
    processor = SampleProcessor.for_stage(recipe, STAGE, load_tokens(recipe))
    plan = PackPlan(lake, STAGE)
    from mvl_training.data.pack_loader import PackLoader

    packs = PackLoader(lake, STAGE, plan, processor)

    def shards() -> Any:
        return webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False).shuffle(1000)

    def fetched() -> int:
        return sum(len(lake.images.fetch(some)) for some in groups(ids, TOGETHER))

    def read() -> int:
        return sum(
            len(one.rows[row_id]["image_ids"])
            for one in packs.read(range(len(plan)))
            if one.pack is not None
            for row_id in one.pack.row_ids
        )

    def made() -> int:
        done = 0
        for sample in shards():
            with suppress(Unusable):
                processor.build(json.loads(sample["json"]), {"0": sample.get("jpg", b"")})
                done += 1
            if done == SAMPLES_MADE:
                break
        return done

    def loaded() -> int:
        done = 0
        for packed in packs.stream(range(len(plan))):
            done += len(packed.row_ids)
            if done >= SAMPLES_MADE:
                break
        return done

    works: dict[str, Callable[[], int]] = {
        "lance_as_training_reads": read,
        "lance_bytes": fetched,
        "webdataset": lambda: sum(len(sample["jpg"]) > 0 for sample in shards() if "jpg" in sample),
        "samples_lance": loaded,
        "samples_webdataset": made,
        "floor_file": lambda: bool(tar.read_bytes()) * len(ids),
    }
    speeds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(1 + 3 * size.pairs):
        for name, work in works.items():
            if name.startswith("samples") and turn > size.pairs:
                continue
            began = time.perf_counter()
            count = work()
            if turn:  # the first is to warm the page cache
                speeds[name].append(count / (time.perf_counter() - began))

    def times_webdataset(name: str) -> float:
        return round(statistics.median(a / b for a, b in zip(speeds[name], speeds["webdataset"], strict=True)), 3)

    return {
        "pictures": len(ids),
        "mean_picture_kB": round(tar.stat().st_size / len(ids) / 1000, 1),
        "rows_per_second": {name: spread(values) for name, values in speeds.items()},
        "loader_vs_webdataset": times_webdataset("lance_bytes"),
        "loader_with_rows_vs_webdataset": times_webdataset("lance_as_training_reads"),
    }


def write_tar(lake: Lake, file: Path) -> Path:
    """The mixture in WebDataset's form: `<n>.json` and `<n>.jpg`."""
    with tarfile.open(file, "w") as tar:
        for n, row in enumerate(views.mixture_rows(lake, STAGE)):
            about = {"row_id": row["row_id"], "conversations": row["conversations"], "video": None}
            about["image_ids"] = ["0"] * len(row["image_ids"])
            parts = [("json", json.dumps(about).encode())]
            parts += [("jpg", data) for data in lake.images.fetch(row["image_ids"]).values()]
            for kind, data in parts:
                entry = tarfile.TarInfo(f"{n:08d}.{kind}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return file


# -- all -----------------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    return {
        "seed": SEED,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "load_at_start": os.getloadavg()[0],
        "versions": dict(versions()),
    }


def versions() -> Iterator[tuple[str, str | None]]:
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, None


def measure(parts: list[str], size: Size, recipe: Recipe, folder: Path) -> dict[str, Any]:
    figures = machine()
    works: dict[str, Callable[[], dict[str, Any]]] = {"fill": lambda: fill(size)}
    if set(parts) - set(works):
        lake = write_lake(folder / "lake", size.rows)
        works |= {
            "step": lambda: step(size, recipe, lake, folder),
            "planning": lambda: planning(size, recipe, lake),
            "loader": lambda: loader(size, recipe, lake, folder),
        }
    for part in parts:
        began = time.monotonic()
        figures[part] = works[part]()
        figures[part]["took_seconds"] = round(time.monotonic() - began, 1)
    figures["load_at_end"] = os.getloadavg()[0]
    flat = {name: figures[part][name] for part in parts for name in HEADLINES if name in figures[part]}
    if "step" in parts:
        flat["loader_share_below"] = figures["step"]["loader_share"]["median"]
    met = {n: v < TARGETS[n] if n.endswith("below") else v >= TARGETS[n] for n, v in flat.items() if n in TARGETS}
    return {**flat, "targets": TARGETS, "met": met, **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = ("fill", "step", "planning", "loader")
    parser.add_argument("--json", action="store_true", help="the figures on one line instead of readable")
    parser.add_argument("--parts", nargs="+", choices=every, default=list(every))
    parser.add_argument("--pairs", type=int, help="repetitions of everything that is timed")
    parser.add_argument("--recipe", default="demo", help="name or path; trains its stage single_image")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; its figures mean nothing")
    chosen = parser.parse_args()
    size = QUICK if chosen.quick else FULL
    if chosen.pairs:
        size = Size(size.samples, size.rows, size.steps, chosen.pairs)
    with tempfile.TemporaryDirectory(prefix="mvl-benchmark-") as folder:
        figures = measure(chosen.parts, size, load_recipe(chosen.recipe), Path(folder))
    print(json.dumps(figures) if chosen.json else json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
