"""How rows are divided into shards."""

from __future__ import annotations

from mvl_assets.common.digest import compute_digest
from mvl_assets.model_stage.shards import ShardRow, get_leading_bits, split_rows


def make_rows(n_rows: int) -> list[ShardRow]:
    ids = [compute_digest("row", number) for number in range(n_rows)]
    return [ShardRow(row_id, get_leading_bits(compute_digest(row_id)), True, 2) for row_id in ids]


def names_by_row(rows: list[ShardRow], rows_per_shard: int) -> dict[str, str]:
    return {row_id: shard.name for shard in split_rows(rows, rows_per_shard) for row_id, _ in shard.iter_rows()}


def test_number_of_shards_is_the_power_of_two_that_keeps_them_small_on_average() -> None:
    for n_rows, n_shards in ((100, 1), (101, 2), (200, 2), (201, 4), (400, 4)):
        shards = split_rows(make_rows(n_rows), 100)
        assert len(shards) == n_shards
        assert sum(map(len, shards)) == n_rows
    assert split_rows([], 100) == []


def test_every_row_is_in_the_shard_of_its_leading_bits_and_a_growing_source_splits_shards() -> None:
    rows = make_rows(1000)
    two, four = names_by_row(rows[:500], 250), names_by_row(rows, 250)
    assert set(two.values()) == {"0", "1"} and set(four.values()) == {"00", "01", "10", "11"}
    for row in rows[:500]:
        assert four[row.row_id] == format(row.hash, "064b")[:2]
        assert four[row.row_id].startswith(two[row.row_id])
    assert set(names_by_row(rows, 1000).values()) == {""}


def test_rows_keep_their_order_and_may_begin_anywhere() -> None:
    rows = [row._replace(may_send=number % 3 > 0) for number, row in enumerate(make_rows(300))]
    order = {row.row_id: number for number, row in enumerate(rows)}
    for shard in split_rows(rows, 100):
        numbers = [order[row_id] for row_id, _ in shard.iter_rows()]
        assert numbers == sorted(numbers)
        assert [order[row_id] for row_id, _ in shard.iter_rows(7)] == numbers[7:] + numbers[:7]
        sendable = [order[row_id] for row_id, _ in shard.iter_rows(sendable_only=True)]
        assert sendable == [number for number in numbers if number % 3]
        assert shard.n_requests == 2 * len(sendable)
