"""What selects pairs, and in which order: the state of a page, as conditions of the index."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mvl_assets.lake_queries.pair_index.columns import FACET_COLUMNS

NO_VALUE = ""
"""Stands for null among the values of a facet."""

TABLE_ORDER, RANDOM_ORDER = "table", "random"
FIXED_ORDERS = (TABLE_ORDER, RANDOM_ORDER)
_NUMBER_NAME = re.compile(r"[A-Za-z_]\w{0,59}(?:\.[A-Za-z_]\w{0,59})?", re.ASCII)


def is_number_name(name: str) -> bool:
    """Return whether a number column could have this name: a word, or two with a dot."""
    return _NUMBER_NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class PairFilter:
    """Which pairs, and in which order.

    Attributes:
        values: Values by facet column; a pair has one of each column's.
        ranges: Lowest and highest value by number column; None is open.
        words: Words that the rewrite has, all of them, in any case.
        condition: A SQL condition over the columns of the index.
        label: `good`, `bad`, `unsure`, `any` or `none`: the newest label of the pair by anyone.
        sort: One of `FIXED_ORDERS`, or a number column.
        is_descending: Whether the largest comes first.
        seed: Of the random order.
    """

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    condition: str = ""
    label: str = ""
    sort: str = TABLE_ORDER
    is_descending: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.values if name not in FACET_COLUMNS]
        unknown += [name for name in self.number_columns if not is_number_name(name)]
        if unknown:
            raise ValueError(f"no such column: {', '.join(unknown)}")

    @property
    def number_columns(self) -> list[str]:
        """The number columns that it names; an index says whether it has them."""
        return [*self.ranges, *([] if self.sort in FIXED_ORDERS else [self.sort])]

    @property
    def is_empty(self) -> bool:
        """Whether all pairs are selected."""
        return not (self.values or self.ranges or self.words or self.condition or self.label)

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for filters that select the same pairs in the same order."""
        return (
            tuple(sorted((name, tuple(sorted(values))) for name, values in self.values.items())),
            tuple(sorted(self.ranges.items())),
            self.words,
            self.condition,
            self.label,
            self.sort,
            self.is_descending,
            self.seed if self.sort == RANDOM_ORDER else 0,
        )

    def build_where(self, without: str = "") -> tuple[str, list[object]]:
        """Return the condition of facets and ranges, and its parameters, without that of one facet."""
        conditions: list[str] = []
        parameters: list[object] = []
        for name, values in self.values.items():
            if name == without:
                continue
            known = [value for value in values if value != NO_VALUE]
            alternatives = [f"{name}::VARCHAR IN ({', '.join('?' * len(known))})"] if known else []
            alternatives += [f"{name} IS NULL"] if NO_VALUE in values else []
            conditions.append(f"({' OR '.join(alternatives)})")
            parameters += known
        for name, (low, high) in self.ranges.items():
            for sign, bound in ((">=", low), ("<=", high)):
                if bound is not None:
                    conditions.append(f"{name} {sign} ?")
                    parameters.append(bound)
        return " AND ".join(conditions) or "true", parameters
