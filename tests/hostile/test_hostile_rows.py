"""Malformed text, tables and names: each rejects its own row, or the rest of its file after the damage."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mvl_assets.config.catalog import RecordsMapping, read_catalog
from mvl_assets.errors import MvlError
from mvl_assets.readers.parsers import delimited, json_stream
from tests.hostile.ground import MEMORY, Taken, link, take_in
from tests.raw_files import make_image, put, put_json, put_parquet, source, talk

Grounds = dict[str, Taken]

# JSON. GOOD stands for a good row; the bad one comes second, so that it has the position 1.

BIG = 100_000
"""Bounds of a row and of a table's cell in these tests."""

JSON_FILES: dict[str, tuple[str | bytes, str, int]] = {
    # name: (text, error class of the row at position 1, good rows)
    "nan": ('[GOOD, {"id": NaN}, GOOD]', "no_turns", 2),
    "infinity": ('[GOOD, {"id": [-Infinity]}, GOOD]', "no_turns", 2),
    "a_key_twice": ('[GOOD, {"id": 1, "conversations": [], "conversations": [1]}, GOOD]', "duplicate_key", 2),
    "a_key_twice_inside": (
        '[GOOD, {"id": 1, "conversations": [{"from": "gpt", "from": "human"}]}, GOOD]',
        "duplicate_key",
        2,
    ),
    "bytes_that_are_no_utf8": (b'[GOOD, {"id": "\xff\xfe"}, GOOD]', "bad_utf8", 2),
    "utf8_of_a_surrogate": (b'[GOOD, {"id": "\xed\xa0\x80"}, GOOD]', "bad_utf8", 2),
    "half_a_character": (r'[GOOD, {"conversations": [{"from": "human", "value": "\ud800"}]}, GOOD]', "bad_utf8", 2),
    "nested_deep": (f"[GOOD, {'[' * 50_000}{']' * 50_000}, GOOD]", "bad_json", 2),
    "number_of_10000_digits": (f'[GOOD, {{"id": {"7" * 10_000}}}, GOOD]', "bad_json", 2),
    "single_quotes": ("[GOOD, {'id': 'x'}, GOOD]", "bad_json", 2),
    "a_comment": ('[GOOD, {"id": 1 /* one */}, GOOD]', "bad_json", 2),
    "a_line_break_in_text": ('[GOOD, {"id": "a\nb"}, GOOD]', "bad_json", 2),
    "a_bare_word": ("[GOOD, undefined, GOOD]", "bad_json", 2),
    "a_number_for_a_row": ("[GOOD, 17, GOOD]", "not_an_object", 2),
    "a_list_for_a_row": ("[GOOD, [1, 2], GOOD]", "not_an_object", 2),
    "a_trailing_comma": ("[GOOD, ]", "broken_file", 1),
    "a_missing_comma": ("[GOOD GOOD]", "broken_file", 1),
    "wrong_bracket": ("[GOOD}", "broken_file", 1),
    "garbage_behind_the_end": ("[GOOD] and more", "broken_file", 1),
    "cut_off": ('[GOOD, {"id": "x", "conv', "broken_file", 1),
    "a_string_without_end": (f'[GOOD, {{"id": "{"x" * 3 * BIG}', "broken_file", 1),
    "a_string_above_the_bound": (f'[GOOD, {{"id": "{"x" * 3 * BIG}"}}, GOOD]', "too_large", 2),
    "lines_cut_off": ('GOOD\n{"id": "x", "conv', "bad_json", 1),
    "lines_with_a_bad_one": ("GOOD\n{]\nGOOD\n", "bad_json", 2),
    "lines_with_a_blank_and_a_nan": ('GOOD\n\n{"id": NaN}\nGOOD', "no_turns", 2),
    "lines_above_the_bound": (f'GOOD\n{{"id": "{"x" * 3 * BIG}"}}\nGOOD', "too_large", 2),
    "lines_that_are_no_utf8": (b'GOOD\n{"id": "\xff"}\nGOOD', "bad_utf8", 2),
}
WHOLE_JSON_FILES: dict[str, bytes] = {
    # files of which nothing can be read
    "empty": b"",
    "blank": b" \n\t ",
    "utf16": "[]".encode("utf-16"),
    "a_web_page": b"<!DOCTYPE html><title>404</title>",
    "a_picture": make_image(3, (8, 8)),
    "a_pointer_of_git_lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "a_string": b'"text"',
    "brackets_without_end": b"[" * 3 * BIG,
}

# Names of pictures. `up.png` is a good picture beside the source's folder.

NAMES: dict[str, tuple[Any, str]] = {
    "parent": ("../fine.png", "outside_root"),
    "parent_inside": ("a/../../fine.png", "outside_root"),
    "parent_with_backslashes": ("..\\fine.png", "outside_root"),
    "absolute": ("/etc/passwd", "outside_root"),
    "windows_drive": ("C:\\Windows\\win.ini", "outside_root"),
    "windows_share": ("\\\\host\\share\\x.png", "missing_image"),
    "two_slashes": ("//etc/passwd", "outside_root"),
    "zero_byte": ("fine.png\0.jpg", "bad_path"),
    "300_characters": ("x" * 300, "bad_path"),
    "5000_folders": ("x/" * 5000, "bad_path"),
    "empty_in_a_list": ([""], "bad_path"),
    "a_number": ([7], "bad_path"),
    "an_object": ({"path": "fine.png"}, "bad_path"),
    "a_folder": ("folder", "missing_image"),
    "the_folder_itself": (".", "missing_image"),
    "a_pipe": ("pipe", "missing_image"),
    "an_address_of_the_local_network": ("http://169.254.169.254/latest/meta-data", "missing_image"),
    "an_address_of_a_file": ("file:///etc/passwd", "missing_image"),
    "a_link_out": ("link.png", "outside_root"),
    "a_link_to_a_folder_outside": ("up/fine.png", "outside_root"),
    "a_link_to_itself": ("loop.png", "missing_image"),
    "a_link_to_nothing": ("nowhere.png", "missing_image"),
}

TURNS: dict[str, tuple[Any, str]] = {
    "none": (None, "no_turns"),
    "text": ("Hello", "no_turns"),
    "an_object": ({"from": "human"}, "no_turns"),
    "a_turn_that_is_text": (["Hello"], "bad_turn"),
    "a_role_that_is_a_list": ([{"from": ["human"], "value": "?"}], "unknown_role"),
    "a_role_that_is_an_object": ([{"from": {}, "value": "?"}], "unknown_role"),
    "a_text_that_is_a_number": ([{"from": "human", "value": 7}], "bad_turn"),
    "swapped": (talk("?", "!")[::-1], "swapped_roles"),
    "no_answer": (talk("?", "!")[:1], "no_answer"),
    "blank_answer": (talk("?", " \n"), "empty_answer"),
    "markers_without_pictures": (talk("<image><image>?", "!"), "marker_mismatch"),
}


def good_row(number: int) -> str:
    return json.dumps(
        {"id": f"good{number}", "image": "fine.png", "conversations": talk("<image>\nWhat?", f"A cat, {number}.")}
    )


def json_ground(root: Path) -> None:
    put(root, "fine.png", make_image(1, (16, 16)))
    number = 0
    for name, (text, _, _) in JSON_FILES.items():
        data = text if isinstance(text, bytes) else text.encode()
        while b"GOOD" in data:
            data, number = data.replace(b"GOOD", good_row(number).encode(), 1), number + 1
        put(root, f"{name}.{'jsonl' if name.startswith('lines') else 'json'}", data)
    for name, data in WHOLE_JSON_FILES.items():
        put(root, f"{name}.json", data)
    put(root, "mark.json", b"\xef\xbb\xbf[" + good_row(number).encode() + b"]")


def names_ground(root: Path) -> None:
    put(root, "fine.png", make_image(1, (16, 16)))
    (root / "folder").mkdir()
    os.mkfifo(root / "pipe")
    link(root, "link.png", "../secret.png")
    link(root, "up", "..")
    link(root, "loop.png", "loop.png")
    link(root, "nowhere.png", "not-there.png")
    rows = [{"id": name, "image": value, "conversations": talk("?", "!")} for name, (value, _) in NAMES.items()]
    rows += [{"id": name, "conversations": value} for name, (value, _) in TURNS.items()]
    put_json(root, "rows.json", [*rows, json.loads(good_row(0))])


# Tables as text

CSV = RecordsMapping(files="*.csv", shape="csv", id="id", question="{q}", answer="{a}")
CSV_FILES: dict[str, tuple[bytes, str, int]] = {
    # name: (text behind the header and a good row, error class of the row at position 1, good rows)
    "zero_byte": (b"2,wh\0y?,so\n3,who?,me\n", "bad_csv", 2),
    "too_few_cells": (b"2,why?\n3,who?,me\n", "bad_csv", 2),
    "too_many_cells": (b"2,why?,so,so\n3,who?,me\n", "bad_csv", 2),
    "bytes_that_are_no_utf8": (b"2,\xff?,so\n3,who?,me\n", "bad_utf8", 2),
    "no_answer": (b"2,why?,\n3,who?,me\n", "missing_field", 2),
    "a_quote_without_end": (b'2,why?,"so\n3,who?,me\n4,when?,now\n', "broken_file", 1),
    "a_quote_without_end_and_a_zero_byte": (b'2,why?,"so\n3,who\0?,me\n4,when?,now\n', "broken_file", 1),
    "a_cell_above_the_bound": (b'2,why?,"' + (b"x" * 79 + b"\n") * 3000 + b'"\n3,who?,me\n', "broken_file", 1),
    "a_line_above_the_bound": (b"2,why?," + b"x" * 3 * BIG + b"\n3,who?,me\n", "broken_file", 1),
}


def csv_ground(root: Path) -> None:
    for name, (text, _, _) in CSV_FILES.items():
        put(root, f"{name}.csv", b"id,q,a\n1,what?,this\n" + text)
    put(root, "empty.csv", b"")
    put(root, "packed_and_cut.csv", gzip.compress(b"id,q,a\n" + b"1,what?,this\n" * 3)[:-12])
    put(root, "mark.csv", "\ufeffid,q,a\n1,what?,this\n".encode())


# Parquet

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TALK = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
ROWS = pa.schema([("id", pa.string()), ("image", IMAGE), ("conversations", TALK)])
FINE = {"bytes": make_image(1, (16, 16)), "path": None}

PARQUET_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "no_picture_in_the_cell": ({"image": {"bytes": None, "path": "gone.png"}}, "missing_image"),
    "a_path_out": ({"image": {"bytes": None, "path": "../fine.png"}}, "outside_root"),
    "empty_bytes": ({"image": {"bytes": b"", "path": "x"}}, "not_an_image"),
    "bytes_of_a_page": ({"image": {"bytes": b"<html>", "path": "x"}}, "html_page"),
    "null_for_a_conversation": ({"conversations": None}, "no_turns"),
    "nulls_inside": ({"conversations": [None, None]}, "bad_turn"),
    "null_texts": ({"conversations": [{"from": "human", "value": None}]}, "bad_turn"),
    "null_roles": ({"conversations": [{"from": None, "value": "?"}]}, "unknown_role"),
}
PARQUET_FILES: dict[str, tuple[str, str]] = {
    # name: (error class of the row at position 0, what the message says)
    "other_columns": ("broken_file", "has the columns a, b, but not conversations"),
    "empty": ("broken_file", "not readable as Parquet"),
    "text": ("broken_file", "not readable as Parquet"),
    "cut_off": ("broken_file", "not readable as Parquet"),
    "huge_cell": ("image_too_large", "larger than"),
    "conversations_of_numbers": ("no_turns", "no conversation"),
    "text_that_is_no_utf8": ("bad_utf8", "'conversations' holds text that is not UTF-8"),
    "a_year_that_is_none": ("bad_cell", "'id' holds a value that cannot be read"),
}


def parquet_bytes(columns: dict[str, pa.Array], compression: str = "snappy") -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression=compression)
    return sink.getvalue()


def parquet_ground(root: Path) -> None:
    rows = [
        {"id": name, "image": FINE, "conversations": talk("?", "!"), **row} for name, (row, _) in PARQUET_ROWS.items()
    ]
    fine = {"id": "fine", "image": FINE, "conversations": talk("?", "!")}
    put_parquet(root, "rows.parquet", [*rows, fine], ROWS)
    talks = pa.array([talk("?", "!")] * 2, TALK)
    whole = parquet_bytes({"conversations": talks})
    words = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff", b"ok"], pa.binary()).buffers())
    mixed = pa.ListArray.from_arrays(
        [0, 1, 2], pa.StructArray.from_arrays([pa.array(["human", "human"]), words], ["from", "value"])
    )
    huge = pa.array([{"bytes": bytes(130 << 20), "path": None}, FINE], IMAGE)
    files = {
        "other_columns": parquet_bytes({"a": pa.array([1]), "b": pa.array([2])}),
        "empty": b"",
        "text": b"id,conversations\n",
        "cut_off": whole[: len(whole) // 2],
        "huge_cell": parquet_bytes({"image": huge, "conversations": talks}, "zstd"),
        "conversations_of_numbers": parquet_bytes({"conversations": pa.array([1])}),
        "text_that_is_no_utf8": parquet_bytes({"conversations": mixed}),
        "a_year_that_is_none": parquet_bytes(
            {"id": pa.array([1 << 62, 0]).cast(pa.timestamp("us")), "conversations": talks}
        ),
    }
    for name, data in files.items():
        put(root, f"{name}.parquet", data)


# Pickles


class Runs:
    """Pickled, it is a call of `os.system`."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


PICKLES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    **{
        f"a_call_in_protocol_{protocol}": (
            lambda mark, protocol=protocol: pickle.dumps([Runs(mark)], protocol),
            "system",
        )
        for protocol in range(6)
    },
    "an_instance_of_python_2": (lambda mark: f"(S'touch {mark}'\nios\nsystem\n.".encode(), "os.system"),
    "eval": (lambda mark: f'cbuiltins\neval\n(S\'open("{mark}", "w")\'\ntR.'.encode(), "builtins.eval"),
    "cut_off": (lambda mark: pickle.dumps([{"ref_id": 1}])[:-5], "ends"),
    "no_pickle": (lambda mark: b"\x00\x01", "not an opcode"),
    "a_text_of_exabytes": (lambda mark: b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", "not a whole pickle"),
    "an_object_for_a_list": (lambda mark: pickle.dumps({"ref_id": 1}), "no list of references"),
}


def pickle_ground(root: Path) -> None:
    put(root, "images/9.png", make_image(1, (16, 16)))
    refs = [{"ref_id": 1, "ann_id": 1, "sentences": [{"sent_id": 1, "sent": "the cat"}]}]
    for name in (*PICKLES, "fine"):
        data = pickle.dumps(refs, 2) if name == "fine" else PICKLES[name][0](root / "ran")
        put(root, f"{name}/refs(unc).p", data)
        image_of = {"id": 9, "file_name": "9.png", "width": 16, "height": 16}
        box = {"id": 1, "image_id": 9, "bbox": [1, 2, 3, 4]}
        put_json(root, f"{name}/instances.json", {"images": [image_of], "annotations": [box]})


# Places and words of text in pictures

PLACE = "1,1,9,1,9,9,1,9"
POLYGONS: dict[str, tuple[bytes, str]] = {
    "no_corners": (b"hello\n", "bad_polygon"),
    "seven_numbers": (b"1,1,9,1,9,9,1,hello\n", "bad_polygon"),
    "not_a_number": (PLACE.replace("9", "nan").encode() + b",hello\n", "bad_polygon"),
    "numbers_without_end": (PLACE.replace("9", "9" * 9000).encode() + b",hello\n", "bad_polygon"),
    "bytes_that_are_no_utf8": (PLACE.encode() + b",\xff\n", "bad_utf8"),
    "only_illegible": (PLACE.encode() + b",###\n", "no_text"),
    "nothing": (b"", "no_text"),
    "spaces_without_end": (b"1," + b" " * 200_000 + b"x", "bad_polygon"),
    "a_marker": (PLACE.encode() + b",<image>\n", "marker_mismatch"),
}


def polygon_ground(root: Path) -> None:
    for name in (*POLYGONS, "fine"):
        put(root, f"gt/gt_{name}.txt", POLYGONS[name][0] if name in POLYGONS else PLACE.encode() + b",hello\n")
        put(root, f"img/{name}.png", make_image(1, (16, 16)))


# Pictures as text

BASE64: dict[str, tuple[str, str]] = {
    "no_base64": ("data:image/png;base64,####", "bad_base64"),
    "cut_off": ("data:image/png;base64,iVBOR", "bad_base64"),
    "of_a_page": ("data:image/png;base64,PGh0bWw+", "html_page"),
    "an_address": ("http://127.0.0.1:9/x.png", "missing_image"),
    "a_link_out": ("../fine.png", "outside_root"),
}


def base64_ground(root: Path) -> None:
    put(root, "fine.png", make_image(1, (16, 16)))
    rows = [{"id": name, "q": "?", "a": "!", "p": value} for name, (value, _) in BASE64.items()]
    put_json(root, "rows.json", [*rows, {"id": "infinite", "q": "?", "a": "1e999", "p": "fine.png"}])
    text = (root / "rows.json").read_text(encoding="utf-8").replace('"1e999"', "1e999")
    put(root, "rows.json", text.encode())


GROUNDS = {
    "json": (source("llava_json"), json_ground),
    "names": (source("llava_json"), names_ground),
    "csv": (source("records", CSV), csv_ground),
    "parquet": (source("llava_parquet"), parquet_ground),
    "pickle": (source("ref_coco"), pickle_ground),
    "polygons": (source("icdar_text"), polygon_ground),
    "base64": (
        source(
            "records",
            RecordsMapping(files="rows.json", shape="list", id="id", question="{q}", answer="{a}", image_field="p"),
        ),
        base64_ground,
    ),
}


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Grounds:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "MAX_ELEMENT_CHARS", 2 * BIG)
        patch.setattr(json_stream, "CHUNK_BYTES", 4096)
        patch.setattr(delimited, "MAX_FIELD_CHARS", 2 * BIG)
        return {name: take_in(spec, tmp_path_factory.mktemp(name), build) for name, (spec, build) in GROUNDS.items()}


def good_in(taken: Taken, file: str) -> int:
    return sum(place[0] == file for place in taken.samples)


@pytest.mark.parametrize("name", GROUNDS)
def test_memory_is_bounded(grounds: Grounds, name: str) -> None:
    assert grounds[name].grown < MEMORY


@pytest.mark.parametrize("name", JSON_FILES)
def test_bad_json_rejects_its_row_or_the_rest_of_the_file(grounds: Grounds, name: str) -> None:
    _, error, good = JSON_FILES[name]
    file = f"{name}.{'jsonl' if name.startswith('lines') else 'json'}"
    assert grounds["json"].reject(file, 1)[0] == error
    assert good_in(grounds["json"], file) == good


@pytest.mark.parametrize("name", WHOLE_JSON_FILES)
def test_a_file_other_than_json_is_one_reject(grounds: Grounds, name: str) -> None:
    assert grounds["json"].reject(f"{name}.json", 0)[0] == "broken_file"
    assert good_in(grounds["json"], f"{name}.json") == 0


def test_of_all_json_files_nothing_else_is_lost(grounds: Grounds) -> None:
    taken = grounds["json"]
    assert len(taken.rejects) == len(JSON_FILES) + len(WHOLE_JSON_FILES)
    assert len(taken.samples) == sum(good for _, _, good in JSON_FILES.values()) + 1
    assert good_in(taken, "mark.json") == 1


@pytest.mark.parametrize("place", range(len(NAMES) + len(TURNS)), ids=[*NAMES, *TURNS])
def test_a_bad_name_or_conversation_rejects_its_row(grounds: Grounds, place: int) -> None:
    _, error = [*NAMES.values(), *TURNS.values()][place]
    result, message = grounds["names"].reject("rows.json", place)
    assert result == error
    assert "secret outside" not in message


def test_the_row_after_all_bad_names_is_ingested(grounds: Grounds) -> None:
    assert list(grounds["names"].samples) == [("rows.json", len(NAMES) + len(TURNS))]


@pytest.mark.parametrize("name", CSV_FILES)
def test_a_bad_line_rejects_its_row_or_the_rest_of_the_file(grounds: Grounds, name: str) -> None:
    _, error, good = CSV_FILES[name]
    assert grounds["csv"].reject(f"{name}.csv", 1)[0] == error
    assert good_in(grounds["csv"], f"{name}.csv") == good


def test_the_other_tables_are_ingested_up_to_their_damage(grounds: Grounds) -> None:
    taken = grounds["csv"]
    assert taken.reject("empty.csv", 0) == ("broken_file", "there is no header line")
    assert taken.reject("packed_and_cut.csv", good_in(taken, "packed_and_cut.csv"))[0] == "broken_file"
    assert good_in(taken, "mark.csv") == 1
    assert len(taken.rejects) == len(CSV_FILES) + 2


@pytest.mark.parametrize("place", range(len(PARQUET_ROWS)), ids=list(PARQUET_ROWS))
def test_a_bad_row_of_parquet_is_rejected_alone(grounds: Grounds, place: int) -> None:
    _, error = list(PARQUET_ROWS.values())[place]
    assert grounds["parquet"].reject("rows.parquet", place)[0] == error


@pytest.mark.parametrize("name", PARQUET_FILES)
def test_parquet_that_is_not_what_was_declared_is_named(grounds: Grounds, name: str) -> None:
    error, output = PARQUET_FILES[name]
    result, message = grounds["parquet"].reject(f"{name}.parquet", 0)
    assert result == error and output in message


def test_good_rows_next_to_bad_cells_are_ingested(grounds: Grounds) -> None:
    taken = grounds["parquet"]
    assert set(taken.samples) == {
        ("rows.parquet", len(PARQUET_ROWS)),
        ("huge_cell.parquet", 1),
        ("a_year_that_is_none.parquet", 1),
    }
    assert taken.reject("text_that_is_no_utf8.parquet", 1)[0] == "no_answer"


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_is_never_run(grounds: Grounds, name: str) -> None:
    error, message = grounds["pickle"].reject(f"{name}/refs(unc).p", 0)
    assert error == "broken_file" and PICKLES[name][1] in message
    assert len(grounds["pickle"].samples) == 1  # the fine one; that nothing was made is checked where it is taken in


@pytest.mark.parametrize("name", POLYGONS)
def test_a_bad_polygon_rejects_its_image(grounds: Grounds, name: str) -> None:
    assert grounds["polygons"].reject(f"gt/gt_{name}.txt", 0)[0] == POLYGONS[name][1]
    assert set(grounds["polygons"].samples) == {("gt/gt_fine.txt", 0)}


@pytest.mark.parametrize("place", range(len(BASE64) + 1), ids=[*BASE64, "infinite"])
def test_a_bad_image_or_number_in_a_record_rejects_its_row(grounds: Grounds, place: int) -> None:
    errors = [*(error for _, error in BASE64.values()), "not_a_number"]
    assert grounds["base64"].reject("rows.json", place)[0] == errors[place]


# The catalog

ENTRY = "type: mvl_assets.components.source_dataset.SourceDataset\nattributes:\n  slug: one\n  title: One\n"
YAML: dict[str, tuple[str, str]] = {
    "a_call": (f"{ENTRY}  url: !!python/object/apply:os.system [touch ran]\n", "python/object/apply"),
    "a_module": (f"{ENTRY}  url: !!python/module:os\n", "python/module"),
    "an_alias_bomb": (
        "a0: &a0 [1, 1, 1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
        "values",
    ),
    "a_merge_bomb": (
        "a0: &a0 {k: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)),
        "values",
    ),
    "nested_deep": (f"{ENTRY}  url: {'[' * 100_000}\n", "levels deep"),
    "nested_in_lines": (f"{ENTRY}  url:\n    {'- ' * 5000}x\n", "levels deep"),
    "inside_itself": (f"{ENTRY}  url: &a [*a]\n", "contains itself"),
    "number_of_10000_digits": (f"{ENTRY}  url: {'7' * 10_000}\n", "is not a valid int"),
    "no_date": (f"{ENTRY}  url: 2024-02-31\n", "is not a valid timestamp"),
    "a_list_for_a_key": (f"{ENTRY}  ? [a]\n  : b\n", "unhashable key"),
    "a_key_twice": (f"{ENTRY}  slug: two\n", "given twice"),
    "a_control_character": (f"{ENTRY}  url: \x07\n", "control characters"),
}


@pytest.mark.parametrize("name", YAML)
def test_a_hostile_catalog_is_named_with_its_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, output = YAML[name]
    put(tmp_path, "sources/general/defs.yaml", text.encode())
    with pytest.raises(MvlError, match=output) as raised:
        read_catalog(tmp_path / "sources")
    assert "general/defs.yaml" in raised.value.message and len(raised.value.message) < 1000
    assert not (tmp_path / "ran").exists()
