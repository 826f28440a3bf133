"""The difference of two mixtures: counts on both sides, and rows that only one has."""

from __future__ import annotations

import pytest

from mvl_assets.curation.mixing import build_mixture, open_mixture
from mvl_assets.lake.errors import LakeError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.mixtures.difference import PartDifference, open_comparison
from tests.curation.mixture_profile import profile
from tests.lake.rows import put_category


@pytest.fixture
def ocr(lake: Lake) -> Lake:
    put_category(lake, "ocr", "a", 30, rewritten=20)
    put_category(lake, "ocr", "b", 10)
    return lake


def test_a_planned_mixture_differs_from_the_stored_version_by_what_it_gains_and_loses(ocr: Lake) -> None:
    build_mixture(ocr, profile(), "single_image", run_id="one")
    table = ocr.get_table("mixture/single_image")
    first_version = table.version
    wants = profile(sources={"b": {"share": 0.5}})
    with open_comparison() as comparison:
        comparison.load_stored("before", table.snapshot())
        with open_mixture(ocr, wants, ["single_image"]) as (pool, fills):
            comparison.load_planned("after", pool.read_selected(fills["single_image"].quotas))
        planned = comparison.compute_differences()
    assert planned == [
        PartDifference("ocr", "a", "original", 2, 0, 0, 2),
        PartDifference("ocr", "a", "rewritten", 9, 6, 0, 3),
        PartDifference("ocr", "b", "original", 2, 7, 5, 0),
    ]
    # What was planned is what is then stored, and the first version can still be read.
    build_mixture(ocr, wants, "single_image", run_id="two")
    with open_comparison() as comparison:
        comparison.load_stored("before", table.read_version(first_version))
        comparison.load_stored("after", table.snapshot())
        assert comparison.compute_differences() == planned
    with pytest.raises(LakeError, match="has no version 99"):
        table.read_version(99)


def test_repetitions_count_as_rows_of_their_own(ocr: Lake) -> None:
    build_mixture(ocr, profile(single_image=80), "single_image", run_id="one")
    with open_comparison() as comparison:
        comparison.load_stored("before", ocr.get_table("mixture/single_image").snapshot())
        with open_mixture(ocr, profile(single_image=80, upsample=True), ["single_image"]) as (pool, fills):
            comparison.load_planned("after", pool.read_selected(fills["single_image"].quotas))
        differences = comparison.compute_differences()
    assert sum(d.gained for d in differences) == 53 - 40
    assert not any(d.lost for d in differences)
