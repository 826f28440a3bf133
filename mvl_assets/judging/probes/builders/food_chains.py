"""Pairs about food chains, a diagram of a special field: what the arrows say, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from mvl_assets.judging.probes.builders.drafts import Draft, join_words, make_off_image_draft

# Each is eaten by the next; the last one of a line is no part of its chain.
_CHAINS = (
    ("grass", "grasshopper", "frog", "heron", "badger"),
    ("pond weed", "snail", "duck", "fox", "beaver"),
    ("leaf litter", "earthworm", "blackbird", "hawk", "squirrel"),
    ("plankton", "herring", "seal", "orca", "pelican"),
    ("oak leaves", "caterpillar", "great tit", "sparrowhawk", "hedgehog"),
)


def draw_food_chain(rng: Random, number: int) -> tuple[dict[str, Any], list[Draft]]:
    """Return the description of a food chain, and one draft per fault."""
    *links, extra = _CHAINS[number % len(_CHAINS)]
    return {"kind": "chain", "links": links, "arrow": "is eaten by"}, list(_iter_drafts(rng, links, extra))


def _iter_drafts(rng: Random, links: list[str], extra: str) -> Iterator[Draft]:
    plant, prey, hunter, top = links
    yield Draft(
        "misread_content",
        f"The arrow leads from the {prey} to the {hunter}, and the {hunter} is eaten by the {top}.",
        f"What does the {hunter} eat in this food chain?",
        f'An arrow means "is eaten by". One leads from the {prey} to the {hunter}, so the {hunter} eats the {prey}.',
        f'An arrow means "is eaten by". One leads from the {top} to the {hunter}, so the {hunter} eats the {top}.',
        f"from the {top} to the {hunter}",
        prey,
    )
    yield Draft(
        "wrong_step",
        f"The {prey} does not eat the {hunter}; the option is right all the same.",
        f"What happens first to the number of {hunter}s if the {prey} disappears? A. it rises, B. it falls",
        f"The {prey} is eaten by the {hunter}. Without the {prey} the {hunter} lacks food, and so the answer is B.",
        f"The {hunter} is eaten by the {prey}. Without the {prey} the {hunter} lacks food, and so the answer is B.",
        f"The {hunter} is eaten by the {prey}",
        "B",
    )
    yield Draft(
        "unseen_content",
        f"The diagram has no {extra}.",
        "Which living things does the diagram name?",
        f"It names {join_words(links)}.",
        f"It names {join_words([*links, extra])}.",
        extra,
        ", ".join(links),
    )
    yield make_off_image_draft(
        rng,
        "Which part of the diagram makes its food from sunlight?",
        f"The chain begins with {plant}, so that is its producer.",
        plant,
    )
    yield Draft(
        "off_question",
        f"The question is what eats the {prey}, and the answer what the {prey} eats.",
        f"By what is the {prey} eaten?",
        f"The arrow leads from the {prey} to the {hunter}, so it is eaten by the {hunter}.",
        f"An arrow leads from {plant} to the {prey}, so the {prey} eats {plant}.",
        f"eats {plant}",
        hunter,
    )
