"""`mvl rejects`: every refused row with its file, its row and what to do, in words that can be copied."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mvl_assets.cli import cli
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import Reject
from mvl_assets.lake_queries.rejects import build_reject_table, publish_rejects

ROWS = [
    *(Reject("raw", "gqa", f"{n:032x}", "missing_image", f"'{n}.jpg' is not there", "q.json", n) for n in range(30)),
    Reject("raw", "gqa", "a" * 32, "bad_json", "no comma", "q.json", 99),
    Reject("rewritten", "geo170k", "b" * 32, "http_400", "refused", request_key="c" * 32),
    Reject("rewritten", "geo170k", "d" * 32, "timeout", "too late", request_key="e" * 32),
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    lake = Lake(str(tmp_path / "lake"))
    for stage, source in {(r.stage, r.source) for r in ROWS}:
        rows = [r for r in ROWS if (r.stage, r.source) == (stage, source)]
        publish_rejects(lake, stage, source, [build_reject_table(rows, "run")])
    return tmp_path


def rejects(home: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["rejects", *words], env={"MVL_HOME": str(home), "MVL_LAKE": None})


def test_each_class_has_its_count_its_first_rows_and_a_way_out(home: Path) -> None:
    lines = rejects(home).output.splitlines()
    begin = lines.index("gqa  raw  missing_image: 30 rows")
    assert lines[begin + 1 : begin + 5] == [
        "  q.json row 0: '0.jpg' is not there",
        "  q.json row 1: '1.jpg' is not there",
        "  and 28 more (--limit)",
        "  what to do: put the image into the source's folder, or name its folder in `image_folders`",
    ]
    assert "gqa  raw  bad_json: 1 row" in lines
    assert "  what to do: `mvl retry --error http_400` asks again" in lines
    assert "  what to do: `mvl run` asks again" in lines


def test_filters_and_the_number_of_rows_shown(home: Path) -> None:
    output = rejects(home, "--source", "gqa", "--error", "missing_image").output
    assert output.count("is not there") == 20 and "bad_json" not in output and "geo170k" not in output
    assert rejects(home, "--stage", "raw", "--limit", "25").output.count("is not there") == 25
    assert "gqa" not in rejects(home, "--stage", "rewritten").output
    assert rejects(home, "--stage", "judged").output == "no rejects\n"


def test_json_has_all_rows_with_their_fix(home: Path) -> None:
    listed = json.loads(rejects(home, "--json").output)
    assert len(listed) == len(ROWS)
    assert {(r["file"], r["position"]) for r in listed if r["error"] == "bad_json"} == {("q.json", 99)}
    assert all(r["fix"] for r in listed)
    assert json.loads(rejects(home, "--stage", "judged", "--json").output) == []


def test_an_unknown_class_names_those_there_are(home: Path) -> None:
    error = rejects(home, "--error", "missing_picture").exception
    assert isinstance(error, MvlError) and "bad_json" in (error.hint or "")
    error = rejects(home, "--source", "geo").exception
    assert isinstance(error, MvlError) and "`geo3k`" in (error.hint or "")
