"""What a run decides again after a change, and what it leaves alone, is together what a run over all rows decides."""

from __future__ import annotations

import shutil
import tempfile
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_assets.config.duplicate_rules import DuplicateRules
from mvl_assets.curation import duplicates
from mvl_assets.curation.duplicates import DuplicateReport, find_duplicates
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import REWRITTEN
from mvl_assets.lake_queries import gone_contents, sample_comparison
from mvl_assets.lake_queries.sample_comparison import SampleComparison
from tests.curation.changing_lake import FERRY, ChangingLake, Content
from tests.curation.sources import source
from tests.curation.stored_images import ANSWER, QUESTION
from tests.lake.failpoints import failpoint
from tests.lake.rows import put, rewrite

SLUGS = ("c", "a", "b")
RULES = DuplicateRules()
_CASTLE = (
    "the castle stands on a basalt cliff above three valleys whose farmers carried its stones uphill through four hard"
    " winters long ago"
)

# Every pair of neighbours in a group is alike, exactly or nearly, or nearly so; the first and the last may not be.
CONTENTS = [
    *(Content(text, "4 hours") for text in (FERRY, f"Please answer: {FERRY}", f"{FERRY}!", _CASTLE)),
    *(Content(" ".join(FERRY.split()[cut:]), "4 hours") for cut in (2, 4, 6)),
    *(Content(QUESTION, ANSWER, image) for image in range(3)),
    Content(f"Please look at the image: {QUESTION}", ANSWER, 0),
    Content("Who wrote it?", ANSWER, 0),
]


class World(ChangingLake):
    """A lake that is changed and searched. One that forgets looks at all rows in every run."""

    def __init__(self, root: str, *, forgets: bool) -> None:
        super().__init__(root)
        self.forgets = forgets

    def rewrite(self, slug: str, number: int) -> None:
        if (row := self.newest.get((slug, number))) is not None:
            put(self.lake, "rewritten/ocr", REWRITTEN, [rewrite(row, "ocr")], slug)

    def search(self) -> DuplicateReport:
        if self.forgets:
            self.lake.get_table("curation/duplicates_basis").delete("true")
        sources = [source(slug, **({"group": "C", "reason": "noisy"} if slug == "c" else {})) for slug in SLUGS]
        return find_duplicates(self.lake, sources, run_id="run", rules=RULES)

    def list_rows(self) -> list[dict[str, Any]]:
        rows = self.lake.get_table("curation/duplicates").iter_rows()
        return sorted(rows, key=lambda row: row["sample_id"])


ROWS = st.tuples(st.sampled_from(SLUGS), st.integers(0, 3))
CHANGES = st.one_of(
    st.tuples(st.just("put_version"), ROWS, st.sampled_from(CONTENTS)),
    st.tuples(st.sampled_from(["withdraw", "delete", "rewrite", "compact"]), ROWS, st.none()),
)
FIRST = st.lists(st.tuples(st.just("put_version"), ROWS, st.sampled_from(CONTENTS)), min_size=3, max_size=8)


@given(first=FIRST, later=st.lists(st.lists(CHANGES, min_size=1, max_size=3), min_size=1, max_size=3))
@settings(max_examples=6, derandomize=True, database=None)
def test_changes_lead_to_the_rows_that_a_run_over_all_samples_finds(first: list, later: list) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="mvl-test-") as folder,
        tempfile.TemporaryDirectory(prefix="mvl-test-") as other_folder,
        mock.patch.object(sample_comparison, "MAX_CHANGED_SHARE", 100),
        mock.patch.object(sample_comparison, "MAX_GONE_SHARE", 1),
        mock.patch.object(gone_contents, "MAX_GONE_SHARE", 1),
    ):
        worlds = [World(folder, forgets=False), World(other_folder, forgets=True)]
        for nth, changes in enumerate([first, *later]):
            for world in worlds:
                world.apply(changes)
            with mock.patch.object(SampleComparison, "load_all", lambda _: pytest.fail("all rows are looked at")):
                report = None if nth == 0 else worlds[0].search()
            report = report or worlds[0].search()
            expected = worlds[1].search()
            assert worlds[0].list_rows() == worlds[1].list_rows()
            assert (report.n_compared, report.sources) == (expected.n_compared, expected.sources)
            assert report.published.data_version == expected.published.data_version
            assert report.published.n_rows == expected.published.n_rows
            dropped = {row["sample_id"] for row in worlds[0].list_rows()}
            assert dropped.isdisjoint(row["canonical_sample_id"] for row in worlds[0].list_rows())


class KilledError(BaseException):
    pass


def kill() -> None:
    raise KilledError


def test_run_that_was_killed_at_any_commit_ends_with_the_same_rows(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_comparison, "MAX_CHANGED_SHARE", 100)
    world = World(lake.root, forgets=False)
    for number, content in enumerate(CONTENTS[:4]):
        world.put_version("b", number, content)
    world.search()
    world.put_version("a", 0, CONTENTS[2])
    world.put_version("b", 3, CONTENTS[0])
    whole = str(tmp_path / "whole")
    shutil.copytree(lake.root, whole)
    world.search()
    assert len(world.list_rows()) == 4
    for turn in count(1):
        killed = World(str(tmp_path / f"killed_{turn}"), forgets=False)
        shutil.copytree(whole, killed.lake.root)
        try:
            with failpoint("commit", "before", turn, kill):
                killed.search()
        except KilledError:
            killed.search()
            assert killed.list_rows() == world.list_rows()
        else:
            break
    assert turn > 4


def test_a_few_new_rows_are_exchanged_in_a_table_that_keeps_the_others(lake: Lake) -> None:
    world = World(lake.root, forgets=False)
    for number in range(30):
        world.put_version("b", number, Content(f"How many stones has wall {number}?", "9"))
        world.put_version("a", number, Content(f"How many stones has wall {number}?", "9"))
    first = world.search()
    table = lake.get_table("curation/duplicates")
    (fragment,) = table.open().get_fragments()
    world.put_version("c", 0, Content("How many stones has wall 3?", "9"))
    world.withdraw("b", 7)
    second = world.search()
    assert (first.n_duplicates, second.n_duplicates) == (30, 30)
    assert (second.published.n_added, second.published.n_removed) == (1, 1)
    kept, added = table.open().get_fragments()
    assert (kept.fragment_id, kept.count_rows(), added.count_rows()) == (fragment.fragment_id, 29, 1)


def test_small_fragments_of_many_runs_are_joined(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_comparison, "MAX_CHANGED_SHARE", 100)
    monkeypatch.setattr(duplicates, "MAX_SMALL_FRAGMENTS", 2)
    world = World(lake.root, forgets=False)
    for number in range(6):
        world.put_version("a", number, CONTENTS[3])
        world.search()
        for name in ("duplicates", "compared"):
            assert len(lake.get_table(f"curation/{name}").open().get_fragments()) <= 3
    assert len(world.list_rows()) == 5
    assert lake.get_table("curation/compared").count() == 1


@pytest.mark.parametrize("lost", ["curation/duplicates", "curation/compared", "curation/sample_pairs"])
def test_table_that_was_emptied_is_derived_from_all_samples_again(lake: Lake, lost: str) -> None:
    world = World(lake.root, forgets=False)
    for number in range(2):
        world.put_version("a", number, CONTENTS[number])
    world.search()
    before = world.list_rows()
    lake.get_table(lost).delete("true")
    world.search()
    assert before and world.list_rows() == (before if lost != "curation/sample_pairs" else [])


def test_other_thresholds_and_sources_decide_all_samples_again(lake: Lake) -> None:
    world = World(lake.root, forgets=False)
    for number in range(40):
        world.put_version("a", number, Content(f"How many stones has wall {number}?", "9"))
    for number, content in enumerate([CONTENTS[0], CONTENTS[4]]):
        world.put_version("b", number, content)
    sources = [source(slug) for slug in "ab"]
    find_duplicates(lake, sources, run_id="run", rules=RULES)
    assert len(world.list_rows()) == 1
    find_duplicates(lake, sources[:1], run_id="run", rules=RULES)
    assert world.list_rows() == []
    find_duplicates(lake, sources, run_id="run", rules=RULES)
    assert len(world.list_rows()) == 1
    find_duplicates(lake, sources, run_id="run", rules=DuplicateRules(min_text_only_overlap=1.0))
    assert world.list_rows() == []
