"""Exports of the rows whose terms permit a use, in tables and in JSON, and the reasons for what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mvl_assets.config.profile import Profile, load_profile
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.export import export_stage as export_module
from mvl_assets.export import json_files
from mvl_assets.export.description import describe_export
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_stage import ExportOptions, export_stage
from mvl_assets.export.formats.registry import get_format
from mvl_assets.export.row_terms import build_mixture_filter, list_refused_rows
from mvl_assets.lake.lake import Lake
from tests.export.small_lake import STAGE, fill_judged_lake


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return fill_judged_lake(tmp_path_factory.mktemp("terms") / "lake")


def build_profile(writer_license: str | None) -> Profile:
    profile = load_profile("demo")
    model = profile.models[profile.roles["rewrite"]]
    writer = model.model_copy(update={"name": "writer", "license": writer_license})
    return profile.model_copy(update={"models": {profile.roles["rewrite"]: writer}})


@pytest.mark.parametrize(
    ("use", "writer_license", "n_rows"),
    [
        ("permissive", "apache-2.0", 8),
        ("permissive", "cc-by-nc-4.0", 6),
        ("permissive", None, 6),
        ("research", "cc-by-nc-4.0", 9),
        ("all", None, 12),
    ],
)
def test_rows_are_taken_whose_source_and_model_permit_it(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str, writer_license: str | None, n_rows: int
) -> None:
    monkeypatch.setattr(json_files, "CHUNK_ROWS", 2)
    monkeypatch.setattr(export_module, "PART_ROWS", 2)
    mixture_filter = build_mixture_filter(lake, build_profile(writer_license), [STAGE], use)  # type: ignore[arg-type]
    options = ExportOptions(mixture_filter=mixture_filter)
    for name in ("parquet", "llava_json"):
        folder = ExportFolder(str(tmp_path / name))
        assert export_stage(lake, STAGE, folder, get_format(name), options, ProcessExecutor(1)).rows == n_rows
    entries = json.loads((tmp_path / "llava_json" / f"{STAGE}.json").read_text())
    table = pq.read_table(tmp_path / "parquet" / STAGE)
    assert [entry["id"] for entry in entries] == table.column("id").to_pylist() and len(entries) == n_rows
    permitted = {"permissive": {"cc-by-4.0"}, "research": {"cc-by-4.0", "research only"}}
    assert use == "all" or set(table.column("license").to_pylist()) == permitted[use]
    assert ("rewritten" in table.column("kind").to_pylist()) is (n_rows > 6)


def test_the_card_counts_what_is_there_and_says_what_is_left_out(lake: Lake, tmp_path: Path) -> None:
    profile = build_profile(None)
    mixture_filter = build_mixture_filter(lake, profile, [STAGE], "permissive")
    assert mixture_filter is not None
    refused = {row.reason: row.n_rows for row in list_refused_rows(lake, [STAGE], mixture_filter)}
    assert {reason.split(",")[0]: n for reason, n in refused.items()} == {
        "sources with the licence research only": 1,
        "sources with no known licence": 3,
        "rewrites by writer": 2,
    }
    options, folder = ExportOptions(mixture_filter=mixture_filter), ExportFolder(str(tmp_path))
    export_stage(lake, STAGE, folder, get_format("parquet"), options, ProcessExecutor(1))
    (config,) = describe_export(lake, profile, folder, get_format("parquet"), options)
    card = (tmp_path / "README.md").read_text()
    assert config.n_rows == 6 and "license: cc-by-4.0\n" in card and f"## {STAGE}: 6 rows" in card
    assert all(reason in card for reason in refused)
