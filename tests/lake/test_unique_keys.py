"""Rows stay unique. Lance's protection of a key has holes that open without an error; each has its test here.

Two handles on one version stand for two processes that read before either has written.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import lance
import pyarrow as pa
import pytest

from mvl_assets.lake.errors import SchemaMismatch, UnsafeTable
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import ANSWERS, CATEGORY
from mvl_assets.lake.schemas.table_spec import KEY_METADATA
from mvl_assets.lake.table import Table
from tests.lake.processes import PROJECT, Worker, workers
from tests.lake.rows import answer, duplicates, pages

KEYS = 300


def merge(dataset: lance.LanceDataset, key: str, rows: pa.Table, *, use_index: bool = False) -> int:
    """Inserts as the lake does (`use_index=False`) or as Lance does by default."""
    builder = dataset.merge_insert(key).when_not_matched_insert_all()
    if not use_index:
        builder = builder.use_index(False)
    return builder.execute(rows)["num_inserted_rows"]


def two_writers(uri: Path, key: pa.Field, rows: pa.Table, *, btree: bool = False, use_index: bool = False) -> int:
    """Rows stored after two writers who know nothing of each other inserted the same ones."""
    schema = pa.schema([key])
    dataset = lance.write_dataset(schema.empty_table(), uri, schema=schema)
    if btree:
        dataset = lance.write_dataset(pa.table({"id": pa.array(["zz"])}, schema=schema), uri, mode="append")
        dataset.create_scalar_index("id", "BTREE")
    first, second = lance.dataset(uri), lance.dataset(uri)
    merge(first, "id", rows, use_index=use_index)
    merge(second, "id", rows, use_index=use_index)
    return lance.dataset(uri).count_rows() - (1 if btree else 0)


def protected(kind: pa.DataType) -> pa.Field:
    return pa.field("id", kind, nullable=False, metadata=KEY_METADATA)


def ids(kind: pa.DataType, field: pa.Field) -> pa.Table:
    raw = [n.to_bytes(16, "big") for n in range(KEYS)]
    values = [r.hex() for r in raw] if pa.types.is_string(kind) else raw
    return pa.table({"id": pa.array(values, kind)}, schema=pa.schema([field]))


def test_a_declared_string_key_keeps_two_writers_apart(tmp_path: Path) -> None:
    key = protected(pa.string())
    assert two_writers(tmp_path / "t.lance", key, ids(pa.string(), key)) == KEYS


@pytest.mark.parametrize(
    "trap",
    ["fixed_size_key", "no_key_metadata", "btree_and_default_merge"],
)
def test_lance_lets_two_writers_store_every_row_twice_under_an_unprotected_key(tmp_path: Path, trap: str) -> None:
    """When one of these fails, Lance has closed a hole and the rule that guards against it can go."""
    kind = pa.binary(16) if trap == "fixed_size_key" else pa.string()
    key = pa.field("id", kind, nullable=False) if trap == "no_key_metadata" else protected(kind)
    btree = trap == "btree_and_default_merge"
    assert two_writers(tmp_path / "t.lance", key, ids(kind, key), btree=btree, use_index=btree) == 2 * KEYS


def test_lance_lets_a_plain_append_store_every_row_twice(tmp_path: Path) -> None:
    key = protected(pa.string())
    rows = ids(pa.string(), key)
    lance.write_dataset(rows, tmp_path / "t.lance")
    lance.write_dataset(rows, tmp_path / "t.lance", mode="append")
    assert lance.dataset(tmp_path / "t.lance").count_rows() == 2 * KEYS


def test_lance_lets_a_plain_append_during_a_merge_store_every_row_twice(tmp_path: Path) -> None:
    key = protected(pa.string())
    schema = pa.schema([key])
    lance.write_dataset(schema.empty_table(), tmp_path / "t.lance", schema=schema)
    merging, appending = lance.dataset(tmp_path / "t.lance"), lance.dataset(tmp_path / "t.lance")
    merge(merging, "id", ids(pa.string(), key))
    lance.write_dataset(ids(pa.string(), key), appending, mode="append")
    assert lance.dataset(tmp_path / "t.lance").count_rows() == 2 * KEYS


def test_lance_lets_a_merge_committed_in_two_steps_store_every_row_twice(tmp_path: Path) -> None:
    key = protected(pa.string())
    schema = pa.schema([key])
    uri = tmp_path / "t.lance"
    lance.write_dataset(schema.empty_table(), uri, schema=schema)
    writers = [lance.dataset(uri), lance.dataset(uri)]
    for dataset in writers:
        builder = dataset.merge_insert("id").when_not_matched_insert_all().use_index(False)
        transaction, _ = builder.execute_uncommitted(ids(pa.string(), key))
        lance.LanceDataset.commit(dataset, transaction)
    assert lance.dataset(uri).count_rows() == 2 * KEYS


def test_the_project_never_writes_a_keyed_table_in_an_unsafe_way() -> None:
    """Plain appends and merges in two steps are nowhere; every merge says `use_index(False)`; no index is made."""
    for file in sorted([*(PROJECT / "mvl_assets").rglob("*.py"), *(PROJECT / "mvl_training").rglob("*.py")]):
        text = file.read_text(encoding="utf-8")
        assert "execute_uncommitted" not in text, file
        assert "create_scalar_index" not in text, file
        if "import lance" in text and file.name != "store_probe.py":  # its table has no key: commits are counted
            assert 'mode="append"' not in text, file
        assert text.count(".merge_insert(") == text.count(".use_index(False)"), file


def made(tmp_path: Path, schema: pa.Schema) -> Table:
    """A table as somebody else might have made it."""
    uri = str(tmp_path / "ocr.lance")
    lance.write_dataset(schema.empty_table(), uri, schema=schema)
    return Table(uri, CATEGORY)


def with_key(field: pa.Field) -> pa.Schema:
    return CATEGORY.schema.set(CATEGORY.schema.get_field_index("sample_id"), field)


def test_a_table_with_a_fixed_size_key_is_refused(tmp_path: Path) -> None:
    table = made(tmp_path, with_key(pa.field("sample_id", pa.binary(16), nullable=False, metadata=KEY_METADATA)))
    with pytest.raises(UnsafeTable, match="fixed_size_binary"):
        table.insert(pages("a", "x", range(2)))


def test_a_table_without_key_metadata_is_refused(tmp_path: Path) -> None:
    table = made(tmp_path, with_key(pa.field("sample_id", pa.string(), nullable=False)))
    with pytest.raises(UnsafeTable, match="primary key"):
        table.publish([pages("a", "x", range(2))], "a")


def test_a_table_with_an_index_on_its_key_is_refused_and_the_hint_drops_it(lake: Lake) -> None:
    lake.get_table("category/ocr").insert(pages("a", "x", range(20)))
    uri = lake.get_table("category/ocr").uri
    lance.dataset(uri).create_scalar_index("sample_id", "BTREE")
    with pytest.raises(UnsafeTable) as refused:
        Lake(lake.root).get_table("category/ocr").open()
    assert refused.value.hint is not None
    exec(refused.value.hint.removeprefix("drop it: "), {"lance": lance})
    assert Lake(lake.root).get_table("category/ocr").insert(pages("a", "y", range(21))) == 1


def test_an_index_on_another_column_is_accepted(lake: Lake) -> None:
    lake.get_table("category/ocr").insert(pages("a", "x", range(20)))
    lance.dataset(lake.get_table("category/ocr").uri).create_scalar_index("source", "BITMAP")
    assert Lake(lake.root).get_table("category/ocr").insert(pages("a", "y", range(21))) == 1


def test_a_table_of_another_schema_version_is_refused(tmp_path: Path) -> None:
    table = made(tmp_path, CATEGORY.schema.with_metadata({b"mvl:schema_version": b"99"}))
    with pytest.raises(SchemaMismatch, match="schema 99"):
        table.count()


def test_two_processes_that_append_the_same_answers_store_each_once(lake: Lake) -> None:
    lake.get_answer_log("rewritten", "drawn").table.create()
    with workers(("append_same", lake.root, "x"), ("append_same", lake.root, "y")) as both:
        inserted = meet(both)
    table = Table(f"{lake.root}/answers/rewritten/drawn.lance", ANSWERS)
    assert duplicates(table) == 0
    assert inserted == table.count() == 200
    assert {r["request_key"] for r in table.iter_rows()} == {answer(n).request_key for n in range(200)}


def test_concurrent_creators_create_a_table_once(tmp_path: Path) -> None:
    """A creation that came second and overwrote would lose what was stored between the two."""
    with ThreadPoolExecutor(8) as creators:
        for number in range(20):
            tables = [Table(str(tmp_path / f"{number}.lance"), CATEGORY) for _ in range(8)]
            together = Barrier(len(tables))
            list(creators.map(lambda table, together=together: (together.wait(), table.create()), tables))
            assert lance.dataset(tables[0].uri).version == 1


def test_two_processes_that_insert_the_same_rows_into_a_new_table_store_each_once(lake: Lake) -> None:
    with workers(("insert_same", lake.root, "x"), ("insert_same", lake.root, "y")) as both:
        inserted = meet(both)
    assert duplicates(lake.get_table("category/ocr")) == 0
    assert inserted == lake.get_table("category/ocr").count() == 500


def test_an_index_created_while_two_processes_write_does_not_admit_a_row_twice(lake: Lake) -> None:
    """They have looked at the table before it had the index, so only how they merge protects the key."""
    table = lake.get_table("category/ocr")
    table.insert(pages("before", "x", range(500)))
    with workers(("insert_same", lake.root, "x"), ("insert_same", lake.root, "y")) as both:
        inserted = meet(both, lambda: lance.dataset(table.uri).create_scalar_index("sample_id", "BTREE"))
    dataset = lance.dataset(table.uri)
    assert dataset.count_rows() == 1000
    assert len(set(dataset.to_table(["sample_id"])["sample_id"].to_pylist())) == 1000
    assert inserted == 500


def meet(both: list[Worker], before: Callable[[], object] = lambda: None) -> int:
    for worker in both:
        assert worker.line() == "ready"
    before()
    for worker in both:
        worker.go()
    return sum(int(worker.line().removeprefix("inserted ")) for worker in both)


def test_equal_keys_within_one_insert_keep_the_first(lake: Lake) -> None:
    table = lake.get_table("category/ocr")
    assert table.insert(pa.concat_tables([pages("a", "first", [1]), pages("a", "second", [1, 2])])) == 2
    assert {r["license"] for r in table.iter_rows()} == {"first", "second"}
    assert next(table.iter_rows(None, f"sample_id = '{pages('a', '', [1])['sample_id'][0]}'"))["license"] == "first"


def test_equal_keys_within_one_append_keep_the_first_answer(lake: Lake) -> None:
    with lake.get_answer_log("rewritten", "drawn") as log:
        assert log.append([answer(1, "first"), answer(1, "second")]) == 1
        assert log.append([answer(1, "third"), answer(2)]) == 1
        assert log.get([answer(1).request_key])[answer(1).request_key]["text"] == "first"
        assert log.append([]) == 0
