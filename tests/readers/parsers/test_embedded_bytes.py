"""References to images in Parquet, Arrow and Lance: the cells that reading all gives, read once and in order."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mvl_assets.readers.parsers import arrow_stream, embedded_bytes, lance_table, parquet_images
from mvl_assets.readers.parsers.embedded_bytes import EmbeddedBytes
from mvl_assets.readers.parsers.json_stream import Item

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
COLUMNS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "structs": (IMAGE, [{"bytes": b"one", "path": "1.png"}, {"bytes": b"", "path": None}, None]),
    "structs_of_nulls": (IMAGE, [{"bytes": b"one", "path": None}, {"bytes": None, "path": None}, None]),
    "structs_with_paths_alone": (IMAGE, [{"bytes": None, "path": "1.png"}, {"bytes": b"two", "path": "2.png"}]),
    "large_bytes": (pa.struct([("bytes", pa.large_binary()), ("path", pa.string())]), [{"bytes": b"1", "path": "a"}]),
    "bytes_alone_in_a_struct": (pa.struct([("bytes", pa.binary())]), [{"bytes": b"one"}, None]),
    "lists": (pa.list_(IMAGE), [[{"bytes": b"1", "path": None}, None, {"bytes": b"2", "path": "b"}], [], None]),
    "lists_with_a_null": (pa.list_(IMAGE), [[{"bytes": b"1", "path": None}, {"bytes": None, "path": "c"}], []]),
    "plain_bytes": (pa.binary(), [b"one", b"two"]),
    "plain_bytes_and_null": (pa.binary(), [b"one", None]),
    "lists_of_bytes": (pa.list_(pa.binary()), [[b"one", b"two"], [], None, [None, b"three"]]),
    "nested": (pa.struct([("media", pa.list_(IMAGE))]), [{"media": [{"bytes": b"one", "path": "x"}]}, None]),
    "names": (pa.string(), ["1.png", None]),
}


def write(path: Path, type: pa.DataType, cells: list[Any], **options: Any) -> None:
    table = pa.table({"text": [f"row {n}" for n in range(len(cells))], "image": pa.array(cells, type)})
    pq.write_table(table, path, **options)


def iter_cells(path: Path) -> Iterator[Any]:
    for item in parquet_images.iter_rows(path, ("text", "image"), ("image",), 2, 4):
        assert isinstance(item, Item) and item.value["text"] == f"row {item.position}"
        yield item.value["image"]


def resolve(cell: Any) -> Any:
    """The cell with the bytes that it refers to."""
    assert not isinstance(cell, bytes)
    if isinstance(cell, EmbeddedBytes):
        return cell.read().to_pybytes()
    if isinstance(cell, list):
        return [resolve(item) for item in cell]
    return {name: resolve(value) for name, value in cell.items()} if isinstance(cell, dict) else cell


@pytest.mark.parametrize("has_statistics", [True, False], ids=["statistics", "none"])
@pytest.mark.parametrize("name", COLUMNS)
def test_references_lead_to_the_bytes_of_every_kind_of_cell(tmp_path: Path, name: str, has_statistics: bool) -> None:
    type, some_cells = COLUMNS[name]
    cells = some_cells * 5
    path = tmp_path / "a.parquet"
    write(path, type, cells, row_group_size=4, write_statistics=has_statistics)
    read = list(iter_cells(path))
    assert pickle.loads(pickle.dumps(read)) == read
    assert [resolve(cell) for cell in read] == cells
    assert [resolve(cell) for cell in reversed(read)] == cells[::-1]


@pytest.mark.parametrize("name", ["structs", "large_bytes", "lists", "plain_bytes"])
def test_rows_come_without_a_look_at_the_pages_of_images(tmp_path: Path, name: str) -> None:
    type, cells = COLUMNS[name]
    path = tmp_path / "a.parquet"
    write(path, type, cells * 2)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(1)
    assert chunk.path_in_schema.startswith("image")
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset
    data[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    path.write_bytes(data)
    assert len(list(iter_cells(path))) == 2 * len(cells)


def test_row_groups_are_read_once_in_order_a_few_rows_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    cells = [{"bytes": bytes([n]) * 1_000_000, "path": None} for n in range(64)]
    options = {"compression": "none", "use_dictionary": False, "data_page_size": 1 << 20, "write_batch_size": 1}
    write(path, IMAGE, cells, row_group_size=32, **options)
    del cells
    opened: list[int] = []
    open_group = embedded_bytes.EmbeddedColumn._open_group

    def count_opened(column: embedded_bytes.EmbeddedColumn, group: int, max_rows: int) -> None:
        opened.append(group)
        open_group(column, group, max_rows)

    monkeypatch.setattr(embedded_bytes.EmbeddedColumn, "_open_group", count_opened)
    before, peak = pa.total_allocated_bytes(), 0
    for n, cell in enumerate(iter_cells(path)):
        assert cell["bytes"].read().to_pybytes() == bytes([n]) * 1_000_000
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert opened == [0, 1]
    assert peak < 16 << 20


def test_damage_costs_the_rows_from_its_page_on_to_the_end_of_the_row_group(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    cells = [{"bytes": bytes([n]) * 100, "path": None} for n in range(40)]
    options = {"compression": "none", "use_dictionary": False, "data_page_size": 256, "write_batch_size": 1}
    write(path, IMAGE, cells, row_group_size=20, **options)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(1)
    data = bytearray(path.read_bytes())
    middle = chunk.data_page_offset + chunk.total_compressed_size // 2
    data[middle : middle + 300] = b"\xff" * 300
    path.write_bytes(data)
    readable = []
    for n, cell in enumerate(iter_cells(path)):
        try:
            assert cell["bytes"].read().to_pybytes() == bytes([n]) * 100
            readable.append(n)
        except OSError as error:
            assert "row group 0 of a.parquet cannot be read from its row" in str(error)
    assert 5 <= readable.index(20) < 12 and readable[-20:] == list(range(20, 40))


def test_few_files_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_bytes, "MAX_OPEN_COLUMNS", 2)
    type, cells = COLUMNS["structs"]
    references = []
    for n in range(4):
        write(tmp_path / f"{n}.parquet", type, cells)
        references.append(next(iter_cells(tmp_path / f"{n}.parquet"))["bytes"])
    for turn in range(2):
        for n, reference in enumerate(references):
            assert reference.read().to_pybytes() == b"one"
            open_files = {m for m, r in enumerate(references) if r.column._file is not None}
            assert open_files == ({n, (n - 1) % 4} if turn or n else {n})


def test_two_columns_of_images_are_read_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [{"bytes": b"%d" % n, "path": None} for n in range(20)]
    pq.write_table(pa.table({"a": pa.array(cells, IMAGE), "b": pa.array(cells, IMAGE)}), tmp_path / "a.parquet")
    opened: list[str] = []
    open_group = embedded_bytes.EmbeddedColumn._open_group

    def note_opened(column: embedded_bytes.EmbeddedColumn, group: int, max_rows: int) -> None:
        opened.append(column.name)
        open_group(column, group, max_rows)

    monkeypatch.setattr(embedded_bytes.EmbeddedColumn, "_open_group", note_opened)
    for item in parquet_images.iter_rows(tmp_path / "a.parquet", ("a", "b"), ("a", "b"), 2, 4):
        assert resolve(item.value) == {"a": cells[item.position], "b": cells[item.position]}
    assert opened == ["a", "b"]


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("open_writer", [pa.ipc.new_stream, pa.ipc.new_file], ids=["stream", "file"])
def test_references_lead_to_the_bytes_of_an_arrow_file(tmp_path: Path, name: str, open_writer: Any) -> None:
    type, some_cells = COLUMNS[name]
    cells = some_cells * 40
    table = pa.table({"image": pa.array(cells, type)})
    with open_writer(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=48)
    read = [item.value["image"] for item in arrow_stream.iter_rows(tmp_path / "a.arrow") if isinstance(item, Item)]
    assert pickle.loads(pickle.dumps(read)) == read
    assert [resolve(cell) for cell in read] == cells
    assert [resolve(cell) for cell in reversed(read)] == cells[::-1]


@pytest.mark.parametrize("name", ["structs", "lists", "plain_bytes_and_null", "blobs"])
def test_references_lead_to_the_bytes_of_a_lance_table(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance_table, "GROUP_ROWS", 48)
    if name == "blobs":
        cells: list[Any] = [b"%d" % n * 100 for n in range(120)]
        lance.write_dataset(pa.table({"image": lance.blob_array(cells)}), tmp_path / "t", data_storage_version="2.2")
    else:
        type, some_cells = COLUMNS[name]
        cells = some_cells * 40
        lance.write_dataset(pa.table({"image": pa.array(cells, type)}), tmp_path / "t", max_rows_per_file=50)
    read = [item.value["image"] for item in lance_table.iter_rows(tmp_path / "t") if isinstance(item, Item)]
    assert pickle.loads(pickle.dumps(read)) == read
    assert [resolve(cell) for cell in read] == cells
    assert [resolve(cell) for cell in read[::-7]] == cells[::-7]


def test_damaged_statistics_do_not_end_the_process(tmp_path: Path) -> None:
    """pyarrow does when it is asked for the metadata of such a column."""
    path = tmp_path / "a.parquet"
    write(path, *COLUMNS["structs"])
    data = path.read_bytes()
    footer_start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for position in range(footer_start, len(data) - 8):
        if data[position] in (0x16, 0x18, 0x19, 0x1C, 0x26, 0x29):  # fields of numbers, texts, lists and structs
            for value in (0x09, 0xFF):
                path.write_bytes(data[:position] + bytes([value]) + data[position + 1 :])
                list(parquet_images.iter_rows(path, ("text", "image"), ("image",), 2, 4))
