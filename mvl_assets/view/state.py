"""The state of a page: what its address says. A link to a page is the page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote, urlencode

from mvl_assets.errors import MvlError
from mvl_assets.lake_queries.pair_index.columns import FACET_COLUMNS
from mvl_assets.lake_queries.pair_index.filters import TABLE_ORDER, PairFilter, is_number_name

DEFAULT_PORT = 3001
PAGE_ROWS = 30
MAX_TEXT_CHARS = 500
LABEL_FILTERS = ("", "any", "none", "good", "bad", "unsure")
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class ViewState:
    """A page's filter, where it begins, and how it shows pairs.

    Attributes:
        pair_filter: What is selected.
        after: Id of the pair before the first one; empty for the beginning.
        is_blind: Whether verdicts and reasons are hidden; `hide` in the address, where `blind` is a column.
        queue_rows: Number of pairs that are drawn for labelling; 0 for no queue.
        is_rendered: Whether Markdown and LaTeX are drawn, rather than differences marked.
    """

    pair_filter: PairFilter = field(default_factory=PairFilter)
    after: str = ""
    is_blind: bool = False
    queue_rows: int = 0
    is_rendered: bool = False

    def build_query(self, **changes: object) -> str:
        """Return the state as a query string, without what is as by default."""
        pair_filter = self.pair_filter
        pairs: list[tuple[str, str]] = [(n, v) for n, values in pair_filter.values.items() for v in values]
        for name, bounds in pair_filter.ranges.items():
            pairs += [
                (f"{name}_{end}", f"{bound:g}")
                for end, bound in zip(("min", "max"), bounds, strict=True)
                if bound is not None
            ]
        texts = {
            "q": " ".join(pair_filter.words),
            "where": pair_filter.condition,
            "label": pair_filter.label,
            "sort": "" if pair_filter.sort == TABLE_ORDER else pair_filter.sort,
            "desc": "1" if pair_filter.is_descending else "",
            "seed": str(pair_filter.seed or ""),
            "hide": "1" if self.is_blind else "",
            "queue": str(self.queue_rows or ""),
            "rendered": "1" if self.is_rendered else "",
            "after": self.after,
        } | {name: "" if value is None else str(value) for name, value in changes.items()}
        pairs += [(name, text) for name, text in texts.items() if text]
        return urlencode(pairs, quote_via=quote)

    def toggle(self, name: str, value: str) -> ViewState:
        """Return the state with a value of a facet added, or taken away if it is there."""
        values = dict(self.pair_filter.values)
        chosen = values.pop(name, ())
        chosen = tuple(v for v in chosen if v != value) if value in chosen else (*chosen, value)
        if chosen:
            values[name] = chosen
        return replace(self, pair_filter=replace(self.pair_filter, values=values), after="")


def parse_state(parameters: Iterable[tuple[str, str]]) -> ViewState:
    """Return the state that a query string describes; what it does not know is left out.

    Raises:
        MvlError: A value cannot be read.
    """
    given: dict[str, list[str]] = {}
    for name, value in parameters:
        given.setdefault(name, []).append(value)
    sort = _get_text(given, "sort") or TABLE_ORDER
    if not is_number_name(sort):
        raise MvlError(f"sort={sort!r} is no column", hint="leave it out")
    number_names = dict.fromkeys(name[:-4] for name in given if name.endswith(("_min", "_max")))
    ranges = {
        name: bounds
        for name in filter(is_number_name, number_names)
        if (bounds := (_get_number(given, f"{name}_min"), _get_number(given, f"{name}_max"))) != (None, None)
    }
    after = _get_text(given, "after")
    if after and not _ID.fullmatch(after):
        raise MvlError(f"after={after!r} is no id of a pair", hint="leave it out")
    pair_filter = PairFilter(
        values={name: tuple(dict.fromkeys(given[name])) for name in FACET_COLUMNS if name in given},
        ranges=ranges,
        words=tuple(_get_text(given, "q").split()),
        condition=_get_text(given, "where").strip(),
        label=_get_choice(given, "label", LABEL_FILTERS, ""),
        sort=sort,
        is_descending=_get_text(given, "desc") == "1",
        seed=int(_get_number(given, "seed") or 0),
    )
    return ViewState(
        pair_filter,
        after,
        is_blind=_get_text(given, "hide") == "1",
        queue_rows=int(_get_number(given, "queue") or 0),
        is_rendered=_get_text(given, "rendered") == "1",
    )


def build_page_url(category: str, source: str) -> str:
    """Return the address of the pairs of a source, while `mvl view` runs on its default port."""
    state = ViewState(PairFilter(values={"category": (category,), "source": (source,)}))
    return f"http://127.0.0.1:{DEFAULT_PORT}/?{state.build_query()}"


def is_id(text: str) -> bool:
    """Return whether a text has the form of an id."""
    return _ID.fullmatch(text) is not None


def _get_text(given: Mapping[str, Sequence[str]], name: str) -> str:
    text = given.get(name, [""])[-1]
    if len(text) > MAX_TEXT_CHARS or "\0" in text:
        raise MvlError(f"{name} is too long, or has a NUL", hint=f"at most {MAX_TEXT_CHARS} characters")
    return text


def _get_choice(given: Mapping[str, Sequence[str]], name: str, choices: Sequence[str], default: str) -> str:
    value = _get_text(given, name) or default
    if value not in choices:
        raise MvlError(f"{name}={value!r} is none of {', '.join(filter(None, choices))}", hint="choose one of them")
    return value


def _get_number(given: Mapping[str, Sequence[str]], name: str) -> float | None:
    text = _get_text(given, name).strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < 1e15:
        raise MvlError(f"{name}={text!r} is no number", hint="leave it out")
    return number
