"""JSON element by element: a bad element costs one element, a bad file costs its rest, and both say so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_assets.readers.parsers import json_stream
from mvl_assets.readers.parsers.json_stream import Item, RejectedItem, iter_elements, iter_lines, peek_first_char

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def write(folder: Path, data: bytes | str) -> Path:
    path = folder / "rows.json"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def read_values(path: Path, under: tuple[str, ...] = ()) -> list[object]:
    """Values as they are, bad elements by their class."""
    return [i.value if isinstance(i, Item) else i.error for i in iter_elements(path, under)]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(VALUES, max_size=6), indent=st.sampled_from([None, 1]), ascii=st.booleans(), chunk=st.integers(1, 9)
)
def test_any_array_is_read_with_any_buffer_size(
    tmp_path_factory: pytest.TempPathFactory, rows: list[object], indent: int | None, ascii: bool, chunk: int
) -> None:
    path = write(tmp_path_factory.mktemp("json"), json.dumps(rows, indent=indent, ensure_ascii=ascii))
    before, json_stream.CHUNK_BYTES = json_stream.CHUNK_BYTES, chunk
    try:
        assert list(iter_elements(path)) == [Item(n, row) for n, row in enumerate(rows)]
    finally:
        json_stream.CHUNK_BYTES = before


def test_an_object_gives_its_members_with_their_keys(tmp_path: Path) -> None:
    assert list(iter_elements(write(tmp_path, '{"7": {"a": 1}, "8": 2}'))) == [Item(0, {"a": 1}, "7"), Item(1, 2, "8")]


def test_an_array_inside_the_file_is_found_and_its_neighbours_are_skipped(tmp_path: Path) -> None:
    path = write(tmp_path, '{"info": {"v": [1, {"rows": 9}]}, "n": NaN, "data": {"rows": [1, 2]}, "rest": "x"}')
    assert read_values(path, ("data", "rows")) == [1, 2]
    assert read_values(path, ("data", "nothing")) == ["broken_file"]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (b'{"a": "\xff\xfe"}', "bad_utf8"),
        (b'{"a": tru}', "bad_json"),
        (b'{"a" "b"}', "bad_json"),
        (b'{"a": "he said "no" twice"}', "bad_json"),
        (b'{"a": "line\nbreak"}', "bad_json"),
        (b"[" * 100_000 + b"]" * 100_000, "bad_json"),
        (b"1" * 5_000, "bad_json"),
        (b"nul", "bad_json"),
    ],
)
def test_a_bad_element_is_rejected_alone(tmp_path: Path, bad: bytes, error: str) -> None:
    path = write(tmp_path, b'[{"id": 1}, ' + bad + b', {"id": 3}]')
    assert read_values(path) == [{"id": 1}, error, {"id": 3}]


@pytest.mark.parametrize(
    "data",
    [
        b'[{"id": 1}, {"id": 2',
        b'[{"id": 1}',
        b'[{"id": 1},',
        b'[{"id": 1}, {"a": [1}, {"id": 3}]',
        b'[{"id": 1}]]',
        b'[{"id": 1},]',
    ],
)
def test_a_file_that_ends_early_or_whose_brackets_do_not_match_keeps_what_came_before(
    tmp_path: Path, data: bytes
) -> None:
    result = read_values(write(tmp_path, data))
    assert (result[0], result[-1]) == ({"id": 1}, "broken_file")
    assert len(result) <= 3


@pytest.mark.parametrize("data", [b"", b"   ", b"7", b"\xff\xfe[\x00", b"<html>"])
def test_a_file_without_an_array_or_object_is_broken(tmp_path: Path, data: bytes) -> None:
    assert read_values(write(tmp_path, data)) == ["broken_file"]


def test_the_message_names_the_place_in_the_file(tmp_path: Path) -> None:
    (bad,) = iter_elements(write(tmp_path, "[ {'a': 1}]"))
    assert isinstance(bad, RejectedItem) and "character 3" in bad.message


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    assert read_values(write(tmp_path, b"\xef\xbb\xbf[1]")) == [1]
    assert [i.value for i in iter_lines(write(tmp_path, b"\xef\xbb\xbf1\n2")) if isinstance(i, Item)] == [1, 2]


@pytest.mark.parametrize("chunk_bytes", [1, 7, 100])
@pytest.mark.parametrize(
    "long",
    [
        '{"a": "' + "x" * 5000 + '"}',
        '{"a": [' + '"\\\\", "]\\"[{", {"b": []}, ' * 300 + "0]}",
        '"' + '\\"' * 3000 + '"',
    ],
)
def test_an_element_above_the_bound_costs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: str, chunk_bytes: int
) -> None:
    monkeypatch.setattr(json_stream, "MAX_ELEMENT_CHARS", 1000)
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", chunk_bytes)
    assert read_values(write(tmp_path, f'[1, {long}, {{"b": 2}}]')) == [1, "too_large", {"b": 2}]
    assert read_values(write(tmp_path, f"[1, {long[:-1]}")) == [1, "broken_file"]
    assert read_values(write(tmp_path, f"[1, {'7' * 5000}]")) == [1, "broken_file"]


def test_a_line_above_the_bound_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "MAX_ELEMENT_CHARS", 1000)
    long = list(iter_lines(write(tmp_path, '{"a": "' + "x" * 5000 + '"}\n[2]\n')))
    assert [getattr(i, "error", None) for i in long] == ["too_large", None]


def test_each_bad_line_is_one_reject(tmp_path: Path) -> None:
    path = write(tmp_path, b'{"id": 1}\n\n{"id": NaN, "x": [-Infinity]}\n{"id": "\xff"}\n{"id"\n{"id": 5}')
    result = [i.value if isinstance(i, Item) else i.error for i in iter_lines(path)]
    assert result == [{"id": 1}, {"id": None, "x": [None]}, "bad_utf8", "bad_json", {"id": 5}]
    assert [i.position for i in iter_lines(path)] == [0, 1, 2, 3, 4]


@given(VALUES)
def test_a_line_is_read_as_the_standard_decoder_reads_it(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    path = write(tmp_path_factory.mktemp("json"), json.dumps({"rows": value}))
    (item,) = iter_lines(path)
    assert isinstance(item, Item) and repr(item.value) == repr({"rows": value})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"a": 1, "a": 2}', "duplicate_key"),
        ('{"a" : 1, "a"\t:2, "x": "\\":", "y": ":"}', "duplicate_key"),
        ('{"a": [{"b": {"c": 1, "\\u0063": 2}}]}', "duplicate_key"),
        ('{"a": ":", "b": "\\":\\" :", "c" : "\\\\"}', {"a": ":", "b": '":" :', "c": "\\"}),
        ('{"a": NaN, "b": [Infinity]}', {"a": None, "b": [None]}),
        ('{"a": 1e400}', {"a": float("inf")}),
        ('{"a": "\\ud800"}', {"a": "\ud800"}),
        ('{"a": 123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
    ],
)
def test_a_line_with_keys_and_values_that_decoders_treat_differently(
    tmp_path: Path, line: str, expected: object
) -> None:
    (item,) = iter_lines(write(tmp_path, line))
    assert (item.value if isinstance(item, Item) else item.error) == expected


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "long.json"
    with path.open("w") as stream:
        stream.write("[")
        for n in range(20_000):
            stream.write(("," if n else "") + json.dumps({"id": n, "text": "x" * 1000}))
        stream.write("]")
    tracemalloc.start()
    count = sum(1 for _ in iter_elements(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 8 << 20 < path.stat().st_size


def test_the_first_character_is_known_without_reading_the_file(tmp_path: Path) -> None:
    assert peek_first_char(write(tmp_path, "\n  {}")) == "{"
    assert peek_first_char(write(tmp_path, "")) == ""
