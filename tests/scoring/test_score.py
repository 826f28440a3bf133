"""A sample of a rewritten source through the scorer against a fake server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from mvl_assets.config.profile import Profile
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.testing.fake_server import FakeServer, FakeServerConfig
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.lineage import trace
from mvl_assets.lake_queries.removal.purge import Purge
from mvl_assets.model_stage.plan import plan_stage
from mvl_assets.rewriting.rewrite import rewrite_source
from mvl_assets.scoring.score import ScoreStage, score_source
from mvl_assets.scoring.summary import summarize_scores
from tests.rewriting.small_source import MATH, profile, put
from tests.servers import serving


@pytest.fixture
def served(lake: Lake) -> Iterator[tuple[FakeServer, Endpoint]]:
    """A server, and a lake in which forty samples are rewritten."""
    with serving() as (server, endpoint):
        put(lake, MATH, range(40))
        rewrite_source(lake, MATH, profile(), run_id="r0", endpoints=[endpoint])
        yield server, endpoint


def profile_of(n_rows: int, **changed: Any) -> Profile:
    return profile(**changed).model_copy(update={"score_rows": n_rows})


def rows(lake: Lake) -> list[dict[str, Any]]:
    return sorted(lake.get_table("scored/code_math").iter_rows(), key=lambda row: row["scored_id"])


def test_a_sample_is_scored_before_and_after_and_nothing_twice(lake: Lake, served: tuple[FakeServer, Endpoint]) -> None:
    _, endpoint = served
    report = score_source(lake, MATH, profile_of(10), run_id="r1", endpoints=[endpoint])
    assert (report.rows, report.requests.attempts_sent, report.rejects_by_error) == (20, 20, {})
    scored = rows(lake)
    assert Counter(row["kind"] for row in scored) == {"original": 10, "rewritten": 10}
    smallest = sorted(row["sample_id"] for row in lake.get_table("samples").iter_rows(["sample_id"]))[:10]
    assert {row["sample_id"] for row in scored} == set(smallest)
    rewrites = {row["rewrite_id"]: row for row in lake.get_table("rewritten/code_math").iter_rows()}
    for row in scored:
        assert 1 <= row["content"] <= 5 and 1 <= row["relevance"] <= 5
        assert (row["rewrite_id"] is None) == (row["kind"] == "original")
        assert row["rewrite_id"] is None or rewrites[row["rewrite_id"]]["sample_id"] == row["sample_id"]
        assert (row["answer_kind"], row["blind"], row["prompt"]) == (
            "number" if row["kind"] == "original" else "phrase",
            False,
            "score_general",
        )
    again = score_source(Lake(lake.root), MATH, profile_of(10), run_id="r2", endpoints=[endpoint])
    assert again.requests.attempts_sent == 0 and rows(lake) == scored
    (plan,) = plan_stage(lake, ScoreStage(lake, MATH, profile_of(12)))
    assert (plan.requested, plan.cache_hits, plan.to_send) == (24, 20, 4)
    more = score_source(lake, MATH, profile_of(12), run_id="r3", endpoints=[endpoint])
    assert (more.rows, more.requests.attempts_sent) == (24, 4)


def test_shards_give_the_same_rows(lake: Lake, served: tuple[FakeServer, Endpoint]) -> None:
    _, endpoint = served
    score_source(lake, MATH, profile_of(1000), run_id="r1", endpoints=[endpoint])
    whole = rows(lake)
    assert len(whole) == 80
    sharded = profile_of(1000, processes=1, shard_rows=40)
    report = score_source(lake, MATH, sharded, run_id="r2", endpoints=[endpoint])
    assert report.requests.attempts_sent == 0 and [row["scored_id"] for row in rows(lake)] == [
        row["scored_id"] for row in whole
    ]


def test_an_answer_without_scores_is_asked_again_and_then_a_reject(lake: Lake) -> None:
    put(lake, MATH, range(4))
    with serving() as (_, endpoint):
        rewrite_source(lake, MATH, profile(), run_id="r0", endpoints=[endpoint])
    config = FakeServerConfig(text_by_marker={"What is": "Quite informative."})
    with serving(config) as (_, endpoint):
        report = score_source(lake, MATH, profile_of(4), run_id="r1", endpoints=[endpoint])
    assert (report.rows, report.rejects_by_error) == (0, {"no_score": 8})
    assert report.requests.reasked == 8
    with serving() as (_, endpoint):
        report = score_source(lake, MATH, profile_of(4), run_id="r2", endpoints=[endpoint])
        assert report.requests.attempts_sent == 0
        report = score_source(
            lake, MATH, profile_of(4), run_id="r3", endpoints=[endpoint], retry_error_classes=["no_score"]
        )
    assert (report.rows, report.rejects_by_error) == (8, {})


def test_no_rows_are_scored_where_the_profile_says_so(lake: Lake, served: tuple[FakeServer, Endpoint]) -> None:
    report = score_source(lake, MATH, profile_of(0), run_id="r1", endpoints=[served[1]])
    assert (report.rows, report.requests.requested) == (0, 0)


def test_the_scorer_is_the_judge_unless_the_profile_names_another() -> None:
    made = profile()
    other = made.models["one"].model_copy(update={"revision": "2"})
    named = made.model_copy(update={"models": {**made.models, "two": other}, "roles": {**made.roles, "score": "two"}})
    assert made.get_model("score") == made.get_model("judge") and named.get_model("score") == other
    with pytest.raises(ValueError, match="models not declared"):
        Profile.model_validate({**made.model_dump(), "roles": {**made.roles, "score": "three"}})


def test_a_source_is_summarised_with_lengths_and_kinds(lake: Lake, served: tuple[FakeServer, Endpoint]) -> None:
    score_source(lake, MATH, profile_of(35), run_id="r1", endpoints=[served[1]])
    (summary,) = summarize_scores(lake.get_table("scored/code_math")).values()
    assert summary.n_samples == 35
    scored = rows(lake)
    originals = [row["content"] for row in scored if row["kind"] == "original"]
    assert summary.changes["content"].original == pytest.approx(sum(originals) / 35)
    assert len(summary.lengths["rewritten"]) == 35
    assert summary.answer_kinds["original"] == {"number": 35} and summary.answer_kinds["rewritten"] == {"phrase": 35}


def test_scores_are_traced_and_purged_with_their_samples(lake: Lake, served: tuple[FakeServer, Endpoint]) -> None:
    score_source(lake, MATH, profile_of(10), run_id="r1", endpoints=[served[1]])
    original, rewritten = (next(row for row in rows(lake) if row["kind"] == kind) for kind in ("original", "rewritten"))
    lineage = trace(lake, rewritten["scored_id"][:12])
    assert lineage["scored"]["content"] == rewritten["content"]
    assert lineage["rewritten"]["rewrite_id"] == rewritten["rewrite_id"]
    assert trace(lake, original["scored_id"][:12])["sample"]["version_id"] == original["version_id"]
    uses = trace(lake, original["request_key"][:12])["uses"]
    assert uses == [{"table": "scored/code_math", "id": original["scored_id"]}]
    Purge(lake, "drawn", [original["sample_id"]]).run(keep_bytes=True)
    assert original["sample_id"] not in {row["sample_id"] for row in rows(lake)} and len(rows(lake)) == 18
    assert not lake.get_answer_lookup("scored", "drawn").find_answered([original["request_key"]])
