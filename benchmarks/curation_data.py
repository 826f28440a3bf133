"""Rows with planted copies for `curation.py`: drawings of the demo data and photographs, altered in known ways.

Photographs are those that ship with scikit-image, whole and in quarters, and the JPEG files of a folder.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFont, ImageOps

from mvl_assets.demo_data.drawings import charts, diagrams, documents, geometry, photos, scenes, screens, tables
from mvl_assets.demo_data.drawings.drawing import Drawing, DrawnQAPair

DRAW_FUNCTIONS = (
    charts.draw_bar_chart,
    charts.draw_line_chart,
    charts.draw_pie_chart,
    documents.draw_receipt,
    documents.draw_notice,
    documents.draw_form,
    scenes.draw_scene,
    scenes.draw_landscape,
    tables.draw_table,
    diagrams.draw_diagram,
    screens.draw_phone_screen,
    geometry.draw_figure,
)
WORDS = (
    *("amber", "birch", "cedar", "delta", "ember", "frost", "grove", "haven"),
    *("inlet", "juniper", "karst", "lumen", "maple", "north", "olive", "pine"),
)
PHOTO_QUESTIONS = ("What stands in the {} part?", "Which season does the {} corner suggest?", "Is the {} side sharp?")


@dataclass
class PlantedRow:
    """A row; those of one `group` are copies of each other. `text_only` rows have no image."""

    group: str
    attack: str
    question: str
    answer: str
    image: bytes | None = None
    kind: str = "photo"
    options: tuple[str, ...] = field(default=())


def encode(image: Image.Image, format: str = "JPEG", quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **({"quality": quality} if format == "JPEG" else {}))
    return buffer.getvalue()


# -- attacks on an image ---------------------------------------------------------------------------------------------


def add_watermark(image: Image.Image) -> Image.Image:
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    font = ImageFont.load_default(size=max(10, min(image.size) // 10))
    centre = (image.width / 2, image.height / 2)
    fill, stroke = (255, 255, 255, 128), (0, 0, 0, 128)
    ImageDraw.Draw(layer).text(
        centre, "SAMPLE © 2026", fill=fill, font=font, anchor="mm", stroke_width=1, stroke_fill=stroke
    )
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def crop(image: Image.Image) -> Image.Image:
    """Cut 2.5 % off each side: 5 % of width and of height."""
    x, y = round(image.width * 0.025), round(image.height * 0.025)
    return image.crop((x, y, image.width - x, image.height - y))


def add_border(image: Image.Image, colour: str, share: float) -> Image.Image:
    return ImageOps.expand(image, round(min(image.size) * share) + 1, colour)


def scale(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)


IMAGE_ATTACKS: dict[str, Callable[[Image.Image], bytes]] = {
    "reencoded": lambda image: encode(image, quality=40),
    "halved": lambda image: encode(scale(image, 0.5), quality=85),
    "enlarged": lambda image: encode(scale(image, 1.5), quality=85),
    "greyscale": lambda image: encode(image.convert("L"), quality=85),
    "watermarked": lambda image: encode(add_watermark(image), quality=85),
    "bordered_black": lambda image: encode(add_border(image, "black", 0.05), quality=85),
    "bordered_white": lambda image: encode(add_border(image, "white", 0.1), quality=85),
    "cropped": lambda image: encode(crop(image), quality=85),
    "mirrored": lambda image: encode(ImageOps.mirror(image), quality=85),
}

# -- attacks on a text -----------------------------------------------------------------------------------------------

TEMPLATES = (
    "<image>\nPlease look at the picture and answer the question: {}",
    "{} Answer with a single word or phrase.",
    "Question: {}\nAnswer:",
    "Based on the image, could you tell me: {}",
    "I would like to know the following. {} Give a short answer.",
)
SYNONYMS = {
    "how many": "what is the number of",
    "what colour": "which hue",
    "highest": "largest",
    "lowest": "smallest",
    "which": "name the",
    "what is": "state",
    "value": "amount",
    "stands": "is placed",
}


def reword(row: PlantedRow, rng: Random) -> tuple[str, str]:
    return rng.choice(TEMPLATES).format(row.question), row.answer


def paraphrase(row: PlantedRow, rng: Random) -> tuple[str, str] | None:
    """Say it with other content words; None where none of them is known."""
    text = row.question.lower()
    for word, synonym in SYNONYMS.items():
        text = text.replace(word, synonym)
    return None if text == row.question.lower() else (text, row.answer)


def change_markup(row: PlantedRow, rng: Random) -> tuple[str, str]:
    question = f"<image>\n**{row.question}**" if rng.random() < 0.5 else f"### Question\n- {row.question}"
    return question, f"**Answer:** `{row.answer}`" if rng.random() < 0.5 else f"<p>{row.answer}.</p>"


def format_options(question: str, answer: str, options: list[str], style: str) -> tuple[str, str]:
    letters = "ABCDEFGH"
    lines = [style.format(letter=letters[n], text=text) for n, text in enumerate(options)]
    return "\n".join([question, *lines]), letters[options.index(answer)]


# -- rows ------------------------------------------------------------------------------------------------------------


def iter_drawings(seed: int) -> Iterator[tuple[Drawing, DrawnQAPair]]:
    """Yield drawings that say different things, with one of their questions; some generators have few variants."""
    captions: set[str] = set()
    for n in count():
        drawing = DRAW_FUNCTIONS[n % len(DRAW_FUNCTIONS)](Random(seed + n))
        if drawing.caption not in captions:
            captions.add(drawing.caption)
            yield drawing, drawing.qa_pairs[n % len(drawing.qa_pairs)]


def iter_drawn_rows(n_rows: int) -> Iterator[PlantedRow]:
    for n, (drawing, pair) in enumerate(islice(iter_drawings(9_000), n_rows)):
        image = encode(drawing.image.convert("RGB"), "PNG")
        yield PlantedRow(f"drawing {n}", "original", pair.question, pair.answer, image, "drawing", pair.choices)


def iter_photo_images(folder: Path | None) -> Iterator[Image.Image]:
    for number in range(len(photos.PHOTOS)):
        image = photos.load_photo(Random(number), number).image.convert("RGB")
        yield image
        x, y = image.width // 2, image.height // 2
        for box in ((0, 0, x, y), (x, 0, 2 * x, y), (0, y, x, 2 * y), (x, y, 2 * x, 2 * y)):
            if min(x, y) >= 100:
                yield image.crop(box)
    for path in sorted(folder.rglob("*.jpg")) if folder else []:
        yield Image.open(path).convert("RGB")


def iter_photo_rows(folder: Path | None, n_rows: int) -> Iterator[PlantedRow]:
    for n, image in enumerate(islice(iter_photo_images(folder), n_rows)):
        rng = Random(n)
        question = PHOTO_QUESTIONS[n % 3].format(rng.choice(("upper", "lower", "left", "right")))
        yield PlantedRow(f"photo {n}", "original", question, rng.choice(WORDS), encode(image, quality=92))


def iter_text_rows(n_rows: int) -> Iterator[PlantedRow]:
    for n, (drawing, pair) in enumerate(islice(iter_drawings(50_000), n_rows)):
        question = f"{drawing.caption} {pair.question}"
        yield PlantedRow(f"text {n}", "original", question, pair.answer, None, "text", pair.choices)


def iter_copies(row: PlantedRow, rng: Random) -> Iterator[PlantedRow]:
    """Yield the copies of an original; a text attack leaves the image as it is, and an image attack the text."""
    if row.image is not None:
        image = Image.open(io.BytesIO(row.image)).convert("RGB")
        for name, attack in IMAGE_ATTACKS.items():
            yield PlantedRow(row.group, name, row.question, row.answer, attack(image), row.kind)
    for name, change in (("reworded", reword), ("markup", change_markup), ("paraphrased", paraphrase)):
        if (text := change(row, rng)) is not None:
            yield PlantedRow(row.group, name, *text, row.image, row.kind)


def iter_option_rows(row: PlantedRow, rng: Random) -> Iterator[PlantedRow]:
    """Yield an original with lettered options, and itself with these shuffled."""
    if len(set(row.options)) < 3 or row.answer not in row.options:
        return
    options = list(dict.fromkeys(row.options))
    shuffled = rng.sample(options, len(options))
    yield PlantedRow(
        row.group,
        "original",
        *format_options(row.question, row.answer, options, "({letter}) {text}"),
        row.image,
        row.kind,
    )
    yield PlantedRow(
        row.group,
        "options_shuffled",
        *format_options(row.question, row.answer, shuffled, "{letter}. {text}"),
        row.image,
        row.kind,
    )


# -- hard negatives --------------------------------------------------------------------------------------------------


def draw_template_chart(template: int, values: list[int]) -> Image.Image:
    rng = Random(template)
    image = Image.new("RGB", (480, 360), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=14)
    draw.text((240, 16), f"Sales of region {template}", fill="black", font=font, anchor="mm")
    draw.line((50, 320, 460, 320), fill="black")
    draw.line((50, 40, 50, 320), fill="black")
    colour = tuple(rng.randrange(30, 200) for _ in range(3))
    for n, value in enumerate(values):
        x = 60 + 65 * n
        draw.rectangle((x, 320 - 2.6 * value, x + 40, 320), fill=colour)
        draw.text((x + 20, 335), "ABCDEF"[n], fill="black", font=font, anchor="mm")
    return image


def draw_template_page(template: int, entries: list[str]) -> Image.Image:
    image = Image.new("RGB", (500, 640), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=16)
    draw.text((250, 40), f"Form {template}", fill="black", font=ImageFont.load_default(size=24), anchor="mm")
    for n, (label, entry) in enumerate(
        zip(("Name", "City", "Date", "Amount", "Phone", "Signed"), entries, strict=True)
    ):
        y = 100 + 80 * n
        draw.text((40, y), f"{label}:", fill="black", font=font)
        draw.rectangle((150, y - 10, 460, y + 30), outline=(90, 90, 90))
        draw.text((160, y), entry, fill=(20, 20, 120), font=font)
    return image


def iter_hard_negatives(n_pairs: int, images: list[Image.Image]) -> Iterator[tuple[str, Image.Image, Image.Image]]:
    """Yield (kind, image, other image) of pairs that look alike and are not copies."""
    rng = Random(7)
    for n in range(n_pairs):
        values = [rng.randrange(10, 100) for _ in range(6)]
        yield (
            "chart of one template",
            *(draw_template_chart(n, v) for v in (values, [rng.randrange(10, 100) for _ in range(6)])),
        )
        other_values = list(values)
        changed = rng.randrange(6)
        other_values[changed] = (values[changed] + rng.randrange(30, 60)) % 100
        yield (
            "chart with another bar",
            draw_template_chart(1000 + n, values),
            draw_template_chart(1000 + n, other_values),
        )
        entries = [[f"{rng.choice(WORDS).title()} {rng.randrange(10, 9999)}" for _ in range(6)] for _ in range(2)]
        yield "page of one form", draw_template_page(n, entries[0]), draw_template_page(n, entries[1])
        image, patch = images[n % len(images)], images[(n + 7) % len(images)]
        shift = max(3, round(image.width * 0.03))
        yield (
            "panned frame",
            image.crop((0, 0, image.width - shift, image.height)),
            image.crop((shift, 0, image.width, image.height)),
        )
        frames = []
        for step in (0, image.width // 16):
            frame = image.copy()
            frame.paste(
                patch.resize((image.width // 5, image.height // 5)), (image.width // 4 + step, image.height // 3)
            )
            frames.append(frame)
        yield "frame with a moved object", frames[0], frames[1]


def build_rows(n_drawings: int, n_photos: int, folder: Path | None) -> list[PlantedRow]:
    """Return originals, copies and hard negatives. Half of the negatives have the same question and answer."""
    rng = random.Random(3)
    originals = [*iter_drawn_rows(n_drawings), *iter_photo_rows(folder, n_photos), *iter_text_rows(n_drawings // 2)]
    rows = list(originals)
    for row in originals:
        rows.extend(iter_copies(row, rng))
        rows.extend(iter_option_rows(row, rng))
    frames = [Image.open(io.BytesIO(r.image)).convert("RGB") for r in originals if r.kind == "photo" and r.image]
    for n, (kind, *pair) in enumerate(iter_hard_negatives(max(10, (n_drawings + n_photos) // 8), frames)):
        is_same_text = n % 2 == 0
        for side, image in enumerate(pair):
            answer = WORDS[n % 8] if is_same_text else WORDS[n % 8 + 8 * side]
            question = f"What does item {n} say?"
            rows.append(PlantedRow(f"negative {n} {side}", f"negative: {kind}", question, answer, encode(image)))
    return rows
