"""Images are stored once, found by key and returned byte for byte, whatever else is written meanwhile."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pyarrow as pa
import pytest

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake.key_index import KeyIndex
from mvl_assets.lake.lake import Lake
from tests.lake.rows import make_image, mixture, pages

# Inline, in a shared file of blobs, and in one of its own.
SIZES = (0, 10, 17_000, 200_000, 3_000_000)


def test_images_of_every_size_are_returned_unchanged(lake: Lake) -> None:
    pictures = [make_image(n, size) for n, size in enumerate(SIZES)]
    assert lake.get_images("drawn").insert(pictures[:3]) == 3
    assert lake.get_images("drawn").insert(pictures[2:]) == 2
    assert lake.get_images("drawn").insert(pictures) == 0
    wanted = [p.image_id for p in reversed(pictures)]
    assert lake.images.read_images(wanted) == {p.image_id: p.data for p in pictures}
    assert Lake(lake.root).images.read_images(wanted[1:3]) == {p.image_id: p.data for p in pictures[2:4]}
    assert lake.images.read_images([]) == {}


def test_find_missing_returns_the_ids_that_are_not_stored(lake: Lake) -> None:
    here, not_here = make_image(1), make_image(2)
    assert lake.images.find_missing([here.image_id]) == {here.image_id}
    lake.get_images("drawn").insert([here])
    assert lake.images.find_missing([here.image_id, not_here.image_id]) == {not_here.image_id}
    with pytest.raises(KeyError, match=not_here.image_id):
        lake.images.read_images([here.image_id, not_here.image_id])


def test_an_image_twice_in_one_batch_is_stored_once(lake: Lake) -> None:
    assert lake.get_images("drawn").insert([make_image(1, 20_000), make_image(2), make_image(1, 20_000)]) == 2
    assert (
        lake.images.read_images([make_image(1, 20_000).image_id])[make_image(1, 20_000).image_id]
        == make_image(1, 20_000).data
    )
    assert lake.get_images("drawn").insert([]) == 0


def test_properties_are_read_without_the_bytes(lake: Lake) -> None:
    lake.get_images("drawn").insert([make_image(7, 500)])
    result = lake.images.read_properties([make_image(7, 500).image_id, make_image(8).image_id])
    assert list(result) == [make_image(7, 500).image_id]
    info = result[make_image(7, 500).image_id]
    assert (info.size, info.width, info.height, info.phash) == (500, 32, 24, f"{7:016x}")


def test_every_byte_of_an_image_is_synced_before_insert_returns(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[str] = set()
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    lake.get_images("drawn").insert([make_image(n, size) for n, size in enumerate(SIZES)])
    folder = Path(lake.images.table.uri)
    written = {str(p) for part in ("data", "_versions") for p in (folder / part).rglob("*") if p.suffix != ".json"}
    assert any(name.endswith(".blob") for name in written)
    assert written <= synced
    assert {str(folder), str(folder / "data"), str(folder / "_versions"), lake.root} <= synced

    synced.clear()
    lake.get_images("drawn").insert([make_image(99)])
    assert not synced & {n for n in written if n.endswith((".lance", ".blob", ".manifest"))}, "only what is new"


def test_an_index_follows_every_change_of_its_table(lake: Lake) -> None:
    table, index = lake.get_table("category/ocr"), lake.get_index("category/ocr")
    keys = pages("a", "", range(40))["sample_id"].to_pylist()
    assert index.read_rows(keys) == {}

    def expect(content: dict[int, str]) -> None:
        result = {key: row["license"] for key, row in index.read_rows(keys).items()}
        assert result == {keys[n]: who for n, who in content.items()}

    table.publish([pages("a", "x", range(20))], "a")
    expect(dict.fromkeys(range(20), "x"))
    table.publish([pages("b", "x", range(100, 120))], "b")
    table.publish([pages("a", "y", range(10, 30))], "a")
    expect(dict.fromkeys(range(10, 30), "y"))
    table.insert(pages("a", "z", range(25, 35)))
    expect(dict.fromkeys(range(10, 30), "y") | dict.fromkeys(range(30, 35), "z"))
    table.delete("source = 'a'")
    expect({})


def test_an_index_follows_whole_tables_that_are_replaced(lake: Lake) -> None:
    """The new content has as many rows as the old one: only the places differ."""
    for name in ("first", "second"):
        lake.get_table("mixture/alignment").publish([mixture(12, name)])
        keys = mixture(12, name)["row_id"].to_pylist()
        result = lake.get_index("mixture/alignment").read_rows(keys, ["row_id", "position"])
        assert {k: (r["row_id"], r["position"]) for k, r in result.items()} == {k: (k, n) for n, k in enumerate(keys)}


def test_an_index_that_follows_many_small_appends_finds_what_a_new_one_finds(lake: Lake) -> None:
    table, index = lake.get_table("category/ocr"), lake.get_index("category/ocr")
    keys = pages("a", "", range(60))["sample_id"].to_pylist()
    chance = random.Random(7)
    for _ in range(25):
        step = chance.choice(["insert", "insert", "insert", "publish", "delete"])
        numbers = chance.sample(range(60), chance.randrange(1, 12))
        if step == "insert":
            table.insert(pages("a", step, numbers))
        elif step == "publish":
            table.publish([pages("a", step, numbers)], "a")
        else:
            table.delete(f"sample_id = '{keys[numbers[0]]}'")
        assert index.read_rows(keys) == KeyIndex(Lake(lake.root).get_table("category/ocr")).read_rows(keys)
        assert {r["sample_id"] for r in index.read_rows(keys).values()} == {r["sample_id"] for r in table.iter_rows()}


def test_rows_are_returned_in_the_order_of_their_keys(lake: Lake) -> None:
    lake.get_table("category/ocr").insert(pages("a", "x", range(30)))
    keys = pages("a", "", [7, 29, 0, 7, 13])["sample_id"].to_pylist()
    assert list(lake.get_index("category/ocr").read_rows(keys, ["sample_id"])) == list(dict.fromkeys(keys))


def test_keys_that_end_in_zero_bytes_are_distinguished(lake: Lake) -> None:
    ends = ("00", "01", "10")
    keys = ["ab" * 15 + end for end in ends] + ["00" * 16, "00" * 15 + "01", "01" + "00" * 15]
    rows = pages("a", "x", range(len(keys)))
    rows = rows.set_column(0, rows.schema.field(0), [keys])
    lake.get_table("category/ocr").insert(rows)
    result = KeyIndex(lake.get_table("category/ocr")).read_rows(keys, ["sample_id", "version_id"])
    assert {k: r["sample_id"] for k, r in result.items()} == {k: k for k in keys}
    assert {r["version_id"] for r in result.values()} == set(rows["version_id"].to_pylist())
    assert KeyIndex(lake.get_table("category/ocr")).find_existing(["ab" * 15 + "02", keys[0]]) == {keys[0]}


def test_addresses_of_a_version_stay_valid_while_other_partitions_are_written(lake: Lake) -> None:
    table = lake.get_table("category/ocr")
    table.publish([pages("a", "x", range(20))], "a")
    table.publish([pages("b", "x", range(20))], "b")
    key = compute_digest("b", 15)
    before = lake.get_index("category/ocr", "b").load_key_addresses()
    table.publish([pages("a", "y", range(3))], "a")
    after = lake.get_index("category/ocr", "b").load_key_addresses()
    assert before is not None and after is not None
    assert before.dataset.version < after.dataset.version
    assert before.lookup([key]) == after.lookup([key]) != {}
    assert lake.get_index("category/ocr", "b").read_rows([key], ["sample_id"]) == {key: {"sample_id": key}}


def test_index_of_a_partition_holds_no_other_keys(lake: Lake) -> None:
    table = lake.get_table("category/ocr")
    table.publish([pages("a", "x", range(5))], "a")
    table.insert(pages("b", "x", range(3)))
    rows = pa.concat_tables([pages("a", "x", [7]), pages("b", "x", [7])])
    table.insert(rows)  # one fragment with rows of two partitions, as another program may leave it
    keys = [compute_digest(source, n) for source in ("a", "b") for n in (0, 7)]
    assert lake.get_index("category/ocr", "a").find_existing(keys) == set(keys[:2])
    assert lake.get_index("category/ocr", "b").find_existing(keys) == set(keys[2:])
    assert lake.get_index("category/ocr").find_existing(keys) == set(keys)
