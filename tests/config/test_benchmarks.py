"""Items of benchmarks as declared sources: the paper's 23, and what keeps them out of training."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mvl_assets.config.benchmarks import BenchmarkItems, load_benchmarks
from mvl_assets.config.catalog import SourceSpec, get_source, list_all_categories, load_catalog
from mvl_assets.config.profile import MixtureConfig
from mvl_assets.errors import MvlError

ENTRY = {"slug": "benchmark_mine", "title": "Mine", "modality": "text", "format": None, "tasks": {"mine": "*"}}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"group": "A", "reason": None}, "of group C"),
        ({"category": "chart"}, "benchmark"),
        ({"slug": "mine"}, "pattern"),
        ({"tasks": {}}, "at least 1"),
    ],
)
def test_items_of_a_benchmark_cannot_be_declared_for_training(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BenchmarkItems.model_validate(ENTRY | changed)


def test_source_for_training_cannot_have_the_slug_or_category_of_a_benchmark() -> None:
    fields = {"title": "x", "category": "chart", "group": "A", "modality": "text", "format": None}
    with pytest.raises(ValueError, match="only the items of benchmarks"):
        SourceSpec.model_validate({"slug": "benchmark_x", **fields})
    with pytest.raises(ValueError, match="should be one of"):
        SourceSpec.model_validate({"slug": "x", **fields, "category": "benchmark"})
    with pytest.raises(ValueError, match="not categories of a mixture"):
        MixtureConfig(shares={"benchmark": 1.0})


def test_benchmarks_are_no_sources_of_the_catalog() -> None:
    assert not load_benchmarks().keys() & load_catalog().keys()
    assert "benchmark" not in list_all_categories()
    assert get_source("benchmark_ai2d") is load_benchmarks()["benchmark_ai2d"]
    with pytest.raises(MvlError, match="no items of a benchmark 'benchmark_ai2'") as error:
        get_source("benchmark_ai2")
    assert "benchmark_ai2d" in (error.value.hint or "")


def test_project_adds_a_benchmark_and_replaces_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MVL_PROJECT", raising=False)
    (tmp_path / "mvl.yaml").touch()
    (tmp_path / "benchmarks").mkdir()
    entries = [ENTRY, ENTRY | {"slug": "benchmark_ai2d", "title": "Another AI2D"}]
    (tmp_path / "benchmarks" / "own.yaml").write_text("---\n".join(map(yaml.safe_dump, entries)), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load_benchmarks()["benchmark_mine"].name == "mine"
    assert load_benchmarks()["benchmark_ai2d"].title == "Another AI2D"
    (tmp_path / "benchmarks" / "own.yaml").write_text(yaml.safe_dump(ENTRY | {"group": "B"}), encoding="utf-8")
    with pytest.raises(MvlError, match=r"own\.yaml:\d+"):
        from mvl_assets.config import benchmarks

        benchmarks._load_benchmarks.cache_clear()
        load_benchmarks()
