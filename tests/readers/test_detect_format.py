"""The files of a source are read in whichever of its declared formats they have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mvl_assets.config.catalog import RecordsMapping
from mvl_assets.readers.detect_format import detect_format
from tests.raw_files import make_image, put_json, put_parquet, source, talk

IMAGE = {"bytes": make_image(1), "path": None}


def lay_out(root: Path, format: str) -> None:
    if format == "llava_json":
        put_json(root, "rows.json", [{"id": "1", "conversations": talk("Hi", "Hello")}])
    elif format == "llava_parquet":
        put_parquet(root, "data/a.parquet", [{"id": "1", "conversations": talk("Who?", "Ann"), "image": IMAGE}])
    elif format == "cauldron_parquet":
        texts = [{"user": "Who?", "assistant": "Ann", "source": "x"}]
        put_parquet(root, "data/a.parquet", [{"images": [IMAGE], "texts": texts}])
    else:
        put_json(root, "problems.json", [{"q": "Who?", "a": "Ann"}])


FIELDS: dict[str, Any] = {"alternates": ("llava_parquet", "cauldron_parquet", "records")}


@pytest.mark.parametrize("format", ["llava_json", "llava_parquet", "cauldron_parquet"])
def test_the_format_is_that_of_the_files(tmp_path: Path, format: str) -> None:
    lay_out(tmp_path, format)
    put_json(tmp_path, "dataset_info.json", {})
    assert detect_format(source("llava_json", alternates=FIELDS["alternates"][:2]), tmp_path) == format


def test_a_field_map_takes_its_own_files_only(tmp_path: Path) -> None:
    mapping = RecordsMapping(files="problems.json", shape="list", question="{q}", answer="{a}")
    spec = source("records", mapping, alternates=("llava_json",))
    lay_out(tmp_path / "a", "records")
    assert detect_format(spec, tmp_path / "a") == "records"
    lay_out(tmp_path / "b", "llava_json")
    assert detect_format(spec, tmp_path / "b") == "llava_json"


def test_it_is_the_declared_format_where_nothing_else_reads_a_row(tmp_path: Path) -> None:
    spec = source("llava_json", alternates=("cambrian_jsonl",))
    assert detect_format(spec, tmp_path) == "llava_json"
    put_json(tmp_path, "rows.json", [{"nothing": 1}])
    assert detect_format(spec, tmp_path) == "llava_json"
    assert detect_format(source("llava_json"), tmp_path) == "llava_json"
