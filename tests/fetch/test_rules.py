from __future__ import annotations

import pytest

from mvl_assets.config.catalog import FORMATS, RecordsMapping, load_catalog
from mvl_assets.fetch.rules import find_unmatched_patterns, format_manual_instructions, select_files
from mvl_assets.readers.registry import get_format
from tests.fetch.sources import spec

ONE_VISION = [
    ".gitattributes",
    "README.md",
    "ai2d(gpt4v)/train-00000-of-00001.parquet",
    "ai2d(gpt4v)/notes.md",
    "ai2d/train-00000-of-00001.parquet",
    "cambrian(filtered)/cambrian.json",
    "cambrian(filtered)/cambrian.tar.gz",
    "dataset_infos.json",
]
CAMBRIAN = [
    ".git.tar.gz",
    "README.md",
    "idk.tar.gz",
    "jsons/Cambrian10M.jsonl",
    "jsons/Cambrian7M.jsonl",
    "lnqa.tar.gz",
]


def test_select_files_of_a_config_folder_drops_the_folder() -> None:
    source = spec(config="ai2d(gpt4v)", format="llava_parquet")
    assert select_files(source, ONE_VISION) == {
        "train-00000-of-00001.parquet": "ai2d(gpt4v)/train-00000-of-00001.parquet"
    }
    archives = select_files(spec(config="cambrian(filtered)"), ONE_VISION)
    assert sorted(archives) == ["cambrian.json", "cambrian.tar.gz"]


def test_select_files_of_a_shared_file_takes_that_file_and_its_own_images() -> None:
    source = load_catalog()["idk"]
    assert list(select_files(source, CAMBRIAN)) == ["idk.tar.gz", "jsons/Cambrian10M.jsonl"]
    assert find_unmatched_patterns(source, CAMBRIAN) == []
    assert find_unmatched_patterns(load_catalog()["sketchyvqa"], CAMBRIAN) == ["oodvqa*"]
    assert select_files(spec(config="idk_11k", format="cambrian_jsonl"), CAMBRIAN) == {}


def test_select_files_without_a_config_takes_all_data_files_but_hidden_ones() -> None:
    chosen = select_files(spec(format="cambrian_jsonl"), CAMBRIAN)
    assert set(chosen) == {n for n in CAMBRIAN if n not in (".git.tar.gz", "README.md")}
    assert select_files(spec(files=["*.tar.gz"]), CAMBRIAN).keys() == {"idk.tar.gz", "lnqa.tar.gz"}


def test_select_files_without_row_files_returns_nothing() -> None:
    assert select_files(spec(config="lnqa_302k", format="cambrian_jsonl"), CAMBRIAN) == {}
    assert select_files(spec(format="llava_parquet"), CAMBRIAN) == {}


def test_files_of_a_catalog_entry_replace_the_format_rule() -> None:
    names = ["allava_laion/a.json", "allava_laion/image_chunks/images_0.zip", "allava_vflan/b.json"]
    assert select_files(spec(files=["allava_laion/*"]), names).keys() == set(names[:2])
    assert select_files(spec(files=["other/*"]), names) == {}


@pytest.mark.parametrize("name", ["dreamsim_split.z01", "allava.tar.gz_part12", "partII.tar.gz_part_aa", "x.zip.001"])
def test_archive_parts_are_selected_as_archives(name: str) -> None:
    assert name in select_files(spec(format="m4_instruct"), [name, "m4_instruct_annotations.json"])


def test_every_format_names_its_files_and_an_unknown_format_takes_any_rows() -> None:
    assert all(get_format(name).row_files and get_format(name).description for name in FORMATS)
    assert select_files(spec(format=None), ["a.csv", "b.zip", "c.md"]).keys() == {"a.csv", "b.zip"}


def test_a_field_map_names_its_files_itself() -> None:
    records = RecordsMapping(files="**/train_*.jsonl", shape="jsonl", question="{q}", answer="{a}")
    source = spec(format="records", records=records)
    names = ["deep/train_1.jsonl", "train_2.jsonl", "test_1.jsonl", "images.zip"]
    assert select_files(source, names).keys() == {"deep/train_1.jsonl", "train_2.jsonl", "images.zip"}


def test_source_without_a_public_home_gets_manual_instructions() -> None:
    homeless = [s for s in load_catalog().values() if s.hub is None and s.url is None]
    assert len(homeless) > 10
    for source in homeless:
        line = format_manual_instructions(source)
        assert str(source.root) in line and source.title in line and "`path:`" in line and "\n" not in line
