"""A benchmark's entry from the file of its lmms-eval task: what it reads by name, in templates and in functions."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.config.benchmarks import BenchmarkItems
from mvl_assets.errors import MvlError
from mvl_assets.readers.sniffing.lmms_task import sniff_task

BASE = """
dataset_path: some/charts
test_split: test
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: "answer"
"""
UTILS = """
raise SystemExit("is never run")
def doc_to_visual(doc):
    return [doc["image"].convert("RGB")]
def doc_to_text(doc, kwargs):
    return doc["id"] + doc["question"] + " ".join(doc.get("options"))
"""


def test_fields_are_read_in_functions_and_included_files(tmp_path: Path) -> None:
    (tmp_path / "_base_yaml").write_text(BASE)
    (tmp_path / "utils.py").write_text(UTILS)
    (tmp_path / "task.yaml").write_text("include: _base_yaml\ntask: Charts-Human\ndataset_name: human\n")
    proposal = sniff_task(tmp_path / "task.yaml")
    assert proposal.attributes == {
        "slug": "benchmark_charts_human",
        "title": "Charts-Human",
        "modality": "single_image",
        "format": "records",
        "hub": {"repo": "some/charts", "files": ["human/test-*.parquet"]},
        "records": {
            "files": "**/*.parquet",
            "shape": "parquet",
            "question": "{question}\n{options}",
            "answer": "{answer}",
            "image_field": "image",
        },
        "tasks": {"Charts-Human": "*"},
    }
    assert BenchmarkItems(**proposal.attributes).match_task("Charts-Human", "a.parquet")
    assert len(proposal.notes) == 1


def test_what_a_template_does_not_say_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text('task: t\ndataset_path: json\ndoc_to_text: "{{prompt}}:"\n')
    proposal = sniff_task(path)
    assert proposal.attributes["records"]["question"] == "{prompt}"
    assert "hub" not in proposal.attributes
    assert len(proposal.notes) == 4


@pytest.mark.parametrize("text", ["group: all\ntask: [a, b]\n", "- a\n", "a: [", "!!python/object/apply:os.getcwd []"])
def test_what_is_no_task_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(MvlError, match=r"task\.yaml"):
        sniff_task(path)
