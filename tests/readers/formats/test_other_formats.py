"""COCO captions, M4-Instruct and LLaVA-Video, each from a small set built by its public description."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from pydantic import ValidationError

from mvl_assets.config.catalog import HubDataset, load_catalog
from mvl_assets.errors import SourceError
from mvl_assets.readers.formats.coco_captions import QUESTION
from tests.raw_files import errors, good, list_turns, make_image, put, put_json, read_all, source, talk

COCO = source("coco_captions")
M4 = source("m4_instruct")
VIDEO = source("llava_video")


def coco(root: Path, images: list[object], annotations: list[object], split: str = "val2017") -> None:
    info = {"info": {"year": 2017}, "licenses": [{"id": 1}]}
    put_json(root, f"annotations/captions_{split}.json", {**info, "images": images, "annotations": annotations})


def test_coco_gives_one_sample_per_image_with_its_captions_in_order_of_their_ids(tmp_path: Path) -> None:
    put(tmp_path, "val2017/a.jpg", make_image(1))
    put(tmp_path, "images/b.jpg", make_image(2))
    coco(
        tmp_path,
        [{"id": 9, "file_name": "a.jpg"}, {"id": 4, "file_name": "b.jpg"}],
        [
            {"id": 30, "image_id": 9, "caption": "Third of nine.\n"},
            {"id": 2, "image_id": 4, "caption": "Of four."},
            {"id": 1, "image_id": 9, "caption": " First  of nine."},
        ],
    )
    first, second = good(read_all(COCO, tmp_path))
    assert (first.native_id, second.native_id) == ("9", "4")
    assert list_turns(first) == [("human", f"<image>\n{QUESTION}"), ("gpt", "First of nine.\nThird of nine.")]
    assert [p.read() for p in (*first.images, *second.images)] == [make_image(1), make_image(2)]


def test_coco_reads_the_split_that_the_source_names_or_all(tmp_path: Path) -> None:
    put(tmp_path, "images/a.jpg", make_image(1))
    for number, split in enumerate(("train2014", "train2017", "val2017")):
        put(tmp_path, "images/a.jpg", make_image(1))
        caption = {"id": 1, "image_id": number, "caption": "x"}
        coco(tmp_path, [{"id": number, "file_name": "a.jpg"}], [caption], split)
    splits = {None: ["0", "1", "2"], "train": ["0", "1"], "val": ["2"]}
    for split, native_ids in splits.items():
        read = read_all(source("coco_captions", split=split), tmp_path)
        assert [s.native_id for s in good(read)] == native_ids
    with pytest.raises(SourceError, match="captions_test"):
        read_all(source("coco_captions", split="test"), tmp_path)
    with pytest.raises(ValidationError, match="`split` goes with"):
        source("llava_json", split="train")
    assert {load_catalog()[f"coco_caption_{split}"].split for split in ("train", "val")} == {"train", "val"}


def test_coco_names_what_does_not_fit_together(tmp_path: Path) -> None:
    put(tmp_path, "val2017/a.jpg", make_image(1))
    images = [{"id": n, "file_name": name} for n, name in enumerate(["a.jpg", "gone.jpg", "a.jpg", "../a.jpg"])]
    captions = [{"id": n, "image_id": n, "caption": "x"} for n in (0, 1, 3, 99)]
    coco(tmp_path, images, [*captions, {"id": 7, "image_id": 0, "caption": None}])
    rows = read_all(COCO, tmp_path)
    assert [s.native_id for s in good(rows)] == ["0"]
    assert errors(rows) == [
        (1, "missing_image"),
        (2, "no_caption"),
        (3, "outside_root"),
        (4, "unknown_image"),
        (5, "bad_annotation"),
    ]


def test_a_cut_off_coco_file_is_one_broken_file(tmp_path: Path) -> None:
    put(tmp_path, "annotations/captions_val2017.json", b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annot')
    assert [e for _, e in errors(read_all(COCO, tmp_path))] == ["incomplete_file", "broken_file"]


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in members.items():
            target.writestr(name, data)
    return buffer.getvalue()


def m4_row(*names: str, **fields: object) -> dict[str, object]:
    markers = "<image>\n" * len(names)
    return {
        "sample_id": "s",
        "image": list(names),
        "conversations": talk(f"{markers}Alike?", "No."),
        "metadata": {},
        **fields,
    }


def test_m4_reads_images_from_folders_and_zips_in_order(tmp_path: Path) -> None:
    put(tmp_path, "nlvr2/1.png", make_image(1))
    put(tmp_path, "plain.zip", archive({"2.png": make_image(2)}))
    put(tmp_path, "nested.zip", archive({"nested/3.png": make_image(3)}))
    put_json(tmp_path, "a.json", [m4_row("nested/3.png", "nlvr2/1.png", "plain/2.png")])
    (sample,) = good(read_all(M4, tmp_path))
    assert sample.native_id == "s"
    assert [p.read() for p in sample.images] == [make_image(3), make_image(1), make_image(2)]


def test_m4_selects_its_rows_by_image_folder_or_dataset(tmp_path: Path) -> None:
    put(tmp_path, "HQ-Edit.zip", archive({"HQ-Edit/images/1.jpg": make_image(1)}))
    put(tmp_path, "RAVEN_train_images.zip", archive({"RAVEN_train_images/1.png": make_image(2)}))
    rows = [
        m4_row("HQ-Edit/images/1.jpg", sample_id=1, metadata={"dataset": "HQ-Edit-Diff", "split": "train"}),
        m4_row("MagicBrush/images/1.jpg", sample_id=2, metadata={"dataset": "MagicBrush-Diff"}),
        m4_row("RAVEN/1.png", sample_id=3, metadata={"dataset": "RAVEN"}),
        m4_row("RAVEN_train_images/1.png", sample_id=4),
        m4_row("VISION/1.png", sample_id=5),
        m4_row(sample_id=6, metadata={"dataset": "HQ-Edit"}, image=[]),
    ]
    put_json(tmp_path, "m4_instruct_annotations.json", rows)

    def taken(config: str) -> list[tuple[int, str | None]]:
        hub = HubDataset(repo="lmms-lab/M4-Instruct-Data", config=config)
        return [(row.position, row.native_id) for row in read_all(source("m4_instruct", hub=hub), tmp_path)]

    assert taken("HQ-Edit") == [(0, "1"), (1, "6")]
    assert taken("RAVEN") == [(0, "3"), (1, "4")]
    assert taken("VIST") == []
    (by_alias, by_folder) = good(read_all(source("m4_instruct", hub=HubDataset(repo="a/b", config="RAVEN")), tmp_path))
    assert by_alias.images[0].read() == by_folder.images[0].read() == make_image(2)


def test_m4_names_swapped_roles_and_missing_members(tmp_path: Path) -> None:
    put(tmp_path, "z.zip", archive({"1.png": make_image()}))
    put(tmp_path, "parts.zip.002", b"PK")
    put(tmp_path, "bad.zip", b"no zip")
    put_json(
        tmp_path,
        "a.json",
        [
            m4_row("z/1.png", conversations=talk("<image>?", "!")[::-1]),
            m4_row("z/2.png"),
            m4_row("parts/1.png"),
            m4_row("bad/1.png"),
            m4_row("../z/1.png"),
            m4_row("z/../../1.png"),
            m4_row("z/1.png"),
        ],
    )
    rows = read_all(M4, tmp_path)
    assert [e for _, e in errors(rows)] == [
        "swapped_roles",
        "missing_image",
        "broken_archive",
        "broken_archive",
        "outside_root",
        "outside_root",
    ]
    assert "parts are not complete: parts.zip.002" in rows[2].message  # type: ignore[union-attr]
    assert len(good(rows)) == 1


def test_an_image_that_unpacks_beyond_the_bound_is_not_read_whole(tmp_path: Path) -> None:
    put(tmp_path, "z.zip", archive({"bomb.png": bytes(5_000_000)}))
    put_json(tmp_path, "a.json", [m4_row("z/bomb.png")])
    (sample,) = good(read_all(M4, tmp_path))
    try:
        sample.images[0].read(max_bytes=1000)
    except ValueError as error:
        assert "larger than 1000 bytes" in str(error)
    else:
        raise AssertionError("a bomb was unpacked")


def test_llava_video_finds_videos_next_to_the_json_and_writes_video_markers(tmp_path: Path) -> None:
    put(tmp_path, "0_30_s/academic/a.mp4", b"film a")
    put(tmp_path, "videos/b.mp4", b"film b")
    rows = [
        {"id": 1, "video": "academic/a.mp4", "conversations": talk("<image>\nWhat?", "Rain."), "data_source": "0_30_s"},
        {"id": 2, "video": "b.mp4", "conversations": [*talk("What?", "Rain."), *talk("And then?", "Sun.")]},
        {"id": 3, "video": "gone.mp4", "conversations": talk("?", "!")},
        {"id": 4, "video": "../b.mp4", "conversations": talk("?", "!")},
        {"id": 5, "video": None, "conversations": talk("?", "!")},
        {"id": 6, "video": "b.mp4", "conversations": talk("<image><image>?", "!")},
    ]
    put_json(tmp_path, "0_30_s/qa.json", rows)
    result = read_all(VIDEO, tmp_path)
    assert [s.video.path.read_bytes() for s in good(result) if s.video] == [b"film a", b"film b"]
    assert [list_turns(s)[0][1] for s in good(result)] == ["<video>\nWhat?", "<video>\nWhat?"]
    assert [e for _, e in errors(result)] == ["missing_video", "outside_root", "bad_path", "marker_mismatch"]
