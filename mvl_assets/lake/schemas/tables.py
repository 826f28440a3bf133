"""Every table of the lake, by name."""

from __future__ import annotations

from mvl_assets.lake.schemas.data_tables import (
    ANSWERS,
    BATCHES,
    BENCHMARK_COMPARED,
    BENCHMARK_IMAGE_PAIRS,
    BENCHMARK_INDEX,
    BENCHMARK_ITEMS,
    BENCHMARK_ITEMS_BASIS,
    BENCHMARK_MATCHES,
    BENCHMARK_MATCHES_BASIS,
    BENCHMARK_WAVES,
    CATEGORY,
    COMPARED,
    CONTAMINATION,
    DUPLICATES,
    DUPLICATES_BASIS,
    IMAGE_PAIRS,
    IMAGES,
    JUDGED,
    LABELS,
    RECORDED_EXPORTS,
    REJECTS,
    REWRITTEN,
    SAMPLE_PAIRS,
    SAMPLES,
    SCORED,
    SCORES,
    TOMBSTONES,
)
from mvl_assets.lake.schemas.table_spec import TableSpec
from mvl_assets.lake.schemas.training_tables import (
    BENCHMARK_ANSWERS,
    BENCHMARKS,
    EVALUATION,
    MIXTURE,
    PACK_PLAN,
    PACKED_ROWS,
    TOUCHED_ITEMS,
)

_SINGLE_TABLES = {
    s.name: s
    for s in (
        IMAGES,
        SAMPLES,
        REJECTS,
        DUPLICATES,
        DUPLICATES_BASIS,
        COMPARED,
        IMAGE_PAIRS,
        SAMPLE_PAIRS,
        CONTAMINATION,
        BENCHMARK_COMPARED,
        BENCHMARK_IMAGE_PAIRS,
        BENCHMARK_INDEX,
        BENCHMARK_ITEMS,
        BENCHMARK_ITEMS_BASIS,
        BENCHMARK_MATCHES,
        BENCHMARK_MATCHES_BASIS,
        BENCHMARK_WAVES,
        BENCHMARKS,
        BENCHMARK_ANSWERS,
        TOUCHED_ITEMS,
        LABELS,
        TOMBSTONES,
        RECORDED_EXPORTS,
    )
}
_TABLE_FAMILIES = {
    s.name: s
    for s in (
        ANSWERS,
        BATCHES,
        CATEGORY,
        REWRITTEN,
        JUDGED,
        SCORED,
        SCORES,
        MIXTURE,
        PACK_PLAN,
        PACKED_ROWS,
        EVALUATION,
    )
}


def get_table_spec(name: str) -> TableSpec:
    """Return the spec of a table by name, such as `samples` or `rewritten/ocr`. Raises `KeyError` for other names."""
    if name in _SINGLE_TABLES:
        return _SINGLE_TABLES[name]
    return _TABLE_FAMILIES[name.split("/", 1)[0]]
