"""Pairs about pages of text: prices, quoted as they are printed."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from mvl_assets.judging.probes.builders.drafts import Draft, join_words, make_off_image_draft

# Heading, last line, and what is offered; the last is of the same kind and on no page.
_PAGES = (
    ("Corner Shop", "Open Monday to Saturday", ("3 pens", "Writing pad", "Envelopes", "Stamps", "Glue stick")),
    ("Harbour Cafe", "Served until 17:30", ("Soup", "Fish pie", "Lemonade", "Apple tart", "Iced coffee")),
    ("Town Pool", "Please shower first", ("Adults", "Children", "Locker", "Towel hire", "Sauna")),
    ("Copy Centre", "Ask at desk 2", ("Colour page", "Binding", "Large poster", "Scan", "Lamination")),
    ("Garden Market", "Closed on Sundays", ("Tulip bulbs", "Clay pot", "Rose bush", "Compost", "Watering can")),
)


def draw_page(rng: Random, number: int) -> tuple[dict[str, Any], list[Draft]]:
    """Return the description of a page, and one draft per fault."""
    heading, footer, goods = _PAGES[number % len(_PAGES)]
    *offered, extra = goods
    cents = dict(zip(offered, (5 * value for value in rng.sample(range(30, 190), len(offered))), strict=True))
    lines = [heading, *(f"{name} {_format(price)}" for name, price in cents.items()), footer]
    return {"kind": "page", "lines": lines}, list(_iter_drafts(rng, heading, footer, extra, cents))


def _iter_drafts(rng: Random, heading: str, footer: str, extra: str, cents: dict[str, int]) -> Iterator[Draft]:
    name, other = rng.sample(list(cents), 2)
    misread = cents[name] + rng.choice((-100, 100, 30, -30, 70))
    while misread in cents.values() or misread <= 0:
        misread += 10
    yield Draft(
        "misread_content",
        f'The page says "{name} {_format(cents[name])}".',
        f'How much is "{name}" here, and is a note of 20 enough?',
        f'The page says "{name} {_format(cents[name])}", so a note of 20 is enough.',
        f'The page says "{name} {_format(misread)}", so a note of 20 is enough.',
        f"{name} {_format(misread)}",
        _format(cents[name]),
    )
    (a, pa), (b, pb), (c, pc), _ = cents.items()
    slip = rng.choice((-100, -50, 50, 100))
    yield Draft(
        "wrong_step",
        f"{_format(pa)} + {_format(pb)} is {_format(pa + pb)}; the sum is right all the same.",
        f"How much do {a}, {b} and {c} cost together?",
        f"{a} {_format(pa)}, {b} {_format(pb)} and {c} {_format(pc)}. {_format(pa)} + {_format(pb)} = "
        f"{_format(pa + pb)}, and {_format(pa + pb)} + {_format(pc)} = {_format(pa + pb + pc)}. Together that is "
        f"{_format(pa + pb + pc)}.",
        f"{a} {_format(pa)}, {b} {_format(pb)} and {c} {_format(pc)}. {_format(pa)} + {_format(pb)} = "
        f"{_format(pa + pb + slip)}, and {_format(pa + pb + slip)} + {_format(pc)} = {_format(pa + pb + pc)}. Together "
        f"that is {_format(pa + pb + pc)}.",
        f"{_format(pa)} + {_format(pb)} = {_format(pa + pb + slip)}",
        _format(pa + pb + pc),
    )
    yield Draft(
        "unseen_content",
        f"There is no {extra} on the page.",
        "What is on offer here?",
        f"The page of {heading} lists {join_words(list(cents))}.",
        f"The page of {heading} lists {join_words([*cents, extra])}.",
        extra,
        ", ".join(cents),
    )
    yield make_off_image_draft(
        rng, "What does the last line of this page say?", f'The last line says "{footer}".', footer
    )
    yield Draft(
        "off_question",
        f"The question is about {name}, and the answer about {other}.",
        f'What does the page say about "{name}"?',
        f'It says "{name} {_format(cents[name])}".',
        f'It says "{other} {_format(cents[other])}".',
        f"{other} {_format(cents[other])}",
        _format(cents[name]),
    )


def _format(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"
