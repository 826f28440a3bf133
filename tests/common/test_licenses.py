"""Declared licences: their SPDX form, what they demand together, and which uses they permit."""

from __future__ import annotations

import pytest

from mvl_assets.common.licenses import combine, describe_terms, permits, to_hub_license, to_spdx


def test_licences_are_spdx_where_they_can_be() -> None:
    declared = ["cc-by-4.0", "apache-2.0", "gpl-3.0", "cc0", "research only", None, "MIT AND ("]
    expected = ["CC-BY-4.0", "Apache-2.0", "GPL-3.0-only", "CC0-1.0", "LicenseRef-research-only", "NOASSERTION"]
    assert [to_spdx(text) for text in declared] == [*expected, "LicenseRef-MIT-AND"]
    assert combine(["mit", "MIT", "cc-by-nc-4.0"]) == "CC-BY-NC-4.0 AND MIT"
    assert [to_hub_license(texts) for texts in (["mit"], ["mit", None], [None], ["own terms"])] == [
        "mit",
        "other",
        "unknown",
        "other",
    ]
    assert describe_terms(["mit"]) == []
    assert "non-commercial" in describe_terms(["cc-by-nc-4.0"])[0]


@pytest.mark.parametrize(
    ("declared", "uses"),
    [
        ("cc-by-4.0", "permissive research"),
        ("odc-by", "permissive research"),
        ("cc0", "permissive research"),
        ("MIT OR GPL-3.0-only", "permissive research"),
        ("MIT AND CC-BY-NC-4.0", "research"),
        ("cc-by-sa-4.0", "research"),
        ("gpl-3.0", "research"),
        ("C-UDA", "research"),
        ("custom research licence", "research"),
        ("cc-by-nc-4.0 + SA-1B terms", "research"),
        ("cc-by-nd-4.0", ""),
        ("cc-by-nc-nd-4.0 + own terms", ""),
        ("Ego4D licence", ""),
        (None, ""),
    ],
)
def test_terms_permit_what_they_say_and_unknown_ones_nothing(declared: str | None, uses: str) -> None:
    assert [use for use in ("permissive", "research") if permits(declared, use)] == uses.split()
    assert permits(declared, "all")
