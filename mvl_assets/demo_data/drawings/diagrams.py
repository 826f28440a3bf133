"""Textbook diagrams for the domain-specific sources: chains and cycles of labelled boxes joined by arrows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from PIL import ImageDraw

from mvl_assets.demo_data.drawings.drawing import Drawing, DrawnQAPair, join_with_and, sample_int
from mvl_assets.media.drawing import INK, PAPERS, create_canvas, draw_text, measure_text_width

CHAINS: tuple[tuple[str, ...], ...] = (
    ("grass", "grasshopper", "frog", "snake", "hawk"),
    ("algae", "shrimp", "herring", "cod", "seal"),
    ("oak leaves", "caterpillar", "blue tit", "sparrowhawk"),
    ("carrot", "rabbit", "fox"),
    ("plankton", "mussel", "starfish", "gull"),
)
CYCLES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Life cycle of a frog", ("eggs", "tadpole", "froglet", "adult frog")),
    ("Life cycle of a butterfly", ("eggs", "caterpillar", "pupa", "butterfly")),
    ("Water cycle", ("evaporation", "condensation", "rain", "river", "sea")),
    ("Seasons", ("spring", "summer", "autumn", "winter")),
    ("Life cycle of a bean", ("seed", "seedling", "flowering plant", "pod")),
)


def draw_diagram(rng: Random) -> Drawing:
    """Draw a chain of labelled boxes."""
    return rng.choice((draw_food_chain, draw_cycle))(rng)


def draw_food_chain(rng: Random) -> Drawing:
    """Draw a food chain; arrows point from what is eaten to what eats it."""
    full_chain = rng.choice(CHAINS)
    links = full_chain[: sample_int(rng, 3, len(full_chain))]
    size = sample_int(rng, 15, 21, 2)
    gap, height = size * 2, size * 7
    widths = [measure_text_width(link, size) + size for link in links]
    image, draw = create_canvas((sum(widths) + gap * (len(links) + 1), height), rng.choice(PAPERS))
    draw_text(draw, (gap, size * 0.6), "Food chain", size + 2)
    x, mid = gap, height * 0.6
    for n, (link, width) in enumerate(zip(links, widths, strict=True)):
        draw.rectangle((x, mid - size, x + width, mid + size), outline=INK, fill=(214, 236, 208), width=2)
        draw_text(draw, (x + width / 2, mid), link, size, anchor="mm")
        x += width
        if n + 1 < len(links):
            _draw_arrow(draw, (x + 3, mid), (x + gap - 3, mid))
        x += gap
    eater_index = sample_int(rng, 1, len(links) - 1)
    food, eater_name = links[eater_index - 1], links[eater_index]
    rationale = f"The arrows run {' -> '.join(links)}, each from what is eaten to what eats it."
    qa_pairs = (
        DrawnQAPair(
            f"What does the {eater_name} eat in this food chain?",
            food,
            f"{rationale} The arrow into {eater_name} comes from {food}.",
            _build_choices(rng, food, links),
        ),
        DrawnQAPair(
            f"What eats the {food} in this food chain?",
            eater_name,
            f"{rationale} The arrow from {food} leads to {eater_name}.",
            _build_choices(rng, eater_name, links),
        ),
        DrawnQAPair(
            "Which living thing stands at the end of the food chain?",
            links[-1],
            f"{rationale} No arrow leaves {links[-1]}.",
            _build_choices(rng, links[-1], links),
        ),
        DrawnQAPair(
            "Which living thing is the producer?",
            links[0],
            f"{rationale} It begins with {links[0]}, which eats none of the others.",
            _build_choices(rng, links[0], links),
        ),
        DrawnQAPair(
            "How many living things does the food chain show?",
            str(len(links)),
            f"The boxes are {join_with_and(links)}.",
            _build_number_choices(len(links)),
        ),
    )
    return Drawing(image, qa_pairs, f"A food chain diagram: {' -> '.join(links)}.", needs_colour=False)


def draw_cycle(rng: Random) -> Drawing:
    """Draw a cycle of labelled boxes."""
    title, all_stages = rng.choice(CYCLES)
    first_index = rng.randrange(len(all_stages))
    stages = all_stages[first_index:] + all_stages[:first_index]
    side = sample_int(rng, 340, 520, 20)
    size = 16
    image, draw = create_canvas((side, side), rng.choice(PAPERS))
    draw_text(draw, (side / 2, 10), title, size + 3, anchor="ma")
    centre, ring_radius = (side / 2, side / 2 + 14), side * 0.34
    centres = [
        (
            centre[0] + ring_radius * math.sin(2 * math.pi * n / len(stages)),
            centre[1] - ring_radius * math.cos(2 * math.pi * n / len(stages)),
        )
        for n in range(len(stages))
    ]
    for n, start in enumerate(centres):
        end = centres[(n + 1) % len(centres)]
        _draw_arrow(draw, _interpolate(start, end, 0.3), _interpolate(start, end, 0.7))
    for step, (x, y) in zip(stages, centres, strict=True):
        half = measure_text_width(step, size) / 2 + 8
        x = min(max(x, half + 4), side - half - 4)
        draw.ellipse((x - half, y - 17, x + half, y + 17), outline=INK, fill=(252, 236, 196), width=2)
        draw_text(draw, (x, y), step, size, anchor="mm")
    queried_index = rng.randrange(len(stages))
    queried_stage, next_stage, previous_stage = (
        stages[queried_index],
        stages[(queried_index + 1) % len(stages)],
        stages[queried_index - 1],
    )
    rationale = f"Following the arrows clockwise gives {', '.join(stages)} and {stages[0]} again."
    qa_pairs = (
        DrawnQAPair(
            f'What comes directly after "{queried_stage}"?',
            next_stage,
            f"{rationale} The arrow from {queried_stage} leads to {next_stage}.",
            _build_choices(rng, next_stage, stages),
        ),
        DrawnQAPair(
            f'What comes directly before "{queried_stage}"?',
            previous_stage,
            f"{rationale} The arrow into {queried_stage} comes from {previous_stage}.",
            _build_choices(rng, previous_stage, stages),
        ),
        DrawnQAPair(
            "How many stages does the diagram have?",
            str(len(stages)),
            f"The stages are {join_with_and(stages)}.",
            _build_number_choices(len(stages)),
        ),
        DrawnQAPair(
            "What is the title of the diagram?",
            title,
            f'Above the stages it says "{title}".',
            _build_choices(rng, title, [name for name, _ in CYCLES]),
        ),
    )
    return Drawing(
        image, qa_pairs, f'A diagram titled "{title}" with the stages {join_with_and(stages)}.', needs_colour=False
    )


def _build_choices(rng: Random, answer: str, candidates: Sequence[str]) -> tuple[str, ...]:
    """Return the answer and up to three others."""
    wrong_choices = [other for other in candidates if other != answer]
    return (answer, *rng.sample(wrong_choices, min(3, len(wrong_choices))))


def _build_number_choices(count: int) -> tuple[str, ...]:
    return tuple(str(number) for number in (count, count - 1, count + 1, count + 2))


def _interpolate(start: tuple[float, float], end: tuple[float, float], fraction: float) -> tuple[float, float]:
    return start[0] + (end[0] - start[0]) * fraction, start[1] + (end[1] - start[1]) * fraction


def _draw_arrow(draw: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float]) -> None:
    draw.line((*start, *end), fill=INK, width=3)
    angle = math.atan2(end[1] - start[1], end[0] - start[0])
    wings = [(end[0] - 11 * math.cos(angle + s), end[1] - 11 * math.sin(angle + s)) for s in (-0.5, 0.5)]
    draw.polygon([end, *wings], fill=INK)
