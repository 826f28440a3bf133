"""Textbook diagrams for the domain-specific sources: chains and cycles of labelled boxes joined by arrows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from PIL import ImageDraw

from mvl_assets.demo_data.drawings.drawing import INK, PAPERS, Drawing, Pair, between, canvas, listing, text, width_of

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


def diagram(rng: Random) -> Drawing:
    return rng.choice((food_chain, cycle))(rng)


def food_chain(rng: Random) -> Drawing:
    """Arrows point from what is eaten to what eats it."""
    whole = rng.choice(CHAINS)
    links = whole[: between(rng, 3, len(whole))]
    size = between(rng, 15, 21, 2)
    gap, high = size * 2, size * 7
    widths = [width_of(link, size) + size for link in links]
    picture, draw = canvas((sum(widths) + gap * (len(links) + 1), high), rng.choice(PAPERS))
    text(draw, (gap, size * 0.6), "Food chain", size + 2)
    x, mid = gap, high * 0.6
    for n, (link, width) in enumerate(zip(links, widths, strict=True)):
        draw.rectangle((x, mid - size, x + width, mid + size), outline=INK, fill=(214, 236, 208), width=2)
        text(draw, (x + width / 2, mid), link, size, anchor="mm")
        x += width
        if n + 1 < len(links):
            _arrow(draw, (x + 3, mid), (x + gap - 3, mid))
        x += gap
    eater = between(rng, 1, len(links) - 1)
    food, eats = links[eater - 1], links[eater]
    read = f"The arrows run {' -> '.join(links)}, each from what is eaten to what eats it."
    pairs = (
        Pair(
            f"What does the {eats} eat in this food chain?",
            food,
            f"{read} The arrow into {eats} comes from {food}.",
            _choices(rng, food, links),
        ),
        Pair(
            f"What eats the {food} in this food chain?",
            eats,
            f"{read} The arrow from {food} leads to {eats}.",
            _choices(rng, eats, links),
        ),
        Pair(
            "Which living thing stands at the end of the food chain?",
            links[-1],
            f"{read} No arrow leaves {links[-1]}.",
            _choices(rng, links[-1], links),
        ),
        Pair(
            "Which living thing is the producer?",
            links[0],
            f"{read} It begins with {links[0]}, which eats none of the others.",
            _choices(rng, links[0], links),
        ),
        Pair(
            "How many living things does the food chain show?",
            str(len(links)),
            f"The boxes are {listing(links)}.",
            _numbers(len(links)),
        ),
    )
    return Drawing(picture, pairs, f"A food chain diagram: {' -> '.join(links)}.", needs_colour=False)


def cycle(rng: Random) -> Drawing:
    title, whole = rng.choice(CYCLES)
    first = rng.randrange(len(whole))
    steps = whole[first:] + whole[:first]
    side = between(rng, 340, 520, 20)
    size = 16
    picture, draw = canvas((side, side), rng.choice(PAPERS))
    text(draw, (side / 2, 10), title, size + 3, anchor="ma")
    mid, reach = (side / 2, side / 2 + 14), side * 0.34
    places = [
        (
            mid[0] + reach * math.sin(2 * math.pi * n / len(steps)),
            mid[1] - reach * math.cos(2 * math.pi * n / len(steps)),
        )
        for n in range(len(steps))
    ]
    for n, at in enumerate(places):
        to = places[(n + 1) % len(places)]
        _arrow(draw, _towards(at, to, 0.3), _towards(at, to, 0.7))
    for step, (x, y) in zip(steps, places, strict=True):
        half = width_of(step, size) / 2 + 8
        x = min(max(x, half + 4), side - half - 4)
        draw.ellipse((x - half, y - 17, x + half, y + 17), outline=INK, fill=(252, 236, 196), width=2)
        text(draw, (x, y), step, size, anchor="mm")
    number = rng.randrange(len(steps))
    now, after, before = steps[number], steps[(number + 1) % len(steps)], steps[number - 1]
    read = f"Following the arrows clockwise gives {', '.join(steps)} and {steps[0]} again."
    pairs = (
        Pair(
            f'What comes directly after "{now}"?',
            after,
            f"{read} The arrow from {now} leads to {after}.",
            _choices(rng, after, steps),
        ),
        Pair(
            f'What comes directly before "{now}"?',
            before,
            f"{read} The arrow into {now} comes from {before}.",
            _choices(rng, before, steps),
        ),
        Pair(
            "How many stages does the diagram have?",
            str(len(steps)),
            f"The stages are {listing(steps)}.",
            _numbers(len(steps)),
        ),
        Pair(
            "What is the title of the diagram?",
            title,
            f'Above the stages it says "{title}".',
            _choices(rng, title, [name for name, _ in CYCLES]),
        ),
    )
    return Drawing(picture, pairs, f'A diagram titled "{title}" with the stages {listing(steps)}.', needs_colour=False)


def _choices(rng: Random, answer: str, others: Sequence[str]) -> tuple[str, ...]:
    """The answer and up to three others."""
    wrong = [other for other in others if other != answer]
    return (answer, *rng.sample(wrong, min(3, len(wrong))))


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(str(number) for number in (count, count - 1, count + 1, count + 2))


def _towards(a: tuple[float, float], b: tuple[float, float], part: float) -> tuple[float, float]:
    return a[0] + (b[0] - a[0]) * part, a[1] + (b[1] - a[1]) * part


def _arrow(draw: ImageDraw.ImageDraw, a: tuple[float, float], b: tuple[float, float]) -> None:
    draw.line((*a, *b), fill=INK, width=3)
    turn = math.atan2(b[1] - a[1], b[0] - a[0])
    wings = [(b[0] - 11 * math.cos(turn + s), b[1] - 11 * math.sin(turn + s)) for s in (-0.5, 0.5)]
    draw.polygon([b, *wings], fill=INK)
