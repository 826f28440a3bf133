"""What was purged does not come back with the same files, until it is allowed to."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.lake.durability.locks import acquire_removal_lock
from mvl_assets.lake.errors import LeaseHeld
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import REWRITTEN
from mvl_assets.lake_queries.removal.purge import Purge
from mvl_assets.lake_queries.removal.tombstones import allow_samples, allow_source
from mvl_assets.lake_queries.views import iter_current_samples
from tests.lake.rows import put, rewrite
from tests.raw_files import make_image, put_json, source, talk
from tests.raw_files import put as put_file

SPEC = source("llava_json")


def write(root: Path, numbers: list[int], *, named: bool = True) -> Path:
    """Rows of these numbers, each with a picture of its own; without `named` a row is called by its place."""
    rows = [
        {"image": f"{n}.png", "conversations": talk("?", f"it is {n}")} | ({"id": n} if named else {}) for n in numbers
    ]
    for n in numbers:
        put_file(root, f"{n}.png", make_image(n))
    put_json(root, "rows.json", rows)
    return root


def map_answers_to_ids(lake: Lake) -> dict[str, str]:
    """Sample id by answer."""
    return {s["conversations"][1]["value"]: s["sample_id"] for s in iter_current_samples(lake, SPEC.slug)}


def test_purged_sample_becomes_a_reject_and_its_image_stays_out(lake: Lake, tmp_path: Path) -> None:
    root = write(tmp_path / "raw", [0, 1, 2])
    ingest_source(lake, SPEC, root, run_id="first")
    gone = map_answers_to_ids(lake)["it is 1"]
    Purge(lake, SPEC.slug, [gone]).run()
    again = ingest_source(lake, SPEC, root, run_id="again")
    assert again.reject_counts == {"purged": 1} and (again.n_new, again.n_new_images, again.n_withdrawn) == (0, 0, 0)
    assert map_answers_to_ids(lake).keys() == {"it is 0", "it is 2"} and lake.images.table.count() == 2
    (reject,) = lake.get_table("rejects").iter_rows()
    assert reject["row_key"] == gone and "mvl purge allow" in reject["message"]
    assert allow_samples(lake, [gone]) and not allow_samples(lake, [gone])
    assert ingest_source(lake, SPEC, root, run_id="allowed").n_new == 1
    assert map_answers_to_ids(lake)["it is 1"] == gone


def test_purged_row_without_native_id_stays_out_when_it_moves(lake: Lake, tmp_path: Path) -> None:
    ingest_source(lake, SPEC, write(tmp_path / "raw", [0, 1, 2], named=False), run_id="first")
    Purge(lake, SPEC.slug, [map_answers_to_ids(lake)["it is 1"]]).run()
    again = ingest_source(lake, SPEC, write(tmp_path / "raw", [1, 0, 2], named=False), run_id="again")
    assert sorted(map_answers_to_ids(lake)) == ["it is 0", "it is 2"], (
        "the row that now stands in its old place is another one"
    )
    assert again.reject_counts == {"purged": 1}


def test_purged_source_is_not_read_and_gives_one_reject(lake: Lake, tmp_path: Path) -> None:
    root = write(tmp_path / "raw", [0, 1])
    ingest_source(lake, SPEC, root, run_id="first")
    Purge(lake, SPEC.slug).run()
    (root / "rows.json").write_text("[", encoding="utf-8")
    again = ingest_source(lake, SPEC, root, run_id="again")
    assert (again.n_rows, again.reject_counts) == (0, {"purged": 1}) and not map_answers_to_ids(lake)
    write(root, [0, 1])
    assert allow_source(lake, SPEC.slug) and not allow_source(lake, SPEC.slug)
    assert ingest_source(lake, SPEC, root, run_id="allowed").n_new == 2


def test_source_without_tombstones_needs_no_lookup(lake: Lake, tmp_path: Path) -> None:
    root = write(tmp_path / "raw", [0])
    assert ingest_source(lake, SPEC, root, run_id="first").n_new == 1
    assert not lake.get_table("tombstones").exists()


def test_ingest_fails_at_once_while_data_is_removed(lake: Lake, tmp_path: Path) -> None:
    root = write(tmp_path / "raw", [0])
    with acquire_removal_lock(lake), pytest.raises(LeaseHeld, match="being removed"):
        ingest_source(lake, SPEC, root, run_id="first")
    assert ingest_source(lake, SPEC, root, run_id="again").n_new == 1


def lines(root: Path, *words: str) -> Path:
    """Rows of text without names."""
    put_json(root, "rows.json", [{"conversations": talk(f"{word}?", word)} for word in words])
    return root


def test_purge_of_a_moved_row_removes_its_content_everywhere_and_no_other_row(lake: Lake, tmp_path: Path) -> None:
    root = tmp_path / "raw"
    ingest_source(lake, SPEC, lines(root, "A", "B", "C"), run_id="first")
    before = next(s for s in iter_current_samples(lake, SPEC.slug) if s["position"] == 0)
    put(lake, "rewritten/general", REWRITTEN, [rewrite(before, "general")], SPEC.slug)
    ingest_source(lake, SPEC, lines(root, "N", "A", "B", "C"), run_id="moved")
    left = Purge(lake, SPEC.slug, [map_answers_to_ids(lake)["A"]]).run()
    assert not left.row_counts and map_answers_to_ids(lake).keys() == {"N", "B", "C"}
    assert not lake.get_table("rewritten/general").count(), "it was made of the purged words in their old place"
    assert not any("A" in str(row["conversations"]) for row in lake.get_table("samples").iter_rows())
    again = ingest_source(lake, SPEC, root, run_id="again")
    assert again.reject_counts == {"purged": 1} and map_answers_to_ids(lake).keys() == {"N", "B", "C"}


def test_purged_row_without_native_id_stays_out_when_the_licence_changes(lake: Lake, tmp_path: Path) -> None:
    root = lines(tmp_path / "raw", "A", "B")
    ingest_source(lake, SPEC, root, run_id="first")
    Purge(lake, SPEC.slug, [map_answers_to_ids(lake)["B"]]).run()
    known = source("llava_json", license="MIT")
    ingest_source(lake, known, lines(root, "N", "A", "B"), run_id="again")
    assert map_answers_to_ids(lake).keys() == {"N", "A"}
