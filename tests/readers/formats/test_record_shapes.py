"""Files that a field map reads: one record a file, csv dialects, Arrow, Lance and WebDataset, and fields in paths."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest
from pydantic import ValidationError

from mvl_assets.config.catalog import RecordsMapping
from mvl_assets.errors import SourceError
from mvl_assets.readers.sample import RejectedRow, Sample
from tests.raw_files import errors, good, keyed, list_turns, make_image, put, put_json, read_all, source


def read(root: Path, **fields: Any) -> list[Sample | RejectedRow]:
    values: dict[str, Any] = {"question": "{q}", "answer": "{a}", **fields}
    spec = source("records", RecordsMapping(**values))
    keyed(spec, root)
    return read_all(spec, root)


def list_answers(rows: list[Sample | RejectedRow]) -> list[str]:
    return [sample.turns[-1].value for sample in good(rows)]


def put_tar(root: Path, name: str, members: Mapping[str, bytes], mode: str = "w") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / name, mode) as tar:  # type: ignore[call-overload]
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_one_object_a_file_with_parts_of_its_path_as_fields(tmp_path: Path) -> None:
    for split, name in (("train", "7"), ("val", "8")):
        put_json(tmp_path, f"{split}/labels/{name}.json", {"ann": {"q": "Which?", "a": name}})
        put(tmp_path, f"{split}/images/{name}.png", make_image(int(name)))
    put(tmp_path, "val/labels/9.json", b"{broken")
    put(tmp_path, "val/labels/99.json", b"[1]")
    fields = {
        "files": "{split}/labels/{name}.json",
        "shape": "json",
        "id": "name",
        "images": ["{split}/images/{name}.png"],
    }
    rows = read(tmp_path, **fields, key="ann", answer="{a} of {split}")
    assert [(s.file, s.native_id, s.turns[-1].value) for s in good(rows)] == [
        ("train/labels/7.json", "7", "7 of train"),
        ("val/labels/8.json", "8", "8 of val"),
    ]
    assert [s.images[0].read() for s in good(rows)] == [make_image(7), make_image(8)]
    assert errors(rows) == [(0, "bad_json"), (0, "bad_json")]
    assert errors(read(tmp_path, **fields))[-1] == (0, "not_an_object")


def test_a_text_beside_each_image(tmp_path: Path) -> None:
    put(tmp_path, "a.png", make_image(1))
    put(tmp_path, "a.txt", "\ufeffa red kite\n".encode())
    put(tmp_path, "b.txt", b"\xff")
    rows = read(
        tmp_path, files="{name}.txt", shape="text", question="What is it?", answer="{text}", images=["{name}.png"]
    )
    assert [list_turns(s)[-1] for s in good(rows)] == [("gpt", "a red kite")]
    assert errors(rows) == [(0, "bad_utf8")]


def test_folders_of_classes_are_labels(tmp_path: Path) -> None:
    put(tmp_path, "train/hen/1.png", make_image(1))
    put(tmp_path, "train/owl/1.png", make_image(2))
    rows = read(
        tmp_path,
        files="{split}/{label}/{name}.png",
        shape="image",
        question="Which bird is it?",
        answer="{label}",
        images=["{split}/{label}/{name}.png"],
    )
    assert list_answers(rows) == ["hen", "owl"]
    assert [s.images[0].read() for s in good(rows)] == [make_image(1), make_image(2)]


TABLE = "q;a\nWo?;Köln\nWann?;1900\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("has_header", [True, False])
def test_csv_in_other_dialects(tmp_path: Path, encoding: str, has_header: bool) -> None:
    text = TABLE if has_header else TABLE.split("\n", 1)[1]
    put(tmp_path, "rows.csv", text.encode(encoding))
    put(tmp_path, "rows.csv.gz", gzip.compress(text.encode(encoding)))
    fields: dict[str, Any] = {"shape": "csv", "delimiter": ";", "columns": () if has_header else ("q", "a")}
    if encoding == "cp1252":
        assert errors(read(tmp_path, files="*.csv", **fields)) == [(0, "bad_utf8")]
        fields["encoding"] = encoding
    for files in ("*.csv", "*.gz"):
        rows = read(tmp_path, files=files, **fields)
        assert [list_turns(s) for s in good(rows)] == [
            [("human", "Wo?"), ("gpt", "Köln")],
            [("human", "Wann?"), ("gpt", "1900")],
        ]


def test_a_dialect_that_is_none_is_refused(tmp_path: Path) -> None:
    for fields, message in (
        ({"encoding": "klingon"}, "knows no encoding"),
        ({"delimiter": ";;"}, "one character"),
        ({"columns": ("a",), "shape": "jsonl"}, "no meaning"),
    ):
        with pytest.raises(ValidationError, match=message):
            read(tmp_path, **{"files": "*", "shape": "csv", **fields})


def test_text_that_stops_being_utf16_ends_its_file(tmp_path: Path) -> None:
    put(tmp_path, "rows.csv", "q,a\n1,2\n".encode("utf-16") + b"\x00")
    assert errors(read(tmp_path, files="*.csv", shape="csv"))[-1][1] == "broken_file"


def build_rows() -> pa.Table:
    return pa.table(
        {
            "q": [f"{n}?" for n in range(40)],
            "a": [str(n) for n in range(40)],
            "image": [{"bytes": make_image(n), "path": None} for n in range(40)],
            "unnamed": pa.array([1] * 40, pa.timestamp("ns")),
        }
    )


def test_a_folder_that_datasets_saved(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    put_json(tmp_path, "train/dataset_info.json", {})
    table = build_rows()
    with pa.ipc.new_stream(tmp_path / "train/data-00000-of-00001.arrow", table.schema) as writer:
        writer.write_table(table)
    with pa.ipc.new_file(tmp_path / "file.arrow", table.schema) as writer:
        writer.write_table(table.slice(0, 2))
    put(tmp_path, "broken.arrow", (tmp_path / "train/data-00000-of-00001.arrow").read_bytes()[:3000])
    rows = read(tmp_path, files="train/*.arrow", shape="arrow", image_field="image")
    assert list_answers(rows) == [str(n) for n in range(40)]
    assert [s.images[0].read() for s in good(rows)] == [make_image(n) for n in range(40)]
    assert list_answers(read(tmp_path, files="file.arrow", shape="arrow")) == ["0", "1"]
    assert errors(read(tmp_path, files="broken.arrow", shape="arrow"))[-1][1] == "broken_file"


def test_a_lance_table(tmp_path: Path) -> None:
    lance.write_dataset(build_rows(), tmp_path / "photos.lance", max_rows_per_file=16)
    lance.dataset(tmp_path / "photos.lance").delete("a = '3'")
    rows = read(tmp_path, files="*.lance", shape="lance", image_field="image")
    expected = [n for n in range(40) if n != 3]
    assert list_answers(rows) == [str(n) for n in expected]
    assert [s.images[0].read() for s in good(rows)] == [make_image(n) for n in expected]
    for path in (tmp_path / "photos.lance/data").iterdir():
        path.write_bytes(b"x")
    assert errors(read(tmp_path, files="*.lance", shape="lance"))[-1][1] == "broken_file"
    with pytest.raises(SourceError, match="no Lance table"):
        read(tmp_path, files="*.nothing", shape="lance")


RECORDS = {
    "a/0.jpg": make_image(1, format="JPEG"),
    "a/0.json": json.dumps({"q": "Who?", "a": "Ann"}).encode(),
    "a/0.mask.png": make_image(2),
    "a/1.json": json.dumps({"q": "Who?", "a": "Bob"}).encode(),
    "a/1.mask.png": make_image(3),
    "a/2.json": b"{broken",
    "README": b"no ending",
}


@pytest.mark.parametrize(("name", "mode"), [("s-000.tar", "w"), ("s-000.tar.gz", "w:gz")])
def test_members_of_one_name_are_a_record(tmp_path: Path, name: str, mode: str) -> None:
    put_tar(tmp_path, name, RECORDS, mode)
    fields: dict[str, Any] = {
        "files": "{shard}-*.tar*",
        "shape": "webdataset",
        "question": "{json.q}",
        "answer": "{json.a}",
    }
    rows = read(tmp_path, **fields, image_field=["jpg", "mask.png"])
    assert [(s.native_id, s.position, s.turns[-1].value) for s in good(rows)] == [("a/0", 0, "Ann"), ("a/1", 1, "Bob")]
    assert [[image.read() for image in s.images] for s in good(rows)] == [
        [RECORDS["a/0.jpg"], make_image(2)],
        [make_image(3)],
    ]
    assert errors(rows) == [(2, "bad_json")]
    assert [s.native_id for s in good(read(tmp_path, **fields, id="json.a"))] == ["Ann", "Bob"]


def test_a_tar_that_ends_early_ends_in_a_broken_file(tmp_path: Path) -> None:
    put_tar(tmp_path, "s.tar", RECORDS)
    put(tmp_path, "s.tar", (tmp_path / "s.tar").read_bytes()[: 512 * 8])
    rows = read(tmp_path, files="s.tar", shape="webdataset", question="{json.q}", answer="{json.a}")
    assert len(good(rows)) <= 1 and len(errors(rows)) >= 1
