"""The llava-hf layout of exports: published names of our parameters, and the small files that go with the weights.

transformers 5 would save `vision_tower.embeddings…`; vLLM and the published llava-onevision checkpoints have
`vision_tower.vision_model.embeddings…`. Loading accepts both, so files carry the published names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mvl_assets.common.markers import IMAGE_MARKER, VIDEO_MARKER
from mvl_assets.media.tiles import TileGrid
from mvl_training.data.chat_format import IM_END, build_chat_template

PREFIX_MAP = (
    ("llava.model.language_model.", "language_model.model."),
    ("llava.model.vision_tower.", "vision_tower.vision_model."),
    ("llava.model.multi_modal_projector.", "multi_modal_projector."),
    ("llava.model.image_newline", "image_newline"),
    ("llava.lm_head.", "language_model.lm_head."),
)


def to_hub_name(name: str) -> str:
    """Return the published name of a `Student` parameter.

    Raises:
        KeyError: The parameter has no published name.
    """
    for own_prefix, hub_prefix in PREFIX_MAP:
        if name.startswith(own_prefix):
            return hub_prefix + name.removeprefix(own_prefix)
    raise KeyError(name)


def write_model_files(llava: Any, tokenizer_dir: Path, model_dir: Path, *, grid: TileGrid, system_prompt: str) -> None:
    """Write everything of an export but the weights: config, generation config, processor, tokenizer, chat template.

    Args:
        llava: The model.
        tokenizer_dir: Folder of the tokenizer that the model was trained with.
        model_dir: Folder that gets the files.
        grid: How images are tiled.
        system_prompt: The chat template's default.
    """
    from transformers import AutoTokenizer

    model_dir.mkdir(parents=True, exist_ok=True)
    llava.config.architectures = ["LlavaOnevisionForConditionalGeneration"]
    llava.config.save_pretrained(model_dir)
    llava.generation_config.save_pretrained(model_dir)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir, local_files_only=True)
    tokenizer.add_special_tokens(
        {"extra_special_tokens": [IMAGE_MARKER, VIDEO_MARKER]}, replace_extra_special_tokens=False
    )
    tokenizer.eos_token = IM_END
    tokenizer.chat_template = build_chat_template(system_prompt)
    tokenizer.save_pretrained(model_dir)
    for name, content in _build_processor_files(grid).items():
        (model_dir / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _build_processor_files(grid: TileGrid) -> dict[str, dict[str, Any]]:
    shared_fields: dict[str, Any] = {
        "processor_class": "LlavaOnevisionProcessor",
        "size": {"height": grid.tile_size, "width": grid.tile_size},
        # SigLIP's; transformers' default for this model is CLIP's, which the published checkpoints override too.
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "do_convert_rgb": True,
    }
    return {
        "preprocessor_config.json": {
            **shared_fields,
            "image_processor_type": "LlavaOnevisionImageProcessor",
            "image_grid_pinpoints": grid.grid_pinpoints,
            "do_pad": True,
        },
        "video_preprocessor_config.json": {**shared_fields, "video_processor_type": "LlavaOnevisionVideoProcessor"},
        "processor_config.json": {
            "processor_class": "LlavaOnevisionProcessor",
            "num_image_tokens": grid.patches_per_side**2,
            "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": f"anyres_max_{grid.max_tiles}",
            "image_token": IMAGE_MARKER,
            "video_token": VIDEO_MARKER,
        },
    }
