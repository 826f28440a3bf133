"""The pack plan: exact, deterministic, and honest about what it leaves out."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from mvl_assets.errors import MvlError
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.lake.lake import Lake
from mvl_training.data import token_counts
from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.data.pack_loader import PackLoader
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.planning import build_pack_plan
from mvl_training.data.processing import SampleProcessor
from mvl_training.recipe import Recipe
from tests.training import tiny_model as small


def test_a_plan_is_deterministic_and_changes_with_what_it_depends_on(
    tmp_path: Path, tokenizer: Path, recipe: Recipe
) -> None:
    lake = small.fill_lake(tmp_path, small.draw_shape_samples(30))
    first = build_pack_plan(lake, "single_image", recipe, run_id="a")
    version = lake.get_table("pack_plan/single_image").version
    again = build_pack_plan(lake, "single_image", recipe, run_id="b")
    assert again.data_version == first.data_version
    assert lake.get_table("pack_plan/single_image").version == version
    slower = small.build_recipe(tokenizer, learning_rates={"projector": 1e-4}, steps=99, zero_stage=3)
    assert build_pack_plan(lake, "single_image", slower, run_id="c").data_version == first.data_version
    longer = small.build_recipe(tokenizer, max_seq_len=512)
    assert build_pack_plan(lake, "single_image", longer, run_id="d").data_version != first.data_version


def test_the_report_adds_up_to_the_table(lake: Lake, recipe: Recipe, tokens: ChatTokenizer) -> None:
    loader = PackLoader(
        lake,
        "single_image",
        PackPlan(lake, "single_image"),
        SampleProcessor.for_stage(recipe, "single_image", tokens),
    )
    report = build_pack_plan(lake, "single_image", recipe, run_id="again")
    plan = PackPlan(lake, "single_image")
    rows = plan.read_rows(range(len(plan)))
    assert [row.position for row in rows] == list(range(41))
    assert report.n_samples == len(plan) == 41
    assert report.n_tokens == plan.counts.n_tokens.sum() == sum(row.n_tokens for row in rows)
    assert (report.n_loss_tokens, report.n_tiles) == (plan.counts.n_loss_tokens.sum(), plan.counts.n_tiles.sum())
    assert report.rejects_by_error == {}
    for axis in ("category", "modality"):
        shares = [share for share in report.shares if share.axis == axis]
        for name in ("n_samples", "n_tokens", "n_loss_tokens"):
            assert sum(getattr(share, name) for share in shares) == getattr(report, name)
        assert all(
            share.min_shard_share == share.max_shard_share == share.n_loss_tokens / report.n_loss_tokens
            for share in shares
        ), "one shard"
        assert sum(share.n_visual_tokens for share in shares) == sum(
            layout.n_tokens for layout in loader.load(range(len(plan))).layouts
        )
    video = next(share for share in report.shares if share.name == "video")
    assert 0 < video.n_visual_tokens < video.n_tokens


def test_rows_that_cannot_be_trained_on_become_rejects_and_are_never_cut(tmp_path: Path, recipe: Recipe) -> None:
    good = small.draw("circle", "red")
    lake = Lake(str(tmp_path))
    small.insert_rows(
        lake,
        [
            ([good], "<image>\nWhat?", "red", None),
            ([good], "<image>\nWhat?", "red " * 200, None),
            ([good], "No marker?", "red", None),
            ([good], "<image>\nWhat?", "", None),
        ],
        "single_image",
    )
    progress: list[tuple[int, int]] = []
    report = build_pack_plan(
        lake,
        "single_image",
        recipe,
        run_id="r",
        progress_callback=lambda n_counted, n_rows: progress.append((n_counted, n_rows)),
    )
    assert (report.n_samples, report.rejects_by_error) == (1, {"too_long": 1, "marker_mismatch": 1, "no_answer": 1})
    rejects = list(lake.get_table("rejects").iter_rows())
    assert {(r["position"], r["error"]) for r in rejects} == {
        (1, "too_long"),
        (2, "marker_mismatch"),
        (3, "no_answer"),
    }
    assert progress[-1] == (4, 4)


def test_a_missing_image_rejects_its_rows_and_stops_training_on_an_older_plan(
    tmp_path: Path, recipe: Recipe, tokens
) -> None:
    lake = Lake(str(tmp_path))
    shapes = [small.draw("circle", "red"), small.draw("square", "blue")]
    small.insert_rows(lake, [([shape], "<image>\nWhat?", "red", None) for shape in shapes], "single_image")
    build_pack_plan(lake, "single_image", recipe, run_id="r")
    gone = next(lake.images.table.iter_rows(["image_id"]))["image_id"]
    lake.images.table.delete(f"image_id = '{gone}'")
    plan = PackPlan(lake, "single_image")
    loader = PackLoader(lake, "single_image", plan, SampleProcessor.for_stage(recipe, "single_image", tokens))
    with pytest.raises(MvlError, match=f"missing_image: image {gone} is not in the lake"):
        for position in range(len(plan)):
            loader.load([position])
    assert build_pack_plan(lake, "single_image", recipe, run_id="r").rejects_by_error == {"missing_image": 1}


def test_an_image_rotated_by_exif_is_counted_in_its_displayed_orientation(
    tmp_path: Path, recipe: Recipe, tokens
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (600, 240), "red").save(buffer, "JPEG", exif=exif)
    lake = small.fill_lake(tmp_path, [([buffer.getvalue()], "What?", "red")])
    build_pack_plan(lake, "single_image", recipe, run_id="r")
    plan = PackPlan(lake, "single_image")
    loader = PackLoader(lake, "single_image", plan, SampleProcessor.for_stage(recipe, "single_image", tokens))
    (layout,) = loader.load([0]).layouts
    assert (layout.n_rows, layout.n_columns) == (2, 1)


def test_several_processes_count_the_same_plan(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = small.fill_lake(tmp_path, small.draw_shape_samples(20))
    alone = build_pack_plan(lake, "single_image", recipe, run_id="a")
    progress: list[tuple[int, int]] = []
    monkeypatch.setattr(token_counts, "CHUNK_ROWS", 6)
    monkeypatch.setattr(token_counts, "MAX_SINGLE_PROCESS_ROWS", 0)
    plan = lake.get_table("pack_plan/single_image")
    plan.delete("position >= 0")
    shared = build_pack_plan(
        lake,
        "single_image",
        recipe,
        run_id="b",
        executor=ProcessExecutor(2),
        progress_callback=lambda n_counted, n_rows: progress.append((n_counted, n_rows)),
    )
    assert shared.data_version == alone.data_version
    assert progress == [(6, 20), (12, 20), (18, 20), (20, 20)]


def test_another_text_of_the_same_length_changes_the_plan(tmp_path: Path, recipe: Recipe) -> None:
    versions = []
    for answer in ("red", "sad"):
        lake = small.fill_lake(tmp_path / answer, [([], "Which?", answer)])
        versions.append(build_pack_plan(lake, "single_image", recipe, run_id="r"))
    assert versions[0].n_tokens == versions[1].n_tokens
    assert versions[0].data_version != versions[1].data_version


def test_a_missing_or_empty_mixture_is_one_clear_error(tmp_path: Path, recipe: Recipe) -> None:
    lake = Lake(str(tmp_path))
    with pytest.raises(MvlError, match="no mixture/single_image"):
        build_pack_plan(lake, "single_image", recipe, run_id="r")
    with pytest.raises(MvlError, match="no pack_plan/single_image"):
        PackPlan(lake, "single_image")
    small.insert_rows(lake, [([], "Hi", "", None)], "single_image")
    with pytest.raises(MvlError, match="nothing to train on: 1 no_answer"):
        build_pack_plan(lake, "single_image", recipe, run_id="r")


def test_training_on_a_plan_of_another_lake_names_the_first_row_that_differs(
    tmp_path: Path, recipe: Recipe, tokens
) -> None:
    lake = small.fill_lake(tmp_path, small.draw_shape_samples(4))
    build_pack_plan(lake, "single_image", recipe, run_id="r")
    plan = PackPlan(lake, "single_image")
    small.fill_lake(tmp_path, [(p, q, a + "!") for p, q, a in small.draw_shape_samples(4)])
    loader = PackLoader(lake, "single_image", plan, SampleProcessor.for_stage(recipe, "single_image", tokens))
    with pytest.raises(MvlError, match=f"row {plan.read_rows([0])[0].row_id} .* the plan says"):
        loader.load([0])
