"""Bar, line and pie charts of made-up figures; every answer is computed from the figures that were drawn."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from mvl_assets.demo_data.drawings.drawing import (
    COLOURS,
    INK,
    PAPERS,
    Drawing,
    Pair,
    between,
    canvas,
    listing,
    text,
    width_of,
)

SUBJECTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Books lent by branch", "books", ("North", "Harbour", "Mill", "Castle", "Park", "Station")),
    ("Rainfall by month", "mm", ("Jan", "Feb", "Mar", "Apr", "May", "Jun")),
    ("Bicycles counted per street", "bicycles", ("Oak St", "Elm St", "Bay Rd", "Hill Rd", "Main St", "Lake Rd")),
    ("Visitors by exhibition", "visitors", ("Birds", "Maps", "Clocks", "Masks", "Ships", "Coins")),
    ("Tickets sold per day", "tickets", ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat")),
    ("Apples picked by team", "crates", ("Foxes", "Owls", "Elks", "Bees", "Hares", "Moles")),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a chart shows: a title, the unit, and one value per label (labels and values differ from each other)."""

    title: str
    unit: str
    labels: tuple[str, ...]
    values: tuple[int, ...]

    @property
    def read_out(self) -> str:
        return listing([f"{label} {value}" for label, value in zip(self.labels, self.values, strict=True)])


def figures(rng: Random, parts: int, step: int = 5, top: int = 100) -> Figures:
    title, unit, labels = rng.choice(SUBJECTS)
    return Figures(title, unit, labels[:parts], tuple(rng.sample(range(step, top + 1, step), parts)))


def chart(rng: Random) -> Drawing:
    """One of the three kinds."""
    return rng.choice((bars, lines, pie))(rng)


def bars(rng: Random) -> Drawing:
    shown = figures(rng, between(rng, 3, 6))
    picture, draw, (x0, y0, x1, y1) = _frame(rng, shown)
    slot = (x1 - x0) / len(shown.values)
    colour = COLOURS[rng.choice(list(COLOURS))]
    for n, value in enumerate(shown.values):
        left = x0 + slot * (n + 0.2)
        top = y1 - (y1 - y0) * value / 100
        draw.rectangle((left, top, left + slot * 0.6, y1), fill=colour)
        text(draw, (left + slot * 0.3, top - 3), str(value), 13, anchor="mb")
    return Drawing(picture, _pairs(rng, shown, "bar"), _caption(shown, "bar chart"), needs_colour=False)


def lines(rng: Random) -> Drawing:
    shown = figures(rng, between(rng, 4, 6))
    picture, draw, (x0, y0, x1, y1) = _frame(rng, shown)
    slot = (x1 - x0) / len(shown.values)
    points = [(x0 + slot * (n + 0.5), y1 - (y1 - y0) * value / 100) for n, value in enumerate(shown.values)]
    draw.line(points, fill=COLOURS[rng.choice(["red", "blue", "green", "purple"])], width=3)
    for (x, y), value in zip(points, shown.values, strict=True):
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=INK)
        text(draw, (x, y - 7), str(value), 13, anchor="mb")
    return Drawing(picture, _pairs(rng, shown, "point"), _caption(shown, "line chart"), needs_colour=False)


def pie(rng: Random) -> Drawing:
    """Shares of one hundred, written in the legend with their colours."""
    title, _, labels = rng.choice(SUBJECTS)
    parts = between(rng, 3, 5)
    cuts = sorted(rng.sample(range(10, 95, 5), parts - 1))
    shares = [b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)]
    while len(set(shares)) < parts:
        cuts = sorted(rng.sample(range(10, 95, 5), parts - 1))
        shares = [b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)]
    shown = Figures(f"{title} (share in %)", "percent", labels[:parts], tuple(shares))
    size = between(rng, 240, 420, 20)
    picture, draw = canvas((size + 190, size), rng.choice(PAPERS))
    text(draw, (12, 8), shown.title, 16)
    box = (20, 36, size - 20, size - 4)
    start = -90.0
    for n, (label, share) in enumerate(zip(shown.labels, shown.values, strict=True)):
        colour = list(COLOURS.values())[n]
        draw.pieslice(box, start, start + share * 3.6, fill=colour, outline=(255, 255, 255))
        start += share * 3.6
        y = 60 + n * 26
        draw.rectangle((size + 4, y, size + 18, y + 14), fill=colour)
        text(draw, (size + 26, y), f"{label}  {share}%", 14)
    names = list(COLOURS)
    asked = rng.randrange(parts)
    by_colour = Pair(
        f"Which label belongs to the {names[asked]} slice?",
        shown.labels[asked],
        f"In the legend the {names[asked]} square stands beside {shown.labels[asked]}.",
    )
    return Drawing(picture, (*_pairs(rng, shown, "slice"), by_colour), _caption(shown, "pie chart"))


def _frame(rng: Random, shown: Figures) -> tuple[Image.Image, ImageDraw.ImageDraw, tuple[float, float, float, float]]:
    """Title, axes, ticks at 0, 50 and 100, and the labels; returns the plotting area in pixels."""
    size = (max(between(rng, 320, 700, 20), 70 * len(shown.labels)), between(rng, 240, 460, 20))
    picture, draw = canvas(size, rng.choice(PAPERS))
    x0, y0, x1, y1 = 52.0, 62.0, size[0] - 14.0, size[1] - 40.0
    text(draw, (size[0] / 2, 10), shown.title, 18, anchor="ma")
    text(draw, (8, 36), shown.unit, 12)
    for tick in (0, 50, 100):
        y = y1 - (y1 - y0) * tick / 100
        draw.line((x0, y, x1, y), fill=(205, 205, 205))
        text(draw, (x0 - 6, y), str(tick), 12, anchor="rm")
    draw.line((x0, y0, x0, y1, x1, y1), fill=INK, width=2)
    slot = (x1 - x0) / len(shown.labels)
    size_of_label = 14 if max(width_of(label, 14) for label in shown.labels) < slot else 11
    for n, label in enumerate(shown.labels):
        text(draw, (x0 + slot * (n + 0.5), y1 + 8), label, size_of_label, anchor="ma")
    return picture, draw, (x0, y0, x1, y1)


def _pairs(rng: Random, shown: Figures, mark: str) -> tuple[Pair, ...]:
    table = dict(zip(shown.labels, shown.values, strict=True))
    high, low = max(table, key=table.__getitem__), min(table, key=table.__getitem__)
    one, two = rng.sample(shown.labels, 2)
    read = f"The chart reads {shown.read_out}."
    pairs = [
        Pair(
            f"What is the value for {one}?", str(table[one]), f"The {mark} for {one} carries the figure {table[one]}."
        ),
        Pair("Which label has the highest value?", high, f"{read} The largest of these is {table[high]}, for {high}."),
        Pair("Which label has the lowest value?", low, f"{read} The smallest of these is {table[low]}, for {low}."),
        Pair(
            f"What is the difference between {one} and {two}?",
            str(abs(table[one] - table[two])),
            f"{one} has {table[one]} and {two} has {table[two]}. "
            f"{max(table[one], table[two])} - {min(table[one], table[two])} = {abs(table[one] - table[two])}.",
        ),
        Pair(
            "What do all values add up to?",
            str(sum(table.values())),
            f"{read} {' + '.join(str(value) for value in shown.values)} = {sum(table.values())}.",
        ),
        Pair(
            f"How many labels have a value above {table[one]}?",
            str(sum(value > table[one] for value in table.values())),
            f"{read} Above {table[one]} lie: {listing([k for k, v in table.items() if v > table[one]]) or 'none'}.",
        ),
    ]
    rng.shuffle(pairs)
    return tuple(pairs)


def _caption(shown: Figures, kind: str) -> str:
    return f'A {kind} titled "{shown.title}" in {shown.unit}: {shown.read_out}.'
