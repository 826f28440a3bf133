"""Ingest finds exactly the good rows, and the faults under the names that the marker file gives."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from mvl_assets.config.catalog import load_catalog
from mvl_assets.demo_data.recipes import DEMO_SLUGS
from mvl_assets.demo_data.write import WrittenDemoSource
from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.lake.lake import Lake
from mvl_assets.readers.files import DEMO_MARKER_FILE
from mvl_assets.readers.registry import get_reader
from tests.demo_data.verdicts import verdict


@pytest.mark.parametrize("slug", DEMO_SLUGS)
def test_every_row_is_read_with_the_verdict_of_the_marker_file(
    slug: str, demo_sources: dict[str, WrittenDemoSource]
) -> None:
    written = demo_sources[slug]
    result = Counter(verdict(row) for row in get_reader(written.format)(load_catalog()[slug], written.source_dir))
    marker = json.loads((written.source_dir / DEMO_MARKER_FILE).read_text(encoding="utf-8"))
    assert result == Counter({"good": written.n_good_rows, **marker["rejects"]})


@pytest.mark.parametrize(
    "slug", ["geo170k", "chartqa_cauldron_llava_format", "visualmrc_cauldron", "hq_edit", "tabmwp", "numinamath"]
)
def test_ingest_counts_all_written_rows_once(
    slug: str, demo_sources: dict[str, WrittenDemoSource], tmp_path: Path
) -> None:
    written, source = demo_sources[slug], load_catalog()[slug]
    marker = json.loads((written.source_dir / DEMO_MARKER_FILE).read_text(encoding="utf-8"))
    lake = Lake(str(tmp_path))
    first = ingest_source(lake, source, written.source_dir, run_id="first")
    assert (first.n_rows, first.n_new) == (48, written.n_good_rows)
    assert first.reject_counts == marker["rejects"]
    second = ingest_source(lake, source, written.source_dir, run_id="second")
    assert (second.n_new, second.n_changed, second.n_withdrawn, second.n_new_images) == (0, 0, 0, 0)


@pytest.mark.parametrize("slug", DEMO_SLUGS)
def test_catalog_declares_the_format_of_the_demo_data(slug: str, demo_sources: dict[str, WrittenDemoSource]) -> None:
    assert load_catalog()[slug].format == demo_sources[slug].format


def test_every_category_has_demo_data_of_both_groups_where_it_has_both() -> None:
    catalog = load_catalog()
    groups: dict[str, set[str | None]] = {}
    for slug in DEMO_SLUGS:
        groups.setdefault(catalog[slug].category, set()).add(catalog[slug].group)
    for category in ("general", "ocr", "chart", "domain", "code_math"):
        assert {"A", "B"} <= groups[category]
    assert groups["caption"] == {"B", "C"} and groups["detection"] == {"B"}
    assert groups["multi_image"] == groups["video"] == {"A"}
    assert {"language", "alignment"} <= groups.keys()
