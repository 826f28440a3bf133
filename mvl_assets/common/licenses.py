"""Licences of sources as SPDX expressions, and what follows for a data set made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Literal

from license_expression import ExpressionError, LicenseExpression, Licensing, get_license_index, get_spdx_licensing

Use = Literal["permissive", "research", "all"]
"""Which rows are taken. `permissive`: those whose terms allow any use of them and of what is made of them, and ask for
a notice at most. `research`: also those with other known terms (non-commercial, share-alike, for research), unless
they forbid what is derived. `all`: also those with unknown terms."""

USES: tuple[Use, ...] = ("permissive", "research", "all")

UNKNOWN = "NOASSERTION"
"""SPDX for: nobody has said."""

# What people write for licences whose identifier has a version.
_ALIASES = {
    "cc0": "CC0-1.0",
    "odc-by": "ODC-By-1.0",
    "gpl-3.0": "GPL-3.0-only",
    "cc-by-nc": "CC-BY-NC-4.0",
    "c-uda": "C-UDA-1.0",
}
_NONCOMMERCIAL = re.compile(r"-NC\b|non-?commercial|research", re.IGNORECASE)
_PERMISSIVE_CATEGORIES = frozenset({"Permissive", "Public Domain"})
_NO_DERIVATIVES = re.compile(r"-ND\b|no-?derivatives", re.IGNORECASE)
_SHARE_ALIKE = re.compile(r"-SA\b|^GPL|share-?alike", re.IGNORECASE)


def to_spdx(declared: str | None) -> str:
    """Return the SPDX identifier of a declared licence; `LicenseRef-...` for terms that have none."""
    text = (declared or "").strip()
    if not text:
        return UNKNOWN
    candidate = _ALIASES.get(text.casefold(), text)
    try:
        return str(_get_licensing().parse(candidate, validate=True, strict=True).render())
    except (ExpressionError, AttributeError):  # no expression, or an unknown key in it
        return f"LicenseRef-{re.sub(r'[^A-Za-z0-9.]+', '-', text).strip('-')}"


def permits(declared: str | None, use: Use) -> bool:
    """Return whether terms permit a use. Of an expression with OR one side is enough; unknown terms permit nothing."""
    if use == "all":
        return True
    expression = to_spdx(declared)
    if expression == UNKNOWN:
        return False
    if expression.startswith("LicenseRef-"):
        is_for_research = _NONCOMMERCIAL.search(expression) is not None and _NO_DERIVATIVES.search(expression) is None
        return use == "research" and is_for_research
    return _evaluate(_get_licensing().parse(expression), use)


def combine(declared: Iterable[str | None]) -> str:
    """Return the expression of a whole that has parts under these licences: all of them apply."""
    return " AND ".join(sorted({to_spdx(text) for text in declared}))


def to_hub_license(declared: Iterable[str | None]) -> str:
    """Return the value of `license` in a card's front matter: the hub knows one identifier, `other` or `unknown`."""
    identifiers = {to_spdx(text) for text in declared}
    if identifiers == {UNKNOWN} or not identifiers:
        return "unknown"
    if len(identifiers) > 1:
        return "other"
    (identifier,) = identifiers
    return "other" if identifier.startswith("LicenseRef-") else identifier.casefold()


def describe_terms(declared: Iterable[str | None]) -> list[str]:
    """Return what the licences together demand, in sentences."""
    texts = {text or "": to_spdx(text) for text in declared}
    groups = {
        "No licence is known for some sources: nothing allows their rows to be passed on.": [
            text for text, identifier in texts.items() if identifier == UNKNOWN
        ],
        "Some sources allow research or non-commercial use only, so the whole does.": [
            text for text, identifier in texts.items() if _NONCOMMERCIAL.search(f"{identifier} {text}")
        ],
        "Some sources ask that what is made of them is shared under their own terms.": [
            text for text, identifier in texts.items() if _SHARE_ALIKE.search(identifier)
        ],
        "Some sources have terms of their own, which have to be read.": [
            text for text, identifier in texts.items() if identifier.startswith("LicenseRef-")
        ],
    }
    sentences = []
    for sentence, members in groups.items():
        if members:
            names = ", ".join(sorted(member for member in members if member))
            sentences.append(f"{sentence[:-1]} ({names})." if names else sentence)
    return sentences


def _evaluate(expression: LicenseExpression, use: Use) -> bool:
    if expression.args and expression.operator in (" AND ", " OR "):
        outcomes = [_evaluate(part, use) for part in expression.args]
        return all(outcomes) if expression.operator == " AND " else any(outcomes)
    identifier = str(expression).partition(" WITH ")[0]
    if use == "permissive":
        return _load_categories().get(identifier) in _PERMISSIVE_CATEGORIES
    return _NO_DERIVATIVES.search(identifier) is None


@cache
def _load_categories() -> dict[str, str]:
    """Return the category of every SPDX identifier, as the ScanCode LicenseDB that `license_expression` brings says."""
    return {
        identifier: entry["category"]
        for entry in get_license_index()
        for identifier in (entry.get("spdx_license_key"), *entry.get("other_spdx_license_keys", []))
        if identifier
    }


@cache
def _get_licensing() -> Licensing:
    return get_spdx_licensing()
