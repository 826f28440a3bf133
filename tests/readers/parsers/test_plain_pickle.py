"""Pickles are read as plain data: what they hold comes back, and whatever they ask for beyond that is refused unrun."""

from __future__ import annotations

import builtins
import copyreg
import os
import pickle
import random
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_assets.readers.parsers import plain_pickle
from mvl_assets.readers.parsers.plain_pickle import UnsafePickle, load
from mvl_assets.readers.sample import RejectedRow
from tests.raw_files import errors, good, make_image, put, put_json, read_all, source

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(-9, 9), inner, max_size=4)
    ),
    max_leaves=12,
)


def refused(folder: Path, data: bytes) -> str:
    """Why the bytes are not read."""
    with pytest.raises(UnsafePickle) as caught:
        loaded(folder, data)
    return str(caught.value)


def loaded(folder: Path, data: bytes) -> Any:
    path = folder / "refs(unc).p"
    path.write_bytes(data)
    return load(path)


class Calls:
    """An object whose pickle calls `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@settings(max_examples=60, deadline=None)
@given(value=PLAIN, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_come_back_from_every_protocol(
    tmp_path_factory: pytest.TempPathFactory, value: Any, protocol: int
) -> None:
    assert loaded(tmp_path_factory.mktemp("p"), pickle.dumps(value, protocol)) == value


def test_text_of_python_2_is_utf8_or_else_latin_1(tmp_path: Path) -> None:
    assert loaded(tmp_path, b"(lp0\nS'caf\\xc3\\xa9'\np1\naS'caf\\xe9'\na.") == ["café", "café"]
    assert loaded(tmp_path, b"\x80\x02]q\x00(U\x05caf\xc3\xa9q\x01T\x04\x00\x00\x00caf\xe9e.") == ["café", "café"]
    assert loaded(tmp_path, b'(lp0\nS"it\'s\\n"\np1\naVna\\u00efve\np2\na.') == ["it's\n", "naïve"]


MARKER = "ran"
SHELL = f"touch {MARKER}"
HOSTILE = {
    "reduce, protocol 0": (f"cos\nsystem\n(S'{SHELL}'\ntR.".encode(), "os.system"),
    "python 2 builtins": (f'c__builtin__\neval\n(S\'open("{MARKER}", "w")\'\ntR.'.encode(), "__builtin__.eval"),
    "inst": (f"(S'{SHELL}'\nios\nsystem\n.".encode(), "os.system"),
    "obj": (f"(cos\nsystem\nS'{SHELL}'\no.".encode(), "os.system"),
    "global without a call": (b"cposix\nsystem\n.", "posix.system"),
    "inside of a list of references": (
        f"(lp0\n(dp1\nS'sentences'\ncos\nsystem\n(S'{SHELL}'\ntRsa.".encode(),
        "os.system",
    ),
    "stack global": (
        f"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c{chr(len(SHELL))}{SHELL}\x85R.".encode("latin-1"),
        "os.system",
    ),
    "stack global of no text": (b"\x80\x04]]\x93.", "STACK_GLOBAL"),
    "reduce of what is no function": (b"](tR.", "REDUCE"),
    "newobj": (b"\x80\x02])\x81.", "NEWOBJ"),
    "newobj_ex": (b"\x80\x04])}\x92.", "NEWOBJ_EX"),
    "build": (b"]}b.", "BUILD"),
    "ext1": (b"\x80\x02\x82\xf0.", "EXT1"),
    "ext2": (b"\x80\x02\x83\xf0\x00.", "EXT2"),
    "ext4": (b"\x80\x02\x84\xf0\x00\x00\x00.", "EXT4"),
    "persid": (b"Pos.system\n.", "PERSID"),
    "binpersid": (b"]Q.", "BINPERSID"),
    "name with strange letters": (b"\x80\x04\x8c\x04\xc3\xa9\xc3\xa9\x8c\x01x\x93.", "\\xe9\\xe9.x"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_pickle_wants_to_call_is_named_and_not_called(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data, asked = HOSTILE[name]
    assert asked in refused(tmp_path, data)
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(("function", "argument"), [(os.system, SHELL), (builtins.eval, "1"), (builtins.exec, "x = 1")])
def test_no_protocol_smuggles_a_call(
    tmp_path: Path, protocol: int, function: Any, argument: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = refused(tmp_path, pickle.dumps([{"sentences": Calls(function, argument)}], protocol))
    assert f"{'__builtin__' if function is not os.system and protocol < 3 else function.__module__}." in told
    assert not (tmp_path / MARKER).exists()


def test_a_registered_extension_is_refused_too(tmp_path: Path) -> None:
    copyreg.add_extension("os", "system", 0xF0)
    try:
        assert "EXT1" in refused(tmp_path, pickle.dumps(os.system, 2) if os.system.__module__ == "os" else b"\x82\xf0.")
    finally:
        copyreg.remove_extension("os", "system", 0xF0)


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", 1j, np.float64(1.5), np.array([1]), Path("x"), 1 << 64])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_objects_other_than_plain_data_are_refused(tmp_path: Path, value: Any, protocol: int) -> None:
    assert refused(tmp_path, pickle.dumps([value], protocol))


def test_every_cut_off_pickle_is_refused(tmp_path: Path) -> None:
    value = [{"a": [1, 2.5, "text"], "b": ("x", None, True)}, {"c": -7}]
    for protocol in (0, 2, 4):
        whole = pickle.dumps(value, protocol)
        for end in range(len(whole)):
            assert refused(tmp_path, whole[:end])


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n",
        b'[{"ref_id": 1}]',
        b"<html>",
        b"PK\x03\x04",
        b"(.",
        b"]a.",
        b"}a.",
        b"]](e.",
        b"]](u.",
        b"}(Ie.",
        b"}]]s.",
        b"t.",
        b"h\x00.",
        b"g7\n.",
        b"q\x00.",
        b"I" + b"9" * 5000 + b"\n.",
        b"S'no end",
        b"Sbare\n.",
        b"S'\n.",
        b"F1.5.5\n.",
        b"]]",
    ],
)
def test_bytes_other_than_one_pickled_value_are_refused(tmp_path: Path, data: bytes) -> None:
    assert refused(tmp_path, data)


def test_what_follows_the_end_of_the_pickle_is_not_read(tmp_path: Path) -> None:
    assert loaded(tmp_path, b"].cos\nsystem\n") == []


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert "empty" in refused(tmp_path, b"")


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=60))
def test_random_bytes_are_refused_or_read_but_never_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    with suppress(UnsafePickle):
        loaded(tmp_path_factory.mktemp("p"), data)


def test_damaged_pickles_are_refused_or_read_but_never_anything_else(tmp_path: Path) -> None:
    rng, whole = random.Random(0), bytearray(pickle.dumps([{"a": [1, "b", {"c": 2.5}], "d": (1, 2)}] * 3, 2))
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        with suppress(UnsafePickle):
            loaded(tmp_path, bytes(damaged))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02]r\xff\xff\xff\x7f.",  # a memo slot that an array would need 16 GB for
        b"\x8d" + (1 << 62).to_bytes(8, "little") + b"x.",  # text said to have 4 exabytes
        b"X\xff\xff\xff\xffx.",
        b"T\xff\xff\xff\x7fx.",
        b"\x8b\xff\xff\xff\x7fx.",
        b"\x80\x04\x95" + b"\xff" * 8 + b"].",
    ],
)
def test_what_a_pickle_claims_to_need_is_not_taken(tmp_path: Path, data: bytes) -> None:
    tracemalloc.start()
    with suppress(UnsafePickle):
        loaded(tmp_path, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_the_number_of_values_and_of_bytes_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_pickle, "MAX_OPCODES", 1000)
    assert "1000 opcodes" in refused(tmp_path, b"]" * 2000)
    assert len(loaded(tmp_path, b"](" + b"N" * 900 + b"e.")) == 900
    monkeypatch.setattr(plain_pickle, "MAX_BYTES", 100)
    assert "more than 100" in refused(tmp_path, b"](" + b"N" * 900 + b"e.")


def test_deep_nesting_does_not_reach_the_stack_of_the_machine(tmp_path: Path) -> None:
    deep = 200_000
    value = loaded(tmp_path, b"]" * deep + b"a" * (deep - 1) + b".")
    assert isinstance(value, list) and isinstance(value[0][0][0], list)
    del value
    assert "key" in refused(tmp_path, b"})" + b"\x85" * deep + b"Ns.")
    itself = loaded(tmp_path, b"]q\x00h\x00a.")
    assert itself[0] is itself


REFS = source("ref_coco")


def references(root: Path, refs: bytes, folder: str = "refcoco") -> None:
    """One set of references beside an instances.json of one picture with one box."""
    put(root, f"{folder}/refs(unc).p", refs)
    put(root, "train2014/a.jpg", make_image())
    put_json(
        root,
        f"{folder}/instances.json",
        {
            "images": [{"id": 5, "file_name": "a.jpg", "width": 100, "height": 50}],
            "annotations": [{"id": 7, "image_id": 5, "bbox": [10, 10, 20, 20], "category_id": 1}],
            "categories": [{"id": 1, "name": "cat"}],
        },
    )


def test_a_hostile_set_is_one_reject_that_names_the_call_and_leaves_the_other_sets_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    references(tmp_path, HOSTILE["reduce, protocol 0"][0], "refcoco")
    ref = {"ref_id": 1, "ann_id": 7, "image_id": 5, "split": "train", "sentences": [{"sent_id": 3, "sent": "the cat"}]}
    references(tmp_path, pickle.dumps([ref], 2), "refcoco+")
    rows = read_all(REFS, tmp_path)
    assert [sample.native_id for sample in good(rows)] == ["refcoco+/unc/3"]
    assert errors(rows) == [(0, "broken_file")]
    (bad,) = [row for row in rows if isinstance(row, RejectedRow)]
    assert bad.file == "refcoco/refs(unc).p" and "os.system" in bad.message
    assert not (tmp_path / MARKER).exists()


def test_references_that_share_their_sentences_do_not_multiply(tmp_path: Path) -> None:
    sentences = [{"sent_id": n, "sent": "the cat"} for n in range(50)]
    references(tmp_path, pickle.dumps([{"ann_id": 7, "sentences": sentences} for _ in range(50)], 2))
    rows = read_all(REFS, tmp_path)
    assert len(good(rows)) == 50
    assert {error for _, error in errors(rows)} == {"bad_reference"} and len(errors(rows)) == 49


@pytest.mark.parametrize("value", [None, 7, "refs", {"refs": []}, (1, 2)])
def test_a_pickle_of_something_else_is_a_broken_file(tmp_path: Path, value: Any) -> None:
    references(tmp_path, pickle.dumps(value, 2))
    assert errors(read_all(REFS, tmp_path)) == [(0, "broken_file")]
