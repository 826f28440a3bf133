"""Held-out loss while training: that of each sample alone; answered is where every token is the likeliest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist

from mvl_assets.lake.lake import Lake
from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.data.pack_loader import PackedBatch, collate
from mvl_training.data.processing import SampleProcessor
from mvl_training.model.student_model import Student
from mvl_training.model.students.choose import start_student
from mvl_training.recipe import Recipe
from mvl_training.trainer import held_out
from mvl_training.trainer.held_out import HeldOutEvaluator, is_question


class Engine:
    """What the evaluator needs of DeepSpeed's."""

    device = torch.device("cpu")

    def __init__(self, module: Student) -> None:
        self.module = module

    def __call__(self, batch: PackedBatch) -> torch.Tensor:
        assert not self.module.training
        loss: torch.Tensor = self.module(batch)
        return loss

    def eval(self) -> None:
        self.module.eval()

    def train(self) -> None:
        self.module.train()


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def make_rows(lake: Lake) -> list[dict[str, Any]]:
    columns = ["version_id", "source", "conversations", "image_ids", "video", "position"]
    rows = sorted(lake.get_table("samples").iter_rows(columns), key=lambda row: row["position"])
    return [{**row, "category": ("chart", "ocr")[row["position"] % 2]} for row in rows[:7]]


@pytest.mark.usefixtures("one_rank")
def test_losses_are_those_of_samples_alone_by_category_and_the_student_trains_on(
    lake: Lake, recipe: Recipe, tokens: ChatTokenizer
) -> None:
    student = start_student(recipe, tokens).train()
    processor = SampleProcessor.for_stage(recipe, "single_image", tokens)
    rows = make_rows(lake)
    evaluator = HeldOutEvaluator(rows, lake, processor, recipe.get_stage("single_image").pack_tokens)
    measured = evaluator.evaluate(Engine(student))
    assert student.training
    sums = {"chart": [0.0, 0], "ocr": [0.0, 0]}
    for row in rows:
        images = lake.images.read_images(processor.select_image_ids(row))
        sample = processor.build_sample({**row, "row_id": "r"}, images)
        batch = collate([sample], (tokens.image_token_id, tokens.video_token_id), processor.inputs.blank_tiles)
        with torch.no_grad():
            sums[row["category"]][0] += float(student(batch))
        sums[row["category"]][1] += batch.n_loss_tokens
    expected = {category: loss / n for category, (loss, n) in sums.items()}
    assert measured["held_out_loss_by_category"] == pytest.approx(expected, rel=1e-5)
    total_loss, total_tokens = (sum(pair[index] for pair in sums.values()) for index in (0, 1))
    assert measured["held_out_loss"] == pytest.approx(total_loss / total_tokens, rel=1e-5)
    assert (measured["held_out_questions"], measured["held_out_exact"]) == (7, 0.0)


@pytest.mark.usefixtures("one_rank")
def test_a_question_is_answered_where_every_token_of_the_reference_is_the_likeliest(
    lake: Lake, recipe: Recipe, tokens: ChatTokenizer
) -> None:
    student = start_student(recipe, tokens)
    row = make_rows(lake)[0]
    evaluator = HeldOutEvaluator(
        [row],
        lake,
        SampleProcessor.for_stage(recipe, "single_image", tokens),
        recipe.get_stage("single_image").pack_tokens,
    )
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    (batch, _), *_ = evaluator._iter_packs()
    for _ in range(60):
        optimizer.zero_grad()
        student.train()(batch).backward()
        optimizer.step()
    assert evaluator.evaluate(Engine(student))["held_out_exact_by_category"] == {"chart": 1.0}


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize(("kept_bytes", "n_built"), [(1 << 30, 7), (0, 14)])
def test_samples_are_built_once_as_far_as_memory_allows(
    lake: Lake, recipe: Recipe, tokens: ChatTokenizer, monkeypatch: pytest.MonkeyPatch, kept_bytes: int, n_built: int
) -> None:
    monkeypatch.setattr(held_out, "MAX_KEPT_BYTES", kept_bytes)
    processor = SampleProcessor.for_stage(recipe, "single_image", tokens)
    build, built = processor.build_sample, []
    monkeypatch.setattr(processor, "build_sample", lambda row, images: built.append(row) or build(row, images))
    evaluator = HeldOutEvaluator(make_rows(lake), lake, processor, recipe.get_stage("single_image").pack_tokens)
    engine = Engine(start_student(recipe, tokens))
    assert evaluator.evaluate(engine) == evaluator.evaluate(engine)
    assert len(built) == n_built


def test_only_a_single_exchange_with_a_short_answer_is_a_question() -> None:
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "a circle"}]
    assert is_question({"conversations": turns})
    assert not is_question({"conversations": turns * 2})
    assert not is_question({"conversations": [turns[0], {"from": "gpt", "value": "a" * 61}]})
