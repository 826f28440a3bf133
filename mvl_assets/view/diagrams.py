"""Pictures of numbers as SVG: flows between columns (Sankey diagrams), bars, lines, and intervals.

All text is escaped, and nothing is styled but by attributes, so that a picture may stand in a page with a strict policy
or in a data URI.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, TypeAlias

WIDTH, HEIGHT, TOP, GAP, NODE_WIDTH, MIN_NODE_HEIGHT = 960, 420, 24, 8, 10, 17
INK, QUIET, GREY = "#1d2129", "#667080", "#b8c0ca"
GOOD, BAD, OPEN = "#7fb497", "#d39485", "#d8c08a"
SERIES: Final = ("#9aa7b5", "#275d8c", "#7fb497")
"""Colours of groups in a plot of bars."""
PANEL_WIDTH, PANEL_HEIGHT, PANEL_LEFT, PANEL_BOTTOM = 460, 190, 8, 34
_FONT: Final = 'font-family="system-ui, sans-serif" font-size="12"'

INTERVAL_HEIGHT, INTERVAL_LEFT = 22, 130

Points: TypeAlias = Sequence[tuple[float, float]]
"""Of a line: x and y, finite, x rising."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value between bounds; `is_settled` if it is outside the noise."""

    name: str
    low: float
    value: float
    high: float
    is_settled: bool


@dataclass(frozen=True, slots=True)
class FlowLink:
    """Rows that go from a node of one column to a node of the next.

    Attributes:
        column: Number of the column they come from.
        start: Node there.
        end: Node in the next one.
        n: How many.
    """

    column: int
    start: str
    end: str
    n: int


def draw_flow(links: Sequence[FlowLink], headings: Sequence[str], colours: Mapping[str, str], unit: str = "") -> str:
    """Return a Sankey diagram; a node is as high as its rows are many.

    Args:
        links: The flows; those without rows are left out.
        headings: One for each column.
        colours: By node; grey where there is none.
        unit: What is counted.
    """
    links = [link for link in links if link.n]
    incoming: list[Counter[str]] = [Counter() for _ in headings]
    outgoing: list[Counter[str]] = [Counter() for _ in headings]
    for link in links:
        outgoing[link.column][link.start] += link.n
        incoming[link.column + 1][link.end] += link.n
    sizes = [
        {
            name: max(into[name], out[name])
            for name in sorted({*into, *out}, key=lambda name: -max(into[name], out[name]))
        }
        for into, out in zip(incoming, outgoing, strict=True)
    ]
    largest = max((sum(column.values()) for column in sizes), default=0)
    most_nodes = max((len(column) for column in sizes), default=0)
    if not largest:
        return ""
    scale = (max(HEIGHT, most_nodes * 26) - TOP - GAP * most_nodes) / largest
    tops: list[dict[str, float]] = []
    height = 0.0
    for column_sizes in sizes:
        tops.append({})
        y = float(TOP)
        for name, n in column_sizes.items():
            tops[-1][name] = y
            # At least a line of text for each.
            y += max(n * scale + GAP, MIN_NODE_HEIGHT)
        height = max(height, y)

    def get_tops(link: FlowLink) -> tuple[int, float, float]:
        return link.column, tops[link.column][link.start], tops[link.column + 1][link.end]

    parts = []
    # How much of each node the links before have taken, on its right and on its left.
    taken: defaultdict[tuple[int, str, bool], float] = defaultdict(float)
    for link in sorted(links, key=get_tops):
        column, start, end = get_tops(link)
        keys = [(column, link.start, False), (column + 1, link.end, True)]
        ys = [top + taken[key] + link.n * scale / 2 for top, key in zip((start, end), keys, strict=True)]
        for key in keys:
            taken[key] += link.n * scale
        parts.append(_draw_link(link, ys, link.n * scale, len(headings), colours.get(link.end, GREY), unit))
    for number, column_sizes in enumerate(sizes):
        parts.append(_draw_column(number, column_sizes, tops[number], scale, headings, colours))
    return _wrap("".join(parts), WIDTH, int(height) + GAP)


def _compute_x(column: int, n_columns: int) -> float:
    return column * (WIDTH - NODE_WIDTH) / (n_columns - 1)


def _draw_link(link: FlowLink, ys: Sequence[float], size: float, n_columns: int, colour: str, unit: str) -> str:
    y0, y1 = ys
    x0, x1 = _compute_x(link.column, n_columns) + NODE_WIDTH, _compute_x(link.column + 1, n_columns)
    middle = (x0 + x1) / 2
    title = escape(f"{link.start} → {link.end}: {link.n:,} {unit}".rstrip())
    return (
        f'<path d="M{x0:.1f} {y0:.1f}C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}" fill="none"'
        f' stroke="{colour}" stroke-opacity="0.45" stroke-width="{max(size, 0.6):.1f}">'
        f"<title>{title}</title></path>"
    )


def _draw_column(
    number: int,
    sizes: Mapping[str, int],
    tops: Mapping[str, float],
    scale: float,
    headings: Sequence[str],
    colours: Mapping[str, str],
) -> str:
    x = _compute_x(number, len(headings))
    is_last = number == len(headings) - 1
    text_x, anchor = (x - 6, "end") if is_last else (x + NODE_WIDTH + 6, "start")
    parts = [f'<text x="{text_x:.1f}" y="12" text-anchor="{anchor}" fill="{QUIET}">{escape(headings[number])}</text>']
    for name, n in sizes.items():
        size = max(n * scale, 1)
        parts.append(
            f'<rect x="{x:.1f}" y="{tops[name]:.1f}" width="{NODE_WIDTH}" height="{size:.1f}"'
            f' fill="{colours.get(name, QUIET)}"/><text x="{text_x:.1f}" y="{tops[name] + size / 2 + 4:.1f}"'
            f' text-anchor="{anchor}" fill="{INK}">{escape(name)} {n:,}</text>'
        )
    return "".join(parts)


def draw_bars(heading: str, bins: Sequence[float], counts: Mapping[str, Sequence[int]]) -> str:
    """Return bars of several groups over bins, each group as shares of its own.

    Args:
        heading: What the bins are of.
        bins: Their lower bounds.
        counts: By group, one count for each bin.
    """
    shares = {name: [n / max(1, sum(values)) for n in values] for name, values in counts.items()}
    highest = max((share for values in shares.values() for share in values), default=0) or 1
    width, height = PANEL_WIDTH - 2 * PANEL_LEFT, PANEL_HEIGHT - PANEL_BOTTOM - TOP
    step = width / len(bins)
    bar = step * 0.8 / max(1, len(counts))
    parts = [f'<text x="{PANEL_LEFT}" y="12" fill="{INK}">{escape(heading)}</text>']
    for number, (name, values) in enumerate(shares.items()):
        colour = SERIES[number % len(SERIES)]
        parts.append(
            f'<text x="{PANEL_WIDTH - PANEL_LEFT - 110 * (len(shares) - 1 - number)}" y="12" text-anchor="end"'
            f' fill="{colour}">{escape(name)}</text>'
        )
        for bin_index, share in enumerate(values):
            size = share / highest * height
            parts.append(
                f'<rect x="{PANEL_LEFT + bin_index * step + number * bar:.1f}" y="{TOP + height - size:.1f}"'
                f' width="{bar:.1f}" height="{size:.1f}" fill="{colour}"><title>'
                f"{escape(name)}, from {bins[bin_index]:g}: {counts[name][bin_index]:,} ({share:.1%})</title></rect>"
            )
    for bin_index in range(0, len(bins), max(1, len(bins) // 7)):
        x = PANEL_LEFT + bin_index * step
        parts.append(f'<text x="{x:.1f}" y="{PANEL_HEIGHT - 16}" fill="{QUIET}">{bins[bin_index]:g}</text>')
    return _wrap("".join(parts), PANEL_WIDTH, PANEL_HEIGHT)


def draw_lines(heading: str, lines: Mapping[str, Points]) -> str:
    """Return lines over one axis, each with its last value; where all are positive, y is logarithmic.

    Args:
        heading: What they are of.
        lines: By name; those without points are left out.
    """
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return ""
    every = [point for points in lines.values() for point in points]
    (x_low, x_high), (y_low, y_high) = ((min(values), max(values)) for values in zip(*every, strict=True))
    scale = math.log if y_low > 0 else float
    left = PANEL_LEFT + 40
    width, height = PANEL_WIDTH - left - PANEL_LEFT, PANEL_HEIGHT - PANEL_BOTTOM - 2 * TOP

    def format_point(x: float, y: float) -> str:
        across = (x - x_low) / (x_high - x_low or 1)
        down = (scale(y_high) - scale(y)) / (scale(y_high) - scale(y_low) or 1)
        return f"{left + across * width:.1f} {2 * TOP + down * height:.1f}"

    parts = [f'<text x="{PANEL_LEFT}" y="12" fill="{INK}">{escape(heading)}</text>']
    for value, y in ((y_high, 2 * TOP + 4), (y_low, 2 * TOP + height + 4)):
        parts.append(f'<text x="{left - 6}" y="{y:.1f}" text-anchor="end" fill="{QUIET}">{value:.3g}</text>')
    for value, x, anchor in ((x_low, left, "start"), (x_high, left + width, "end")):
        parts.append(
            f'<text x="{x}" y="{PANEL_HEIGHT - 16}" text-anchor="{anchor}" fill="{QUIET}">step {value:,.0f}</text>'
        )
    for number, (name, points) in enumerate(lines.items()):
        colour = SERIES[(number + 1) % len(SERIES)]
        label = f"{name} {points[-1][1]:.3g}"
        parts.append(
            f'<text x="{left + 150 * number}" y="{TOP + 6}" fill="{colour}">{escape(label)}</text>'
            f'<path d="M{"L".join(format_point(*point) for point in points)}" fill="none" stroke="{colour}"'
            f' stroke-width="1.5"><title>{escape(label)}</title></path>'
        )
    return _wrap("".join(parts), PANEL_WIDTH, PANEL_HEIGHT)


def draw_intervals(heading: str, intervals: Sequence[Interval]) -> str:
    """Return intervals below each other, around a line at 0; what is outside the noise is dark."""
    if not intervals:
        return ""
    low, high = min(0.0, *(i.low for i in intervals)), max(0.0, *(i.high for i in intervals))
    width = PANEL_WIDTH - INTERVAL_LEFT - 2 * PANEL_LEFT

    def compute_x(value: float) -> float:
        return INTERVAL_LEFT + (value - low) / (high - low or 1) * width

    bottom = TOP + INTERVAL_HEIGHT * len(intervals)
    parts = [
        f'<text x="{PANEL_LEFT}" y="12" fill="{INK}">{escape(heading)}</text>',
        f'<path d="M{compute_x(0):.1f} {TOP}L{compute_x(0):.1f} {bottom}" stroke="{GREY}"/>',
    ]
    for number, interval in enumerate(intervals):
        y = TOP + INTERVAL_HEIGHT * (number + 0.5)
        colour = SERIES[1] if interval.is_settled else SERIES[0]
        title = escape(f"{interval.name}: {interval.value:+.1f} ({interval.low:+.1f} to {interval.high:+.1f})")
        start, middle, end = map(compute_x, (interval.low, interval.value, interval.high))
        parts.append(
            f'<text x="{PANEL_LEFT}" y="{y + 4:.1f}" fill="{INK}">{escape(interval.name)}</text>'
            f'<rect x="{start:.1f}" y="{y - 2:.1f}" width="{max(end - start, 1):.1f}" height="4" fill="{colour}">'
            f'<title>{title}</title></rect><rect x="{middle - 3:.1f}" y="{y - 6:.1f}" width="6" height="12"'
            f' fill="{colour}"><title>{title}</title></rect>'
        )
    for value, anchor in ((low, "start"), (high, "end")):
        parts.append(
            f'<text x="{compute_x(value):.1f}" y="{bottom + 14}" text-anchor="{anchor}" fill="{QUIET}">'
            f"{value:+.1f}</text>"
        )
    return _wrap("".join(parts), PANEL_WIDTH, bottom + 20)


def _wrap(content: str, width: int, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" {_FONT}>'
        f"{content}</svg>"
    )
