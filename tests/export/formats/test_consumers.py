"""Exports loaded by what reads them, where that is light enough for a test: `datasets` and `webdataset`.

Heavier readers were run by hand on exports of 86 rows (originals and rewrites, several images, frames of videos,
texts alone), and ids, words and numbers of images were compared with the lake's: Energon 7.4.1 (`energon prepare
--split-parts 'train:.*'`, then its loader), ms-swift 4.6.0 (`load_dataset`), LLaMA-Factory 0.9.5 (its loader and the
messages of its Qwen2-VL plugin), TRL 1.16.0 (its vision collator with a processor of Qwen2-VL, on 24 rows), and
`datasets` 4.0.0 and 5.2.0 on seven formats by their cards. Of another export, `_build_messages` of Qwen3-VL's
fine-tuning code read twelve rows, and LLaVA-NeXT's `LazySupervisedDataset` (commit df17966, with its
`preprocess_multimodal`; tokenizer and image processor were stand-ins) the same ids and words as 44 rows have.
nanoVLM's reader was not run: here the columns that it documents are checked.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from mvl_assets.common.digest import compute_digest
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_stage import ExportOptions, export_stage
from mvl_assets.export.formats.registry import get_format
from mvl_assets.lake import external_table
from mvl_assets.lake.lake import Lake
from tests.export.small_lake import PROMPT_HASH, STAGE, fill_judged_lake

QUESTION, ANSWER = "<image>\nQuestion 1, in steps?", "First, see. So it is 1."
VIDEO_QUESTION = "<image><image><image>\nWhat is the tag <video>?"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return fill_judged_lake(tmp_path_factory.mktemp("consumers") / "lake")


def export(lake: Lake, folder: Path, name: str) -> Path:
    options = ExportOptions(shard_bytes=1000)
    result = export_stage(lake, STAGE, ExportFolder(str(folder)), get_format(name), options, ProcessExecutor(1))
    assert result.rows == 12
    return folder


def load(form: str, files: list[Path], cache: Path) -> datasets.Dataset:
    return datasets.load_dataset(
        form, data_files=[str(file) for file in sorted(files)], split="train", cache_dir=str(cache / "cache")
    )


def check_provenance(row: dict[str, Any]) -> None:
    expected = {
        "source": "drawn_charts",
        "category": "chart",
        "kind": "rewritten",
        "license": "cc-by-4.0",
        "prompt": "rewrite_chart",
        "prompt_hash": PROMPT_HASH,
        "model": "writer",
        "judge_model": "judge",
        "p_yes": 0.9,
        "content_score": 4,
    }
    assert {name: row[name] for name in expected} == expected
    assert row["id"] and row["rewrite_id"] and row["sample_id"]


def test_parquet_has_images_and_messages(lake: Lake, tmp_path: Path) -> None:
    rows = load("parquet", list(export(lake, tmp_path, "parquet").rglob("*.parquet")), tmp_path)
    assert rows.features["images"] == datasets.List(datasets.Image())
    assert rows[1]["messages"] == [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    check_provenance(rows[1])
    assert [len(row["images"]) for row in rows] == [1] * 8 + [2, 0, 3, 1]
    assert rows[10]["messages"][0]["content"] == VIDEO_QUESTION
    assert rows[10]["messages"][1]["content"] == "It is <video>, not <audio>."
    stored = rows.cast_column("images", datasets.List(datasets.Image(decode=False)))
    for row in stored:
        assert [compute_digest(image["bytes"]) for image in row["images"]] == row["image_ids"]
    assert all(isinstance(image, Image.Image) for image in rows[8]["images"])


def test_images_in_parquet_are_stored_as_they_are(lake: Lake, tmp_path: Path) -> None:
    (file, *_) = export(lake, tmp_path, "parquet").rglob("*.parquet")
    row_group = pq.read_metadata(file).row_group(0)
    columns = {row_group.column(n).path_in_schema: row_group.column(n) for n in range(row_group.num_columns)}
    data = columns["images.list.element.bytes"]
    assert data.compression == "UNCOMPRESSED" and not data.is_stats_set
    assert columns["messages.list.element.content"].compression == "ZSTD" and columns["source"].is_stats_set


def test_lance_has_the_rows_of_parquet(lake: Lake, tmp_path: Path) -> None:
    rows = load("parquet", list(export(lake, tmp_path / "parquet", "parquet").rglob("*.parquet")), tmp_path)
    undecoded = rows.cast_column("images", datasets.List(datasets.Image(decode=False)))
    table = export(lake, tmp_path / "lance", "lance") / f"{STAGE}.lance"
    stored = [row for batch in external_table.iter_batches(table, None, 5) for row in batch.to_pylist()]
    assert stored == list(undecoded)


def test_trl_has_typed_parts(lake: Lake, tmp_path: Path) -> None:
    rows = load("parquet", list(export(lake, tmp_path, "trl").rglob("*.parquet")), tmp_path)
    image, text = {"type": "image", "text": None}, {"type": "text", "text": "Both?"}
    assert rows[8]["messages"][0] == {"role": "user", "content": [image, image, text]}
    assert rows[1]["messages"][1]["content"] == [{"type": "text", "text": ANSWER}]
    for row in rows:
        parts = [part["type"] for message in row["messages"] for part in message["content"]]
        assert parts.count("image") == len(row["images"])


def test_finevision_has_pairs_without_markers(lake: Lake, tmp_path: Path) -> None:
    rows = load("parquet", list(export(lake, tmp_path, "finevision").rglob("*.parquet")), tmp_path)
    assert rows[1]["texts"] == [{"user": "Question 1, in steps?", "assistant": ANSWER}]
    assert rows[8]["texts"][0]["user"] == "Both?" and len(rows[8]["images"]) == 2
    check_provenance(rows[1])


@pytest.mark.parametrize("name", ["webdataset", "energon"])
def test_webdataset_reads_samples_with_their_images(lake: Lake, tmp_path: Path, name: str) -> None:
    tars = sorted((export(lake, tmp_path, name) / STAGE).glob("*.tar"))
    samples = list(webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False).decode())
    assert [len(sample["json"]["images"]) for sample in samples] == [1] * 8 + [2, 0, 3, 1]
    assert samples[1]["json"]["messages"][0]["content"] == QUESTION
    check_provenance(samples[1]["json"])
    raw_samples = webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False)
    for sample, raw in zip(samples, raw_samples, strict=True):
        assert sample["__key__"] == sample["json"]["id"]
        ids = [compute_digest(raw[image]) for image in sample["json"]["images"]]
        assert ids == sample["json"]["image_ids"]
    assert (tmp_path / STAGE / ".nv-meta" / "dataset.yaml").exists() == (name == "energon")


@pytest.mark.parametrize("name", ["llava_json", "qwen_vl", "ms_swift", "llama_factory"])
def test_json_formats_load_with_one_type_for_each_column(lake: Lake, tmp_path: Path, name: str) -> None:
    (file,) = export(lake, tmp_path, name).glob(f"{STAGE}.json*")
    rows = load("json", [file], tmp_path)
    image_column = "images" if "images" in rows.features else "image"
    assert rows.features[image_column] == datasets.List(datasets.Value("string"))
    assert {str(feature) for feature in rows.features.values()} & {"Value('null')"} == set()
    assert [len(row[image_column] or []) for row in rows] == [1] * 8 + [2, 0, 3, 1]
    for row in rows:
        turns = row.get("messages") or [{"content": turn["value"]} for turn in row["conversations"]]
        n_markers = sum(turn["content"].count("<image>") for turn in turns)
        assert n_markers == len(row[image_column] or [])
        if name != "llava_json":  # these also count the markers of other media, in answers, too
            assert not any(word in turn["content"] for turn in turns for word in ("<video>", "<audio>"))
        for path in row[image_column] or []:
            assert compute_digest((tmp_path / path).read_bytes()) == Path(path).stem
            Image.open(io.BytesIO((tmp_path / path).read_bytes())).load()


def test_a_row_of_text_has_no_image_key_in_llava_and_an_empty_list_elsewhere(lake: Lake, tmp_path: Path) -> None:
    entries = json.loads((export(lake, tmp_path / "llava", "llava_json") / f"{STAGE}.json").read_text())
    assert [entry["id"] for entry in entries if "image" not in entry] == [entries[9]["id"]]
    assert entries[9]["conversations"][0] == {"from": "human", "value": "Say hello, <b>world</b> & co."}
    lines = (export(lake, tmp_path / "qwen", "qwen_vl") / f"{STAGE}.jsonl").read_text().splitlines()
    assert json.loads(lines[9])["image"] == []


def test_llama_factory_finds_both_layouts_declared(lake: Lake, tmp_path: Path) -> None:
    export(lake, tmp_path, "llama_factory")
    declared = json.loads((tmp_path / "dataset_info.json").read_text())
    assert declared[STAGE]["file_name"] == f"{STAGE}.jsonl" and declared[STAGE]["formatting"] == "sharegpt"
    options = ExportOptions(layout="shards")
    export_stage(lake, STAGE, ExportFolder(str(tmp_path)), get_format("llama_factory"), options, ProcessExecutor(1))
    declared = json.loads((tmp_path / "dataset_info.json").read_text())
    # It reads all files of a folder, which have to be of one kind.
    assert {path.suffix for path in (tmp_path / declared[STAGE]["file_name"]).iterdir()} == {".jsonl"}
