"""The forward pass: samples in one pack do not see each other, and features are transformers' own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mvl_assets.common.batches import iter_batches
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.data.chat_format import IGNORE_INDEX, ChatTokenizer
from mvl_training.data.pack_loader import PackedBatch, PackLoader, collate
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.processing import ProcessedSample, SampleProcessor
from mvl_training.model import student_model
from mvl_training.model.student_model import Student
from mvl_training.model.students.choose import load_student, start_student
from mvl_training.model.students.llava_onevision import find_model_component
from mvl_training.recipe import Recipe, parse_recipe
from tests.training import tiny_model as small


@pytest.fixture
def student(recipe: Recipe, tokens: ChatTokenizer) -> Student:
    return start_student(recipe, tokens)


@pytest.fixture
def processor(recipe: Recipe, tokens: ChatTokenizer) -> SampleProcessor:
    return SampleProcessor.for_stage(recipe, "single_image", tokens)


def build_samples(processor: SampleProcessor, count: int = 5, seed: int = 0) -> list[ProcessedSample]:
    samples = []
    for number, (sample_images, question, answer) in enumerate(small.draw_shape_samples(count, seed)):
        images = {str(i): data for i, data in enumerate(sample_images)}
        row = {
            "row_id": str(number),
            "image_ids": list(images),
            "video": None,
            "conversations": [
                {"from": "human", "value": "<image>\n" * len(sample_images) + question},
                {"from": "gpt", "value": answer},
            ],
        }
        samples.append(processor.build_sample(row, images))
    row = {
        "row_id": "clip",
        "image_ids": ["a", "b", "c"],
        "video": {"name": "clip"},
        "conversations": [{"from": "human", "value": "<video>\nAnd?"}, {"from": "gpt", "value": "moves"}],
    }
    frames = {image_id: small.draw("circle", "red", at=(n, n)) for n, image_id in enumerate("abc")}
    return [*samples, processor.build_sample(row, frames)]


def collate_samples(processor: SampleProcessor, samples: list[ProcessedSample]) -> PackedBatch:
    return collate(
        samples, (processor.tokenizer.image_token_id, processor.tokenizer.video_token_id), processor.inputs.blank_tiles
    )


def compute_logits(student: Student, batch: PackedBatch) -> torch.Tensor:
    with torch.no_grad():
        return student.llava.lm_head(student.compute_last_hidden(batch))


def copy_gradients(student: Student) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_logits_loss_and_gradients_equal_those_of_samples_alone(
    student: Student, processor: SampleProcessor, checkpointing: bool
) -> None:
    student.train()
    if checkpointing:
        student.llava.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    samples = build_samples(processor)
    packed = collate_samples(processor, samples)
    alone = [collate_samples(processor, [s]) for s in samples]
    assert torch.allclose(
        compute_logits(student, packed), torch.cat([compute_logits(student, b) for b in alone]), atol=1e-5
    )

    student(packed).backward()
    result = copy_gradients(student)
    student.zero_grad()
    losses = [student(b) for b in alone]
    sum(losses).backward()
    assert student(packed).item() == pytest.approx(sum(x.item() for x in losses), rel=1e-5)
    for name, parameter in student.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(result[name], parameter.grad, atol=2e-4, rtol=1e-4), name


def test_a_head_called_in_chunks_gives_the_same_loss_and_gradients(
    student: Student, processor: SampleProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(student_model, "HEAD_CHUNK_TOKENS", 5)
    packs = [collate_samples(processor, build_samples(processor)), collate([], (0, 1), processor.inputs.blank_tiles)]
    for pack in packs:
        result = []
        for calls in (1, None, 3, 64):
            student.n_head_chunks = calls
            student.zero_grad()
            loss = student(pack)
            loss.backward()
            result.append((loss.item(), copy_gradients(student)))
        for loss, grads in result[1:]:
            assert loss == pytest.approx(result[0][0], rel=1e-6)
            assert grads.keys() == result[0][1].keys()
            assert all(torch.allclose(grads[n], result[0][1][n], atol=1e-5) for n in grads)
    student.n_head_chunks = None


def test_changing_one_sample_never_changes_the_logits_of_others_in_its_pack(
    student: Student, processor: SampleProcessor
) -> None:
    samples = build_samples(processor)
    before = compute_logits(student, collate_samples(processor, samples))
    start = 0
    for place, sample in enumerate(samples):
        length = len(sample.encoded.input_ids)
        other = replace(
            sample,
            tiles=255 - sample.tiles,
            encoded=replace(sample.encoded, input_ids=sample.encoded.input_ids.copy()),
        )
        text = (other.encoded.input_ids != processor.tokenizer.image_token_id) & (
            other.encoded.input_ids != processor.tokenizer.video_token_id
        )
        other.encoded.input_ids[text] = (other.encoded.input_ids[text] + 1) % 250
        after = compute_logits(student, collate_samples(processor, [*samples[:place], other, *samples[place + 1 :]]))
        moved = (after - before).abs().amax(dim=1)
        assert moved[start : start + length].max() > 1e-3
        moved[start : start + length] = 0
        assert moved.max() < 1e-5, place
        start += length


def test_visual_features_equal_those_of_transformers(student: Student, processor: SampleProcessor) -> None:
    llava = student.llava.eval()
    samples = build_samples(processor)
    for (sample_images, _, _), sample in zip(small.draw_shape_samples(5), samples, strict=False):
        if not sample_images:
            continue
        sizes = []
        from mvl_assets.media.image import standardise_image

        for data in sample_images:
            width, height = standardise_image(data).size
            sizes.append([height, width])
        pixels = torch.from_numpy(sample.tiles) / 127.5 - 1.0
        with torch.no_grad():
            theirs = llava.model.get_image_features(
                pixel_values=pixels,
                image_sizes=torch.tensor(sizes),
                batch_num_images=torch.tensor([len(sample_images)]),
            ).pooler_output
            ours, _ = student.compute_visual_features(torch.from_numpy(sample.tiles), sample.layouts)
        assert torch.allclose(torch.cat(list(theirs)), ours, atol=1e-6)
    video_sample = samples[-1]
    pixels = torch.from_numpy(video_sample.tiles) / 127.5 - 1.0
    with torch.no_grad():
        theirs = llava.model.get_video_features(pixel_values_videos=pixels[None]).pooler_output[0]
        ours, _ = student.compute_visual_features(torch.from_numpy(video_sample.tiles), video_sample.layouts)
    assert torch.allclose(theirs, ours, atol=1e-6)


def test_rows_of_video_frames_end_with_a_newline_as_in_the_released_code(
    tokenizer: Path, tokens: ChatTokenizer
) -> None:
    recipe = parse_recipe(small.build_recipe_data(tokenizer) | {"video_newlines": "grid"})
    student = start_student(recipe, tokens).eval()
    video_sample = build_samples(SampleProcessor.for_stage(recipe, "single_image", tokens))[-1]
    (layout,) = video_sample.layouts
    with torch.no_grad():
        model = student.llava.model
        pixels = torch.from_numpy(video_sample.tiles) / 127.5 - 1.0
        states = model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
        # `get_2dPool` and `add_token_per_grid` of the released llava_arch.py.
        frames = model.multi_modal_projector(states).view(3, 3, 3, -1).permute(0, 3, 1, 2).contiguous()
        frames = torch.nn.functional.interpolate(frames, size=[2, 2], mode="bilinear")
        frames = frames.permute(0, 2, 3, 1).view(3, 4, -1)
        feature = frames.view(3, 1, 2, 2, -1).permute(4, 0, 2, 1, 3).contiguous().flatten(1, 2).flatten(2, 3)
        newline = model.image_newline[:, None, None].expand(*feature.shape[:-1], 1)
        theirs = torch.cat((feature, newline), dim=-1).flatten(1, 2).transpose(0, 1)
        ours, _ = student.compute_visual_features(torch.from_numpy(video_sample.tiles), video_sample.layouts)
    assert layout.n_tokens == len(ours) == 3 * 2 * 3
    assert torch.allclose(theirs, ours, atol=1e-6)
    assert (video_sample.encoded.input_ids == tokens.video_token_id).sum() == layout.n_tokens


def test_features_of_shrunk_images_equal_those_of_transformers(tokenizer: Path, tokens: ChatTokenizer) -> None:
    data = small.build_recipe_data(tokenizer)
    data["grid"] |= {"side": 4, "tiles": None, "anyres_max": 2}
    recipe = parse_recipe(data)
    student = start_student(recipe, tokens).eval()
    processor = SampleProcessor.for_stage(recipe, "single_image", tokens)
    from mvl_assets.media.image import standardise_image

    image = standardise_image(small.draw("circle", "red", (300, 240)))
    cut, layouts = processor.inputs.cut_tiles([image], is_video=False)
    assert layouts[0].shrunk_size is not None
    with torch.no_grad():
        theirs = student.llava.model.get_image_features(
            pixel_values=torch.from_numpy(cut) / 127.5 - 1.0, image_sizes=torch.tensor([[240, 300]])
        ).pooler_output
        ours, _ = student.compute_visual_features(torch.from_numpy(cut), layouts)
    assert len(ours) == layouts[0].n_tokens
    assert torch.allclose(theirs[0], ours, atol=1e-6)


def test_a_pack_without_images_still_gives_every_parameter_a_gradient(
    student: Student, processor: SampleProcessor
) -> None:
    """Ranks whose gradients differ in kind crash ZeRO-2 and hang ZeRO-3."""
    words = [s for s in build_samples(processor) if not s.layouts]
    assert words
    for batch in (collate_samples(processor, words), collate_samples(processor, [])):
        student.zero_grad(set_to_none=True)
        student(batch).backward()
        missing = [n for n, p in student.named_parameters() if p.grad is None and find_model_component(n) is not None]
        assert not missing
        vision = [p.grad.abs().max() for n, p in student.named_parameters() if find_model_component(n) == "vision"]
        assert max(vision) == 0


def test_the_loss_is_summed_over_answers_only(student: Student, processor: SampleProcessor) -> None:
    sample = build_samples(processor, 1)[0]
    batch = collate_samples(processor, [sample])
    scores = compute_logits(student, batch).float()
    labels = torch.from_numpy(sample.encoded.labels).long()
    expected = torch.nn.functional.cross_entropy(scores[:-1], labels[1:], ignore_index=IGNORE_INDEX, reduction="sum")
    assert student(batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_siglip_tower_gives_the_states_before_its_last_layer(
    tmp_path: Path, tokenizer: Path, tokens: ChatTokenizer
) -> None:
    """The released code deletes the last encoder layer and skips the post-layernorm."""
    from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipConfig, SiglipModel

    torch.manual_seed(0)
    data = small.build_recipe_data(tokenizer)
    vision = {k: v for k, v in data["vision"]["config"].items() if k != "model_type"} | {"num_hidden_layers": 3}
    whole = SiglipModel(
        SiglipConfig(
            vision_config=vision,
            text_config={
                "num_hidden_layers": 1,
                "hidden_size": 32,
                "num_attention_heads": 2,
                "vocab_size": 50,
                "intermediate_size": 32,
            },
        )
    ).eval()
    whole.save_pretrained(tmp_path / "siglip")
    text = {k: v for k, v in data["language"]["config"].items() if k != "model_type"}
    Qwen2ForCausalLM(Qwen2Config(**text, vocab_size=259)).save_pretrained(tmp_path / "qwen")
    data["language"] = {"model": str(tmp_path / "qwen"), "tokenizer": str(tokenizer)}
    data["vision"] = {"model": str(tmp_path / "siglip")}
    student = start_student(parse_recipe(data), tokens).eval()
    tiles = torch.randint(0, 256, (2, 3, 42, 42), dtype=torch.uint8)
    pixels = tiles / 127.5 - 1.0
    with torch.no_grad():
        expected = whole.vision_model(pixels, output_hidden_states=True).hidden_states[-2]
        ours = student.llava.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
    assert torch.equal(expected, ours)
    assert student.llava.get_input_embeddings().weight.shape[0] >= tokens.vocab_size


def test_a_pack_of_the_plan_holds_what_the_plan_counted(lake: Lake, recipe: Recipe, tokens: ChatTokenizer) -> None:
    plan = PackPlan(lake, "single_image")
    loader = PackLoader(lake, "single_image", plan, SampleProcessor.for_stage(recipe, "single_image", tokens))
    for pack in iter_batches(range(len(plan)), 2):
        batch, counts = loader.load(pack), plan.read_counts(pack)
        assert batch.input_ids_1L.shape[1] == counts.n_tokens.sum()
        assert batch.n_loss_tokens == counts.n_loss_tokens.sum()
        assert batch.row_ids == tuple(row.row_id for row in plan.read_rows(pack))
        assert max(len(batch.tiles_T3PP), 1) == max(counts.n_tiles.sum(), 1)
        assert len(batch.visual_positions_V) == sum(y.n_tokens for y in batch.layouts)


def test_loading_a_folder_without_a_model_is_one_clear_error(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(MvlError, match="no model can be loaded"):
        load_student(recipe, tmp_path)
