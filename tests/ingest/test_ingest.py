"""Files into the lake: once is enough, changes become revisions, what is wrong becomes a reject with its place."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mvl_assets.common.sample_facts import compute_fingerprint, compute_holdout_hash
from mvl_assets.errors import SourceError
from mvl_assets.ingest import ingest as module
from mvl_assets.ingest import shard
from mvl_assets.ingest.ingest import IngestReport, ingest_source
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.checks import check_table
from mvl_assets.lake_queries.views import iter_current_samples
from mvl_assets.media import image as media
from mvl_assets.readers.files import list_data_files
from tests.raw_files import TABMWP, make_image, put, put_json, put_parquet, source, talk

LLAVA = source("llava_json", license="cc-by-4.0")
REAL_TABMWP = Path(__file__).resolve().parents[3] / "shared" / "data" / "tabmwp"


def row(name: str, colour: int = 0, answer: str = "A cat.") -> dict[str, Any]:
    return {"id": name, "image": f"{colour}.png", "conversations": talk("<image>\nWhat?", answer)}


def write(root: Path, rows: list[dict[str, Any]]) -> None:
    """The rows, and the pictures that they name by colour."""
    put_json(root, "rows.json", rows)
    for one in rows:
        if str(one.get("image", ""))[:-4].isdecimal():
            put(root, one["image"], make_image(int(one["image"][:-4])))


def ingest(lake: Lake, root: Path, limit: int | None = None, run_id: str = "run") -> IngestReport:
    return ingest_source(lake, LLAVA, root, run_id=run_id, limit=limit)


def now(lake: Lake) -> dict[str, dict[str, Any]]:
    """The samples in use by their native id."""
    return {s["native_id"]: s for s in iter_current_samples(lake, LLAVA.slug)}


def rejects(lake: Lake) -> list[tuple[str, int, str]]:
    result = lake.get_table("rejects").iter_rows(["file", "position", "error"])
    return sorted((r["file"], r["position"], r["error"]) for r in result)


def test_sample_has_its_text_images_licence_and_place(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "raw", [row("a", 1), {"id": "t", "conversations": talk("Hi", "Hello")}])
    report = ingest(lake, tmp_path / "raw")
    assert (report.n_rows, report.n_new, report.reject_counts, report.n_new_images) == (2, 2, {}, 1)
    sample = now(lake)["a"]
    assert sample["conversations"] == [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    assert (sample["file"], sample["position"], sample["license"]) == ("rows.json", 0, "cc-by-4.0")
    assert (sample["revision"], sample["withdrawn"], sample["run_id"]) == (1, False, "run")
    (image_id,) = sample["image_ids"]
    assert lake.images.read_images([image_id]) == {image_id: make_image(1)}
    assert lake.images.read_properties([image_id])[image_id].width == 240
    properties = asdict(lake.images.read_properties([image_id])[image_id])
    # How sharp the least sharp of its images is, is a column of the sample.
    assert sample["sharpness"] == properties.pop("sharpness") is not None
    assert sample["image_properties"] == [{"name": "1.png", **properties}]
    assert sample["fingerprint"] == compute_fingerprint(sample["conversations"], [image_id])
    phash = sample["image_properties"][0]["phash"]
    assert sample["similar_fingerprint"] == compute_fingerprint(sample["conversations"], [phash])
    assert sample["holdout_hash"] == compute_holdout_hash(image_id)
    assert (sample["n_turns"], sample["n_chars"]) == (2, len("<image>\nWhat?A cat."))
    text = now(lake)["t"]
    assert (text["image_properties"], text["holdout_hash"]) == ([], compute_holdout_hash(text["sample_id"]))
    assert text["similar_fingerprint"] == text["fingerprint"]
    assert now(lake)["t"]["image_ids"] == []
    assert check_table(lake.get_table("samples")).ok


def test_second_ingest_writes_and_decodes_nothing(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path / "raw", [row("a", 1), row("b", 2), {"id": "c", "image": "gone.png", "conversations": talk("?", "!")}]
    )
    first = ingest(lake, tmp_path / "raw")
    versions = [lake.get_table(n).version for n in ("samples", "rejects")] + [lake.images.table.version]
    monkeypatch.setattr("mvl_assets.ingest.images.inspect_image", lambda data: pytest.fail("decoded again"))
    second = ingest(lake, tmp_path / "raw", run_id="later")
    assert (second.n_new, second.n_changed, second.n_withdrawn, second.n_new_images, second.new_image_bytes) == (
        0,
        0,
        0,
        0,
        0,
    )
    assert second.reject_counts == first.reject_counts == {"missing_image": 1}
    assert second.data_version == first.data_version
    assert versions == [lake.get_table(n).version for n in ("samples", "rejects")] + [lake.images.table.version]


def test_image_shared_by_rows_is_stored_once_in_each_source(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "raw", [row("a", 1), row("b", 1)])
    assert ingest(lake, tmp_path / "raw").n_new_images == 1
    put_parquet(
        tmp_path / "other",
        "a.parquet",
        [
            {
                "images": [{"bytes": make_image(1), "path": None}],
                "texts": [{"user": "?", "assistant": "!", "source": ""}],
            }
        ],
    )
    other = source("cauldron_parquet").model_copy(update={"slug": "other"})
    assert ingest_source(lake, other, tmp_path / "other", run_id="r").n_new_images == 1
    assert [lake.images.table.count(partition_key=slug) for slug in ("demo", "other")] == [1, 1]
    (shown,) = (s["image_properties"] for s in iter_current_samples(lake, "other"))
    assert shown[0]["width"] == 240
    assert len({s["image_ids"][0] for slug in ("demo", "other") for s in iter_current_samples(lake, slug)}) == 1


def test_changed_row_is_a_new_revision_and_others_stay(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "raw", [row("a", 1), row("b", 2)])
    before = ingest(lake, tmp_path / "raw")
    write(tmp_path / "raw", [row("a", 1, answer="A dog."), row("b", 2)])
    after = ingest(lake, tmp_path / "raw")
    assert (after.n_new, after.n_changed, after.n_withdrawn) == (0, 1, 0)
    assert after.data_version != before.data_version
    assert {k: (s["revision"], s["conversations"][1]["value"]) for k, s in now(lake).items()} == {
        "a": (2, "A dog."),
        "b": (1, "A cat."),
    }
    assert lake.get_table("samples").count() == 3


def test_changed_image_under_the_same_name_is_a_new_revision(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "raw", [row("a", 1)])
    ingest(lake, tmp_path / "raw")
    put(tmp_path / "raw", "1.png", make_image(99))
    assert ingest(lake, tmp_path / "raw").n_changed == 1
    assert lake.images.read_images(now(lake)["a"]["image_ids"]).popitem()[1] == make_image(99)


def test_moved_row_is_not_a_new_revision(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "raw", [row("a", 1), row("b", 2)])
    ingest(lake, tmp_path / "raw")
    write(tmp_path / "raw", [row("b", 2), row("a", 1)])
    report = ingest(lake, tmp_path / "raw")
    assert (report.n_new, report.n_changed, report.n_withdrawn) == (0, 0, 0)


def test_missing_row_is_withdrawn_and_returns_as_a_revision(lake: Lake, tmp_path: Path) -> None:
    rows = [row("a", 1), row("b", 2)]
    write(tmp_path / "raw", rows)
    ingest(lake, tmp_path / "raw")
    write(tmp_path / "raw", rows[:1])
    assert ingest(lake, tmp_path / "raw").n_withdrawn == 1
    assert set(now(lake)) == {"a"}
    assert ingest(lake, tmp_path / "raw").n_withdrawn == 0
    write(tmp_path / "raw", rows)
    assert ingest(lake, tmp_path / "raw").n_changed == 1
    assert {k: s["revision"] for k, s in now(lake).items()} == {"a": 1, "b": 3}


def test_unreadable_row_becomes_a_reject_and_keeps_its_revision(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "raw", [row("a", 1), row("b", 2)])
    ingest(lake, tmp_path / "raw")
    (tmp_path / "raw" / "2.png").unlink()
    report = ingest(lake, tmp_path / "raw")
    assert (report.n_withdrawn, report.reject_counts) == (0, {"missing_image": 1})
    assert set(now(lake)) == {"a", "b"}


def test_broken_file_withdraws_nothing(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "raw", [row("a", 1), row("b", 2)])
    ingest(lake, tmp_path / "raw")
    whole = (tmp_path / "raw" / "rows.json").read_bytes()
    put(tmp_path / "raw", "rows.json", whole[:-30])
    report = ingest(lake, tmp_path / "raw")
    assert (report.reject_counts, report.n_withdrawn) == ({"broken_file": 1}, 0)
    assert set(now(lake)) == {"a", "b"}


def test_bad_images_become_rejects_and_are_not_stored(lake: Lake, tmp_path: Path) -> None:
    root = tmp_path / "raw"
    bad = {"cut.png": make_image(5)[:-40], "page.png": b"<html>", "drawing.png": b"<svg/>", "empty.png": b""}
    for name, data in bad.items():
        put(root, name, data)
    put(root, "wrong-extension.png", make_image(3, format="JPEG"))
    rows = [row("good", 1), *({**row(name), "image": name} for name in [*bad, "wrong-extension.png"])]
    write(root, [*rows, {**row("two"), "image": ["9.png", "cut.png"], "conversations": talk("?", "!")}])
    put(root, "9.png", make_image(9))
    report = ingest(lake, root)
    assert report.reject_counts == {"truncated_image": 2, "not_an_image": 1, "html_page": 1, "svg_image": 1}
    assert set(now(lake)) == {"good", "wrong-extension.png"}
    assert lake.images.table.count() == 2
    assert rejects(lake)[0] == ("rows.json", 1, "truncated_image")


def test_repaired_row_leaves_the_rejects(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "raw", [{**row("a", 1), "image": "late.png"}])
    assert ingest(lake, tmp_path / "raw").reject_counts == {"missing_image": 1}
    put(tmp_path / "raw", "late.png", make_image(4))
    report = ingest(lake, tmp_path / "raw")
    assert (report.n_new, report.reject_counts, rejects(lake)) == (1, {}, [])


def test_ingest_keeps_rejects_of_other_sources_and_stages(lake: Lake, tmp_path: Path) -> None:
    put_json(tmp_path / "raw", "a.json", [{"id": "x"}])
    ingest(lake, tmp_path / "raw")
    other = LLAVA.model_copy(update={"slug": "other"})
    ingest_source(lake, other, tmp_path / "raw", run_id="r")
    put_json(tmp_path / "raw", "a.json", [{"id": "x", "conversations": talk("What?", "A cat.")}])
    ingest_source(lake, other, tmp_path / "raw", run_id="r")
    assert [r["source"] for r in lake.get_table("rejects").iter_rows()] == ["demo"]


def test_limit_decodes_selected_images_only_and_grows_by_inclusion(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(f"r{n}", n) for n in range(60)]
    write(tmp_path / "raw", rows)
    looked: list[bytes] = []
    monkeypatch.setattr(
        "mvl_assets.ingest.images.inspect_image", lambda d: (looked.append(d), media.inspect_image(d))[1]
    )
    seen = []
    for limit in (5, 20, None, 10):
        report = ingest(lake, tmp_path / "raw", limit)
        seen.append(set(now(lake)))
        assert report.n_rows == (limit or 60)
    assert [len(s) for s in seen] == [5, 20, 60, 60]
    assert seen[0] < seen[1] < seen[2]
    assert len(looked) == 60


def test_repeated_native_ids_are_different_samples(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "raw", [row("same", 1), row("same", 2), row("same", 1)])
    assert ingest(lake, tmp_path / "raw").n_new == 3
    assert len({s["sample_id"] for s in iter_current_samples(lake, LLAVA.slug)}) == 3
    assert ingest(lake, tmp_path / "raw").n_new == 0


def test_a_limit_accepts_a_file_whose_keys_are_readable_beyond_the_break(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "raw" / "a.parquet"
    path.parent.mkdir()
    talk = [{"from": "human", "value": "what is it?"}, {"from": "gpt", "value": "a cat"}]
    rows = pa.Table.from_pylist([{"id": f"row {number}", "conversations": talk} for number in range(128)])
    pq.write_table(rows, path, row_group_size=64, compression="snappy")
    column = pq.ParquetFile(path).metadata.row_group(1).column(2)
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(data)
    report = ingest_source(lake, source("llava_parquet"), path.parent, run_id="r", limit=100)
    assert report.reject_counts == {"broken_file": 1}
    assert 0 < report.n_new <= 64


def test_rows_of_a_video_with_a_broken_frame_are_rejects_in_every_batch(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "MAX_PENDING_ROWS", 2)
    root = tmp_path / "raw"
    for number in range(1, 5):
        put(root, f"v/{number:05}.jpg", make_image(number) if number > 1 else b"\xff\xd8\xff broken")
    put_json(root, "rows.json", [{"id": n, "video": "v", "conversations": talk(f"Q{n}?", "A.")} for n in range(7)])
    report = ingest_source(lake, source("llava_video"), root, run_id="r")
    assert (report.n_new, report.n_new_images, report.reject_counts) == (0, 0, {"not_an_image": 7})


def test_video_is_sampled_once_for_all_its_rows(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    with av.open(str(root / "v.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 240
        for n in range(24):
            grey = np.full((240, 240, 3), 40 + 60 * (n // 8), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    put(root, "cut.mp4", (root / "v.mp4").read_bytes()[:300])
    asked = [{"id": n, "video": "v.mp4", "conversations": talk(f"Q{n}?", "A.")} for n in range(3)]
    put_json(root, "rows.json", [*asked, {"id": 9, "video": "cut.mp4", "conversations": talk("?", "!")}])
    sampled: list[Path] = []
    from mvl_assets.media.video import sample_frames

    monkeypatch.setattr("mvl_assets.media.video.sample_frames", lambda p: (sampled.append(p), sample_frames(p))[1])
    report = ingest_source(lake, source("llava_video"), root, run_id="r")
    assert (report.n_new, report.n_new_images, report.reject_counts) == (3, 3, {"truncated_video": 1})
    assert len(sampled) == 2
    samples = list(iter_current_samples(lake, "demo"))
    assert [s["video"] for s in samples] == [{"name": "v.mp4", "seconds": [0.0, 1.0, 2.0]}] * 3
    assert len({tuple(s["image_ids"]) for s in samples}) == 1
    assert samples[0]["conversations"][0]["value"].startswith("<video>\n")


def test_small_buffers_give_the_same_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(f"r{n}", n) for n in range(12)]
    write(tmp_path / "raw", [*rows, {"id": "bad"}])
    whole = ingest(Lake(str(tmp_path / "whole")), tmp_path / "raw")
    for name, value in {
        "MAX_PENDING_IMAGE_BYTES": 1,
        "MAX_PENDING_ROWS": 2,
        "WRITE_ROWS": 3,
        "WRITE_CHARS": 40,
        "SHARD_ROWS": 5,
    }.items():
        monkeypatch.setattr(shard, name, value)
    monkeypatch.setattr(module, "BATCH_ROWS", 2)
    pieces = ingest(Lake(str(tmp_path / "pieces")), tmp_path / "raw")
    assert (pieces.n_new, pieces.reject_counts, pieces.n_new_images) == (
        whole.n_new,
        whole.reject_counts,
        whole.n_new_images,
    )
    assert pieces.data_version == whole.data_version


def test_images_shared_by_neighbouring_batches_are_decoded_and_stored_once(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled = {"image": ["1.png", "bad.png"], "conversations": talk("<image><image>", "Two.")}
    rows = [{"id": "0", **spoiled}, *(row(f"{n}", 1 + n // 4) for n in range(1, 8)), {"id": "8", **spoiled}]
    write(tmp_path / "raw", rows)
    put(tmp_path / "raw", "bad.png", b"no picture")
    monkeypatch.setattr(shard, "MAX_PENDING_ROWS", 1)
    looked: list[bytes] = []
    monkeypatch.setattr(
        "mvl_assets.ingest.images.inspect_image", lambda d: (looked.append(d), media.inspect_image(d))[1]
    )
    report = ingest(lake, tmp_path / "raw")
    assert (report.n_new, report.reject_counts, report.n_new_images) == (7, {"not_an_image": 2}, 2)
    assert report.new_image_bytes == len(make_image(1)) + len(make_image(2))
    assert len([data for data in looked if data != b"no picture"]) == 2
    assert lake.images.table.count() == 2


def test_progress_counts_the_rows_of_committed_shards(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "SHARD_ROWS", 3)
    write(tmp_path / "raw", [row(f"r{n}", n) for n in range(6)])
    told: list[tuple[int, int]] = []

    def note_progress(n_rows: int) -> None:
        told.append((n_rows, lake.get_table("samples").count()))

    ingest_source(lake, LLAVA, tmp_path / "raw", run_id="r", limit=4, progress=note_progress)
    assert told == [(3, 3), (4, 4)]


def test_missing_folder_error_says_how_to_get_files(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="mvl demo-data"):
        ingest(lake, tmp_path / "nowhere")
    assert not lake.get_table("samples").exists()


def test_files_without_rows_raise_and_withdraw_nothing(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "raw", [row("a", 1)])
    ingest(lake, tmp_path / "raw")
    write(tmp_path / "raw", [])
    with pytest.raises(SourceError, match="hold no row"):
        ingest(lake, tmp_path / "raw")
    assert set(now(lake)) == {"a"}


def test_unreadable_folder_raises_instead_of_looking_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shut").mkdir()
    (tmp_path / "a.json").write_text("[]")
    assert list_data_files("s", tmp_path, "**/*.json") == [tmp_path / "a.json"]
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("shut"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceError, match="shut: Permission denied"):
        list_data_files("s", tmp_path, "**/*.json")


def test_file_that_changes_after_the_limit_selected_its_rows_raises(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "raw", [row(f"r{n}", n) for n in range(6)])
    select_rows = module.select_rows

    def select_then_change(*args: Any) -> Any:
        selection = select_rows(*args)
        write(tmp_path / "raw", [row("r0", 0)])
        return selection

    monkeypatch.setattr(module, "select_rows", select_then_change)
    with pytest.raises(SourceError, match="changed while they were read"):
        ingest_source(lake, LLAVA, tmp_path / "raw", run_id="r", limit=4)


@pytest.mark.skipif(
    not REAL_TABMWP.is_dir(), reason="the real TabMWP files do not lie beside the project (../shared/data)"
)
def test_the_real_tabmwp_is_ingested(lake: Lake) -> None:
    spec = source("records", TABMWP)
    report = ingest_source(lake, spec, REAL_TABMWP, run_id="r", limit=100)
    assert (report.n_rows, report.n_new, report.reject_counts) == (100, 100, {})
    problems = json.loads((REAL_TABMWP / "problems.json").read_text(encoding="utf-8"))
    for sample in iter_current_samples(lake, spec.slug):
        assert sample["conversations"][1]["value"] == problems[sample["native_id"]]["answer"]
        (image_id,) = sample["image_ids"]
        assert (
            lake.images.read_images([image_id])[image_id]
            == (REAL_TABMWP / f"tables/{sample['native_id']}.png").read_bytes()
        )
