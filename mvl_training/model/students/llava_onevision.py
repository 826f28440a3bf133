"""LLaVA-OneVision, assembled from a language tower, a vision tower and a projector.

Shapes in names: L tokens, V visual tokens, T tiles, S patches of a tile, P pixels along its side, H and W rows and
columns of patches, D hidden size.

The released model's vision features (arXiv 2412.05237, code): the last encoder layer is deleted, the head too, and the
states before the post-layernorm are used. In transformers' terms: one layer less, `vision_use_head=False`,
`vision_feature_layer=-1`, strategy `full`. The post-layernorm stays in the files and never learns.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional

from mvl_assets.common.text import format_exception_line
from mvl_assets.errors import MvlError
from mvl_assets.inference.local_server.torch_compat import patch_cpu_torch
from mvl_assets.media.tiles import TileGrid, TileLayout, compute_pooled_side
from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.data.pack_loader import PackedBatch
from mvl_training.data.processing import SampleProcessor, load_tokenizer
from mvl_training.data.students.inputs import VisualLayout
from mvl_training.data.students.llava_onevision import LlavaOnevisionInputs
from mvl_training.data.students.model_files import resolve_dir_with, resolve_model_dir
from mvl_training.model import hf_layout
from mvl_training.model.student_model import Student, VisionSizes
from mvl_training.recipe import ModelComponent, Recipe

patch_cpu_torch()  # before transformers: it imports torchvision

from transformers import (  # noqa: E402
    AutoConfig,
    AutoModelForCausalLM,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.utils import logging as transformers_logging  # noqa: E402

transformers_logging.disable_progress_bar()

VOCAB_PAD_MULTIPLE = 64


class LlavaOnevisionStudent(Student):
    """See `Student`.

    Attributes:
        llava: The model.
        grid: How images are tiled.
    """

    hub_head_name = "language_model.lm_head.weight"

    def __init__(self, llava: LlavaOnevisionForConditionalGeneration, grid: TileGrid) -> None:
        super().__init__()
        self.llava = llava
        self.grid = grid
        self.pack_attention()

    @property
    def vlm(self) -> LlavaOnevisionForConditionalGeneration:  # type: ignore[override]
        """The model."""
        return self.llava

    @classmethod
    def start(cls, recipe: Recipe, tokenizer: ChatTokenizer, dtype: torch.dtype = torch.float32) -> Self:
        """Return the student before any training."""
        return cls(_assemble_llava(recipe, tokenizer, dtype), recipe.towers.grid.to_tile_grid())

    @classmethod
    def load(cls, recipe: Recipe, export_dir: Path, dtype: torch.dtype = torch.float32) -> Self:
        """Load the student from an export."""
        grid = recipe.towers.grid.to_tile_grid()
        return cls(_load_llava(export_dir, grid, dtype), grid)

    @classmethod
    def build_shell(cls, recipe: Recipe) -> Self:
        """Return the student without memory for its weights, on the meta device."""
        text_config, vision_config = load_tower_configs(recipe)
        with torch.device("meta"):
            llava = LlavaOnevisionForConditionalGeneration(
                build_llava_config(recipe, text_config, vision_config, image_token_id=0, video_token_id=1)
            )
        return cls(llava, recipe.towers.grid.to_tile_grid())

    @staticmethod
    def find_component(parameter_name: str) -> ModelComponent | None:
        """Return the component of a parameter; None for the vision tower's post-layernorm, which is unused."""
        return find_model_component(parameter_name)

    @staticmethod
    def to_hub_name(parameter_name: str) -> str:
        """Return the published name of a parameter."""
        return hf_layout.to_hub_name(parameter_name)

    def write_model_files(self, source_dir: Path, model_dir: Path, processor: SampleProcessor) -> None:
        """Write the small files of the llava-hf layout; the config says which newlines videos have (`vllm_model`)."""
        assert isinstance(processor.inputs, LlavaOnevisionInputs)
        self.llava.config.video_newlines = processor.inputs.video_newlines
        hf_layout.write_model_files(
            self.llava, source_dir, model_dir, grid=self.grid, system_prompt=processor.system_prompt
        )

    def describe_vision(self) -> VisionSizes:
        """Return the sizes of the vision tower; a tile's patches attend to each other."""
        vision_config: Any = self.llava.config.vision_config
        n_patches = self.grid.patches_per_side**2
        return VisionSizes(vision_config.num_hidden_layers, vision_config.hidden_size, n_patches, n_patches, n_patches)

    def list_own_parameters(self) -> list[nn.Parameter]:
        """Return the newline."""
        return [self.llava.model.image_newline]

    def build_language_inputs(self, batch: PackedBatch) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        """Return embeddings and counted positions."""
        return {"inputs_embeds": self.embed_inputs(batch), "position_ids": batch.position_ids_1L}

    def embed_inputs(self, batch: PackedBatch) -> torch.Tensor:
        """Return word embeddings with visual features in place of the placeholders, (1, L, D)."""
        embedded_1LD = self.llava.get_input_embeddings()(batch.input_ids_1L)
        visual_VD, zero_anchor = self.compute_visual_features(batch.tiles_T3PP, batch.layouts)
        if batch.layouts:
            if len(visual_VD) != len(batch.visual_positions_V):
                raise RuntimeError(f"{len(visual_VD)} features for {len(batch.visual_positions_V)} placeholder tokens")
            embedded_1LD = embedded_1LD.index_copy(1, batch.visual_positions_V, visual_VD[None].to(embedded_1LD.dtype))
        return embedded_1LD + zero_anchor.to(embedded_1LD.dtype)

    def compute_visual_features(
        self, tiles_T3PP: torch.Tensor, layouts: tuple[VisualLayout, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the features of all images and videos.

        Args:
            tiles_T3PP: uint8 (T, 3, P, P).
            layouts: Of the images and videos in order; none if the only tile is a dummy.

        Returns:
            The features in order, (V, D), and a zero that ties every vision parameter to the loss.
        """
        model = self.llava.model
        patch_embedding = model.vision_tower.get_input_embeddings().weight
        # SigLIP's mean and deviation are 0.5: bytes become -1 … 1.
        pixels = tiles_T3PP.to(torch.float32) / 127.5 - 1.0
        is_vision_trained = any(parameter.requires_grad for parameter in model.vision_tower.parameters())
        with torch.set_grad_enabled(is_vision_trained and torch.is_grad_enabled()):
            states = model.vision_tower(pixels.to(patch_embedding.dtype), output_hidden_states=True).hidden_states[-1]
        projected_TSD = model.multi_modal_projector(states)
        newline_D = model.image_newline.to(projected_TSD.dtype)
        zero_anchor = newline_D.sum() * 0.0
        if not layouts:
            return projected_TSD[:0].flatten(0, 1), zero_anchor + projected_TSD.sum() * 0.0
        layout_features = []
        start = 0
        for layout in layouts:
            assert isinstance(layout, TileLayout)
            layout_features.append(
                self._arrange_features(projected_TSD[start : start + layout.n_tiles], layout, newline_D)
            )
            start += layout.n_tiles
        return torch.cat(layout_features), zero_anchor

    def _arrange_features(self, tiles_TSD: torch.Tensor, layout: TileLayout, newline_D: torch.Tensor) -> torch.Tensor:
        """Return the features of one image or video, (tokens, D), from those of its tiles, (T, S, D)."""
        side, hidden_size = self.grid.patches_per_side, tiles_TSD.shape[-1]
        if layout.kind == "flat":
            return tiles_TSD[0]
        if layout.kind == "padded":
            return torch.cat([tiles_TSD[0], newline_D[None]])
        if layout.is_video:
            frames_TDHW = tiles_TSD.transpose(1, 2).reshape(-1, hidden_size, side, side)
            pooled_size = (compute_pooled_side(self.grid),) * 2
            frames_TDHW = functional.interpolate(frames_TDHW, size=pooled_size, mode="bilinear")
            if layout.kind == "video_grid":
                newlines_TDH1 = newline_D[:, None, None].expand(*frames_TDHW.shape[:3], 1)
                return torch.cat([frames_TDHW, newlines_TDH1], dim=3).permute(0, 2, 3, 1).reshape(-1, hidden_size)
            return torch.cat([frames_TDHW.flatten(2).transpose(1, 2).flatten(0, 1), newline_D[None]])
        grid = tiles_TSD[1:].reshape(layout.n_rows, layout.n_columns, side, side, hidden_size)
        map_DHW = grid.permute(4, 0, 2, 1, 3).reshape(hidden_size, layout.n_rows * side, layout.n_columns * side)
        map_DHW = map_DHW[
            :, layout.crop_top : layout.crop_top + layout.height, layout.crop_left : layout.crop_left + layout.width
        ]
        if layout.shrunk_size is not None:
            map_DHW = functional.interpolate(map_DHW[None], size=layout.shrunk_size, mode="bilinear")[0]
        newlines = newline_D[:, None, None].expand(hidden_size, map_DHW.shape[1], 1)
        map_with_newlines = torch.cat([map_DHW, newlines], dim=2).flatten(1).transpose(0, 1)
        return torch.cat([tiles_TSD[0], map_with_newlines])


def find_model_component(parameter_name: str) -> ModelComponent | None:
    """Return the component of a parameter by its name; None for the vision tower's post-layernorm, which is unused."""
    if "vision_tower" in parameter_name:
        return None if "post_layernorm" in parameter_name else "vision"
    if "multi_modal_projector" in parameter_name or "image_newline" in parameter_name:
        return "projector"
    return "language"


def _assemble_llava(
    recipe: Recipe, tokenizer: ChatTokenizer, dtype: torch.dtype
) -> LlavaOnevisionForConditionalGeneration:
    """Return the model before any training: pretrained or seeded towers, seeded projector and newline.

    Raises:
        MvlError: A tower cannot be read or does not fit the grid.
    """
    torch.manual_seed(recipe.seed)
    language_tower = _load_language_tower(recipe, tokenizer, dtype)
    vision_tower = _load_vision_tower(recipe, dtype)
    text_config = language_tower.config
    config = build_llava_config(
        recipe,
        text_config,
        vision_tower.config,
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
    )
    # The shell holds no memory; the towers, which do, are put into it.
    with torch.device("meta"):
        llava = LlavaOnevisionForConditionalGeneration(config)
    llava.model.vision_tower = vision_tower
    llava.model.language_model = language_tower.model
    llava.lm_head = language_tower.lm_head
    text_hidden_size, vision_hidden_size = text_config.hidden_size, vision_tower.config.hidden_size
    generator = torch.Generator().manual_seed(recipe.seed)
    projector = llava.model.multi_modal_projector.to_empty(device="cpu").to(dtype)
    for linear, fan_in in ((projector.linear_1, vision_hidden_size), (projector.linear_2, text_hidden_size)):
        bound = 1.0 / math.sqrt(fan_in)  # torch's own initialisation of a linear layer
        with torch.no_grad():
            linear.weight.uniform_(-bound, bound, generator=generator)
            linear.bias.uniform_(-bound, bound, generator=generator)
    newline = torch.randn(text_hidden_size, generator=generator) / math.sqrt(text_hidden_size)
    llava.model.image_newline = nn.Parameter(newline.to(dtype))
    llava.generation_config.eos_token_id = tokenizer.im_end_id
    llava.generation_config.pad_token_id = tokenizer.im_end_id
    llava.generation_config.bos_token_id = None
    return llava


def build_llava_config(
    recipe: Recipe, text_config: Any, vision_config: Any, *, image_token_id: int, video_token_id: int
) -> LlavaOnevisionConfig:
    """Return the model's config from those of its towers and the ids of the placeholder tokens.

    Args:
        recipe: Grid of image tiles.
        text_config: Config of the language model.
        vision_config: Config of the vision tower.
        image_token_id: Id of the placeholder token of images.
        video_token_id: Id of the placeholder token of videos.
    """
    return LlavaOnevisionConfig(
        text_config=text_config,
        vision_config=vision_config,
        image_token_index=image_token_id,
        video_token_index=video_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=f"anyres_max_{recipe.towers.grid.anyres_max}",
        image_grid_pinpoints=recipe.towers.grid.to_tile_grid().grid_pinpoints,
        tie_word_embeddings=bool(text_config.tie_word_embeddings),
    )


def load_tower_configs(recipe: Recipe) -> tuple[Any, Any]:
    """Return the configs that the assembled language and vision towers will have, without loading weights.

    Those of a pretrained tower come from the recipe's `sizes` where it has them, else from its files.
    """
    language, vision, _ = recipe.towers
    if language.config is not None:
        text_config = _build_language_config(language.config, load_tokenizer(recipe))
    elif language.sizes is not None:
        text_config = _build_config(language.sizes)
    else:
        text_config = AutoConfig.from_pretrained(
            resolve_dir_with(language.model or "", "config.json", revision=language.revision), local_files_only=True
        )
    if vision.config is not None:
        vision_config = _build_config(vision.config, vision_use_head=False)
    else:
        vision_config = _adapt_vision_config(recipe, None if vision.sizes is None else _build_config(vision.sizes))
    return text_config, vision_config


def _load_llava(export_dir: Path, grid: TileGrid, dtype: torch.dtype) -> LlavaOnevisionForConditionalGeneration:
    """Load the model of an export.

    Raises:
        MvlError: The folder is not an export of this grid.
    """
    try:
        llava = LlavaOnevisionForConditionalGeneration.from_pretrained(export_dir, dtype=dtype, local_files_only=True)
    except (OSError, ValueError) as error:
        raise MvlError(f"{export_dir}: no model can be loaded ({format_exception_line(error)})") from error
    vision_config: Any = llava.config.vision_config
    if (vision_config.image_size, vision_config.patch_size) != (grid.tile_size, grid.patch_size):
        raise MvlError(
            f"{export_dir}: takes tiles of {vision_config.image_size} px, the recipe's grid has {grid.tile_size} px"
        )
    # The previous stage may have been trained on another grid; the next export must name this one.
    llava.config.image_grid_pinpoints = grid.grid_pinpoints
    llava.config.vision_aspect_ratio = f"anyres_max_{grid.max_tiles}"
    return llava


def _load_language_tower(recipe: Recipe, tokenizer: ChatTokenizer, dtype: torch.dtype) -> PreTrainedModel:
    tower = recipe.towers.language
    if tower.config is not None:
        return AutoModelForCausalLM.from_config(_build_language_config(tower.config, tokenizer), dtype=dtype)
    model = _load_pretrained(AutoModelForCausalLM, tower.model or "", tower.revision, dtype)
    embedding: Any = model.get_input_embeddings()
    if embedding.weight.shape[0] < tokenizer.vocab_size:
        model.resize_token_embeddings(tokenizer.vocab_size, pad_to_multiple_of=VOCAB_PAD_MULTIPLE)
    return model


def _load_vision_tower(recipe: Recipe, dtype: torch.dtype) -> PreTrainedModel:
    tower = recipe.towers.vision
    if tower.config is not None:
        config = _build_config(tower.config, vision_use_head=False)
        return SiglipVisionModel._from_config(config, dtype=dtype)
    config = _adapt_vision_config(recipe)
    return _load_pretrained(SiglipVisionModel, tower.model or "", tower.revision, dtype, config=config)


def _build_language_config(arguments: dict[str, Any], tokenizer: ChatTokenizer) -> Any:
    vocab_size = -(-tokenizer.vocab_size // VOCAB_PAD_MULTIPLE) * VOCAB_PAD_MULTIPLE
    return _build_config(arguments, vocab_size=vocab_size, bos_token_id=None, eos_token_id=tokenizer.im_end_id)


def _adapt_vision_config(recipe: Recipe, config: Any = None) -> Any:
    """Return a pretrained SigLIP tower's config (default: from its files) without the last layer and the head."""
    tower = recipe.towers.vision
    if config is None:
        loaded_config = AutoConfig.from_pretrained(
            resolve_dir_with(tower.model or "", "config.json", revision=tower.revision), local_files_only=True
        )
        config = getattr(loaded_config, "vision_config", loaded_config)
    if not isinstance(config, SiglipVisionConfig):
        raise MvlError(f"{tower.model} is a {config.model_type}, not a SigLIP vision tower")
    if (config.image_size, config.patch_size) != (recipe.towers.grid.tile, recipe.towers.grid.patch):
        raise MvlError(
            f"{tower.model} takes {config.image_size} px, the recipe's grid has {recipe.towers.grid.tile} px"
        )
    config.num_hidden_layers -= 1
    config.vision_use_head = False
    return config


def _build_config(arguments: dict[str, Any], **overrides: Any) -> Any:
    data = {**arguments, **overrides}
    return AutoConfig.for_model(data.pop("model_type"), **data)


def _load_pretrained(
    model_class: Any, name: str, revision: str | None, dtype: torch.dtype, **kwargs: Any
) -> PreTrainedModel:
    model_dir = resolve_model_dir(name, revision)
    try:
        return model_class.from_pretrained(
            model_dir, dtype=dtype, use_safetensors=True, local_files_only=True, **kwargs
        )
    except (OSError, ValueError, KeyError) as error:
        raise MvlError(
            f"{name}: the tower cannot be loaded ({format_exception_line(error)})",
            hint="a tower is a folder in Hugging Face form with safetensors",
        ) from error
