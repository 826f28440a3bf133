"""What a run matches after a change, and what it leaves alone, is together what a run from nothing finds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mvl_assets.config.benchmarks import BenchmarkItems
from mvl_assets.config.contamination_rules import ContaminationRules
from mvl_assets.curation import benchmark_matches, contamination
from mvl_assets.curation.contamination import ContaminationReport, find_contamination
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.benchmarks import matched_basis
from mvl_assets.lake_queries.benchmarks import search as benchmark_search
from mvl_assets.lake_queries.benchmarks.matched_basis import SampleScope, find_scope
from mvl_assets.lake_queries.removal.purge import Purge
from tests.curation.changing_lake import FERRY, ChangingLake, Content
from tests.curation.sources import source
from tests.curation.stored_images import ANSWER, QUESTION
from tests.lake.failpoints import failpoint

SLUGS = ("a", "b")
EXAM, QUIZ = "benchmark_exam", "benchmark_quiz"
KEPT_TABLES = ("items", "items_basis", "index", "image_pairs", "matches", "matches_basis", "waves", "compared")
_CASTLE = "the castle stands on a basalt cliff above three valleys whose farmers carried its stones uphill long ago"
RULES = [ContaminationRules(), ContaminationRules(min_question_containment=0.3, min_tokens=13, allow={"a": "known"})]

CONTENTS = [
    *(Content(text, "4 hours") for text in (FERRY, f"Solve this. {FERRY}! Think first.", _CASTLE)),
    Content(" ".join(FERRY.split()[4:]), "4 hours"),
    *(Content(QUESTION, ANSWER, image) for image in range(3)),
    Content("Who wrote it?", ANSWER, 0),
]


class World(ChangingLake):
    """A lake that is changed and searched. One that forgets begins every run from nothing."""

    def __init__(self, root: str, *, forgets: bool) -> None:
        super().__init__(root)
        self.forgets = forgets
        self.rules = RULES[0]
        self.slugs = [EXAM, QUIZ]
        self.has_answers = True

    def change_rules(self, slug: str, number: int) -> None:
        self.rules = RULES[number % 2]

    def change_benchmarks(self, slug: str, number: int) -> None:
        self.slugs = [EXAM, QUIZ][: 1 + number % 2]

    def change_answers(self, slug: str, number: int) -> None:
        self.has_answers = number % 2 == 0

    def search(self) -> ContaminationReport:
        if self.forgets:
            for name in KEPT_TABLES:
                self.lake.get_table(f"curation/benchmark_{name}").delete("true")
        benchmarks = {
            slug: BenchmarkItems.model_validate(
                {
                    "slug": slug,
                    "title": slug,
                    "modality": None,
                    "format": None,
                    "tasks": {slug: "*"},
                    "has_answers": self.has_answers,
                }
            )
            for slug in self.slugs
        }
        sources = [source(slug) for slug in SLUGS]
        return find_contamination(
            self.lake, sources, holdout_fraction=0, run_id="run", rules=self.rules, benchmarks=benchmarks
        )

    def list_rows(self, name: str = "contamination") -> list[dict[str, Any]]:
        return sorted(
            self.lake.get_table(f"curation/{name}").iter_rows(), key=lambda row: sorted(map(str, row.items()))
        )


ROWS = st.tuples(st.sampled_from([*SLUGS, EXAM, QUIZ]), st.integers(0, 3))
PUT = st.tuples(st.just("put_version"), ROWS, st.sampled_from(CONTENTS))
OTHER_NAMES = ("withdraw", "delete", "compact", "change_rules", "change_benchmarks", "change_answers")
CHANGES = st.one_of(PUT, st.tuples(st.sampled_from(OTHER_NAMES), ROWS, st.none()))
FIRST = st.lists(PUT, min_size=5, max_size=10)


@given(first=FIRST, later=st.lists(st.lists(CHANGES, min_size=1, max_size=3), min_size=1, max_size=4))
@settings(max_examples=4, derandomize=True, database=None, phases=[Phase.generate])
def test_changes_lead_to_the_hits_that_a_run_from_nothing_finds(first: list, later: list) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="mvl-test-") as folder,
        tempfile.TemporaryDirectory(prefix="mvl-test-") as other_folder,
    ):
        worlds = [World(folder, forgets=False), World(other_folder, forgets=True)]
        for changes in [first, *later]:
            for world in worlds:
                world.apply(changes)
            report, expected = (world.search() for world in worlds)
            assert worlds[0].list_rows() == worlds[1].list_rows()
            matched = {benchmark.source for benchmark in expected.benchmarks}
            items, expected_items = (
                [row for row in world.list_rows("benchmark_items") if row["source"] in matched] for world in worlds
            )
            assert items == expected_items
            assert (report.hit_counts, report.counts) == (expected.hit_counts, expected.counts)
            assert report.published.data_version == expected.published.data_version


@pytest.fixture(scope="module", autouse=True)
def _look_at_added_rows_alone() -> Iterator[None]:
    """However few rows there are."""
    with mock.patch.object(matched_basis, "MAX_ADDED_SHARE", 1):
        yield


@pytest.fixture
def world(lake: Lake) -> World:
    """A world that was searched: two items, one of which each source has."""
    world = World(lake.root, forgets=False)
    for slug, number, content in ((EXAM, 0, 0), (QUIZ, 0, 4), ("a", 0, 1), ("b", 0, 5), ("b", 1, 2)):
        world.put_version(slug, number, CONTENTS[content])
    world.search()
    assert {row["source"]: row["kind"] for row in world.list_rows()} == {
        "a": "same_question",
        "b": "same_image_same_question",
    }
    return world


def fail(*_: object, **__: object) -> None:
    pytest.fail("was done again")


def test_new_rows_alone_are_looked_at_and_the_index_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    scopes: list[SampleScope] = []

    def note_scope(*arguments: Any) -> SampleScope:
        scopes.append(find_scope(*arguments))
        return scopes[-1]

    monkeypatch.setattr(benchmark_search, "find_scope", note_scope)
    monkeypatch.setattr(benchmark_matches, "build_index_arrays", fail)
    monkeypatch.setattr(contamination, "list_item_rows", fail)
    world.put_version("a", 1, CONTENTS[0])
    assert world.search().matched.n_contents == 1
    assert world.search().matched.n_contents == 0
    assert [len(scope.added_fragments or ()) for scope in scopes] == [1, 0]
    assert len(world.list_rows()) == 3


def test_all_rows_are_looked_at_where_many_came(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    states = {"benchmark_exam": "1"}
    matched_basis.record_basis(world.lake, find_scope(world.lake, SLUGS, states).basis, run_id="run")
    world.put_version("a", 1, CONTENTS[0])
    assert len(find_scope(world.lake, SLUGS, states).added_fragments or ()) == 1
    monkeypatch.setattr(matched_basis, "MAX_ADDED_SHARE", 0.1)
    assert find_scope(world.lake, SLUGS, states).added_fragments is None


def test_items_that_are_again_as_they_were_are_matched_again(world: World) -> None:
    hits = world.list_rows()
    for has_answers in (False, True):
        world.has_answers = has_answers
        world.search()
    assert world.list_rows() == hits
    Purge(world.lake, QUIZ).run()
    del world.newest[QUIZ, 0]
    world.search()
    assert [row["source"] for row in world.list_rows()] == ["a"]
    world.put_version(QUIZ, 0, CONTENTS[4])
    world.search()
    assert world.list_rows() == hits


def test_version_of_other_words_takes_the_place_of_the_one_before(world: World) -> None:
    world.put_version("a", 0, CONTENTS[2])
    world.withdraw("b", 0)
    world.search()
    assert world.list_rows() == []
    world.put_version("a", 0, CONTENTS[0])
    world.search()
    assert [row["source"] for row in world.list_rows()] == ["a"]


@pytest.mark.parametrize("lost", ["waves", "compared", "index", "matches_basis", "items_basis", "items"])
def test_table_that_was_emptied_is_made_again(world: World, lost: str) -> None:
    hits, items = world.list_rows(), world.list_rows("benchmark_items")
    world.lake.get_table(f"curation/benchmark_{lost}").delete("true")
    world.put_version("a", 1, CONTENTS[0])
    world.search()
    assert [row for row in world.list_rows() if row["sample_id"] != world.newest["a", 1]["sample_id"]] == hits
    assert len(world.list_rows()) == len(hits) + 1
    assert world.list_rows("benchmark_items") == items


def test_purging_a_benchmark_removes_the_words_of_its_items(world: World) -> None:
    assert world.lake.get_table("curation/benchmark_index").count() > 0
    Purge(world.lake, "b").run()
    assert world.lake.get_table("curation/benchmark_index").count() > 0
    Purge(world.lake, QUIZ).run()
    assert world.lake.get_table("curation/benchmark_index").count() == 0
    world.search()
    assert [row["source"] for row in world.list_rows()] == ["a"]


class KilledError(BaseException):
    pass


def kill() -> None:
    raise KilledError


def test_run_that_was_killed_at_any_commit_ends_with_the_same_hits(world: World, tmp_path: Path) -> None:
    world.put_version("a", 1, CONTENTS[4])
    world.put_version("b", 1, CONTENTS[0])
    world.put_version(EXAM, 0, CONTENTS[3])
    whole = str(tmp_path / "whole")
    shutil.copytree(world.lake.root, whole)
    world.search()
    for turn in count(1):
        killed = World(str(tmp_path / f"killed_{turn}"), forgets=False)
        shutil.copytree(whole, killed.lake.root)
        try:
            with failpoint("commit", "before", turn, kill):
                killed.search()
        except KilledError:
            killed.search()
            assert killed.list_rows() == world.list_rows()
            assert killed.list_rows("benchmark_items") == world.list_rows("benchmark_items")
        else:
            break
    assert turn > 4
