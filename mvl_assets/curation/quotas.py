"""How many rows of which source, kind and stratum a training stage takes: whole numbers from counts, without the rows.

The category's share comes first (paper, Figure 3), then the shares and caps of its sources, then 70 % rewritten rows
(§2.3) where the category has group B sources, then strata. What a part lacks the others of its level fill, in
proportion; what a category lacks is reported, and rows are repeated only if `upsample` is set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mvl_assets.config.mixture_config import MixtureConfig, SourceMix
from mvl_assets.curation.strata import list_strata
from mvl_assets.lake_queries.mixtures.candidates import NO_STRATUM, Cell, Quota

KINDS = ("rewritten", "original")

CellCounts = Mapping[Cell, int]
"""Candidates by category, source, kind and stratum."""


@dataclass(frozen=True, slots=True)
class CategoryFill:
    """How far one category filled its target in one training stage, in rows.

    Attributes:
        category: The category.
        target: Its share of the stage.
        available: Rows that can be taken.
        selected: Rows that are taken, repetitions included.
        has_rewrites: Whether it has group B sources, so that a share of its rows is to be rewritten ones.
        rewritten_available: Rewritten rows that can be taken.
        rewritten: Rewritten rows that are taken, repetitions included.
    """

    category: str
    target: int
    available: int
    selected: int
    has_rewrites: bool
    rewritten_available: int
    rewritten: int

    @property
    def shortfall(self) -> int:
        """Rows that are missing."""
        return self.target - self.selected


@dataclass(frozen=True, slots=True)
class SourceFill:
    """What a training stage takes of one source, in rows.

    Attributes:
        category: Its category.
        source: The source.
        has_share: Whether the profile gives it a share.
        target: What its share, or its size, gives it.
        cap: Most rows of it; None for no limit.
        available: Rows that can be taken.
        selected: Rows that are taken, repetitions included.
        rewritten: Those of them that are rewritten.
    """

    category: str
    source: str
    has_share: bool
    target: int
    cap: int | None
    available: int
    selected: int
    rewritten: int

    @property
    def reason(self) -> str:
        """Why it is taken less, or more, than its target; empty where it is not."""
        if self.selected < self.target:
            return "capped" if self.cap is not None and self.selected >= self.cap else f"only {self.available:,} rows"
        return "fills for others" if self.selected > self.target + 1 else ""


@dataclass(frozen=True, slots=True)
class StageFill:
    """What a training stage takes: the quotas, and how far they fill its categories and sources."""

    quotas: list[Quota]
    categories: list[CategoryFill]
    sources: list[SourceFill]


def fill_stage(
    mixture: MixtureConfig, stage: str, counts: CellCounts, rewritten_categories: frozenset[str] = frozenset()
) -> StageFill:
    """Return what a stage takes of the available rows.

    one_vision starts where single_image stopped, so that no row is in both.

    Args:
        mixture: Shares, caps and strata.
        stage: The training stage.
        counts: Candidates, in all.
        rewritten_categories: Categories with group B sources, besides those of which there are rewritten rows.
    """
    used: dict[Cell, int] = {}
    if stage == "one_vision":
        used = {q.cell: q.n_rows for q in fill_stage(mixture, "single_image", counts).quotas if not q.repeat_index}
    strata = mixture.strata and list_strata(mixture.strata)
    left = {
        cell: n - used.get(cell, 0) for cell, n in counts.items() if not strata or strata.get(cell.stratum, 1.0) > 0
    }
    stage_fill = StageFill([], [], [])
    for category, target in mixture.compute_targets(stage).items():
        category_left = {cell: n for cell, n in left.items() if cell.category == category}
        category_fill = _CategoryAllocation(mixture, category, target, category_left, strata or {})
        quotas = [
            Quota(cell, used.get(cell, 0), n_rows, repeat_index)
            for cell, n_rows, repeat_index in category_fill.iter_quotas()
        ]
        stage_fill.quotas.extend(quotas)
        stage_fill.categories.append(category_fill.summarize(quotas, is_rewritten=category in rewritten_categories))
        stage_fill.sources.extend(category_fill.iter_sources(quotas))
    return stage_fill


class _CategoryAllocation:
    """The rows of one category: by source, then by kind."""

    def __init__(
        self, mixture: MixtureConfig, category: str, target: int, counts: CellCounts, strata: Mapping[str, float]
    ) -> None:
        self._mixture = mixture
        self._category = category
        self._target = target
        self._strata = strata
        self._stratum_counts: dict[tuple[str, str], dict[str, int]] = {}
        for cell, n in sorted(counts.items()):
            self._stratum_counts.setdefault((cell.source, cell.kind), {})[cell.stratum] = n
        self._sources = sorted({cell.source for cell in counts})
        self._available = {
            kind: {s: sum(self._stratum_counts.get((s, kind), {}).values()) for s in self._sources} for kind in KINDS
        }
        self._totals = {s: sum(self._available[kind][s] for kind in KINDS) for s in self._sources}
        self._kind_weights = self._compute_kind_weights()
        self._weights = self._compute_source_weights()
        self._selected = apportion_within(
            target, self._weights, {source: self._get_limit(source) for source in self._sources}
        )
        self._base = {source: min(n, self._totals[source]) for source, n in self._selected.items()}

    def _get_config(self, source: str) -> SourceMix:
        return self._mixture.sources.get(source, SourceMix())

    def _get_limit(self, source: str) -> int:
        """Return the most rows of a source: what there is, or anything where rows are repeated, up to its cap."""
        available = self._totals[source]
        if self._get_config(source).share == 0:
            return 0
        if self._mixture.upsample and available:
            available = max(available, self._target)
        cap = self._mixture.get_source_cap(source)
        return available if cap is None else min(available, cap)

    def _compute_kind_weights(self) -> dict[str, dict[str, float]]:
        """Return the rows of each kind and source if only sizes counted: by kind first, each by n^(1/temperature)."""
        n_available = {kind: sum(self._available[kind].values()) for kind in KINDS}
        kind_targets = split_by_kind(
            self._target, n_available["rewritten"], n_available["original"], self._mixture.rewritten_share
        )
        weights: dict[str, dict[str, float]] = {}
        for kind, n_rows in kind_targets.items():
            sizes = {s: n ** (1 / self._mixture.temperature) for s, n in self._available[kind].items() if n}
            total = sum(sizes.values())
            weights[kind] = {source: n_rows * size / total for source, size in sizes.items()}
        return weights

    def _compute_source_weights(self) -> dict[str, float]:
        """Return the rows of each source, before caps and what there is: shares that are given, the rest by size."""
        shares = {s: share for s in self._sources if (share := self._get_config(s).share) is not None}
        sizes = {s: sum(w.get(s, 0.0) for w in self._kind_weights.values()) for s in self._sources if s not in shares}
        scale = self._target * max(0.0, 1 - sum(shares.values())) / (sum(sizes.values()) or 1.0)
        return {source: self._target * share for source, share in shares.items()} | {
            source: size * scale for source, size in sizes.items()
        }

    def iter_quotas(self) -> Iterator[tuple[Cell, int, int]]:
        """Yield (cell, rows, repeat index): every row once, then repetitions, rewritten rows first."""
        by_kind = self._split_sources()
        cells = {s: [part for kind in KINDS for part in self._split_cell(s, kind, by_kind)] for s in self._sources}
        for source, source_cells in cells.items():
            yield from ((cell, n_rows, 0) for cell, n_rows in source_cells)
            n_missing, repeat_index = self._selected[source] - self._base[source], 0
            while n_missing > 0 and source_cells:
                repeat_index += 1
                for cell, n_rows in source_cells:
                    if n_repeated := min(n_rows, n_missing):
                        yield cell, n_repeated, repeat_index
                        n_missing -= n_repeated

    def _split_sources(self) -> dict[str, dict[str, int]]:
        """Return the rows of each kind by source: as many rewritten ones in all as the share says, if there are."""
        original = {s: min(self._available["original"][s], n) for s, n in self._base.items()}
        rewritten_limits = {s: min(self._available["rewritten"][s], n) for s, n in self._base.items()}
        rewritten_weights = {
            s: self._base[s] * self._kind_weights["rewritten"].get(s, 0.0) / (sum(self._get_kind_weights(s)) or 1.0)
            for s in self._sources
        }
        n_rewritten = round(sum(self._base.values()) * self._mixture.rewritten_share)
        least = {s: n - original[s] for s, n in self._base.items()}
        rewritten = apportion_within(n_rewritten, rewritten_weights, rewritten_limits, least)
        return {"rewritten": rewritten, "original": {s: n - rewritten[s] for s, n in self._base.items()}}

    def _get_kind_weights(self, source: str) -> list[float]:
        return [weights.get(source, 0.0) for weights in self._kind_weights.values()]

    def _split_cell(self, source: str, kind: str, by_kind: Mapping[str, Mapping[str, int]]) -> list[tuple[Cell, int]]:
        """Return the rows by stratum; rows without a value fill what the strata lack."""
        limits = dict(self._stratum_counts.get((source, kind), {}))
        n_without = limits.pop(NO_STRATUM, None)
        weights = {stratum: self._strata.get(stratum, 1.0) for stratum in limits}
        n_rows = by_kind[kind][source]
        n_by_stratum = apportion_within(n_rows, weights, limits)
        if n_without is not None:
            n_by_stratum[NO_STRATUM] = min(n_without, n_rows - sum(n_by_stratum.values()))
        return [(Cell(self._category, source, kind, stratum), n) for stratum, n in n_by_stratum.items() if n]

    def summarize(self, quotas: Sequence[Quota], *, is_rewritten: bool) -> CategoryFill:
        """Return how far the quotas fill the category."""
        rewritten_available = sum(self._available["rewritten"].values())
        return CategoryFill(
            self._category,
            self._target,
            sum(self._totals.values()),
            sum(q.n_rows for q in quotas),
            is_rewritten or rewritten_available > 0,
            rewritten_available,
            sum(q.n_rows for q in quotas if q.cell.kind == "rewritten"),
        )

    def iter_sources(self, quotas: Sequence[Quota]) -> Iterator[SourceFill]:
        """Yield what is taken of each source that has rows."""
        targets = apportion_within(self._target, self._weights, dict.fromkeys(self._sources, self._target))
        for source in self._sources:
            taken = [q for q in quotas if q.cell.source == source]
            yield SourceFill(
                self._category,
                source,
                self._get_config(source).share is not None,
                targets[source],
                self._mixture.get_source_cap(source),
                self._totals[source],
                sum(q.n_rows for q in taken),
                sum(q.n_rows for q in taken if q.cell.kind == "rewritten"),
            )


def split_by_kind(
    target: int, available_rewritten: int, available_original: int, rewritten_share: float
) -> dict[str, int]:
    """Return how many rewritten and original rows fill `target`. Without rewritten rows all are original.

    Args:
        target: Rows wanted in all.
        available_rewritten: Rewritten rows there are.
        available_original: Original rows there are.
        rewritten_share: Wanted share of rewritten rows, from 0 to 1; what one kind lacks, the other fills.

    Returns:
        Rows by kind, `rewritten` and `original`; their sum is less than `target` if both kinds together have fewer.
    """
    if not available_rewritten:
        return {"rewritten": 0, "original": min(target, available_original)}
    n_rewritten = min(available_rewritten, round(target * rewritten_share))
    n_original = min(available_original, target - n_rewritten)
    n_rewritten = min(available_rewritten, target - n_original)
    return {"rewritten": n_rewritten, "original": n_original}


def apportion_within(
    total: int, weights: Mapping[str, float], limits: Mapping[str, int], least: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Divide `total` by weights into whole rows within limits: what one cannot take, the others take in proportion.

    Rounded as Sainte-Laguë does (the next row goes to the largest weight / (rows + 1/2)), so that a larger total gives
    nobody fewer rows. Their sum is less than `total` if all limits of positive weights are reached, and more than it if
    the least rows are more.

    Args:
        total: Rows to divide.
        weights: Relative to each other; 0 takes its least rows only.
        limits: Most rows by name.
        least: Fewest rows by name; default 0.
    """
    floors = {name: 0 if least is None else least[name] for name in weights}
    largest = max(weights.values(), default=0.0)
    # Of weights that differ by more, floats could not divide rows.
    weights = {name: weight and max(weight / largest, 1e-12) for name, weight in weights.items()}
    open_names = [name for name, weight in weights.items() if weight > 0 and limits[name] > floors[name]]

    def round_rows(scale: float) -> dict[str, int]:
        return floors | {
            name: min(max(int(weights[name] * scale + 0.5), floors[name]), limits[name]) for name in open_names
        }

    missing = total - sum(floors.values())
    if missing <= 0 or not open_names:
        return floors
    if sum(limits[name] - floors[name] for name in open_names) <= missing:
        return floors | {name: limits[name] for name in open_names}
    # At `low` the rounded rows are at most `total`, at `high` more; ties and what floats cannot tell apart are left.
    low, high = 0.0, max((limits[name] + 1) / weights[name] for name in open_names)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(round_rows(middle).values()) <= total else (low, middle)
    rows = round_rows(low)
    for _ in range(total - sum(rows.values())):
        name = max(
            (name for name in open_names if rows[name] < limits[name]),
            key=lambda name: (weights[name] / (rows[name] + 0.5), name),
        )
        rows[name] += 1
    return rows
