"""Parquet with pictures inside: LLaVA's three key styles, The Cauldron, and damaged files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mvl_assets.readers.parsers import parquet_stream
from mvl_assets.readers.registry import get_key_reader
from tests.raw_files import errors, good, list_turns, make_image, put, put_parquet, read_all, source, talk

LLAVA = source("llava_parquet")
CAULDRON = source("cauldron_parquet")
TEXT = [("user", pa.string()), ("assistant", pa.string()), ("source", pa.string())]
CAULDRON_SCHEMA = pa.schema(
    [
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("texts", pa.list_(pa.struct(TEXT))),
    ]
)


def cell(colour: int, path: str | None = None) -> dict[str, object]:
    return {"bytes": make_image(colour), "path": path}


@pytest.mark.parametrize("style", ["from", "role", "both"])
def test_all_three_key_styles_give_the_same_turns(tmp_path: Path, style: str) -> None:
    put_parquet(
        tmp_path, "a.parquet", [{"id": "1", "image": cell(1), "conversations": talk("<image>\nWhat?", "Cat.", style)}]
    )
    (sample,) = good(read_all(LLAVA, tmp_path))
    assert list_turns(sample) == [("human", "<image>\nWhat?"), ("gpt", "Cat.")]
    assert [p.read() for p in sample.images] == [make_image(1)]


def test_text_rows_have_a_null_image_in_either_form(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "image": None, "conversations": talk("Hi", "Hello")},
        {"id": "2", "image": {"bytes": None, "path": None}, "conversations": talk("Hi", "Hello")},
        {"id": "3", "image": cell(3), "conversations": talk("Hi", "Hello")},
    ]
    put_parquet(tmp_path, "a.parquet", rows)
    assert [len(s.images) for s in good(read_all(LLAVA, tmp_path))] == [0, 0, 1]


def test_integer_ids_extra_turn_fields_lists_and_bare_bytes_are_read(tmp_path: Path) -> None:
    turns = [{**t, "data_source": "pathvqa", "markdown": None, "text": "?"} for t in talk("Which?", "This.")]
    put_parquet(tmp_path, "part/a.parquet", [{"id": 7, "images": [cell(1), cell(2)], "conversations": turns}])
    put_parquet(tmp_path, "part/b.parquet", [{"id": 8, "image": make_image(3), "conversations": turns}])
    first, second = good(read_all(LLAVA, tmp_path))
    assert (first.native_id, first.file, second.file) == ("7", "part/a.parquet", "part/b.parquet")
    assert list_turns(first)[0] == ("human", "<image>\n<image>\nWhich?")
    assert [p.read() for p in (*first.images, *second.images)] == [make_image(1), make_image(2), make_image(3)]


def test_an_image_with_a_path_alone_is_a_file_below_the_folder(tmp_path: Path) -> None:
    put(tmp_path, "1.png", make_image(5))
    paths = ("1.png", "../1.png", "gone.png")
    put_parquet(
        tmp_path,
        "a.parquet",
        [{"id": p, "image": {"bytes": None, "path": p}, "conversations": talk("?", "!")} for p in paths],
        pa.schema(
            [
                ("id", pa.string()),
                ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
                ("conversations", pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))),
            ]
        ),
    )
    rows = read_all(LLAVA, tmp_path)
    assert [p.read() for s in good(rows) for p in s.images] == [make_image(5)]
    assert errors(rows) == [(1, "outside_root"), (2, "missing_image")]


def test_positions_count_through_row_groups_and_start_again_in_every_file(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet"):
        put_parquet(tmp_path, name, [{"id": str(n), "conversations": talk("?", "!")} for n in range(5)])
    assert [(s.file, s.position, s.native_id) for s in good(read_all(LLAVA, tmp_path))] == [
        (name, n, str(n)) for name in ("a.parquet", "b.parquet") for n in range(5)
    ]


def test_a_row_with_bad_turns_is_rejected_alone(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "conversations": talk("?", "!")[:1]},
        {"id": "2", "conversations": None},
        {"id": "3", "conversations": talk("?", "!")},
    ]
    put_parquet(tmp_path, "a.parquet", rows)
    result = read_all(LLAVA, tmp_path)
    assert errors(result) == [(0, "no_answer"), (1, "no_turns")]
    assert len(good(result)) == 1


def test_the_cauldron_gives_one_sample_a_row_with_all_turns_and_markers_first(tmp_path: Path) -> None:
    texts = [
        {"user": "What?", "assistant": "Two cats.", "source": "x"},
        {"user": "Sure?", "assistant": "Yes.", "source": "x"},
    ]
    put_parquet(tmp_path, "a.parquet", [{"images": [cell(1), cell(2)], "texts": texts}], CAULDRON_SCHEMA)
    (sample,) = good(read_all(CAULDRON, tmp_path))
    assert list_turns(sample) == [
        ("human", "<image>\n<image>\nWhat?"),
        ("gpt", "Two cats."),
        ("human", "Sure?"),
        ("gpt", "Yes."),
    ]
    assert [p.read() for p in sample.images] == [make_image(1), make_image(2)]
    assert sample.native_id is None


def test_the_cauldrons_broken_rows_are_named(tmp_path: Path) -> None:
    text = {"user": "What?", "assistant": "A cat.", "source": "x"}
    rows = [
        {"images": [cell(1)], "texts": []},
        {"images": [cell(1)], "texts": None},
        {"images": [cell(1)], "texts": [{**text, "assistant": None}]},
        {"images": [None], "texts": [text]},
        {"images": [cell(1)], "texts": [{**text, "user": "<image> <image>"}]},
        {"images": [cell(1)], "texts": [text]},
    ]
    put_parquet(tmp_path, "a.parquet", rows, CAULDRON_SCHEMA)
    result = read_all(CAULDRON, tmp_path)
    assert [e for _, e in errors(result)] == ["no_turns", "no_turns", "bad_turn", "missing_image", "marker_mismatch"]
    assert len(good(result)) == 1


@pytest.mark.parametrize("spec", [LLAVA, CAULDRON], ids=lambda s: s.format)
def test_a_damaged_file_is_one_reject_and_the_next_file_is_read(tmp_path: Path, spec: object) -> None:
    put(tmp_path, "a.parquet", b"PAR1 not really PAR1")
    table = {
        "images": [cell(1)],
        "texts": [{"user": "?", "assistant": "!", "source": "x"}],
        "id": "1",
        "conversations": talk("?", "!"),
    }
    put_parquet(tmp_path, "b.parquet", [table])
    result = read_all(spec, tmp_path)  # type: ignore[arg-type]
    assert errors(result) == [(0, "broken_file")]
    assert [s.file for s in good(result)] == ["b.parquet"]


def test_images_damaged_in_the_middle_of_a_file_cost_their_row_group_alone(tmp_path: Path) -> None:
    put_parquet(
        tmp_path,
        "a.parquet",
        [{"images": [cell(n)], "texts": [{"user": "?", "assistant": "!", "source": ""}]} for n in range(90)],
    )
    path = tmp_path / "a.parquet"
    start = pq.ParquetFile(path).metadata.row_group(40).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 60] = bytes(60)
    path.write_bytes(data)
    samples = good(read_all(CAULDRON, tmp_path))
    assert len(samples) == 90
    for sample in samples:
        if sample.position // 2 == 40:
            with pytest.raises(OSError, match=r"row group 40 of a.parquet cannot be read from its row 0 on.*fetch"):
                sample.images[0].read()
        else:
            assert sample.images[0].read() == make_image(sample.position)


def test_text_damaged_in_the_middle_of_a_file_keeps_the_rows_before_the_damage(tmp_path: Path) -> None:
    put_parquet(
        tmp_path,
        "a.parquet",
        [{"images": [cell(n)], "texts": [{"user": "?", "assistant": "!", "source": ""}]} for n in range(90)],
    )
    path = tmp_path / "a.parquet"
    start = pq.ParquetFile(path).metadata.row_group(40).column(2).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 30] = bytes(30)
    path.write_bytes(data)
    result = read_all(CAULDRON, tmp_path)
    assert len(good(result)) == 80 and errors(result) == [(80, "broken_file")]


@pytest.mark.parametrize("spec", [LLAVA, CAULDRON], ids=lambda s: s.format)
def test_rows_can_be_named_without_reading_them(tmp_path: Path, spec: object) -> None:
    row = {
        "images": [cell(1)],
        "texts": [{"user": "?", "assistant": "!", "source": "x"}],
        "conversations": talk("?", "!"),
    }
    put_parquet(tmp_path, "a.parquet", [{"id": str(n), **row} for n in range(3)])
    put_parquet(tmp_path, "b.parquet", [{"id": None, **row}])
    format = spec.format  # type: ignore[attr-defined]
    named = list(get_key_reader(format)(spec, tmp_path))  # type: ignore[arg-type]
    assert named == [(r.file, r.position, r.native_id) for r in read_all(spec, tmp_path)]  # type: ignore[arg-type]
    assert len(named) == 4


def test_memory_holds_a_few_rows_not_a_row_group(tmp_path: Path) -> None:
    noise = [bytes([n]) * 1_000_000 for n in range(64)]
    rows = [
        {"images": [{"bytes": n, "path": None}], "texts": [{"user": "?", "assistant": "!", "source": ""}]}
        for n in noise
    ]
    pq.write_table(
        pa.Table.from_pylist(rows, schema=CAULDRON_SCHEMA),
        tmp_path / "a.parquet",
        compression="none",
        use_dictionary=False,
        data_page_size=1 << 20,
        write_batch_size=1,
    )
    del rows, noise
    before, peak = pa.total_allocated_bytes(), 0
    for _ in parquet_stream.iter_rows(tmp_path / "a.parquet", batch_size=4):
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 32 << 20
