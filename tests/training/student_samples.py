"""Samples of whole students, and what transformers makes of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mvl_training.data.processing import SampleProcessor, load_tokenizer
from tests.training import tiny_students as small

QUESTION, ANSWER = "What is it? 1 < 2", "red circle, green"


def open_processor(family: str, folder: Path, student: dict[str, Any] | None = None, **stage: Any) -> SampleProcessor:
    recipe = small.build_recipe(family, folder, student or {}, **({"max_seq_len": 60_000} | stage))
    return SampleProcessor.for_stage(recipe, "single_image", load_tokenizer(recipe))


def draw_image(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise in large blocks, so that resizing in two ways gives nearly the same pixels."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 30 + 1, width // 30 + 1, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BILINEAR)


def encode_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def build_row(
    images: list[Image.Image], seconds: list[float] | None = None, question: str = QUESTION
) -> tuple[dict[str, Any], dict[str, bytes]]:
    data = {str(i): encode_png(image) for i, image in enumerate(images)}
    markers = "<image>\n" * len(images) if seconds is None else "<video>\n"
    row = {
        "row_id": "r",
        "image_ids": list(data),
        "video": None if seconds is None else {"name": "clip", "seconds": seconds},
        "conversations": [{"from": "human", "value": markers + question}, {"from": "gpt", "value": ANSWER}],
    }
    return row, data


def encode_with_transformers(
    hf_processor: Any, images: list[Image.Image], fps: float | None = None, question: str = QUESTION
) -> Any:
    """What transformers makes of the same sample, through its chat template."""
    parts: list[dict[str, Any]] = [{"type": "video"}] if fps else [{"type": "image"} for _ in images]
    messages = [
        {"role": "user", "content": [*parts, {"type": "text", "text": question}]},
        {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]},
    ]
    text = hf_processor.apply_chat_template(messages, tokenize=False)
    if fps is None:
        return hf_processor(text=[text], images=images or None, return_tensors="pt")
    frames = np.stack([np.asarray(image) for image in images])
    metadata = {"fps": fps, "total_num_frames": len(images), "frames_indices": list(range(len(images)))}
    return hf_processor(
        text=[text], videos=[frames], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt"
    )
