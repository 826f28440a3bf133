"""The data of the local tasks: pictures drawn with known answers, so that evaluation runs without a network.

Belongs here: drawing, and Parquet as the `datasets` library reads it. Does not: how it is asked and scored (`tasks/`).
The same seed draws the same questions; the answers to a kind of question are about equally frequent.
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

from mvl_assets.media.image import encode

SEED = 23
QUESTIONS = 120
SIDE = 336
COLOURS = {"red": (214, 48, 49), "green": (0, 148, 90), "blue": (40, 90, 200), "orange": (240, 147, 43)}
LETTERS = "ABCD"


@dataclass(frozen=True, slots=True)
class Drawn:
    """One question. `text` holds `<image>` where each picture stands."""

    pictures: Sequence[bytes]
    text: str
    answer: str


def counts(rng: random.Random) -> Drawn:
    """How many discs of a colour: a number from 1 to 5."""
    asked, other = rng.sample(sorted(COLOURS), 2)
    number = rng.randint(1, 5)
    colours = [asked] * number + [other] * rng.randint(1, 4)
    cells = rng.sample([(x, y) for x in range(4) for y in range(4)], len(colours))
    image, pen = _canvas()
    for colour, (column, row) in zip(colours, cells, strict=True):
        left, top = (SIDE // 4 * place + rng.randint(6, 24) for place in (column, row))
        pen.ellipse((left, top, left + 52, top + 52), fill=COLOURS[colour])
    text = f"<image>\nHow many {asked} discs are there? Answer with a number."
    return Drawn([encode(image, "PNG")], text, str(number))


def bars(rng: random.Random) -> Drawn:
    """Which bar of a chart is the highest: an option letter."""
    heights = rng.sample(range(40, 281, 30), 4)
    colours = rng.sample(sorted(COLOURS), 4)
    image, pen = _canvas()
    pen.line((20, 8, 20, SIDE - 20, SIDE - 8, SIDE - 20), fill="black", width=2)
    for place, (height, colour) in enumerate(zip(heights, colours, strict=True)):
        left = 40 + 72 * place
        pen.rectangle((left, SIDE - 22 - height, left + 48, SIDE - 22), fill=COLOURS[colour])
    options = rng.sample(colours, 4)
    lines = "\n".join(f"{letter}. {colour}" for letter, colour in zip(LETTERS, options, strict=True))
    best = colours[heights.index(max(heights))]
    text = f"<image>\nWhich bar is the highest?\n{lines}\nAnswer with the option's letter."
    return Drawn([encode(image, "PNG")], text, LETTERS[options.index(best)])


def pairs(rng: random.Random) -> Drawn:
    """In which of two pictures a disc is larger: `first` or `second`; each picture stands after its name."""
    colour = rng.choice(sorted(COLOURS))
    small, large = sorted(rng.sample(range(60, 301, 40), 2))
    answer = rng.choice(("first", "second"))
    pictures = []
    for side in (large, small) if answer == "first" else (small, large):
        image, pen = _canvas()
        left, top = (rng.randint(4, SIDE - side - 4) for _ in range(2))
        pen.ellipse((left, top, left + side, top + side), fill=COLOURS[colour])
        pictures.append(encode(image, "PNG"))
    text = "First picture: <image>\nSecond picture: <image>\n"
    return Drawn(pictures, text + f"In which one is the {colour} disc larger? Answer first or second.", answer)


KINDS: dict[str, Callable[[random.Random], Drawn]] = {
    "drawn_counts": counts,
    "drawn_bars": bars,
    "drawn_pairs": pairs,
}
"""What draws a question, by the name of the task."""


def write(folder: Path, questions: int = QUESTIONS) -> None:
    """`<task>.parquet` for every task, with the columns images, text and answer."""
    folder.mkdir(parents=True, exist_ok=True)
    for task, draw in KINDS.items():
        rng = random.Random(f"{SEED} {task}")
        drawn = [draw(rng) for _ in range(questions)]
        columns = {
            "images": [[{"bytes": data, "path": None} for data in one.pictures] for one in drawn],
            "text": [one.text for one in drawn],
            "answer": [one.answer for one in drawn],
        }
        file = folder / f"{task}.parquet"
        part = file.with_suffix(".part")
        pq.write_table(pa.table(columns, schema=_schema()), part)
        part.replace(file)


def _schema() -> pa.Schema:
    """With the note by which `datasets` knows that a column holds pictures."""
    text = {"dtype": "string", "_type": "Value"}
    features: dict[str, Any] = {"images": [{"_type": "Image"}], "text": text, "answer": text}
    note = json.dumps({"info": {"features": features}})
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = [("images", pa.list_(picture)), ("text", pa.string()), ("answer", pa.string())]
    return pa.schema(columns, metadata={"huggingface": note})


def _canvas() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (SIDE, SIDE), "white")
    return image, ImageDraw.Draw(image)
