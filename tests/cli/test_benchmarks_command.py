"""`mvl benchmarks add`: an entry in the project, by the task alone or by the data."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mvl_assets.cli import cli
from mvl_assets.config import benchmarks
from tests.raw_files import make_image, put, put_json

TASK = 'task: birds\ndataset_path: some/birds\ndoc_to_text: "{{question}}"\ndoc_to_target: answer\n'


def test_a_task_becomes_a_benchmark_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mvl.yaml").write_text("catalog: mammoth_vl\n")
    (tmp_path / "task.yaml").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MVL_PROJECT", str(tmp_path))
    data = tmp_path / "data"
    put(data, "a.png", make_image())
    put_json(data, "rows.json", [{"question": f"Which bird is {n}?", "answer": "owl", "image": "a.png"} for n in "ab"])
    result = CliRunner().invoke(cli, ["benchmarks", "add", "task.yaml", "--files", str(data)])
    assert result.exit_code == 0, result.output
    assert "2 of the first 2 rows" in result.output
    benchmarks._load_benchmarks.cache_clear()  # read before it was written
    spec = benchmarks.load_benchmarks()["benchmark_birds"]
    assert spec.records is not None and spec.records.image_field == "image"
    assert spec.tasks == {"birds": "*"}
    again = CliRunner().invoke(cli, ["benchmarks", "add", "task.yaml"])
    assert again.exit_code and "declared already" in str(again.exception)
