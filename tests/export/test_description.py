"""The card and the Croissant metadata beside an export, read by `datasets` and `mlcroissant`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import datasets
import mlcroissant
import pytest
import yaml

from mvl_assets.config.profile import load_profile
from mvl_assets.config.prompts import compute_judging_hash, get_judge_prompts, load_prompts
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.export.dataset_card import render_dataset_card
from mvl_assets.export.description import describe_export, list_llava_configs
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_stage import ExportOptions, export_stage
from mvl_assets.export.formats.registry import get_format
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CATEGORY, JUDGED
from tests.export.small_lake import SOURCE, STAGE, fill_judged_lake
from tests.lake.rows import put


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return fill_judged_lake(tmp_path_factory.mktemp("described") / "lake")


def export(lake: Lake, folder: Path, name: str) -> str:
    exports, options = ExportFolder(str(folder)), ExportOptions(shard_bytes=1000)
    export_stage(lake, STAGE, exports, get_format(name), options, ProcessExecutor(1))
    describe_export(lake, load_profile("demo"), exports, get_format(name), ExportOptions())
    return (folder / "README.md").read_text(encoding="utf-8")


def read_front_matter(card: str) -> dict[str, Any]:
    _, front_matter, _ = card.split("---\n", 2)
    return yaml.safe_load(front_matter)


@pytest.mark.parametrize("name", ["parquet", "trl", "llava_json", "qwen_vl"])
def test_datasets_reads_the_folder_by_its_card(lake: Lake, tmp_path: Path, name: str) -> None:
    export(lake, tmp_path / "hub", name)
    rows = datasets.load_dataset(str(tmp_path / "hub"), STAGE, split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 12 and {"id", "source"} <= set(rows.column_names)
    assert {"messages", "conversations"} & set(rows.column_names)


def test_datasets_reads_a_lance_table_by_its_card_and_not_the_metadata_of_its_fragments(
    lake: Lake, tmp_path: Path
) -> None:
    export(lake, tmp_path / "lance", "lance")
    export(lake, tmp_path / "parquet", "parquet")
    tables = [
        datasets.load_dataset(str(tmp_path / name), STAGE, split="train", cache_dir=str(tmp_path / "cache"))
        for name in ("lance", "parquet")
    ]
    stored, expected = (table.cast_column("images", datasets.List(datasets.Image(decode=False))) for table in tables)
    assert list(stored) == list(expected) and len(stored) == 12
    assert not (tmp_path / "lance" / "croissant.json").exists()  # its file sets are of Parquet


def test_the_card_of_the_assets_names_the_files_below_it(lake: Lake) -> None:
    (files,) = list_llava_configs(lake, "auto", "llava_json")
    assert (files.name, files.data_files, files.n_rows) == (STAGE, f"llava_json/{STAGE}.json", 12)
    (shards,) = list_llava_configs(lake, "shards", "llava_json")
    assert shards.data_files == f"llava_json/{STAGE}/train-*.jsonl"


def test_the_card_has_what_the_hub_asks_for(lake: Lake, tmp_path: Path) -> None:
    front_matter = read_front_matter(export(lake, tmp_path, "parquet"))
    # The rows are of a source that the paper does not have, and one of them is Chinese.
    expected = {"license": "other", "size_categories": ["n<1K"], "language": ["en", "zh"]}
    expected |= {"pretty_name": "Instruction data made with mvl"}
    assert {name: front_matter[name] for name in expected} == expected
    assert "mammoth-vl" not in front_matter["tags"]
    assert front_matter["configs"][0]["data_files"] == [{"split": "train", "path": f"{STAGE}/train-*.parquet"}]
    (info,) = front_matter["dataset_info"]
    assert info["splits"][0]["num_examples"] == 12 and info["download_size"] > 0
    features = datasets.Features._from_yaml_list(info["features"])
    (file, *_) = sorted((tmp_path / STAGE).glob("*.parquet"))
    assert features == datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "cache")).features


@pytest.mark.parametrize("name", ["webdataset", "energon"])
def test_tars_have_a_card_without_configurations(lake: Lake, tmp_path: Path, name: str) -> None:
    card = export(lake, tmp_path, name)
    assert "configs" not in read_front_matter(card) and "12" in card  # `datasets` cannot load them


def test_the_card_says_how_the_rows_came_to_be(lake: Lake, tmp_path: Path) -> None:
    card = export(lake, tmp_path, "llava_json")
    assert "CC-BY-4.0 AND LicenseRef-research-only AND NOASSERTION" in card
    assert "research or non-commercial use only, so the whole does &#40;research only&#41;" in card
    for words in ("judge&#95;no 2", "50.0%", "rewrite&#95;chart", "rewritten/chart", "duplicates of others"):
        assert words in card
    assert "The text has been changed since." in card  # the hash is of no prompt at hand
    profile = load_profile("demo")
    assert f"(`duplicates` of the profile): `min_correlation` {profile.duplicates.min_correlation}, " in card
    assert f"`min_ngram_overlap` {profile.contamination.min_ngram_overlap}" in card
    assert "`shared_image`" in card and "max_removed" not in card
    assert "\u200b" not in card  # somebody may copy a name or a hash


def test_the_card_has_the_judging_prompts_and_all_judges(tmp_path: Path) -> None:
    lake, profile = fill_judged_lake(tmp_path / "lake"), load_profile("demo")
    (role_model,) = profile.models.values()
    profile = profile.model_copy(
        update={
            "models": profile.models | {"second": role_model.model_copy(update={"name": "second-judge"})},
            "judging": profile.judging.model_copy(update={"panel": ["second"], "panel_rule": "mean"}),
        }
    )
    criteria = get_judge_prompts(load_prompts(profile=profile), "chart", reference=profile.gives_reference)
    verdicts = list(lake.get_table("judged/chart").iter_rows())
    judging_hash = compute_judging_hash(criteria, None, None)
    put(lake, "judged/chart", JUDGED, [row | {"prompt_hash": judging_hash} for row in verdicts], SOURCE)
    card = render_dataset_card(lake, profile, [])
    assert f"### judge ({judging_hash[:12]})" in card
    assert all(prompt.template.strip() in card for prompt in criteria) and len(criteria) > 1
    assert "| judge 2 | second-judge |" in card and "by the rule `mean`" in card


def test_texts_in_no_language_name_none(tmp_path: Path) -> None:
    lake = fill_judged_lake(tmp_path / "lake")
    rows = list(lake.get_table("category/chart").iter_rows())
    put(lake, "category/chart", CATEGORY, [row | {"language": "zxx"} for row in rows], SOURCE)
    front_matter = read_front_matter(render_dataset_card(lake, load_profile("demo"), []))
    assert "zxx" not in front_matter.get("language", [])


def test_croissant_is_valid_and_its_records_load(lake: Lake, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    export(lake, tmp_path, "parquet")
    with caplog.at_level(logging.WARNING):
        croissant = mlcroissant.Dataset(jsonld=str(tmp_path / "croissant.json"))
    assert not caplog.text, "mlcroissant has remarks"
    records = list(croissant.records(STAGE))
    assert len(records) == 12
    record = records[1]
    assert record[f"{STAGE}/source"] == b"drawn_charts" and record[f"{STAGE}/p_yes"] == 0.9
    assert record[f"{STAGE}/messages/role"] == [b"user", b"assistant"]
    assert record[f"{STAGE}/messages/content"][1] == b"First, see. So it is 1."
    assert [len(images) for images in (r[f"{STAGE}/images/bytes"] for r in records)] == [1] * 8 + [2, 0, 3, 1]
