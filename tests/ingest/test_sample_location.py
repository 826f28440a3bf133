"""A row that moved is found where it is now, and `mvl trace` says both places."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mvl_assets.cli.trace import command as trace_command
from mvl_assets.config.catalog import SourceSpec, load_catalog
from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.ingest.sample_location import find_sample_location
from mvl_assets.lake.lake import Lake
from tests.raw_files import make_image, put, put_json, talk


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceSpec:
    monkeypatch.setenv("MVL_HOME", str(tmp_path))
    for name in ("MVL_LAKE", "MVL_RAW"):
        monkeypatch.delenv(name, raising=False)
    return load_catalog()["geo170k"]


def take(source: SourceSpec, *names: str) -> Lake:
    put(source.root, "a.png", make_image())
    rows = [{"id": name, "image": "a.png", "conversations": talk(f"Who is {name}?", "He.")} for name in names]
    put_json(source.root, "rows.json", rows)
    lake = Lake(str(source.root.parents[1] / "lake"))
    ingest_source(lake, source, source.root, run_id="run")
    return lake


def test_a_moved_row_is_traced_to_its_place_in_the_files_now(source: SourceSpec) -> None:
    lake = take(source, "anna", "bob")
    take(source, "new", "bob", "newer", "anna")
    ids = {row["native_id"]: row["sample_id"] for row in lake.get_table("samples").iter_rows()}

    def trace_file(name: str) -> str:
        output = CliRunner().invoke(trace_command, [ids[name]], catch_exceptions=False).output
        (line,) = (line for line in output.splitlines() if line.startswith("file"))
        return line

    assert trace_file("anna").endswith("rows.json row 3, native id anna (first read from rows.json row 0)")
    assert trace_file("bob").endswith("rows.json row 1, native id bob")
    assert find_sample_location(source, ids["anna"], max_rows=3) is None
    (source.root / "rows.json").unlink()
    assert trace_file("anna").endswith(
        "rows.json row 0 when it was first read, perhaps another row now, native id anna"
    )


def test_a_withdrawn_row_has_no_place(source: SourceSpec) -> None:
    lake = take(source, "anna", "bob")
    take(source, "anna")
    gone = next(row["sample_id"] for row in lake.get_table("samples").iter_rows() if row["native_id"] == "bob")
    output = CliRunner().invoke(trace_command, [gone], catch_exceptions=False).output
    assert "file      no longer in the source's files" in output
