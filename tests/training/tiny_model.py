"""A model, a tokenizer and a lake small enough for tests that train for real on a CPU."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image, ImageDraw
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import ImageRow
from mvl_assets.media.image import inspect_image
from mvl_training.recipe import Recipe, parse_recipe

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 220), "yellow": (230, 210, 40)}
SHAPES = ("circle", "square", "triangle")
PROJECT = Path(__file__).parents[2]

SEEING_STEPS = 300
"""Steps that `build_seeing_recipe_data` trains for; it tells colours then."""

DrawnSample = tuple[list[bytes], str, str]
"""(images, question, answer)."""


def write_tokenizer(folder: Path) -> Path:
    """A ChatML tokenizer over bytes: no merges, 259 ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}',
        encoding="utf-8",
    )
    return folder


def build_recipe_data(tokenizer: Path, **stage: Any) -> dict[str, Any]:
    """Two layers of 32 and 42-px tiles of 3 x 3 patches; one stage `single_image`, changed by `stage`."""
    settings = {
        "learning_rates": {"language": 3e-3, "projector": 3e-3, "vision": 3e-3},
        "chat_format": "chatml",
        "image_mode": "anyres",
        "global_batch_size": 6,
        "max_seq_len": 256,
        "steps": 6,
        "warmup": 0.1,
        "zero_stage": 2,
        "precision": "fp32",
        "max_frames": 3,
        "save_interval": 2,
        "keep_checkpoints": 2,
    }
    return {
        "name": "tiny",
        "seed": 3,
        "system_prompt": "S",
        "language": {
            "tokenizer": str(tokenizer),
            "config": {
                "model_type": "qwen2",
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 2048,
                "tie_word_embeddings": True,
            },
        },
        "vision": {
            "config": {
                "model_type": "siglip_vision_model",
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "image_size": 42,
                "patch_size": 14,
            }
        },
        "grid": {"tile": 42, "patch": 14, "side": 2, "tiles": 4, "anyres_max": 4},
        "stages": {"single_image": settings | stage},
    }


def build_recipe(tokenizer: Path, **stage: Any) -> Recipe:
    return parse_recipe(build_recipe_data(tokenizer, **stage))


def build_seeing_recipe_data(tokenizer: Path) -> dict[str, Any]:
    """The least that learns to tell colours in half a minute; heads 32 wide, so that vLLM's CPU build serves it."""
    rates = {"language": 3e-3, "projector": 3e-3, "vision": 3e-3}
    data = build_recipe_data(
        tokenizer, steps=SEEING_STEPS, global_batch_size=16, max_seq_len=512, save_interval=1000, learning_rates=rates
    )
    data["language"]["config"] |= {"hidden_size": 64, "intermediate_size": 128}
    data["language"]["config"] |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    data["vision"]["config"] |= {"hidden_size": 64, "intermediate_size": 128}
    data["grid"] |= {"side": 1, "tiles": 1}
    return data


def draw_colour_samples(count: int, seed: int) -> list[DrawnSample]:
    rng = random.Random(seed)
    drawn: list[DrawnSample] = []
    for _ in range(count):
        colour, shape = rng.choice(list(COLOURS)), rng.choice(SHAPES)
        at = (rng.randint(0, 110), rng.randint(0, 110))
        drawn.append(([draw(shape, colour, at=at)], "Which colour?", colour))
    return drawn


def build_environment() -> dict[str, str]:
    """Of launched processes: one thread each, for machines that run other tests at the same time."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MVL_ALLOW_CPU": "1",
        "PYTHONPATH": str(PROJECT),
    }


def draw(shape: str, colour: str, size: tuple[int, int] = (240, 240), at: tuple[int, int] | None = None) -> bytes:
    """PNG of one shape on white."""
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    side = min(size) // 2
    left, top = at or ((size[0] - side) // 2, (size[1] - side) // 2)
    box = (left, top, left + side, top + side)
    if shape == "circle":
        pen.ellipse(box, fill=COLOURS[colour])
    elif shape == "square":
        pen.rectangle(box, fill=COLOURS[colour])
    else:
        pen.polygon([(left, top + side), (left + side // 2, top), (left + side, top + side)], fill=COLOURS[colour])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def draw_shape_samples(count: int, seed: int = 0) -> list[DrawnSample]:
    """(images, question, answer): one image, none, or two, in seeded sizes."""
    rng = random.Random(seed)
    samples: list[DrawnSample] = []
    for number in range(count):
        colour, shape = rng.choice(list(COLOURS)), rng.choice(SHAPES)
        size = (rng.choice([230, 300, 480]), rng.choice([230, 300, 480]))
        if number % 5 == 3:
            samples.append(([], f"Say {colour}.", colour))
        elif number % 5 == 4:
            other = rng.choice(list(COLOURS))
            samples.append(([draw(shape, colour), draw(shape, other)], "Both colours?", f"{colour}, {other}"))
        else:
            samples.append(([draw(shape, colour, size)], "What is it?", f"{colour} {shape}"))
    return samples


def fill_lake(root: Path | str, samples: Sequence[DrawnSample], stage: str = "single_image", frames: int = 0) -> Lake:
    """A lake whose `mixture/<stage>` holds the samples in order. With `frames`, one more row is a video."""
    lake = Lake(str(root))
    rows = [(images, "<image>\n" * len(images) + q, a, None) for images, q, a in samples]
    if frames:
        video_frames = [
            draw("circle", c, at=(4 * i, 4 * i)) for i, c in zip(range(frames), list(COLOURS) * frames, strict=False)
        ]
        rows.append(
            (
                video_frames,
                "<video>\nWhat moves?",
                "a circle",
                {"name": "clip", "seconds": [float(i) for i in range(frames)]},
            )
        )
    insert_rows(lake, rows, stage)
    return lake


def insert_rows(lake: Lake, rows: Sequence[tuple[list[bytes], str, str, Any]], stage: str) -> None:
    sample_rows, mixture_rows = [], []
    for position, (images, question, answer, video) in enumerate(rows):
        ids = [insert_image(lake, image) for image in images]
        sample_id = compute_digest("drawn", position)
        version_id = compute_digest(sample_id, 1)
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        sample_rows.append(
            {
                "version_id": version_id,
                "sample_id": sample_id,
                "source": "drawn",
                "revision": 1,
                "withdrawn": False,
                "position": position,
                "conversations": turns,
                "image_ids": ids,
                "video": video,
                "content_hash": compute_digest(turns, ids),
            }
        )
        mixture_rows.append(
            {
                "row_id": compute_digest("mixture", stage, sample_id),
                "position": position,
                "kind": "original",
                "sample_id": sample_id,
                "version_id": version_id,
                "source": "drawn",
                "category": "general",
                "modality": "video" if video else ("text", "single_image", "multi_image")[min(2, len(ids))],
                "repeat_index": 0,
            }
        )
    for name, content, where in (("samples", sample_rows, "drawn"), (f"mixture/{stage}", mixture_rows, None)):
        table = lake.get_table(name)
        schema = table.spec.columns
        table.publish([pa.Table.from_pylist(content, schema=schema)], where)


def insert_image(lake: Lake, data: bytes) -> str:
    image_id, info = compute_digest(data), inspect_image(data)
    row = ImageRow(image_id, data, info.format, info.width, info.height, info.n_frames, info.mode, info.phash)
    if lake.images.find_missing([image_id]):
        lake.get_images("drawn").insert([row])
    return image_id
