"""Whole students over packed sequences: samples see only themselves, and the numbers are those of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from mvl_training.data.pack_loader import PackedBatch, collate
from mvl_training.data.processing import ProcessedSample, SampleProcessor
from mvl_training.data.raw_packs import FrameLimits
from mvl_training.model.cost_model import compute_model_sizes, compute_recipe_sizes
from mvl_training.model.lora import add_adapters, is_adapter, merge_adapters
from mvl_training.model.student_model import Student
from mvl_training.model.students.choose import start_student
from mvl_training.recipe import LoraConfig
from mvl_training.trainer.engine import build_parameter_groups
from tests.training import tiny_students as small
from tests.training.student_samples import build_row, draw_image, open_processor

N_FRAMES = 3


@pytest.fixture(scope="module", params=small.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.write_student(family, tmp_path_factory.mktemp(family))


@pytest.fixture(scope="module")
def processor(family: str, folder: Path) -> SampleProcessor:
    opened = open_processor(family, folder, small.LIMITS[family])
    opened.frame_limits = FrameLimits(N_FRAMES)
    return opened


@pytest.fixture(scope="module")
def samples(processor: SampleProcessor) -> list[ProcessedSample]:
    """One image, none, a video, two images."""
    rows = [
        build_row([draw_image(300, 240)]),
        build_row([], question="Say red."),
        build_row([draw_image(250, 320, seed=i) for i in range(N_FRAMES)], [0.0, 1.0, 2.0], "What moves?"),
        build_row([draw_image(300, 240, seed=4), draw_image(260, 420, seed=5)]),
    ]
    return [processor.build_sample(row, data) for row, data in rows]


@pytest.fixture
def student(family: str, folder: Path, processor: SampleProcessor) -> Student:
    return start_student(small.build_recipe(family, folder), processor.tokenizer).train()


def collate_samples(processor: SampleProcessor, samples: Sequence[ProcessedSample]) -> PackedBatch:
    return collate(samples, processor.tokenizer.placeholder_ids, processor.inputs.blank_tiles, "sample")


def compute_gradients(student: Student, batch: PackedBatch) -> tuple[float, dict[str, torch.Tensor]]:
    student.zero_grad()
    loss = student(batch)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}


def test_a_pack_has_the_loss_and_the_gradients_of_its_samples_alone(
    student: Student, processor: SampleProcessor, samples: list[ProcessedSample]
) -> None:
    packed_loss, packed_gradients = compute_gradients(student, collate_samples(processor, samples))
    alone = [compute_gradients(student, collate_samples(processor, [sample])) for sample in samples]
    assert packed_loss == pytest.approx(sum(loss for loss, _ in alone), rel=1e-5)
    for name, gradient in packed_gradients.items():
        total = sum(gradients[name] for _, gradients in alone)
        assert torch.allclose(gradient, total, rtol=1e-3, atol=1e-5 * float(total.abs().max()) + 1e-7), name


def test_a_sample_has_the_loss_that_transformers_computes(
    student: Student, processor: SampleProcessor, samples: list[ProcessedSample], family: str, folder: Path
) -> None:
    # A second one, because the student's own attends to packs.
    vlm = start_student(small.build_recipe(family, folder), processor.tokenizer).eval().vlm
    vlm.model.language_model.set_attn_implementation("sdpa")
    student.eval()
    for sample in samples:
        batch = collate_samples(processor, [sample])
        inputs = small.build_model_inputs(family, student, sample)
        with torch.no_grad():
            student(batch)
            theirs = vlm(**inputs, use_cache=False).loss
        assert float(student.sample_losses_N[0]) / sample.encoded.n_loss_tokens == pytest.approx(
            float(theirs), rel=1e-5
        )


def test_every_parameter_that_learns_has_a_gradient_whatever_the_pack_holds(
    student: Student, processor: SampleProcessor, samples: list[ProcessedSample]
) -> None:
    learning = {name for name, _ in student.named_parameters() if student.find_component(name) is not None}
    for chosen in ([], [samples[1]], samples):
        _, gradients = compute_gradients(student, collate_samples(processor, chosen))
        assert learning <= set(gradients)
    assert {student.find_component(name) for name in learning} == {"language", "projector", "vision"}


def test_gradient_checkpointing_changes_no_gradient(
    student: Student, processor: SampleProcessor, samples: list[ProcessedSample]
) -> None:
    batch = collate_samples(processor, samples)
    _, plain = compute_gradients(student, batch)
    student.vlm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    _, checkpointed = compute_gradients(student, batch)
    assert all(torch.allclose(plain[name], checkpointed[name], rtol=1e-5, atol=1e-7) for name in plain)


def test_sizes_are_known_without_weights(student: Student, family: str, folder: Path) -> None:
    sizes = compute_recipe_sizes(small.build_recipe(family, folder))
    assert sizes == compute_model_sizes(student)
    assert sum(sizes.params.values()) == sum(p.numel() for p in student.parameters())


@pytest.mark.parametrize("component", ["language", "projector", "vision"])
def test_parts_learn_alone(
    family: str, folder: Path, processor: SampleProcessor, samples: list[ProcessedSample], component: str
) -> None:
    recipe = small.build_recipe(family, folder, learning_rates={component: 1e-3})
    student = start_student(recipe, processor.tokenizer).train()
    (group,) = build_parameter_groups(student, recipe.get_stage("single_image"))
    _, gradients = compute_gradients(student, collate_samples(processor, samples))
    assert len(gradients) == len(group["params"])
    assert {student.find_component(name) for name in gradients} == {component}


def test_merged_adapters_are_those_of_the_language_tower(
    student: Student, processor: SampleProcessor, samples: list[ProcessedSample], family: str, folder: Path
) -> None:
    lora = LoraConfig(rank=2, targets=("q_proj", "down_proj"))
    add_adapters(student.eval(), lora, seed=1)
    adapters = {name: weight for name, weight in student.named_parameters() if is_adapter(name)}
    n_layers = student.vlm.config.text_config.num_hidden_layers
    assert len(adapters) == n_layers * 2 * 2 and all("language_model.layers" in name for name in adapters)
    merged = start_student(small.build_recipe(family, folder), processor.tokenizer).eval()
    batch = collate_samples(processor, samples)
    with torch.no_grad():
        before = float(student(batch))
        for weight in adapters.values():
            weight.normal_(std=0.1)
        merged.load_state_dict(merge_adapters(student.state_dict(), lora))
        assert float(student(batch)) == pytest.approx(float(merged(batch)), rel=1e-5)
        assert float(merged(batch)) != pytest.approx(before, rel=1e-4)
