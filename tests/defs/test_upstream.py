"""A partition with nothing upstream fails and says what to materialise first; it is never made empty."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from mvl_assets.lake_queries.removal.purge import Purge
from tests.defs.world import FORGETFUL, GENERAL, World, point_at, prepare

HINT = f"`mvl run --source {GENERAL} --until"


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Files and definitions; nothing was materialised, and no model is served."""
    home = tmp_path_factory.mktemp("declared") / "home"
    home.mkdir()
    prepare(home, "http://127.0.0.1:9/v1")
    with pytest.MonkeyPatch.context() as patch:
        point_at(home, patch)
        world = World(home, dg.Definitions())
        world.reload()
        world.report_prompts()
    forget()
    return world


@pytest.fixture
def empty(declared: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A copy of it, which a test may change."""
    home = tmp_path / "home"
    shutil.copytree(declared.home, home)
    point_at(home, monkeypatch)
    forget()
    yield World(home, declared.definitions)
    forget()


def forget() -> None:
    for remembered in FORGETFUL:
        remembered.cache_clear()


def failure(world: World, asset: str) -> str:
    with pytest.raises(Exception) as caught:
        world.make(asset, GENERAL)
    chain, error = [], caught.value
    while error is not None:
        chain.append(str(error))
        error = error.__cause__  # type: ignore[assignment]
    return "\n".join(chain)


@pytest.mark.parametrize(
    ("asset", "upstream"),
    [
        ("category/code_math", f"raw/{GENERAL}"),
        ("rewritten/code_math", "category/code_math"),
        ("judged/code_math", "rewritten/code_math"),
    ],
)
def test_a_partition_with_nothing_upstream_fails_and_says_what_to_make(empty: World, asset: str, upstream: str) -> None:
    said = failure(empty, asset)
    assert f"{upstream}[{GENERAL}]" in said and f"{HINT} {asset.split('/')[0]}`" in said
    assert [s.state for s in empty.standing() if s.partition_key == GENERAL] == ["missing"] * 4


def test_rows_of_an_earlier_lake_are_not_taken_for_those_of_this_one(
    empty: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty.make(f"raw/{GENERAL}", GENERAL)
    monkeypatch.setenv("MVL_LAKE", str(empty.home / "another"))
    assert f"has none of the 6 rows of raw/{GENERAL}[{GENERAL}]" in failure(empty, "category/code_math")


def test_an_input_that_was_made_empty_is_not_a_missing_one(empty: World) -> None:
    empty.make(f"raw/{GENERAL}", GENERAL)
    Purge(empty.lake, GENERAL).run()
    empty.make(f"raw/{GENERAL}", GENERAL)
    assert empty.make("category/code_math", GENERAL).success
    assert empty.lake.get_table("category/code_math").count() == 0


def test_what_was_made_before_its_input_is_stale_when_the_input_is_made(empty: World) -> None:
    """Such as on a machine whose lake is shared and whose events are not; Dagster's own label says fresh."""
    empty.make(f"raw/{GENERAL}", GENERAL)
    with empty.instance() as instance:
        instance.wipe_assets([dg.AssetKey(["raw", GENERAL])])
    empty.make("category/code_math", GENERAL)
    assert empty.stale() == []
    empty.make(f"raw/{GENERAL}", GENERAL)
    assert empty.stale() == [("category/code_math", GENERAL)]
    empty.make("category/code_math", GENERAL)
    assert empty.stale() == []
