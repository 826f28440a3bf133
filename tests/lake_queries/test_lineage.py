"""From any id back to the file, the raw answer and the verdict."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from mvl_assets.config.profile import load_profile
from mvl_assets.curation.mixing import build_mixture
from mvl_assets.lake.errors import LakeError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import JUDGED, REWRITTEN, SAMPLES
from mvl_assets.lake_queries.lineage import trace
from tests.lake.rows import answer, judgement, make_image, put, put_category, put_samples, rewrite, sample, table_of


@pytest.fixture
def traced(lake: Lake) -> Lake:
    """A source of four samples with pictures, two of them rewritten and judged, all in a mixture."""
    put_category(lake, "ocr", "a", 4)
    shown = make_image(1)
    lake.get_images("a").insert([shown])
    rows = [sample("a", n, image_ids=[shown.image_id]) for n in range(4)]
    put_samples(lake, "a", rows)
    made = [rewrite(r, "ocr") | {"request_key": answer(n).request_key} for n, r in enumerate(rows[:2])]
    asked = [{"criterion": "relevant", "request_key": answer(90).request_key, "verdict": True, "p_yes": 0.9}]
    put(lake, "rewritten/ocr", REWRITTEN, made, "a")
    put(lake, "judged/ocr", JUDGED, [judgement(r, keep=True) | {"verdicts": asked} for r in made], "a")
    with lake.get_answer_log("rewritten", "a") as log:
        log.append([answer(0), answer(1)])
    with lake.get_answer_log("judged", "a") as log:
        log.append([dataclasses.replace(answer(90), text="Yes")])
    base = load_profile("demo")
    shares = base.mixture.model_copy(update={"shares": {"ocr": 1.0}, "single_image": 4})
    build_mixture(
        lake, base.model_copy(update={"mixture": shares, "holdout_fraction": 0.0}), "single_image", run_id="run"
    )
    return lake


def test_a_training_row_leads_back_to_everything_that_made_it(traced: Lake) -> None:
    rows = list(traced.get_table("mixture/single_image").iter_rows())
    row = next(r for r in rows if r["sample_id"] == sample("a", 1)["sample_id"])
    history = trace(traced, row["row_id"][:12].upper())
    assert history["table"] == "mixture/single_image"
    assert history["mixture"] == [{"stage": "single_image", **row}]
    assert history["rewritten"]["rewrite_id"] == row["rewrite_id"]
    assert history["answer"]["text"] == "text 1"
    assert [v["text"] for v in history["verdicts"]] == ["Yes"]
    assert (history["sample"]["file"], history["sample"]["position"]) == ("rows.json", 1)
    assert [i["image_id"] for i in history["images"]] == [make_image(1).image_id]


def test_an_original_row_has_neither_answer_nor_verdict(traced: Lake) -> None:
    rows = traced.get_table("mixture/single_image").iter_rows()
    history = trace(traced, next(r["row_id"] for r in rows if r["kind"] == "original"))
    assert not {"rewritten", "answer", "judged"} & history.keys()
    assert history["sample"]["source"] == "a"


def test_a_rewrite_and_its_verdict_lead_to_the_rows_that_use_them(traced: Lake) -> None:
    made = rewrite(sample("a", 0), "ocr")
    for row_id in (made["rewrite_id"], judgement(made, keep=True)["judged_id"]):
        history = trace(traced, row_id)
        assert [m["rewrite_id"] for m in history["mixture"]] == [made["rewrite_id"]]
        assert history["sample"]["native_id"] == "0"


def test_a_sample_names_its_rewrites_and_whether_they_are_kept(traced: Lake) -> None:
    made = rewrite(sample("a", 0), "ocr")
    assert trace(traced, sample("a", 0)["version_id"])["rewrites"] == [{"rewrite_id": made["rewrite_id"], "keep": True}]
    assert trace(traced, sample("a", 3)["sample_id"])["rewrites"] == []


def test_the_ids_that_a_trace_prints_of_answers_and_images_can_be_traced(traced: Lake) -> None:
    made = rewrite(sample("a", 0), "ocr")
    history = trace(traced, answer(0).request_key[:20])
    assert history["table"] == "answers/rewritten/a" and history["answer"]["text"] == "text 0"
    assert history["uses"] == [{"table": "rewritten/ocr", "id": made["rewrite_id"]}]
    history = trace(traced, answer(90).request_key)
    assert history["answer"]["text"] == "Yes" and {use["table"] for use in history["uses"]} == {"judged/ocr"}
    assert len(history["uses"]) == 2
    history = trace(traced, make_image(1).image_id[:8])
    assert (history["image"]["source"], history["image"]["width"]) == ("a", make_image(1).width)
    assert {use["id"] for use in history["uses"]} == {sample("a", n)["version_id"] for n in range(4)}


def test_a_sample_is_traced_from_its_newest_version(traced: Lake) -> None:
    new = sample("a", 0, revision=2, answer="new")
    traced.get_table("samples").insert(table_of(SAMPLES, [new]))
    assert trace(traced, new["sample_id"])["sample"]["conversations"][1]["value"] == "new"
    assert trace(traced, sample("a", 0)["version_id"])["sample"]["conversations"][1]["value"] == "it is 0"


def test_a_row_whose_rewrite_was_replaced_is_traced_through_the_older_version_of_the_table(traced: Lake) -> None:
    verdict = judgement(rewrite(sample("a", 0), "ocr"), keep=True)
    put(traced, "rewritten/ocr", REWRITTEN, [], "a")
    used = next(
        r for r in traced.get_table("mixture/single_image").iter_rows() if r["judged_id"] == verdict["judged_id"]
    )
    put(traced, "judged/ocr", JUDGED, [], "a")
    history = trace(traced, used["row_id"])
    assert history["is_superseded"] and history["sample"]["native_id"] == "0"
    assert history["rewritten"]["rewrite_id"] == used["rewrite_id"] and history["answer"]["text"] == "text 0"
    assert history["judged"]["judged_id"] == used["judged_id"] and history["verdicts"][0]["text"] == "Yes"
    for name in ("rewritten/ocr", "judged/ocr"):
        traced.get_table(name).open_writable().cleanup_old_versions(older_than=dt.timedelta(0))
    history = trace(traced, used["row_id"])
    assert history["is_superseded"] and "rewritten" not in history and history["sample"]["native_id"] == "0"


@pytest.mark.parametrize(
    ("row_id", "words"), [("abc", "is not an id"), ("no hex!", "is not an id"), ("0" * 32, "nothing")]
)
def test_an_invalid_or_unknown_id_is_reported_in_one_line(traced: Lake, row_id: str, words: str) -> None:
    with pytest.raises(LakeError, match=words) as output:
        trace(traced, row_id)
    assert output.value.hint is not None


def test_a_prefix_that_matches_two_rows_is_refused(lake: Lake) -> None:
    rows = [sample("a", n) | {"sample_id": f"abcdef{n}" + "0" * 25} for n in range(2)]
    put_samples(lake, "a", rows)
    with pytest.raises(LakeError, match="more than one"):
        trace(lake, "abcdef")
    assert trace(lake, "abcdef1")["id"] == rows[1]["sample_id"]


def test_a_row_that_arms_of_studies_share_is_traced_in_all_of_them(traced: Lake) -> None:
    base = load_profile("demo")
    shares = base.mixture.model_copy(update={"shares": {"ocr": 1.0}, "single_image": 3})
    profile = base.model_copy(update={"mixture": shares, "holdout_fraction": 0.0})
    before = list(traced.get_table("mixture/single_image").iter_rows())
    arm = Lake(f"{traced.root}#arm=size/small/0")
    build_mixture(arm, profile, "single_image", run_id="run")
    assert list(traced.get_table("mixture/single_image").iter_rows()) == before, "an arm overwrites nothing"
    assert arm.list_tables("mixture") == ["mixture/single_image"]
    shared = list(arm.get_table("mixture/single_image").iter_rows())
    assert len(shared) == 3
    assert [r["row_id"] for r in before if r["row_id"] in {s["row_id"] for s in shared}] == [
        s["row_id"] for s in shared
    ], "rows that two mixtures share come in the same order"
    for lake in (traced, arm):
        history = trace(lake, shared[0]["row_id"])
        assert [m["stage"] for m in history["mixture"]] == ["single_image", "size/small/0/single_image"]
