"""`mvl sources sniff` shows a source for files of unknown form, and `mvl sources add` declares it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mvl_assets.cli import sniff
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.strict_yaml import iter_documents
from mvl_assets.errors import MvlError
from tests.raw_files import make_image, put


def lay_out(root: Path) -> None:
    rows = [{"question": f"Who is {n}?", "answer": "Ann", "image": f"{n}.png"} for n in range(3)]
    put(root, "rows.jsonl", "\n".join(map(json.dumps, rows)).encode())
    put(root, "0.png", make_image(1))
    put(root, "1.png", make_image(2))


def test_sniff_shows_the_entry_rows_rejects_and_images(tmp_path: Path) -> None:
    lay_out(tmp_path)
    result = CliRunner().invoke(sniff.sniff, [str(tmp_path), "--slug", "people", "--category", "general"])
    assert result.exit_code == 0
    for text in ("slug: people", "image_field: image", "3 rows; of the first 3, 2 are read", "1 x missing_image"):
        assert text in result.output
    assert "0.png, PNG 240 x 240" in result.output
    shown = json.loads(CliRunner().invoke(sniff.sniff, [str(tmp_path), "--json"], catch_exceptions=False).output)
    assert (shown["rows"], shown["read"], shown["rejects"]) == (3, 2, {"missing_image": 1})


def test_what_is_not_understood_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "a.bin", b"x")
    result = CliRunner().invoke(sniff.sniff, [str(tmp_path)])
    assert isinstance(result.exception, MvlError)
    assert "no file of records" in result.output


def test_add_declares_a_source_that_the_catalog_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path / "files")
    put(tmp_path, "project/mvl.yaml", b"catalog: null")
    monkeypatch.setenv("MVL_PROJECT", str(tmp_path / "project"))
    arguments = [str(tmp_path / "files"), "--slug", "people"]
    result = CliRunner().invoke(sniff.add, arguments, catch_exceptions=False)
    assert f"declared in {tmp_path}/project/sources/people.yaml" in result.output
    (document,) = iter_documents(tmp_path / "project/sources/people.yaml")
    spec = document.validate(SourceSpec, ["attributes"])
    assert (spec.format, spec.path, spec.modality) == ("records", str(tmp_path / "files"), "single_image")
    again = CliRunner().invoke(sniff.add, arguments)
    assert isinstance(again.exception, MvlError) and "already" in again.exception.message
