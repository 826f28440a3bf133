"""LLaVA's JSON: roles, markers, order and pictures come through; what is wrong with a row costs that row."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from mvl_assets.config.catalog import HubDataset
from mvl_assets.errors import SourceError
from mvl_assets.readers.registry import get_key_reader, get_reader
from mvl_assets.readers.sample import RejectedRow
from tests.archive_files import zipped
from tests.raw_files import errors, good, list_turns, make_image, put, put_json, read_all, source, talk

LLAVA = source("llava_json")


def row(**fields: Any) -> dict[str, Any]:
    return {"id": "1", "conversations": talk("Why?", "So."), **fields}


def test_rows_keep_their_text_order_roles_ids_and_images(tmp_path: Path) -> None:
    put(tmp_path, "coco/1.png", make_image(1))
    put(tmp_path, "images/2.png", make_image(2))
    turns = [{"from": "system", "value": "Be brief."}, *talk("<image>\nWhat?", "A cat."), *talk("Sure?", "Yes.")]
    put_json(
        tmp_path,
        "a.json",
        [
            {"id": "x", "image": "coco/1.png", "conversations": turns},
            {"id": 7, "image": ["coco/1.png", "2.png"], "conversations": talk("<image> or <image>?", "First.")},
            {"id": 8, "conversations": talk("Hi", "Hello")},
        ],
    )
    first, second, text = good(read_all(LLAVA, tmp_path))
    assert (first.native_id, first.file, first.position) == ("x", "a.json", 0)
    assert list_turns(first) == [
        ("system", "Be brief."),
        ("human", "<image>\nWhat?"),
        ("gpt", "A cat."),
        ("human", "Sure?"),
        ("gpt", "Yes."),
    ]
    assert [p.read() for p in second.images] == [make_image(1), make_image(2)]
    assert (second.native_id, text.native_id, text.images) == ("7", "8", ())


def test_missing_markers_are_put_before_the_first_question(tmp_path: Path) -> None:
    put(tmp_path, "1.png", make_image())
    put_json(tmp_path, "a.json", [row(image=["1.png", "1.png"])])
    (sample,) = good(read_all(LLAVA, tmp_path))
    assert list_turns(sample)[0] == ("human", "<image>\n<image>\nWhy?")


def test_a_video_row_carries_a_video_marker(tmp_path: Path) -> None:
    put(tmp_path, "videos/v.mp4", b"film")
    put_json(tmp_path, "a.json", [row(video="v.mp4", conversations=talk("<image>\nWhat happens?", "Rain."))])
    (sample,) = good(read_all(LLAVA, tmp_path))
    assert sample.video is not None and sample.video.path.read_bytes() == b"film"
    assert list_turns(sample)[0] == ("human", "<video>\nWhat happens?")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_json_lines_are_read_from_a_file_of_any_name(tmp_path: Path, name: str) -> None:
    lines = [json.dumps(row(id=n)) for n in range(3)]
    put(tmp_path, name, "\n".join([lines[0], "{broken", *lines[1:]]).encode())
    rows = read_all(LLAVA, tmp_path)
    assert [s.native_id for s in good(rows)] == ["0", "1", "2"]
    assert errors(rows) == [(1, "bad_json")]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"conversations": None}, "no_turns"),
        ({"conversations": []}, "no_turns"),
        ({"conversations": ["hello"]}, "bad_turn"),
        ({"conversations": [{"from": "human", "value": 3}, {"from": "gpt", "value": "x"}]}, "bad_turn"),
        ({"conversations": [{"from": "alien", "value": "?"}]}, "unknown_role"),
        ({"conversations": talk("?", "!")[::-1]}, "swapped_roles"),
        ({"conversations": talk("?", "!")[:1]}, "no_answer"),
        ({"conversations": [*talk("?", "!"), *talk("?", "!")[1:]]}, "roles_do_not_alternate"),
        ({"conversations": talk("?", " ")}, "empty_answer"),
        ({"conversations": talk("", "!")}, "empty_question"),
        ({"conversations": talk("\ud800", "!")}, "bad_utf8"),
        ({"conversations": talk("<image> what?", "!")}, "marker_mismatch"),
        ({"image": "1.png", "conversations": talk("<image><image>", "!")}, "marker_mismatch"),
        ({"image": "1.png", "conversations": talk("which tag?", "It is <image>.")}, "marker_mismatch"),
        ({"image": "1.png", "conversations": talk("<video> what?", "!")}, "marker_mismatch"),
        ({"image": "gone.png"}, "missing_image"),
        ({"image": "https://example.org/1.png"}, "missing_image"),
        ({"image": [3]}, "bad_path"),
        ({"image": "a\0b.png"}, "bad_path"),
        ({"image": "x" * 5000}, "bad_path"),
        ({"video": "gone.mp4"}, "missing_video"),
        ({"video": "1.png", "image": "1.png"}, "image_and_video"),
    ],
)
def test_a_row_with_an_error_is_rejected_alone_with_its_code(
    tmp_path: Path, fields: dict[str, Any], error: str
) -> None:
    put(tmp_path, "1.png", make_image())
    put_json(tmp_path, "a.json", [row(id="bad", **fields), row(id="good")])
    rows = read_all(LLAVA, tmp_path)
    assert errors(rows) == [(0, error)]
    assert [s.native_id for s in good(rows)] == ["good"]
    assert isinstance(rows[0], RejectedRow) and rows[0].native_id == "bad" and rows[0].message


def test_values_other_than_rows_are_rejected_by_reason(tmp_path: Path) -> None:
    put(tmp_path, "a.json", b'[3, {"id": "n", "v": NaN}, {"id": "\xff"}, ' + json.dumps(row()).encode() + b"]")
    rows = read_all(LLAVA, tmp_path)
    assert errors(rows) == [(0, "not_an_object"), (1, "no_turns"), (2, "bad_utf8")]
    assert len(good(rows)) == 1


@pytest.mark.parametrize("name", ["../secret.png", "a/../../secret.png", "/etc/hostname", "..\\secret.png", "C:/x.png"])
def test_a_path_never_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    put(tmp_path, "secret.png", make_image())
    put_json(root, "a.json", [row(image=name)])
    assert errors(read_all(LLAVA, root)) == [(0, "outside_root")]


def test_a_link_never_leads_out_of_the_folder_but_may_stay_inside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(tmp_path, "secret/1.png", make_image())
    put(root, "real.png", make_image())
    (root / "file.png").symlink_to(tmp_path / "secret" / "1.png")
    (root / "folder").symlink_to(tmp_path / "secret")
    (root / "inside.png").symlink_to(root / "real.png")
    put_json(root, "a.json", [row(image=n) for n in ("file.png", "folder/1.png", "inside.png")])
    rows = read_all(LLAVA, root)
    assert errors(rows) == [(0, "outside_root"), (1, "outside_root")]
    assert len(good(rows)) == 1


def test_a_folder_that_images_are_looked_for_in_may_be_a_link(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(tmp_path, "photos/1.png", make_image())
    put(tmp_path, "secret.png", make_image())
    put_json(root, "a.json", [row(image=n) for n in ("1.png", "images/1.png", "images/2.png")])
    (root / "images").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "2.png").symlink_to(tmp_path / "secret.png")
    rows = read_all(LLAVA, root)
    assert len(good(rows)) == 2 and errors(rows) == [(2, "outside_root")]


def test_an_absolute_path_inside_the_folder_is_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(root, "a/1.png", make_image())
    (tmp_path / "link").symlink_to(root)
    names = [str(root / "a" / "1.png"), str(tmp_path / "link" / "a" / "1.png"), str(tmp_path / "other" / "1.png")]
    put_json(root, "a.json", [row(image=n) for n in [*names, f"{root}/../secret.png"]])
    assert errors(read_all(LLAVA, tmp_path / "link")) == [(2, "outside_root"), (3, "outside_root")]


def test_of_a_whole_repository_the_files_of_the_source_are_read(tmp_path: Path) -> None:
    for name in ("SVIT_core_150K.json", "SVIT_mix_665K.json"):
        put_json(tmp_path, name, [row(id=name, image=None)])
    shared = source("llava_json", hub=HubDataset(repo="BAAI/SVIT", files=("*SVIT_mix_665K.*",)))
    assert [sample.native_id for sample in good(read_all(shared, tmp_path))] == ["SVIT_mix_665K.json"]
    own = source("llava_json", hub=HubDataset(repo="BAAI/SVIT", files=("another.json",)))
    assert len(good(read_all(own, tmp_path))) == 2


def test_a_source_of_images_rejects_rows_without_one_unless_it_says_otherwise(tmp_path: Path) -> None:
    put(tmp_path, "1.png", make_image())
    put_json(tmp_path, "a.json", [row(image=None), row(image="1.png")])
    rows = read_all(source("llava_json", modality="single_image"), tmp_path)
    assert errors(rows) == [(0, "no_image")] and len(good(rows)) == 1
    assert errors(read_all(source("llava_json", modality="single_image", images_optional=True), tmp_path)) == []


def test_the_whole_root_may_be_a_link(tmp_path: Path) -> None:
    put(tmp_path / "real", "1.png", make_image())
    put_json(tmp_path / "real", "a.json", [row(image="1.png")])
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert len(good(read_all(LLAVA, tmp_path / "link"))) == 1


def test_a_pipe_is_a_missing_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    put_json(tmp_path, "a.json", [row(image="pipe.png")])
    assert errors(read_all(LLAVA, tmp_path)) == [(0, "missing_image")]


def test_names_that_a_zip_wrote_with_escapes_are_found(tmp_path: Path) -> None:
    put(tmp_path, "caf#U00e9.png", make_image())
    put_json(tmp_path, "a.json", [row(image="café.png")])
    assert len(good(read_all(LLAVA, tmp_path))) == 1


@pytest.mark.parametrize(("written", "named"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_meet_however_their_accents_are_written(tmp_path: Path, written: str, named: str) -> None:
    name = "Größe/café.png"
    put(tmp_path, unicodedata.normalize(written, name), make_image())
    put(tmp_path, "b.zip", zipped((unicodedata.normalize(written, "Bär/ü.png"), make_image(2))))
    names = [unicodedata.normalize(named, text) for text in (name, "Bär/ü.png")]
    put_json(tmp_path, "a.json", [row(image=text) for text in names])
    assert [sample.images[0].read() for sample in good(read_all(LLAVA, tmp_path))] == [make_image(), make_image(2)]


def test_the_marker_file_of_demo_data_is_not_read_as_rows(tmp_path: Path) -> None:
    put_json(tmp_path, "DEMO_DATA.json", {"rejects": 1})
    put_json(tmp_path, "a.json", [row()])
    assert len(read_all(LLAVA, tmp_path)) == 1


def test_a_folder_without_data_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no \*\.json"):
        read_all(LLAVA, tmp_path)


def test_an_unknown_format_is_an_error_that_suggests_records() -> None:
    with pytest.raises(SourceError, match=r"smoke_signals.*records"):
        get_reader("smoke_signals")


@pytest.mark.parametrize("format", ["llava_json", "cambrian_jsonl", "m4_instruct", "mammoth_release"])
def test_rows_have_the_same_keys_with_and_without_their_images(tmp_path: Path, format: str) -> None:
    spec = source(format)
    put(tmp_path, "1.png", make_image())
    rows = [row(image="1.png"), row(image="gone.png"), {"id": 2}, "text", row(id=None), row(id=[3], image=7)]
    put_json(tmp_path, "a.json", rows)
    put(tmp_path, "b.json", b'[{"id": 1}, {"id": NaN}, {"id": 4, "id": 5}, {"id": 6')
    read = read_all(spec, tmp_path)
    ended = [n for n, result in enumerate(read) if isinstance(result, RejectedRow) and result.error == "broken_file"]
    assert ended == [len(read) - 1] and len(good(read)) == 2
    assert list(get_key_reader(format)(spec, tmp_path)) == [(r.file, r.position, r.native_id) for r in read]
