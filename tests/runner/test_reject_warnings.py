"""A source of which most rows were rejected, or a file breaks off, is warned of; demo data is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.config.catalog import SourceSpec, load_catalog
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import Reject
from mvl_assets.lake_queries.rejects import build_reject_table, publish_rejects
from mvl_assets.readers.files import DEMO_MARKER_FILE
from mvl_assets.runner.reject_warnings import build_answer_warning, build_ingest_warning


@pytest.fixture
def source(tmp_path: Path) -> SourceSpec:
    return load_catalog()["gqa"].model_copy(update={"path": str(tmp_path)})


@pytest.mark.parametrize(
    ("errors", "n_rows", "warning"),
    [
        ([], 10, None),
        (["missing_image"] * 5, 10, None),
        (["missing_image"] * 6, 10, "gqa: 6 of 10 rows were rejected (missing_image 6)"),
        (["purged"] * 9, 10, None),
        (["broken_file"], 10, "gqa: 1 time a file breaks off or is damaged"),
    ],
)
def test_what_is_warned_of(
    tmp_path: Path, source: SourceSpec, errors: list[str], n_rows: int, warning: str | None
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    rejects = [Reject("raw", "gqa", f"{n:032x}", error, "bad", "a.json", n) for n, error in enumerate(errors)]
    publish_rejects(lake, "raw", "gqa", [build_reject_table(rejects, "run")])
    assert build_ingest_warning(lake, source, n_rows) == warning
    (tmp_path / DEMO_MARKER_FILE).write_text("{}", encoding="utf-8")
    assert build_ingest_warning(lake, source, n_rows) is None


def test_answers_are_warned_of_where_more_are_rejected_than_rows_made(tmp_path: Path, source: SourceSpec) -> None:
    lake = Lake(str(tmp_path / "lake"))
    rejects = [Reject("rewritten", "gqa", f"{n:032x}", "schema", "no pairs", request_key="k") for n in range(3)]
    publish_rejects(lake, "rewritten", "gqa", [build_reject_table(rejects, "run")])
    assert build_answer_warning(lake, "rewritten", source, 3) is None
    warning = build_answer_warning(lake, "rewritten", source, 0)
    assert warning == "gqa, rewritten: 3 answers rejected (schema 3), 0 rows made"
    (tmp_path / DEMO_MARKER_FILE).write_text("{}", encoding="utf-8")
    assert build_answer_warning(lake, "rewritten", source, 0) is None
