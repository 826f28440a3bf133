"""All contrast pairs: those built from drawings, and those written by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Any

from mvl_assets.judging.probes.builders import charts, figures, food_chains, pages, programs, shapes
from mvl_assets.judging.probes.builders.drafts import Draft
from mvl_assets.judging.probes.contrast_pairs import ContrastPair, ProbeFamily, load_written_pairs

N_IMAGES = 5
"""Images of each family; each has one pair per fault."""

DrawProbe = Callable[[Random, int], tuple[dict[str, Any], list[Draft]]]

_DRAW_BY_FAMILY: Mapping[ProbeFamily, DrawProbe] = MappingProxyType(
    {
        "caption": shapes.draw_caption,
        "chart": charts.draw_bars,
        "code": programs.draw_program,
        "detection": shapes.draw_detection,
        "domain": food_chains.draw_food_chain,
        "general": shapes.draw_general,
        "math": figures.draw_figure,
        "ocr": pages.draw_page,
    }
)


def build_contrast_pairs() -> list[ContrastPair]:
    """Return all pairs, always the same ones: 200 built from drawings, and those of `written.yaml`."""
    pairs = []
    for family, draw in _DRAW_BY_FAMILY.items():
        for number in range(N_IMAGES):
            image, drafts = draw(Random(f"{family} {number}"), number)
            pairs += [draft.build(family, image) for draft in drafts]
    return [*pairs, *load_written_pairs()]
