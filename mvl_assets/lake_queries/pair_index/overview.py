"""What an index says as a whole: how rows flow through the stages, what is kept of each source, and distributions.

Each is one query over a few columns of the index; the tables of the lake are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvl_assets.lake_queries.pair_index.index import PairIndex

if TYPE_CHECKING:
    import duckdb

MAX_REASONS, MAX_SOURCES = 6, 500
OTHER = "other reasons"

_OUTCOME = """CASE WHEN keep THEN 'kept' WHEN keep IS NULL THEN 'not judged'
                   WHEN drop_reason IN (SELECT unnest($reasons)) THEN drop_reason ELSE $other END"""
# What a mixture does not take stands in the order in which it is left out.
_USE = """CASE WHEN NOT coalesce(keep, false) THEN NULL
               WHEN mixtures IS NOT NULL THEN 'in a mixture'
               WHEN split = 'held out' THEN 'held out'
               WHEN duplicate IS NOT NULL THEN 'duplicate'
               WHEN contaminated IS NOT NULL THEN 'in a benchmark'
               ELSE 'not taken' END"""
_LENGTH_BINS = tuple(2**power for power in range(14))
_SHARE_BINS = tuple(number / 20 for number in range(20))


@dataclass(frozen=True, slots=True)
class PairFlow:
    """Pairs of a category that had one outcome and one use; `use` is empty for those that are not kept."""

    category: str
    outcome: str
    use: str
    n: int


@dataclass(frozen=True, slots=True)
class SourceFlow:
    """Samples of a category: of group A, of group B with a rewrite, and without one."""

    category: str
    n_as_is: int
    n_rewritten: int
    n_not_rewritten: int


@dataclass(frozen=True, slots=True)
class SourceRate:
    """How many pairs of a source are judged, and how many kept."""

    category: str
    source: str
    n_judged: int
    n_kept: int


@dataclass(frozen=True, slots=True)
class Distribution:
    """The values of a column in bins, for several groups of pairs.

    Attributes:
        heading: What is counted.
        bins: Lower bounds of the bins.
        counts: Pairs in each bin, by group.
    """

    heading: str
    bins: Sequence[float]
    counts: dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class Overview:
    """What the page of an overview shows."""

    samples: list[SourceFlow]
    pairs: list[PairFlow]
    sources: list[SourceRate]
    distributions: list[Distribution]


def read_overview(index: PairIndex) -> Overview:
    """Return the overview of an index."""
    with index.open_cursor() as cursor:
        reasons = [
            reason
            for (reason,) in cursor.execute(
                """SELECT drop_reason FROM pairs WHERE drop_reason IS NOT NULL
                   GROUP BY drop_reason ORDER BY count(*) DESC, drop_reason LIMIT ?""",
                [MAX_REASONS],
            ).fetchall()
        ]
        flows = cursor.execute(
            f"""SELECT category, {_OUTCOME} AS outcome, coalesce({_USE}, '') AS use, count(*) FROM pairs
                GROUP BY ALL ORDER BY ALL""",  # noqa: S608 - of ours
            {"reasons": reasons, "other": OTHER},
        ).fetchall()
        samples = cursor.execute(
            """SELECT category, n_as_is, coalesce(n_rewritten, 0), greatest(0, n_rewritable - coalesce(n_rewritten, 0))
               FROM category_counts
               LEFT JOIN (SELECT category, count(DISTINCT sample_id) AS n_rewritten FROM pairs GROUP BY category)
               USING (category) ORDER BY category"""
        ).fetchall()
        sources = cursor.execute(
            """FROM (SELECT category, source, count(keep) AS n_judged, count(*) FILTER (keep) FROM pairs
                     GROUP BY category, source HAVING n_judged > 0 ORDER BY n_judged DESC, source LIMIT ?)
               ORDER BY category, n_judged DESC, source""",
            [MAX_SOURCES],
        ).fetchall()
        lengths = {
            "originals": ("original_answer_chars", "true"),
            "rewrites": ("answer_chars", "true"),
            "kept rewrites": ("answer_chars", "keep"),
        }
        shares = {"kept": ("p_yes", "keep"), "dropped": ("p_yes", "NOT keep")}
        sharpness = {"all": ("sharpness", "true"), "kept": ("sharpness", "keep")}
        distributions = [
            Distribution(heading, bins, {name: _count_bins(cursor, *group, bins) for name, group in groups.items()})
            for heading, bins, groups in (
                ("characters of the answer", _LENGTH_BINS, lengths),
                ("P(yes)", _SHARE_BINS, shares),
                ("sharpness of the images", _LENGTH_BINS, sharpness),
            )
        ]
    return Overview(
        [SourceFlow(*row) for row in samples],
        [PairFlow(*row) for row in flows],
        [SourceRate(*row) for row in sources],
        [d for d in distributions if any(map(any, d.counts.values()))],
    )


def _count_bins(cursor: duckdb.DuckDBPyConnection, column: str, condition: str, bins: Sequence[float]) -> list[int]:
    """Return how many pairs of a condition have values in each bin; lower ones are in the first."""
    rows = cursor.execute(
        f"""SELECT greatest(1, len([b for b in $bins if b <= {column}])) - 1 AS bin, count(*) FROM pairs
            WHERE {column} IS NOT NULL AND ({condition}) GROUP BY bin""",  # noqa: S608 - of ours
        {"bins": list(bins)},
    ).fetchall()
    by_bin = dict(rows)
    return [by_bin.get(number, 0) for number in range(len(bins))]
