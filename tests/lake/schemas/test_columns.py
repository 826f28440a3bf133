"""Every column has a line that says what it means."""

from __future__ import annotations

import pytest

from mvl_assets.lake.schemas.columns import COLUMN_DESCRIPTIONS, describe_column
from mvl_assets.lake.schemas.table_spec import TableSpec
from mvl_assets.lake.schemas.tables import get_table_spec

NAMES = ["images", "samples", "rejects", "curation/duplicates", "curation/contamination"]
NAMES += ["curation/compared", "curation/duplicates_basis", "curation/image_pairs", "curation/sample_pairs"]
NAMES += [
    f"curation/benchmark_{name}"
    for name in ("items", "items_basis", "index", "image_pairs", "matches", "matches_basis", "waves", "compared")
]
NAMES += ["labels", "evaluation_benchmarks", "evaluation_benchmark_answers", "evaluation_touched_items"]
NAMES += [
    f"{family}/x"
    for family in (
        "answers",
        "batches",
        "category",
        "rewritten",
        "judged",
        "scored",
        "mixture",
        "pack_plan",
        "packed_rows",
        "scores",
        "evaluation",
    )
]
SPECS = [get_table_spec(name) for name in NAMES]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_column_of_every_table_is_described(spec: TableSpec) -> None:
    for name in spec.schema.names:
        assert describe_column(spec.name, name).endswith("."), name


def test_every_description_is_of_an_existing_column() -> None:
    known = {name for spec in SPECS for name in spec.schema.names}
    known |= {f"{spec.name}.{name}" for spec in SPECS for name in spec.schema.names}
    assert set(COLUMN_DESCRIPTIONS) <= known


def test_a_table_can_describe_a_column_in_its_own_way() -> None:
    assert describe_column("samples", "position") != describe_column("mixture", "position")
