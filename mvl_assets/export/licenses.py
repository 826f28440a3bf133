"""Licences of sources as SPDX expressions, and what follows for a data set made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from license_expression import ExpressionError, Licensing, get_spdx_licensing

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


@cache
def _get_licensing() -> Licensing:
    return get_spdx_licensing()
