"""Drawn items of benchmarks: every declared field map reads them, and the demo's leaks are hits."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.config.benchmarks import BenchmarkItems, load_benchmarks
from mvl_assets.config.catalog import get_source
from mvl_assets.curation.contamination import find_contamination
from mvl_assets.demo_data.benchmark_items import LEAKING_SOURCE, N_LEAKS, list_file_names, write_demo_benchmarks
from mvl_assets.demo_data.write import write_demo_sources
from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.lake.lake import Lake
from mvl_assets.readers.registry import get_reader
from tests.demo_data.verdicts import verdict

DRAWN = [slug for slug in load_benchmarks() if slug != "benchmark_synthetic"]


@pytest.mark.parametrize("slug", DRAWN)
def test_field_map_reads_every_drawn_item(slug: str, tmp_path: Path) -> None:
    assert write_demo_benchmarks(tmp_path, [slug], 12) == [slug]
    spec = load_benchmarks()[slug]
    verdicts = [verdict(row) for row in get_reader("records")(spec, tmp_path / slug)]
    assert set(verdicts) == {"good"}
    assert len(verdicts) % len(list_file_names(spec)) == 0
    assert all(any(spec.match_task(task, name) for task in spec.tasks) for name in list_file_names(spec))


def test_leaks_of_the_demo_are_found(tmp_path: Path, lake: Lake) -> None:
    slug = "benchmark_chartqa"
    write_demo_sources(tmp_path, [LEAKING_SOURCE], 12)
    write_demo_benchmarks(tmp_path, [slug], 12)
    items: BenchmarkItems = load_benchmarks()[slug]
    for source in (get_source(LEAKING_SOURCE), items):
        ingest_source(lake, source, tmp_path / source.slug, run_id="run")
    report = find_contamination(
        lake, [get_source(LEAKING_SOURCE)], holdout_fraction=0, run_id="run", benchmarks={slug: items}
    )
    assert report.counts.benchmarks["chartqa", "same_image_same_question"] == N_LEAKS
    assert lake.get_table("curation/benchmark_items").count() == report.benchmarks[0].n_items


def test_files_of_the_user_stay(tmp_path: Path) -> None:
    (tmp_path / DRAWN[0]).mkdir()
    (tmp_path / DRAWN[0] / "mine.parquet").touch()
    assert write_demo_benchmarks(tmp_path, DRAWN[:1], 12) == []
    assert (tmp_path / DRAWN[0] / "mine.parquet").exists()
