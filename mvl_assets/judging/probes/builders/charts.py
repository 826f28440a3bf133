"""Pairs about bar charts: values, and what is computed from them."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from mvl_assets.judging.probes.builders.drafts import Draft, join_words, make_off_image_draft

# Title, what is counted, what is compared, and the labels; the last label is of the same kind and in no chart.
_TOPICS = (
    ("Books lent by branch", "books", "branches", ("North", "Harbour", "Mill", "Castle", "Garden")),
    ("Trees planted by district", "trees", "districts", ("Elm", "Quarry", "Lake", "Heath", "Orchard")),
    ("Visitors by weekday", "visitors", "weekdays", ("Monday", "Tuesday", "Thursday", "Friday", "Sunday")),
    ("Cakes sold by kind", "cakes", "kinds", ("Apple", "Cherry", "Lemon", "Plum", "Walnut")),
    ("Bicycles repaired by shop", "bicycles", "shops", ("Spoke", "Pedal", "Chain", "Saddle", "Bell")),
)


def draw_bars(rng: Random, number: int) -> tuple[dict[str, Any], list[Draft]]:
    """Return the description of a chart, and one draft per fault."""
    title, unit, things, labels = _TOPICS[number % len(_TOPICS)]
    *charted, extra = labels
    values = dict(zip(charted, rng.sample(range(21, 95), len(charted)), strict=True))
    return {"kind": "bars", "title": title, "values": values}, list(_iter_drafts(rng, unit, things, extra, values))


def _iter_drafts(rng: Random, unit: str, things: str, extra: str, values: dict[str, int]) -> Iterator[Draft]:
    more, fewer = sorted(rng.sample(list(values), 2), key=lambda label: -values[label])
    misread = _choose_misreading(rng, values, below=values[more], near=values[fewer])
    difference, wrong_difference = values[more] - values[fewer], values[more] - misread
    yield Draft(
        "misread_content",
        f"{fewer} has {values[fewer]}, not {misread}, and so the difference is wrong.",
        f"How many more {unit} does {more} have than {fewer}?",
        f"{more} has {values[more]} and {fewer} has {values[fewer]}. {values[more]} - {values[fewer]} = "
        f"{difference}, so "
        f"{more} has {difference} more.",
        f"{more} has {values[more]} and {fewer} has {misread}. {values[more]} - {misread} = {wrong_difference}, so "
        f"{more} has {wrong_difference} more.",
        f"{fewer} has {misread}",
        str(difference),
    )
    (a, va), (b, vb), (c, vc), _ = values.items()
    slip = rng.choice((-4, -2, 2, 4))
    yield Draft(
        "wrong_step",
        f"{va} + {vb} is {va + vb}; the sum is right all the same.",
        f"How many {unit} do {a}, {b} and {c} have together?",
        f"{a} has {va}, {b} has {vb} and {c} has {vc}. {va} + {vb} = {va + vb}, and {va + vb} + {vc} = {va + vb + vc}. "
        f"Together they have {va + vb + vc}.",
        f"{a} has {va}, {b} has {vb} and {c} has {vc}. {va} + {vb} = {va + vb + slip}, and {va + vb + slip} + {vc} = "
        f"{va + vb + vc}. Together they have {va + vb + vc}.",
        f"{va} + {vb} = {va + vb + slip}",
        str(va + vb + vc),
    )
    yield Draft(
        "unseen_content",
        f"The chart has no {extra}.",
        f"Which {things} does this chart compare?",
        f"It compares {join_words(list(values))}.",
        f"It compares {join_words([*values, extra])}.",
        extra,
        ", ".join(values),
    )
    lowest, highest = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    yield make_off_image_draft(
        rng, f"Which of the {things} has the fewest {unit}?", f"{lowest}, with {values[lowest]}.", lowest
    )
    yield Draft(
        "off_question",
        "The question is about the most, and the answer about the fewest.",
        f"Which of the {things} has the most {unit}?",
        f"The highest bar is that of {highest}, with {values[highest]}.",
        f"The lowest bar is that of {lowest}, with {values[lowest]}.",
        f"The lowest bar is that of {lowest}",
        highest,
    )


def _choose_misreading(rng: Random, values: dict[str, int], *, below: int, near: int) -> int:
    """Return a value that no bar has, close to `near` and below `below`."""
    candidates = [value for value in range(near - 7, near + 8) if value not in values.values() and 10 < value < below]
    return rng.choice(candidates)
