"""Data of the synthetic tasks: generated images with known answers, for evaluation without a network.

The same seed gives the same questions; the answers of a task are about equally frequent. The data is written as Parquet
that the `datasets` library reads; `tasks/` says how questions are shown and scored.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from mvl_assets.common.atomic_write import replace_file
from mvl_assets.media.image import encode_image

SEED = 23
N_QUESTIONS = 120
IMAGE_SIDE = 336
COLOURS = {"red": (214, 48, 49), "green": (0, 148, 90), "blue": (40, 90, 200), "orange": (240, 147, 43)}
LETTERS = "ABCD"


@dataclass(frozen=True, slots=True)
class SyntheticQuestion:
    """One question; its text has an `<image>` marker for each image."""

    images: Sequence[bytes]
    text: str
    reference: str


def draw_counting_question(rng: random.Random) -> SyntheticQuestion:
    """Draw discs of two colours and ask for the number of one colour, from 1 to 5."""
    target_colour, distractor_colour = rng.sample(sorted(COLOURS), 2)
    n_discs = rng.randint(1, 5)
    colours = [target_colour] * n_discs + [distractor_colour] * rng.randint(1, 4)
    cells = rng.sample([(x, y) for x in range(4) for y in range(4)], len(colours))
    image, pen = _create_canvas()
    for colour, (column, row) in zip(colours, cells, strict=True):
        left, top = (IMAGE_SIDE // 4 * cell_index + rng.randint(6, 24) for cell_index in (column, row))
        pen.ellipse((left, top, left + 52, top + 52), fill=COLOURS[colour])
    text = f"<image>\nHow many {target_colour} discs are there? Answer with a number."
    return SyntheticQuestion([encode_image(image, "PNG")], text, str(n_discs))


def draw_bar_chart_question(rng: random.Random) -> SyntheticQuestion:
    """Draw a bar chart and ask which bar is the highest: an option letter."""
    heights = rng.sample(range(40, 281, 30), 4)
    colours = rng.sample(sorted(COLOURS), 4)
    image, pen = _create_canvas()
    pen.line((20, 8, 20, IMAGE_SIDE - 20, IMAGE_SIDE - 8, IMAGE_SIDE - 20), fill="black", width=2)
    for bar_index, (height, colour) in enumerate(zip(heights, colours, strict=True)):
        left = 40 + 72 * bar_index
        pen.rectangle((left, IMAGE_SIDE - 22 - height, left + 48, IMAGE_SIDE - 22), fill=COLOURS[colour])
    options = rng.sample(colours, 4)
    option_lines = "\n".join(f"{letter}. {colour}" for letter, colour in zip(LETTERS, options, strict=True))
    highest_colour = colours[heights.index(max(heights))]
    text = f"<image>\nWhich bar is the highest?\n{option_lines}\nAnswer with the option's letter."
    return SyntheticQuestion([encode_image(image, "PNG")], text, LETTERS[options.index(highest_colour)])


def draw_size_comparison_question(rng: random.Random) -> SyntheticQuestion:
    """Draw a disc in two images and ask in which it is larger: `first` or `second`."""
    colour = rng.choice(sorted(COLOURS))
    small_side, large_side = sorted(rng.sample(range(60, 301, 40), 2))
    reference = rng.choice(("first", "second"))
    images = []
    for side in (large_side, small_side) if reference == "first" else (small_side, large_side):
        image, pen = _create_canvas()
        left, top = (rng.randint(4, IMAGE_SIDE - side - 4) for _ in range(2))
        pen.ellipse((left, top, left + side, top + side), fill=COLOURS[colour])
        images.append(encode_image(image, "PNG"))
    text = "First picture: <image>\nSecond picture: <image>\n"
    return SyntheticQuestion(
        images, text + f"In which one is the {colour} disc larger? Answer first or second.", reference
    )


TASK_GENERATORS: dict[str, Callable[[random.Random], SyntheticQuestion]] = {
    "synthetic_counts": draw_counting_question,
    "synthetic_bars": draw_bar_chart_question,
    "synthetic_pairs": draw_size_comparison_question,
}
"""Generator of a question by task."""

# Former names of the tasks, which are part of their random seed: other seeds would change all question ids.
_SEED_NAMES = {
    "synthetic_counts": "drawn_counts",
    "synthetic_bars": "drawn_bars",
    "synthetic_pairs": "drawn_pairs",
}


def write_task_data(folder: Path, n_questions: int = N_QUESTIONS) -> None:
    """Write `<task>.parquet` for every task, with the columns images, text and answer."""
    folder.mkdir(parents=True, exist_ok=True)
    for task, generate in TASK_GENERATORS.items():
        rng = random.Random(f"{SEED} {_SEED_NAMES[task]}")
        generated_questions = [generate(rng) for _ in range(n_questions)]
        columns = {
            "images": [[{"bytes": data, "path": None} for data in question.images] for question in generated_questions],
            "text": [question.text for question in generated_questions],
            "answer": [question.reference for question in generated_questions],
        }
        with replace_file(folder / f"{task}.parquet") as temp_file:
            pq.write_table(pa.table(columns, schema=_build_schema()), temp_file)


def _build_schema() -> pa.Schema:
    """Return a schema with the metadata by which `datasets` knows a column of images."""
    text_feature = {"dtype": "string", "_type": "Value"}
    features: dict[str, Any] = {"images": [{"_type": "Image"}], "text": text_feature, "answer": text_feature}
    metadata = json.dumps({"info": {"features": features}})
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = [("images", pa.list_(image_type)), ("text", pa.string()), ("answer", pa.string())]
    return pa.schema(columns, metadata={"huggingface": metadata})


def _create_canvas() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (IMAGE_SIDE, IMAGE_SIDE), "white")
    return image, ImageDraw.Draw(image)
