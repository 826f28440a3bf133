"""Bar, line and pie charts of made-up figures; every answer is computed from the figures that were drawn."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from mvl_assets.demo_data.drawings.drawing import Drawing, DrawnQAPair, join_with_and, sample_int
from mvl_assets.media.drawing import COLOURS, INK, PAPERS, create_canvas, draw_text, measure_text_width

SUBJECTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Books lent by branch", "books", ("North", "Harbour", "Mill", "Castle", "Park", "Station")),
    ("Rainfall by month", "mm", ("Jan", "Feb", "Mar", "Apr", "May", "Jun")),
    ("Bicycles counted per street", "bicycles", ("Oak St", "Elm St", "Bay Rd", "Hill Rd", "Main St", "Lake Rd")),
    ("Visitors by exhibition", "visitors", ("Birds", "Maps", "Clocks", "Masks", "Ships", "Coins")),
    ("Tickets sold per day", "tickets", ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat")),
    ("Apples picked by team", "crates", ("Foxes", "Owls", "Elks", "Bees", "Hares", "Moles")),
)


@dataclass(frozen=True, slots=True)
class ChartData:
    """What a chart shows: a title, the unit, and one value per label (labels and values differ from each other)."""

    title: str
    unit: str
    labels: tuple[str, ...]
    values: tuple[int, ...]

    @property
    def values_text(self) -> str:
        return join_with_and([f"{label} {value}" for label, value in zip(self.labels, self.values, strict=True)])


def sample_chart_data(rng: Random, n_values: int, step: int = 5, max_value: int = 100) -> ChartData:
    """Draw labels and values of a chart.

    Args:
        rng: Source of randomness.
        n_values: Number of values, which are all different.
        step: The values are multiples of it.
        max_value: Largest possible value.
    """
    title, unit, labels = rng.choice(SUBJECTS)
    return ChartData(title, unit, labels[:n_values], tuple(rng.sample(range(step, max_value + 1, step), n_values)))


def draw_chart(rng: Random) -> Drawing:
    """Draw one of the three kinds."""
    return rng.choice((draw_bar_chart, draw_line_chart, draw_pie_chart))(rng)


def draw_bar_chart(rng: Random) -> Drawing:
    """Draw a bar chart with questions about its values."""
    chart_data = sample_chart_data(rng, sample_int(rng, 3, 6))
    image, draw, (x0, y0, x1, y1), size = _draw_axes(rng, chart_data)
    slot = (x1 - x0) / len(chart_data.values)
    colour = COLOURS[rng.choice(list(COLOURS))]
    for n, value in enumerate(chart_data.values):
        left = x0 + slot * (n + 0.2)
        top = y1 - (y1 - y0) * value / 100
        draw.rectangle((left, top, left + slot * 0.6, y1), fill=colour)
        draw_text(draw, (left + slot * 0.3, top - 3), str(value), size, anchor="mb")
    return Drawing(
        image, _build_qa_pairs(rng, chart_data, "bar"), _build_caption(chart_data, "bar chart"), needs_colour=False
    )


def draw_line_chart(rng: Random) -> Drawing:
    """Draw a line chart with questions about its values."""
    chart_data = sample_chart_data(rng, sample_int(rng, 4, 6))
    image, draw, (x0, y0, x1, y1), size = _draw_axes(rng, chart_data)
    slot = (x1 - x0) / len(chart_data.values)
    points = [(x0 + slot * (n + 0.5), y1 - (y1 - y0) * value / 100) for n, value in enumerate(chart_data.values)]
    draw.line(points, fill=COLOURS[rng.choice(["red", "blue", "green", "purple"])], width=3)
    for (x, y), value in zip(points, chart_data.values, strict=True):
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=INK)
        draw_text(draw, (x, y - 7), str(value), size, anchor="mb")
    return Drawing(
        image, _build_qa_pairs(rng, chart_data, "point"), _build_caption(chart_data, "line chart"), needs_colour=False
    )


def draw_pie_chart(rng: Random) -> Drawing:
    """Draw shares of one hundred, written in the legend with their colours."""
    title, _, labels = rng.choice(SUBJECTS)
    n_slices = sample_int(rng, 3, 5)
    cuts = sorted(rng.sample(range(10, 95, 5), n_slices - 1))
    shares = [b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)]
    while len(set(shares)) < n_slices:
        cuts = sorted(rng.sample(range(10, 95, 5), n_slices - 1))
        shares = [b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)]
    chart_data = ChartData(f"{title} (share in %)", "percent", labels[:n_slices], tuple(shares))
    size = sample_int(rng, 240, 420, 20)
    text_size = max(16, size // 16)
    image, draw = create_canvas((size + 11 * text_size, size), rng.choice(PAPERS))
    draw_text(draw, (12, 8), chart_data.title, text_size)
    box = (20, 36, size - 20, size - 4)
    start = -90.0
    for n, (label, share) in enumerate(zip(chart_data.labels, chart_data.values, strict=True)):
        colour = list(COLOURS.values())[n]
        draw.pieslice(box, start, start + share * 3.6, fill=colour, outline=(255, 255, 255))
        start += share * 3.6
        y = 60 + n * 2 * text_size
        draw.rectangle((size + 4, y, size + 4 + text_size, y + text_size), fill=colour)
        draw_text(draw, (size + 12 + text_size, y), f"{label}  {share}%", text_size)
    names = list(COLOURS)
    slice_index = rng.randrange(n_slices)
    by_colour = DrawnQAPair(
        f"Which label belongs to the {names[slice_index]} slice?",
        chart_data.labels[slice_index],
        f"In the legend the {names[slice_index]} square stands beside {chart_data.labels[slice_index]}.",
    )
    return Drawing(
        image, (*_build_qa_pairs(rng, chart_data, "slice"), by_colour), _build_caption(chart_data, "pie chart")
    )


def _draw_axes(
    rng: Random, chart_data: ChartData
) -> tuple[Image.Image, ImageDraw.ImageDraw, tuple[float, float, float, float], int]:
    """Draw title, axes, ticks at 0, 50 and 100, and labels; return the plotting area and the text size in pixels."""
    width, height = max(sample_int(rng, 320, 700, 20), 70 * len(chart_data.labels)), sample_int(rng, 240, 460, 20)
    size = max(14, width // 24)
    image, draw = create_canvas((width, height + 3 * size), rng.choice(PAPERS))
    x0, y0, x1, y1 = 3.0 * size, 4.5 * size, width - 14.0, height + 0.5 * size
    draw_text(draw, (width / 2, 8), chart_data.title, min(size + 4, 28), anchor="ma")
    draw_text(draw, (8, 2.2 * size), chart_data.unit, size)
    for tick in (0, 50, 100):
        y = y1 - (y1 - y0) * tick / 100
        draw.line((x0, y, x1, y), fill=(205, 205, 205))
        draw_text(draw, (x0 - 6, y), str(tick), size, anchor="rm")
    draw.line((x0, y0, x0, y1, x1, y1), fill=INK, width=2)
    slot = (x1 - x0) / len(chart_data.labels)
    # Long labels side by side would run into each other: then every second one stands a line lower.
    is_wide = max(measure_text_width(label, size) for label in chart_data.labels) > slot - 4
    for n, label in enumerate(chart_data.labels):
        y = y1 + 6 + (size if is_wide and n % 2 else 0)
        draw_text(draw, (x0 + slot * (n + 0.5), y), label, size, anchor="ma")
    return image, draw, (x0, y0, x1, y1), size


def _build_qa_pairs(rng: Random, chart_data: ChartData, mark: str) -> tuple[DrawnQAPair, ...]:
    table = dict(zip(chart_data.labels, chart_data.values, strict=True))
    highest_label, lowest_label = max(table, key=table.__getitem__), min(table, key=table.__getitem__)
    first_label, second_label = rng.sample(chart_data.labels, 2)
    rationale = f"The chart reads {chart_data.values_text}."
    qa_pairs = [
        DrawnQAPair(
            f"What is the value for {first_label}?",
            str(table[first_label]),
            f"The {mark} for {first_label} carries the figure {table[first_label]}.",
        ),
        DrawnQAPair(
            "Which label has the highest value?",
            highest_label,
            f"{rationale} The largest of these is {table[highest_label]}, for {highest_label}.",
        ),
        DrawnQAPair(
            "Which label has the lowest value?",
            lowest_label,
            f"{rationale} The smallest of these is {table[lowest_label]}, for {lowest_label}.",
        ),
        DrawnQAPair(
            f"What is the difference between {first_label} and {second_label}?",
            str(abs(table[first_label] - table[second_label])),
            f"{first_label} has {table[first_label]} and {second_label} has {table[second_label]}. "
            f"{max(table[first_label], table[second_label])} - {min(table[first_label], table[second_label])} "
            f"= {abs(table[first_label] - table[second_label])}.",
        ),
        DrawnQAPair(
            "What do all values add up to?",
            str(sum(table.values())),
            f"{rationale} {' + '.join(str(value) for value in chart_data.values)} = {sum(table.values())}.",
        ),
        DrawnQAPair(
            f"How many labels have a value above {table[first_label]}?",
            str(sum(value > table[first_label] for value in table.values())),
            f"{rationale} Above {table[first_label]} lie: "
            f"{join_with_and([k for k, v in table.items() if v > table[first_label]]) or 'none'}.",
        ),
    ]
    rng.shuffle(qa_pairs)
    return tuple(qa_pairs)


def _build_caption(chart_data: ChartData, kind: str) -> str:
    return f'A {kind} titled "{chart_data.title}" in {chart_data.unit}: {chart_data.values_text}.'
