"""Text files of the ICDAR competitions: words as they stand, pictures beside them, and rejects for the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_assets.readers.format import RowKey
from mvl_assets.readers.formats import icdar_text
from mvl_assets.readers.registry import get_key_reader
from mvl_assets.readers.sample import RejectedRow, Sample
from tests.raw_files import errors, list_turns, make_image, put, put_json, read_all, source

TEXT = source("icdar_text")


def read(root: Path) -> list[Sample | RejectedRow]:
    """All rows, after checking that they are named beforehand as they come."""
    rows = read_all(TEXT, root)
    assert list(get_key_reader(TEXT.format)(TEXT, root)) == [RowKey(r.file, r.position, r.native_id) for r in rows]
    return rows


def answer(row: Sample | RejectedRow) -> str:
    assert isinstance(row, Sample)
    return row.turns[-1].value


def told(root: Path, name: str, text: str | bytes, image: str = "img_1.jpg") -> list[Sample | RejectedRow]:
    put(root, image, make_image())
    put(root, name, text if isinstance(text, bytes) else text.encode())
    return read(root)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2,3,4,5,6,7,8,Genaxis Theatre", ["Genaxis Theatre"]),
        ("\ufeff1,2,3,4,5,6,7,8,STORE\r\n1,2,3,4,5,6,7,8,###\r\n", ["STORE"]),
        ("1,2,3,4,5,6,7,8,TOTAL 1,200,00\n1,2,3,4,5,6,7,8,***\n\n1,2,3,4,5,6,7,8,a, b", ["TOTAL 1,200,00", "a, b"]),
        ('1,2,3,4,5,6,7,8,0,"金氏眼镜"\n1,2,3,4,5,6,7,8,1,"难"\n1,2,3,4,5,6,7,8,0,"###"', ["金氏眼镜"]),
        ('1,2,3,4,5,6,7,8,0,"say "hi", you"\n1,2,3,4,5,6,7,8,0,"1,5"', ['say "hi", you', "1,5"]),
        ("-1.5,2.25,3,4.0,5,6,7.75,8, 大 学 \n", ["大 学"]),
        ("1, 2,3,4,5,6,7,8,next\x85line\u2028here", ["next line here"]),
        ("1,2,3,4,5,6,7,8,12,34,56", ["12,34,56"]),
        ("1,2,3,4,5,6,7,8,*\n1,2,3,4,5,6,7,8,5*", ["5*"]),
    ],
)
def test_text_files_keep_their_words_with_commas_quotes_and_chinese(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    (row,) = told(tmp_path, "img_1.txt", text)
    assert answer(row).splitlines() == words
    assert list_turns(row)[0] == ("human", f"<image>\n{icdar_text.QUESTION}")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "no_text"),
        ("1,2,3,4,5,6,7,8,###", "no_text"),
        ("1,2,3,4,5,6,7,8,", "no_text"),
        ("1,2,3,4,5,6,7,text", "bad_polygon"),
        ("1,2,3,4,5,6,7,8", "bad_polygon"),
        ("1,2,3,4,5,6,7,nan,text", "bad_polygon"),
        ("1,2,3,4,5,6,7,99999999999,text", "bad_polygon"),
        ("１,2,3,4,5,6,7,8,text", "bad_polygon"),
        ("1,2,3,4,5,6,7,8,good\nREADME", "bad_polygon"),
        ("1,2,3,4,5,6,7,8,中山".encode("gb18030"), "bad_utf8"),
        ("1,2,3,4,5,6,7,8,a".encode("utf-16"), "bad_utf8"),
        ("1,2,3,4,5,6,7,8,<image>", "marker_mismatch"),
        (" " * 100_000 + "1,2", "bad_polygon"),
        ("1,2,3,4,5,6,7,8,0," + '"' * 100_000 + " " * 100_000 + "x", "good"),
    ],
)
def test_text_files_that_cannot_be_read_whole_are_rejected(tmp_path: Path, text: str | bytes, error: str) -> None:
    (row,) = told(tmp_path, "img_1.txt", text)
    assert (row.error if isinstance(row, RejectedRow) else "good") == error


@pytest.mark.parametrize(
    ("file", "image"),
    [
        ("train_gts/image_0.txt", "train_images/image_0.jpg"),
        ("train/x.txt", "train/x.png"),
        ("ch4_training_localization_transcription_gt/gt_img_1.txt", "ch4_training_images/img_1.jpg"),
        ("txt_train/a.b.txt", "image_train/a.b.jpg"),
        ("0325updated.task1train(626p)/X00016469612.txt", "0325updated.task1train(626p)/X00016469612.jpg"),
        ("train/gt/train_ReCTS_000001.txt", "train/img/train_ReCTS_000001.JPG"),
    ],
)
def test_a_text_file_finds_its_image_in_the_layouts_of_the_releases(tmp_path: Path, file: str, image: str) -> None:
    (row,) = told(tmp_path, file, "1,2,3,4,5,6,7,8,word", image)
    assert isinstance(row, Sample)
    assert (row.file, row.position, row.native_id, row.images[0].name) == (file, 0, None, image)


def test_rects_takes_the_lines_that_are_not_ignored_from_one_of_its_two_folders(tmp_path: Path) -> None:
    lines = [
        {"points": [170, 468, 381, 480, 376, 554, 168, 540], "transcription": "金氏眼镜", "ignore": 0},
        {"points": [[1, 2], [3, 4], [5.5, 6]], "transcription": "创于, 1989", "ignore": 0},
        {"points": [1, 2, 3, 4, 5, 6, 7, 8], "transcription": "难", "ignore": 1},
        {"points": [1, 2, 3, 4, 5, 6, 7, 8], "transcription": "###", "ignore": 0},
    ]
    chars = [{"points": [1, 2, 3, 4, 5, 6, 7, 8], "transcription": "金", "ignore": 0}]
    put(tmp_path, "img/train_ReCTS_000001.jpg", make_image(1))
    put_json(tmp_path, "gt/train_ReCTS_000001.json", {"chars": chars, "lines": lines})
    put_json(tmp_path, "gt_unicode/train_ReCTS_000001.json", {"chars": chars, "lines": lines})
    (row,) = read(tmp_path)
    assert answer(row) == "金氏眼镜\n创于, 1989"
    assert row.file == "gt_unicode/train_ReCTS_000001.json"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b'{"chars": []}', "bad_json"),
        (b'{"lines": [{"points": [1,2,3,4,5,6], "transcription": "a"}', "bad_json"),
        (b'{"lines": [{"points": [1,2,3,4,5,6], "transcription": "a"}, {"points": NaN}]}', "bad_polygon"),
        (b'{"lines": [{"points": [1,2,3,4], "transcription": "a"}]}', "bad_polygon"),
        (b'{"lines": [{"points": [1,2,3,4,5,"6"], "transcription": "a"}]}', "bad_polygon"),
        (b'{"lines": [{"points": [1,2,3,4,5,6], "transcription": 7}]}', "bad_polygon"),
        (b'{"lines": ["a"]}', "bad_polygon"),
        (b'{"lines": []}', "no_text"),
        (b"[]", "bad_json"),
        (b"", "bad_json"),
    ],
)
def test_a_rects_file_that_cannot_be_read_is_one_reject_and_no_end_of_the_source(
    tmp_path: Path, content: bytes, error: str
) -> None:
    put(tmp_path, "img/a.jpg", make_image())
    put(tmp_path, "gt/a.json", content)
    assert errors(read(tmp_path)) == [(0, error)]


def test_a_text_without_its_image_and_a_text_too_large_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.txt", b"1,2,3,4,5,6,7,8,word")
    put(tmp_path, "b.txt", b"1,2,3,4,5,6,7,8,word" * 10)
    monkeypatch.setattr(icdar_text, "MAX_FILE_BYTES", 100)
    rows = read(tmp_path)
    assert [(row.file, row.error) for row in rows if isinstance(row, RejectedRow)] == [
        ("a.txt", "missing_image"),
        ("b.txt", "too_large"),
    ]


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet='0123456789,.-"# \n\r\tan金\ufeff', max_size=80))
def test_any_text_is_a_sample_or_a_reject(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    (row,) = told(tmp_path_factory.mktemp("t"), "img_1.txt", text)
    assert isinstance(row, Sample) or row.error in ("bad_polygon", "no_text")


def test_csv_files_in_another_folder_than_the_images_beside_key_files(tmp_path: Path) -> None:
    for name in ("000", "001"):
        put(tmp_path, f"data/box/{name}.csv", f"1,2,3,4,5,6,7,8,TOTAL {name}\n".encode())
        put_json(tmp_path, f"data/key/{name}.json", {"total": name})
        put(tmp_path, f"data/img/{name}.jpg", make_image(int(name), format="JPEG"))
    rows = read(tmp_path)
    assert [answer(row) for row in rows] == ["TOTAL 000", "TOTAL 001"]
    assert [row.images[0].name for row in rows if isinstance(row, Sample)] == ["data/img/000.jpg", "data/img/001.jpg"]
