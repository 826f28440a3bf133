"""Exports: the published names, and the same model in transformers and in vLLM."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from mvl_assets.errors import MvlError
from mvl_assets.inference.local_server.server import ensure_server, stop_servers
from mvl_assets.inference.local_server.server_spec import ServerSpec, is_vllm_installed
from mvl_assets.media.image import standardise_image
from mvl_training.evaluation.student_runner import StudentRunner
from mvl_training.model.hf_layout import to_hub_name
from tests.training import tiny_model as small
from tests.training.chat_request import asked

LANGUAGE_LAYER = (
    "input_layernorm.weight",
    "mlp.down_proj.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "post_attention_layernorm.weight",
    "self_attn.k_proj.bias",
    "self_attn.k_proj.weight",
    "self_attn.o_proj.weight",
    "self_attn.q_proj.bias",
    "self_attn.q_proj.weight",
    "self_attn.v_proj.bias",
    "self_attn.v_proj.weight",
)
VISION_LAYER = (
    *("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2"),
    *(f"self_attn.{part}_proj" for part in ("k", "out", "q", "v")),
)


def published_names(layers: int) -> set[str]:
    """The names of the published llava-onevision-qwen2 checkpoints (transformers form), with tied embeddings."""
    names = {"image_newline", "language_model.model.embed_tokens.weight", "language_model.model.norm.weight"}
    names |= {f"multi_modal_projector.linear_{n}.{k}" for n in (1, 2) for k in ("weight", "bias")}
    vision = "vision_tower.vision_model"
    names |= {f"{vision}.embeddings.patch_embedding.{k}" for k in ("weight", "bias")}
    names |= {f"{vision}.embeddings.position_embedding.weight"}
    names |= {f"{vision}.post_layernorm.{k}" for k in ("weight", "bias")}
    for layer in range(layers):
        names |= {f"language_model.model.layers.{layer}.{k}" for k in LANGUAGE_LAYER}
        names |= {f"{vision}.encoder.layers.{layer}.{m}.{k}" for m in VISION_LAYER for k in ("weight", "bias")}
    return names


def test_the_export_has_the_published_names(seeing: tuple[Path, list[small.DrawnSample]]) -> None:
    with safe_open(seeing[0] / "export" / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == published_names(layers=2)


def test_an_untied_head_has_its_published_name_and_an_unknown_parameter_raises() -> None:
    assert to_hub_name("llava.lm_head.weight") == "language_model.lm_head.weight"
    with pytest.raises(KeyError):
        to_hub_name("llava.model.something.weight")


def test_transformers_processor_and_model_give_our_tokens_and_logits(
    seeing: tuple[Path, list[small.DrawnSample]],
) -> None:
    from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    folder, unseen = seeing
    export = folder / "export"
    runner = StudentRunner(export)
    processor = LlavaOnevisionProcessor.from_pretrained(export)
    # The fast processor resizes with torch, to slightly other pixels; the one on Pillow is the reference.
    processor.image_processor = LlavaOnevisionImageProcessorPil.from_pretrained(export)
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(export).eval()
    for pictures, question, answer in unseen[:4]:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(text=text, images=[[standardise_image(pictures[0])]], return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == runner.build_prompt_ids(pictures, question)
        with torch.no_grad():
            made = model.generate(**inputs, max_new_tokens=8, do_sample=False)
            answered = inputs["input_ids"].shape[1]
        theirs = processor.decode(made[0][answered:], skip_special_tokens=True).strip()
        assert theirs == runner.answer_questions([(pictures, question)])[0]
        losses = model(**label(inputs, runner, answer)).loss
        assert losses.item() == pytest.approx(runner.compute_losses([(pictures, question, answer)])[0], abs=1e-4)


def label(inputs: Any, runner: StudentRunner, answer: str) -> dict[str, Any]:
    """The prompt with its answer behind it, and labels on the answer alone."""
    tail = torch.tensor([[*runner.tokenizer.encode(answer), runner.tokenizer.im_end_id]])
    ids = torch.cat([inputs["input_ids"], tail], dim=1)
    labels = torch.full_like(ids, -100)
    labels[:, -tail.shape[1] :] = tail
    return {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def test_a_folder_without_a_model_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(MvlError, match="holds no exported model"):
        StudentRunner(tmp_path)


@pytest.mark.server
def test_vllm_serves_the_export_with_our_token_counts_and_answers(
    seeing: tuple[Path, list[small.DrawnSample]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_vllm_installed():
        pytest.skip("vLLM is not installed")
    folder, unseen = seeing
    runner = StudentRunner(folder, max_new_tokens=8)
    monkeypatch.setenv("MVL_HOME", str(tmp_path))
    spec = ServerSpec(
        str(folder / "export"), "student", max_model_len=1024, max_num_seqs=4, args=("--dtype", "float32")
    )
    endpoint = ensure_server(spec)
    try:
        wide = io.BytesIO()
        Image.new("RGB", (900, 240), "red").save(wide, "PNG")
        questions = [*unseen[:8], ([wide.getvalue()], "Which colour?", "red"), ([], "Which colour?", "")]
        right = 0
        for pictures, question, answer in questions:
            body = asked(endpoint.base_url, pictures, question)
            assert body["usage"]["prompt_tokens"] == len(runner.build_prompt_ids(pictures, question))
            right += body["choices"][0]["message"]["content"].strip() == answer
        # vLLM resizes with torch instead of Pillow, so single answers may differ from our runner's.
        assert right >= 6
    finally:
        stop_servers(spec.name)
