"""Publishing makes rows the exact content of a partition in one commit, and commits nothing without a change."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pytest

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake.errors import LakeError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import DUPLICATES
from tests.lake.processes import Worker, workers
from tests.lake.rows import duplicates, mixture, pages, put_samples, sample, table_of


def test_equal_content_of_another_run_or_order_commits_nothing(lake: Lake) -> None:
    table = lake.get_table("category/ocr")
    rows = pages("a", "x", range(50))
    first = table.publish([rows], "a")
    shuffled = rows.take(random.Random(1).sample(range(50), 50))
    run = shuffled.schema.get_field_index("run_id")
    by_another_run = shuffled.set_column(run, "run_id", pa.array(["another"] * 50))
    again = table.publish(by_another_run.to_batches(max_chunksize=7), "a")
    assert first.changed_anything
    assert not again.changed_anything
    assert (again.version, again.data_version) == (first.version, first.data_version)


def test_a_publish_counts_added_changed_and_removed_rows(lake: Lake) -> None:
    table = lake.get_table("category/ocr")
    table.publish([pages("b", "x", range(5))], "b")
    table.publish([pages("a", "x", range(10))], "a")
    done = table.publish([pages("a", "x", range(4)), pages("a", "y", range(4, 8)), pages("a", "x", range(20, 25))], "a")
    assert (done.n_rows, done.n_added, done.n_changed, done.n_removed) == (13, 5, 4, 2)
    assert table.count("source = 'a'") == 13
    assert table.count("source = 'b'") == 5
    assert done.data_version == table.compute_data_version("a") != table.compute_data_version()


def test_a_publish_exchanges_the_fragments_of_its_partition_alone(lake: Lake) -> None:
    table = lake.get_table("category/ocr")
    table.publish([pages("a", "x", range(50))], "a")
    table.publish([pages("b", "x", range(7))], "b")
    first_a, b = table.open().get_fragments()
    rows = pages("a", "x", range(1, 60))
    table.publish(rows.to_batches(max_chunksize=20), "a")
    still_b, second_a = table.open().get_fragments()
    assert (still_b.fragment_id, still_b.metadata.files) == (b.fragment_id, b.metadata.files)
    assert second_a.physical_rows == 59 and second_a.metadata.files != first_a.metadata.files
    assert [row["sample_id"] for row in table.iter_rows(["sample_id"], partition_key="a")] == rows.column(0).to_pylist()


def test_an_empty_publish_clears_its_partition_alone(lake: Lake) -> None:
    table = lake.get_table("category/ocr")
    table.publish([pages("a", "x", range(10))], "a")
    table.publish([pages("b", "x", range(3))], "b")
    done = table.publish([], "a")
    assert (done.n_rows, done.n_removed) == (0, 10)
    assert table.count() == 3
    assert not table.publish([], "a").changed_anything


def test_publishing_no_rows_creates_an_empty_table(lake: Lake) -> None:
    assert not lake.get_table("category/ocr").exists()
    assert lake.get_table("category/ocr").publish([], "a").n_rows == 0
    assert lake.get_table("mixture/alignment").publish([]).n_rows == 0
    assert lake.get_table("category/ocr").exists()
    assert lake.get_table("mixture/alignment").exists()


@pytest.mark.parametrize(
    ("rows", "where", "words"),
    [
        (pages("b", "x", range(2)), "a", r"\['b'\].*'a'"),
        (pa.concat_tables([pages("a", "x", [1]), pages("a", "y", [1])]), "a", "two rows with the key"),
        (pages("a", "x", [1]).drop_columns("license"), "a", r"lack.*license"),
        (pages("a", "x", [1]), None, "with the value of 'source'"),
    ],
)
def test_wrong_rows_are_refused_and_change_nothing(lake: Lake, rows: pa.Table, where: str | None, words: str) -> None:
    table = lake.get_table("category/ocr")
    before = table.publish([pages("a", "old", range(3))], "a")
    with pytest.raises(LakeError, match=words):
        table.publish([pages("a", "new", [7]), rows], where)
    assert (table.version, table.compute_data_version()) == (before.version, before.data_version)


def test_a_table_without_partitions_refuses_a_partition_key(lake: Lake) -> None:
    with pytest.raises(LakeError, match="with the value"):
        lake.get_table("mixture/alignment").publish([mixture(2)], "a")


def test_a_producer_that_fails_half_way_leaves_the_old_content(lake: Lake) -> None:
    def broken() -> Iterator[pa.Table]:
        yield pages("a", "new", range(5))
        raise RuntimeError("the stage broke")

    table = lake.get_table("category/ocr")
    before = table.publish([pages("a", "old", range(3))], "a")
    with pytest.raises(RuntimeError):
        table.publish(broken(), "a")
    assert (table.version, table.compute_data_version()) == (before.version, before.data_version)


@pytest.mark.parametrize("count", [10, 9_000])
def test_a_table_without_partitions_keeps_the_order_of_its_rows(lake: Lake, count: int) -> None:
    table = lake.get_table("mixture/alignment")
    for _ in range(2):
        for name in ("first", "second"):
            table.publish(mixture(count, name).to_batches(max_chunksize=4096))
            assert [r["position"] for r in table.iter_rows(["position"])] == list(range(count))


def test_the_data_version_depends_on_content_and_not_on_history(lake: Lake) -> None:
    straight, winding = lake.get_table("category/ocr"), lake.get_table("category/chart")
    straight.publish([pages("a", "x", range(20))], "a")
    winding.publish([pages("a", "y", range(9, 30))], "a")
    winding.insert(pages("a", "x", range(3)))
    winding.publish([pages("a", "x", reversed(range(20)))], "a")
    assert (
        straight.compute_data_version()
        == winding.compute_data_version()
        != lake.get_table("category/domain").compute_data_version()
    )


def test_a_scan_sees_one_version(lake: Lake) -> None:
    table = lake.get_table("category/ocr")
    table.publish([pages("a", "old", range(50))], "a")
    rows = table.iter_rows(["license"], batch_size=10)
    seen = [next(rows)["license"]]
    table.publish([pages("a", "new", range(60))], "a")
    seen += [r["license"] for r in rows]
    assert seen == ["old"] * 50
    assert {r["license"] for r in table.iter_rows()} == {"new"}


def test_a_handle_stays_at_its_version(lake: Lake) -> None:
    table = lake.get_table("category/ocr")
    table.insert(pages("a", "x", range(5)))
    handle, version = table.open(), table.version
    table.insert(pages("a", "x", range(9)))
    assert table.count() == 9
    assert (handle.version, handle.count_rows()) == (version, 5)


def test_one_table_can_be_written_and_read_by_several_threads(lake: Lake) -> None:
    """Lance's handles panic when one thread moves a handle that another is using."""
    table = lake.get_table("category/ocr")
    table.insert(pages("a", "x", range(10)))
    stop, errors, reads = threading.Event(), [], [0]

    def read() -> None:
        while not stop.is_set():
            try:
                assert table.count() % 10 == 0
                assert sum(1 for _ in table.iter_rows(["license"])) % 10 == 0
                reads[0] += 1
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(1, 20):
            table.insert(pages("a", "x", range(turn * 10, turn * 10 + 10)))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors
    assert reads[0] > 0
    assert table.count() == 200


def rounds(lake: Lake, own: str) -> list[tuple[str, str]]:
    """Two processes publish eight times at the same moments; the data versions each of them reports."""
    output: list[tuple[str, str]] = []
    commands = [("publish_rounds", lake.root, who, own) for who in ("x", "y")]
    with workers(*commands) as both:
        for worker in both:
            assert worker.line() == "ready"
        for _ in range(8):
            for worker in both:
                worker.go()
            output.append((published(both[0]), published(both[1])))
    return output


def published(worker: Worker) -> str:
    return worker.line().removeprefix("published ")


def test_two_processes_can_publish_two_partitions_at_once(lake: Lake) -> None:
    output = rounds(lake, "own")
    table = lake.get_table("category/ocr")
    for turn, versions in enumerate(output):
        for who, version in zip("xy", versions, strict=True):
            assert table.compute_data_version(f"{who} {turn}") == version
    assert table.count() == 2 * 8 * 20
    assert duplicates(table) == 0


def test_of_two_processes_that_publish_one_partition_one_wins_completely(lake: Lake) -> None:
    """Lance alone would keep the rows of both: neither commit touches a key of the other."""
    lake.get_table("category/ocr").publish([pages("before", "x", range(10))], "before")
    output = rounds(lake, "same")
    table = lake.get_table("category/ocr")
    for turn, versions in enumerate(output):
        assert table.compute_data_version(f"all {turn}") in versions
    assert duplicates(table) == 0


def test_a_fragment_that_holds_two_partitions_is_read_by_partition_and_split_by_a_publish(lake: Lake) -> None:
    table = lake.get_table("category/ocr")
    table.insert(pa.concat_tables([pages("a", "x", range(4)), pages("b", "x", range(6))]))
    assert [table.count(partition_key=key) for key in ("a", "b")] == [4, 6]
    assert table.list_partitions() == ["a", "b"]
    done = table.publish([pages("a", "y", range(3))], "a")
    assert (done.n_added, done.n_changed, done.n_removed) == (0, 3, 1)
    assert {row["source"] for row in table.iter_rows(["source"], partition_key="b")} == {"b"}
    assert [table.count(partition_key=key) for key in ("a", "b")] == [3, 6]
    assert duplicates(table) == 0


def test_small_fragments_of_a_partition_are_compacted_and_no_others(lake: Lake) -> None:
    table = lake.get_table("category/ocr")
    for start in range(0, 30, 10):
        for source in ("a", "b"):
            table.append_fragments([table.write_fragments([pages(source, "x", range(start, start + 10))], source)])
    before = {key: table.compute_data_version(key) for key in ("a", "b")}
    assert table.compact_partition("a", rows_per_fragment=100) == 3
    assert table.compact_partition("a", rows_per_fragment=100) == 0
    assert {key: table.compute_data_version(key) for key in ("a", "b")} == before
    assert [f.physical_rows for f in table.open().get_fragments()] == [10, 10, 10, 30]
    keys = [row["sample_id"] for row in table.iter_rows(["sample_id"], partition_key="a")]
    assert keys == pages("a", "x", range(30)).column(0).to_pylist()


def decisions(kept: str, numbers: Iterable[int], per_content: int = 1) -> pa.Table:
    return table_of(
        DUPLICATES,
        (
            {
                "sample_id": compute_digest(n),
                "fingerprint": compute_digest("content", n // per_content),
                "canonical_sample_id": compute_digest(kept),
            }
            for n in numbers
        ),
    )


def contents(*numbers: int) -> pa.Array:
    return pa.array([compute_digest("content", n) for n in numbers])


def test_rows_of_some_values_are_exchanged_and_all_others_stay(lake: Lake) -> None:
    table = lake.get_table("curation/duplicates")
    table.publish([decisions("x", range(30), per_content=3)])
    (fragment,) = table.open().fragment_ids()
    rows = [decisions("x", (0, 1), 3), decisions("y", (3,), 3), decisions("y", (300, 301), 300)]
    done = table.exchange_rows("fingerprint", contents(0, 1), rows)
    assert (done.n_rows, done.n_added, done.n_changed, done.n_removed) == (29, 2, 1, 3)
    assert done.data_version == table.compute_data_version()
    rows = decisions("x", [0, 1, *range(6, 30)], 3), decisions("y", [3], 3), decisions("y", [300, 301], 300)
    expected = {(row["sample_id"], row["canonical_sample_id"]) for part in rows for row in part.to_pylist()}
    assert {(row["sample_id"], row["canonical_sample_id"]) for row in table.iter_rows()} == expected
    assert fragment in table.open().fragment_ids()
    again = table.exchange_rows("fingerprint", contents(0, 1, 7), [decisions("x", (0, 1, 21, 22, 23), 3), *rows[1:]])
    assert not again.changed_anything
    assert again.version == done.version
    emptied = table.exchange_rows("fingerprint", contents(*range(10)), [])
    assert (emptied.n_rows, emptied.n_removed) == (0, 29)


def test_rows_that_another_run_has_changed_meanwhile_are_not_exchanged(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, other = (Lake(lake.root).get_table("curation/duplicates") for _ in range(2))
    table.publish([decisions("x", range(10))])
    write = table.write_fragments

    def write_late(*given: Any) -> Any:
        other.publish([decisions("z", range(10))])
        return write(*given)

    monkeypatch.setattr(table, "write_fragments", write_late)
    with pytest.raises(LakeError, match="another run has changed the same rows"):
        table.exchange_rows("fingerprint", contents(3), [decisions("y", (3,))])
    assert {row["canonical_sample_id"] for row in table.iter_rows()} == {compute_digest("z")}


def test_rows_are_looked_up_by_a_column_or_by_the_first_item_of_a_list(lake: Lake) -> None:
    images = [compute_digest("image", n) for n in range(3)]
    rows = [sample("a", n, image_ids=images[: n % 4][::-1]) for n in range(8)]
    put_samples(lake, "a", rows)
    table = lake.get_table("samples")
    by_image = table.find_rows("image_ids", pa.array(images[1:2]), ["sample_id", "image_ids"])
    assert by_image.column("sample_id").to_pylist() == [rows[n]["sample_id"] for n in (2, 6)]
    found = table.find_rows("sample_id", pa.array([rows[5]["sample_id"], images[0]]), ["native_id"])
    assert found.column("native_id").to_pylist() == ["5"]
    assert table.read_addresses(found.column("_rowaddr").to_pylist(), ["position"]).to_pylist() == [{"position": 5}]
    assert len(table.find_rows("sample_id", pa.array([], pa.string()), ["native_id"])) == 0
