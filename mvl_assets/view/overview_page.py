"""The overview of a lake as pictures: the flow of rows, keep rates of sources, distributions before and after."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from mvl_assets.lake_queries.pair_index.index import PairIndex
from mvl_assets.lake_queries.pair_index.overview import PairFlow, SourceFlow, SourceRate, read_overview
from mvl_assets.view.diagrams import BAD, GOOD, OPEN, FlowLink, draw_bars, draw_flow

_COLOURS = {
    "kept": GOOD,
    "in a mixture": GOOD,
    "used as they are (A)": GOOD,
    "rewritten (B)": GOOD,
    "not judged": OPEN,
    "not taken": OPEN,
    "not rewritten (B)": OPEN,
}


@dataclass(frozen=True, slots=True)
class OverviewPage:
    """Pictures and rates; a picture is empty where there is nothing to draw."""

    samples: Markup
    pairs: Markup
    sources: list[SourceRate]
    distributions: list[Markup]


def read_overview_page(index: PairIndex) -> OverviewPage:
    """Return what the page of an index shows."""
    overview = read_overview(index)
    return OverviewPage(
        Markup(draw_sample_flow(overview.samples)),  # noqa: S704 - diagrams escape what they write
        Markup(draw_pair_flow(overview.pairs)),  # noqa: S704
        overview.sources,
        [Markup(draw_bars(d.heading, d.bins, d.counts)) for d in overview.distributions],  # noqa: S704
    )


def draw_sample_flow(flows: list[SourceFlow]) -> str:
    """Return a picture of what becomes of the samples of each category."""
    links = [
        FlowLink(0, flow.category, end, n)
        for flow in flows
        for end, n in (
            ("used as they are (A)", flow.n_as_is),
            ("rewritten (B)", flow.n_rewritten),
            ("not rewritten (B)", flow.n_not_rewritten),
        )
    ]
    return draw_flow(links, ["samples by category", "first step"], _COLOURS, "samples")


def draw_pair_flow(flows: list[PairFlow]) -> str:
    """Return a picture of what judges say of the pairs of each category, and what mixtures take."""
    counts: dict[tuple[int, str, str], int] = {}
    for flow in flows:
        ends = [(0, flow.category, flow.outcome), *([(1, flow.outcome, flow.use)] if flow.use else [])]
        for end in ends:
            counts[end] = counts.get(end, 0) + flow.n
    links = [FlowLink(*end, n) for end, n in counts.items()]
    colours = {flow.outcome: BAD for flow in flows} | _COLOURS
    return draw_flow(links, ["rewritten pairs by category", "judged", "used"], colours, "pairs")
