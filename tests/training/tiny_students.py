"""Whole students of the families that a recipe may name: published layouts, tiny random weights, made in a second."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from mvl_assets.inference.local_server.torch_compat import patch_cpu_torch
from mvl_training.data.processing import ProcessedSample
from mvl_training.model.student_model import Student
from mvl_training.recipe import Recipe, parse_recipe

patch_cpu_torch()  # before transformers: it imports torchvision

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor  # noqa: E402

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "internvl")

LIMITS = {"qwen2_5_vl": {"max_pixels": 78400}, "qwen3_vl": {"max_pixels": 78400}, "internvl": {"max_tiles": 3}}
"""Of `student` in recipes whose images have few tokens."""

QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")

QWEN_TEMPLATE = (
    "{% for message in messages %}DEFAULT_SYSTEM<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The published template of Qwen2.5-VL without numbered images; Qwen3-VL's differs in the default system prompt."""

QWEN2_5_SYSTEM = (
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
)

INTERNVL_TOKENS = ("<img>", "</img>", "<IMG_CONTEXT>", "<video>")

INTERNVL_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif content['type'] == 'video' %}{{ '<video>\n' }}{% elif content['type'] == 'text' %}{{ content['text'] }}"
    "{% endif %}{% endfor %}{% endif %}{{'<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
"""The published template."""

TEMPLATES = {
    "internvl": INTERNVL_TEMPLATE,
    "qwen2_5_vl": QWEN_TEMPLATE.replace("DEFAULT_SYSTEM", QWEN2_5_SYSTEM),
    "qwen3_vl": QWEN_TEMPLATE.replace("DEFAULT_SYSTEM", ""),
}

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
}
QWEN_VISION = {"depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32}


def write_student(family: str, folder: Path) -> Path:
    """A folder as those on the hub, with the numbers of the published processors."""
    folder.mkdir(parents=True, exist_ok=True)
    write = write_internvl if family == "internvl" else write_qwen
    (folder / "chat_template.jinja").write_text(TEMPLATES[family], encoding="utf-8")
    write(family, folder)
    AutoProcessor.from_pretrained(folder)  # it is a folder that transformers reads
    return folder


def write_internvl(family: str, folder: Path) -> None:
    """Tiles of 56 px, of which each becomes four tokens."""
    names = ("start_image_token", "end_image_token", "context_image_token", "video_token")
    extra = dict(zip(names, INTERNVL_TOKENS, strict=True))
    tokenizer = write_tokenizer(folder, INTERNVL_TOKENS, {"extra_special_tokens": extra})
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": [56, 56], "patch_size": [14, 14]}
    text = TEXT | {"model_type": "qwen2", "tie_word_embeddings": False}
    text["vocab_size"] = tokenizer.get_vocab_size() - 1  # as published: `<video>` has no embedding
    text |= {"pad_token_id": None, "bos_token_id": None, "eos_token_id": tokenizer.token_to_id("<|im_end|>")}
    config = AutoConfig.for_model(
        family,
        text_config=text,
        vision_config=vision,
        image_token_id=tokenizer.token_to_id("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    shared = {"size": {"height": 56, "width": 56}, "image_mean": [0.485, 0.456, 0.406]}
    shared |= {"image_std": [0.229, 0.224, 0.225], "resample": 3, "processor_class": "InternVLProcessor"}
    tiles = {"crop_to_patches": False, "min_patches": 1, "max_patches": 12}
    files: dict[str, Any] = {
        "preprocessor_config.json": shared | tiles | {"image_processor_type": "GotOcr2ImageProcessor"},
        "video_preprocessor_config.json": shared | {"video_processor_type": "InternVLVideoProcessor"},
        "processor_config.json": {"image_seq_length": 4, "processor_class": "InternVLProcessor"},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    write_random_model(config, folder)


def write_qwen(family: str, folder: Path) -> None:
    """Published patches and limits."""
    tokenizer = write_tokenizer(folder, QWEN_TOKENS)
    ids = {name: tokenizer.token_to_id(name) for name in QWEN_TOKENS}
    special = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }
    vocabulary = {"vocab_size": tokenizer.get_vocab_size(), "pad_token_id": None, "bos_token_id": None}
    vocabulary["eos_token_id"] = tokenizer.token_to_id("<|im_end|>")
    if family == "qwen2_5_vl":
        text = TEXT | vocabulary | {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}}
        vision = QWEN_VISION | {"fullatt_block_indexes": [1], "window_size": 56, "patch_size": 14}
        vision |= {"tokens_per_second": 2}
        images = {"patch_size": 14, "min_pixels": 3136, "max_pixels": 12845056, "image_processor_type": QWEN_IMAGES}
        images |= {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
        videos = None
    else:
        text = TEXT | vocabulary | {"head_dim": 16}
        text |= {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True}}
        vision = QWEN_VISION | {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64, "patch_size": 16}
        half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        images = {"size": {"shortest_edge": 65536, "longest_edge": 16777216}, "patch_size": 16}
        images |= {"image_processor_type": QWEN_IMAGES} | half
        videos = {"size": {"shortest_edge": 4096, "longest_edge": 25165824}, "patch_size": 16}
        videos |= {"video_processor_type": "Qwen3VLVideoProcessor"} | half
    is_tied = family == "qwen2_5_vl"
    text["tie_word_embeddings"] = is_tied
    config = AutoConfig.for_model(
        family, text_config=text, vision_config=vision, tie_word_embeddings=is_tied, **special
    )
    processor_class = "Qwen2_5_VLProcessor" if family == "qwen2_5_vl" else "Qwen3VLProcessor"
    files = {"preprocessor_config.json": images, "video_preprocessor_config.json": videos}
    for name, content in files.items():
        if content is not None:
            (folder / name).write_text(json.dumps(content | {"processor_class": processor_class}), encoding="utf-8")
    write_random_model(config, folder)


QWEN_IMAGES = "Qwen2VLImageProcessor"


def write_random_model(config: Any, folder: Path) -> None:
    """Weights large enough that each token matters."""
    torch.manual_seed(5)
    model = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15)
    model.save_pretrained(folder)


def write_tokenizer(
    folder: Path, special_tokens: tuple[str, ...], more_settings: Mapping[str, Any] | None = None
) -> Tokenizer:
    """A ChatML tokenizer with some merges: text that is split elsewhere has other tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    sentences = ["What is it?\nWhat moves?\n<0.5 seconds><1.5 seconds>\nFrame1: Frame2: ", "red circle, green circle. "]
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(sentences * 8, trainer)
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *special_tokens)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | dict(more_settings or {})), encoding="utf-8")
    return tokenizer


def build_recipe_data(family: str, folder: Path, student: dict[str, Any] | None = None, **stage: Any) -> dict[str, Any]:
    """One stage `single_image` of six steps, changed by `stage`; images of at most 100 tokens."""
    settings = {
        "learning_rates": {"language": 3e-3, "projector": 3e-3, "vision": 3e-3},
        "chat_format": "chatml",
        "image_mode": "native",
        "global_batch_size": 6,
        "max_seq_len": 512,
        "steps": 6,
        "warmup": 0.1,
        "zero_stage": 2,
        "precision": "fp32",
        "max_frames": 3,
        "save_interval": 2,
        "held_out_interval": None,
    }
    return {
        "name": f"tiny-{family}",
        "seed": 3,
        "student": {"family": family, "model": str(folder)} | (LIMITS[family] if student is None else student),
        "stages": {"single_image": settings | stage},
    }


def build_recipe(family: str, folder: Path, student: dict[str, Any] | None = None, **stage: Any) -> Recipe:
    return parse_recipe(build_recipe_data(family, folder, student, **stage))


def build_model_inputs(family: str, student: Student, sample: ProcessedSample) -> dict[str, torch.Tensor]:
    """The arguments of transformers' own forward pass for one sample, with the pixels that training has."""
    ids = torch.from_numpy(sample.encoded.input_ids)[None].long()
    inputs = {"input_ids": ids, "labels": torch.from_numpy(sample.encoded.labels)[None].long()}
    if not sample.layouts:
        return inputs
    pixels = student.build_pixels(torch.from_numpy(sample.tiles))
    if family == "internvl":
        return inputs | {"pixel_values": pixels}
    is_video = sample.layouts[0].is_video
    merge_size = student.vlm.config.vision_config.spatial_merge_size
    grids = [[grid.n_steps, grid.n_rows * merge_size, grid.n_columns * merge_size] for grid in sample.layouts]
    token_id = student.vlm.config.video_token_id if is_video else student.vlm.config.image_token_id
    inputs["mm_token_type_ids"] = (ids == token_id) * (2 if is_video else 1)
    inputs["pixel_values_videos" if is_video else "pixel_values"] = pixels
    inputs["video_grid_thw" if is_video else "image_grid_thw"] = torch.tensor(grids)
    if is_video and family == "qwen2_5_vl":
        inputs["second_per_grid_ts"] = torch.tensor([grid.step_seconds for grid in sample.layouts])
    return inputs
