"""The readers and the media room find exactly the good rows, and the faults under the names that the marker gives."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from mvl_assets.config.catalog import load_catalog
from mvl_assets.demo_data.recipes import DEMO_SLUGS
from mvl_assets.demo_data.write import MARKER, Written
from mvl_assets.ingest.images import frames_of
from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.lake.lake import Lake
from mvl_assets.media.image import PictureError, inspect
from mvl_assets.readers.registry import reader_for
from mvl_assets.readers.rows import RowError
from mvl_assets.readers.sample import Broken, Sample


def verdict(row: Sample | Broken) -> str:
    """`good`, or the error class of the row, or of the first picture or film that cannot be decoded."""
    if isinstance(row, Broken):
        return row.error
    try:
        for picture in row.pictures:
            inspect(picture.read())
        if row.video is not None:
            assert len(frames_of(row.video)) >= 2
    except (PictureError, RowError) as error:
        return error.error
    return "good"


@pytest.mark.parametrize("slug", DEMO_SLUGS)
def test_every_row_is_read_with_the_verdict_that_was_written_down(slug: str, miniatures: dict[str, Written]) -> None:
    written = miniatures[slug]
    found = Counter(verdict(row) for row in reader_for(written.format)(load_catalog()[slug], written.folder))
    marker = json.loads((written.folder / MARKER).read_text(encoding="utf-8"))
    assert found == Counter({"good": written.good_rows, **marker["broken"]})


@pytest.mark.parametrize(
    "slug", ["geo170k", "chartqa_cauldron_llava_format", "visualmrc_cauldron", "hq_edit", "tabmwp", "numinamath"]
)
def test_ingest_counts_what_was_written_and_nothing_new_the_second_time(
    slug: str, miniatures: dict[str, Written], tmp_path: Path
) -> None:
    written, source = miniatures[slug], load_catalog()[slug]
    marker = json.loads((written.folder / MARKER).read_text(encoding="utf-8"))
    lake = Lake(str(tmp_path))
    first = ingest_source(lake, source, written.folder, run_id="first")
    assert (first.rows, first.new) == (48, written.good_rows)
    assert first.rejects == marker["broken"]
    second = ingest_source(lake, source, written.folder, run_id="second")
    assert (second.new, second.changed, second.withdrawn, second.pictures) == (0, 0, 0, 0)


@pytest.mark.parametrize("slug", DEMO_SLUGS)
def test_the_catalog_declares_the_source_in_the_format_of_its_miniature(
    slug: str, miniatures: dict[str, Written]
) -> None:
    assert load_catalog()[slug].format == miniatures[slug].format


def test_every_category_has_two_miniatures_of_different_groups_where_it_has_both() -> None:
    catalog = load_catalog()
    groups: dict[str, set[str | None]] = {}
    for slug in DEMO_SLUGS:
        groups.setdefault(catalog[slug].category, set()).add(catalog[slug].group)
    for category in ("general", "ocr", "chart", "domain", "code_math"):
        assert {"A", "B"} <= groups[category]
    assert groups["caption"] == {"B", "C"} and groups["detection"] == {"B"}
    assert groups["multi_image"] == groups["video"] == {"A"}
    assert {"language", "alignment"} <= groups.keys()
