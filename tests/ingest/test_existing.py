"""What the lake already holds of a source, searched by id."""

from __future__ import annotations

import random

from mvl_assets.common.digest import compute_digest
from mvl_assets.ingest.existing import ExistingSamples, SampleVersion
from mvl_assets.lake.lake import Lake
from tests.lake.rows import put_samples, sample

TRAILING_ZEROS = "ab" + 30 * "0"
"""An id whose last bytes numpy drops when it returns a single item."""


def version(sample_id: str, revision: int, *, withdrawn: bool = False) -> dict:
    """Return a row of `samples` with a content hash of its own."""
    row = sample("s", 0, revision=revision, withdrawn=withdrawn, content_hash=compute_digest(sample_id, revision))
    return row | {"sample_id": sample_id, "version_id": compute_digest(sample_id, revision)}


def expect(sample_id: str, revision: int, *, withdrawn: bool = False) -> SampleVersion:
    return SampleVersion(revision, compute_digest(sample_id, revision), withdrawn)


def test_lookup_returns_the_newest_version_of_each_sample(lake: Lake) -> None:
    one, two = compute_digest("one"), compute_digest("two")
    put_samples(lake, "s", [version(one, 2), version(one, 1), version(two, 1), version(TRAILING_ZEROS, 3)])
    existing = ExistingSamples(lake, "s")
    assert existing.lookup([two, "f" * 32, one, TRAILING_ZEROS]) == [
        expect(two, 1),
        None,
        expect(one, 2),
        expect(TRAILING_ZEROS, 3),
    ]


def test_lookup_in_an_empty_lake_finds_nothing(lake: Lake) -> None:
    existing = ExistingSamples(lake, "s")
    assert existing.lookup([compute_digest("one")]) == [None]
    assert existing.lookup([]) == []
    existing.mark_present([compute_digest("one")])
    assert list(existing.iter_missing()) == []


def test_samples_of_other_sources_are_not_found(lake: Lake) -> None:
    put_samples(lake, "other", [sample("other", 1, content_hash=compute_digest("content"))])
    assert ExistingSamples(lake, "s").lookup([compute_digest("other", 1)]) == [None]


def test_missing_samples_are_those_in_use_that_are_not_present(lake: Lake) -> None:
    one, two, gone = compute_digest("one"), compute_digest("two"), compute_digest("gone")
    rows = [version(one, 1), version(two, 1), version(TRAILING_ZEROS, 1), version(gone, 1)]
    put_samples(lake, "s", [*rows, version(gone, 2, withdrawn=True)])
    existing = ExistingSamples(lake, "s")
    existing.mark_present([one, "f" * 32])
    assert dict(existing.iter_missing()) == {two: expect(two, 1), TRAILING_ZEROS: expect(TRAILING_ZEROS, 1)}
    existing.mark_present([])
    existing.mark_present([TRAILING_ZEROS, two])
    assert list(existing.iter_missing()) == []
    existing.mark_present([two], is_present=False)
    assert dict(existing.iter_missing()) == {two: expect(two, 1)}
    assert existing.lookup([gone]) == [expect(gone, 2, withdrawn=True)]


def test_lookup_equals_a_dictionary_of_the_newest_revisions(lake: Lake) -> None:
    rng = random.Random(0)
    numbered = {(rng.randrange(200), rng.randrange(1, 6)): rng.random() < 0.3 for _ in range(400)}
    rows = [version(compute_digest(n), revision, withdrawn=w) for (n, revision), w in numbered.items()]
    put_samples(lake, "s", rows)
    existing = ExistingSamples(lake, "s")
    newest = {row["sample_id"]: row for row in sorted(rows, key=lambda row: row["revision"])}
    sample_ids = [compute_digest(n) for n in range(210)]
    result = dict(zip(sample_ids, existing.lookup(sample_ids), strict=True))
    assert {i: v.revision for i, v in result.items() if v is not None} == {i: r["revision"] for i, r in newest.items()}
    in_use = {i for i, row in newest.items() if not row["withdrawn"]}
    existing.mark_present(sample_ids[:100])
    assert {i for i, _ in existing.iter_missing()} == in_use - set(sample_ids[:100])
