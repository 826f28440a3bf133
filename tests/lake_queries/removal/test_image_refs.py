"""Which images samples refer to, which none does, and how large they are."""

from __future__ import annotations

from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.removal.image_refs import (
    find_unreferenced_images,
    iter_image_sizes,
    iter_referenced_image_ids,
)
from tests.lake.rows import make_image, put_samples, sample

FIRST, SECOND, THIRD, UNUSED = (make_image(n, size=100 + n) for n in range(4))


def fill(lake: Lake) -> None:
    lake.get_images("drawn").insert([FIRST, SECOND, THIRD, UNUSED])
    put_samples(
        lake,
        "drawn",
        [
            sample("drawn", 0, image_ids=[FIRST.image_id, SECOND.image_id]),
            sample("drawn", 1, image_ids=[]),
            sample("drawn", 2, image_ids=[FIRST.image_id]),
            sample("drawn", 2, revision=2, withdrawn=True, image_ids=None),
        ],
    )
    put_samples(lake, "other", [sample("other", 0, image_ids=[THIRD.image_id])])


def test_all_revisions_count_and_ids_may_repeat(lake: Lake) -> None:
    fill(lake)
    referenced = [image_id for batch in iter_referenced_image_ids(lake, "drawn") for image_id in batch]
    assert sorted(referenced) == sorted([FIRST.image_id, FIRST.image_id, SECOND.image_id])


def test_a_condition_restricts_the_samples(lake: Lake) -> None:
    fill(lake)
    assert list(iter_referenced_image_ids(lake, "drawn", "position = 2 AND NOT withdrawn")) == [[FIRST.image_id]]


def test_only_images_that_no_revision_refers_to_are_unreferenced(lake: Lake) -> None:
    assert not find_unreferenced_images(lake, "drawn")
    fill(lake)
    assert set(find_unreferenced_images(lake, "drawn")) == {THIRD.image_id, UNUSED.image_id}
    assert not find_unreferenced_images(lake, "other")


def test_sizes_are_those_of_stored_images_alone(lake: Lake) -> None:
    fill(lake)
    assert sorted(iter_image_sizes(lake, "drawn", IdSet([[SECOND.image_id, UNUSED.image_id, "0" * 32]]))) == [101, 103]
    assert not list(iter_image_sizes(lake, "drawn", IdSet(())))
