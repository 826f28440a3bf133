"""The student: transformers' LLaVA-OneVision, put together from a language tower, a vision tower and a projector.

Belongs here: assembling, which parameters belong to which part, and the forward pass over packed sequences. Does not:
optimising (`loop`), reading data (`batches`), writing (`export`).

The released model's vision features (arXiv 2412.05237, code): the last encoder layer is deleted, the head too, and the
states before the post-layernorm are used. In transformers' terms: one layer fewer, `vision_use_head=False`,
`vision_feature_layer=-1`, strategy `full`. The post-layernorm stays in the files and never learns.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mvl_assets.errors import MvlError
from mvl_assets.inference.local_server.torch_compat import repair_torch_companions
from mvl_assets.media.tiles import Layout, TileGrid, pooled_side
from mvl_training.data.chat_format import IGNORE, ChatTokens
from mvl_training.data.pack_loader import Packed
from mvl_training.data.processing import load_tokens, locate
from mvl_training.recipe import Part, Recipe

repair_torch_companions()  # before transformers: it imports torchvision

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

from mvl_training.model import varlen_attention  # noqa: E402

transformers_logging.disable_progress_bar()

VOCABULARY_MULTIPLE = 64

HEAD_ROWS = 2048
"""Targets whose logits exist at a time, at most: 2048 x 152k words are 1.2 GB in float32."""


class Student(nn.Module):
    """LLaVA-OneVision over packed sequences: `forward` gives the summed loss of one pack.

    One call of the vision tower per pass over all tiles and frames together; samples see only themselves; the language
    head runs on positions that have a target only, in parts of `HEAD_ROWS` whose logits are made again in the backward
    pass (a pack's whole logits would take gigabytes). Ranks of ZeRO-3 must call it equally often, whatever they hold:
    they set `head_calls`, the number of parts.
    """

    def __init__(self, llava: LlavaOnevisionForConditionalGeneration, grid: TileGrid) -> None:
        super().__init__()
        self.llava = llava
        self.grid = grid
        self.head_calls: int | None = None
        llava.model.language_model.set_attn_implementation(varlen_attention.NAME)

    def forward(self, batch: Packed) -> torch.Tensor:
        """Cross-entropy summed over the pack's targets, float32 scalar."""
        hidden_LD = self.hidden(batch)
        places = torch.nonzero(batch.targets_L != IGNORE).flatten()
        calls = self.head_calls or max(1, math.ceil(len(places) / HEAD_ROWS))
        if calls == 1:
            return self._head_loss(hidden_LD, places, batch.targets_L)
        losses = [
            checkpoint(self._head_loss, hidden_LD, part, batch.targets_L, use_reentrant=False)
            for part in torch.tensor_split(places, calls)
        ]
        return torch.stack(losses).sum()

    def _head_loss(self, hidden_LD: torch.Tensor, places: torch.Tensor, targets_L: torch.Tensor) -> torch.Tensor:
        if not len(places):
            # Still through the head, so that every rank has the same gradients to exchange.
            return self.llava.lm_head(hidden_LD[:1]).float().sum() * 0.0
        return functional.cross_entropy(
            self.llava.lm_head(hidden_LD[places]).float(), targets_L[places], reduction="sum"
        )

    def hidden(self, batch: Packed) -> torch.Tensor:
        """Last hidden states of the language tower, (L, D)."""
        # No cache and no mask: transformers would take the samples of a masked or cached sequence for one.
        out = self.llava.model.language_model(
            inputs_embeds=self.embed(batch),
            position_ids=batch.positions_1L,
            attention_mask=None,
            use_cache=False,
            bounds=batch.bounds_N,
            longest=batch.longest,
        )
        return out.last_hidden_state[0]

    def embed(self, batch: Packed) -> torch.Tensor:
        """Word embeddings with picture features in the placeholders' places, (1, L, D)."""
        embedded_1LD = self.llava.get_input_embeddings()(batch.ids_1L)
        visual_VD, unused = self.features(batch.tiles_T3PP, batch.layouts)
        if batch.layouts:
            if len(visual_VD) != len(batch.visual_V):
                raise RuntimeError(f"{len(visual_VD)} features for {len(batch.visual_V)} placeholder tokens")
            embedded_1LD = embedded_1LD.index_copy(1, batch.visual_V, visual_VD[None].to(embedded_1LD.dtype))
        return embedded_1LD + unused.to(embedded_1LD.dtype)

    def features(self, tiles_T3PP: torch.Tensor, layouts: tuple[Layout, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of all pictures in order (V, D), and a zero that ties every vision parameter to the loss."""
        model = self.llava.model
        weight = model.vision_tower.get_input_embeddings().weight
        # SigLIP's mean and deviation of 0.5: bytes become -1 … 1.
        pixels = tiles_T3PP.to(torch.float32) / 127.5 - 1.0
        learns = any(p.requires_grad for p in model.vision_tower.parameters())
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            states = model.vision_tower(pixels.to(weight.dtype), output_hidden_states=True).hidden_states[-1]
        projected_TSD = model.multi_modal_projector(states)
        newline_D = model.image_newline.to(projected_TSD.dtype)
        zero = newline_D.sum() * 0.0
        if not layouts:
            return projected_TSD[:0].flatten(0, 1), zero + projected_TSD.sum() * 0.0
        parts = []
        start = 0
        for layout in layouts:
            parts.append(self._arranged(projected_TSD[start : start + layout.tiles], layout, newline_D))
            start += layout.tiles
        return torch.cat(parts), zero

    def _arranged(self, tiles_TSD: torch.Tensor, layout: Layout, newline_D: torch.Tensor) -> torch.Tensor:
        """Tokens of one picture or video from the features of its tiles, (tokens, D)."""
        side, width = self.grid.side, tiles_TSD.shape[-1]
        if layout.kind == "flat":
            return tiles_TSD[0]
        if layout.kind == "padded":
            return torch.cat([tiles_TSD[0], newline_D[None]])
        if layout.kind == "video":
            frames_TDHW = tiles_TSD.transpose(1, 2).reshape(-1, width, side, side)
            pooled = (pooled_side(self.grid),) * 2
            frames_TDHW = functional.interpolate(frames_TDHW, size=pooled, mode="bilinear")
            return torch.cat([frames_TDHW.flatten(2).transpose(1, 2).flatten(0, 1), newline_D[None]])
        grid = tiles_TSD[1:].reshape(layout.rows, layout.columns, side, side, width)
        map_DHW = grid.permute(4, 0, 2, 1, 3).reshape(width, layout.rows * side, layout.columns * side)
        map_DHW = map_DHW[:, layout.top : layout.top + layout.height, layout.left : layout.left + layout.width]
        if layout.shrunk is not None:
            map_DHW = functional.interpolate(map_DHW[None], size=layout.shrunk, mode="bilinear")[0]
        lines = newline_D[:, None, None].expand(width, map_DHW.shape[1], 1)
        with_lines = torch.cat([map_DHW, lines], dim=2).flatten(1).transpose(0, 1)
        return torch.cat([tiles_TSD[0], with_lines])


def part_of(name: str) -> Part | None:
    """The part a parameter belongs to by its name; None for the vision tower's post-layernorm, which nothing uses."""
    if "vision_tower" in name:
        return None if "post_layernorm" in name else "vision"
    if "multi_modal_projector" in name or "image_newline" in name:
        return "projector"
    return "language"


def assemble(recipe: Recipe, tokens: ChatTokens, dtype: torch.dtype = torch.float32) -> Student:
    """The student at the start of the road: ready or seeded towers, seeded projector and newline.

    Raises MvlError when a tower cannot be read or does not fit the grid.
    """
    torch.manual_seed(recipe.seed)
    language = _language(recipe, tokens, dtype)
    vision = _vision(recipe, dtype)
    text = language.config
    config = llava_config(recipe, text, vision.config, image=tokens.image, video=tokens.video)
    # The shell holds no memory; the towers, which do, are put in whole.
    with torch.device("meta"):
        llava = LlavaOnevisionForConditionalGeneration(config)
    llava.model.vision_tower = vision
    llava.model.language_model = language.model
    llava.lm_head = language.lm_head
    width, seen = text.hidden_size, vision.config.hidden_size
    generator = torch.Generator().manual_seed(recipe.seed)
    projector = llava.model.multi_modal_projector.to_empty(device="cpu").to(dtype)
    for linear, inputs in ((projector.linear_1, seen), (projector.linear_2, width)):
        bound = 1.0 / math.sqrt(inputs)  # torch's own start for a linear layer
        with torch.no_grad():
            linear.weight.uniform_(-bound, bound, generator=generator)
            linear.bias.uniform_(-bound, bound, generator=generator)
    newline = torch.randn(width, generator=generator) / math.sqrt(width)
    llava.model.image_newline = nn.Parameter(newline.to(dtype))
    llava.generation_config.eos_token_id = tokens.end
    llava.generation_config.pad_token_id = tokens.end
    llava.generation_config.bos_token_id = None
    return Student(llava, recipe.grid.build())


def llava_config(recipe: Recipe, text: Any, vision: Any, *, image: int, video: int) -> LlavaOnevisionConfig:
    """The whole model's config from its towers'. `image` and `video` are the ids of the placeholder tokens."""
    return LlavaOnevisionConfig(
        text_config=text,
        vision_config=vision,
        image_token_index=image,
        video_token_index=video,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=f"anyres_max_{recipe.grid.shrink_to}",
        image_grid_pinpoints=recipe.grid.build().pinpoints,
        tie_word_embeddings=bool(text.tie_word_embeddings),
    )


def tower_configs(recipe: Recipe) -> tuple[Any, Any]:
    """The configs that the assembled language and vision towers will have, without loading weights.

    A ready tower's come from the recipe's `sizes` where it has them, else from its files.
    """
    language, vision = recipe.language, recipe.vision
    if language.config is not None:
        text = _scratch_language(language.config, load_tokens(recipe))
    elif language.sizes is not None:
        text = _config(language.sizes)
    else:
        text = AutoConfig.from_pretrained(locate(language.model or "", language.revision), local_files_only=True)
    if vision.config is not None:
        seen = _config(vision.config, vision_use_head=False)
    else:
        seen = _ready_vision(recipe, None if vision.sizes is None else _config(vision.sizes))
    return text, seen


def load_student(folder: Path, grid: TileGrid, dtype: torch.dtype = torch.float32) -> Student:
    """A student from an export. Raises MvlError when the folder is no export of this grid."""
    try:
        llava = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=dtype, local_files_only=True)
    except (OSError, ValueError) as error:
        raise MvlError(f"{folder}: no model can be loaded ({' '.join(str(error).split())[:200]})") from error
    seen: Any = llava.config.vision_config
    if (seen.image_size, seen.patch_size) != (grid.tile, grid.patch):
        raise MvlError(f"{folder}: takes {seen.image_size} px tiles, the recipe's grid has {grid.tile} px")
    # The stage before may have been trained on another grid; what is exported next says this one.
    llava.config.image_grid_pinpoints = grid.pinpoints
    llava.config.vision_aspect_ratio = f"anyres_max_{grid.max_tiles}"
    return Student(llava, grid)


def _language(recipe: Recipe, tokens: ChatTokens, dtype: torch.dtype) -> PreTrainedModel:
    tower = recipe.language
    if tower.config is not None:
        return AutoModelForCausalLM.from_config(_scratch_language(tower.config, tokens), dtype=dtype)
    model = _pretrained(AutoModelForCausalLM, tower.model or "", tower.revision, dtype)
    embedding: Any = model.get_input_embeddings()
    if embedding.weight.shape[0] < tokens.size:
        model.resize_token_embeddings(tokens.size, pad_to_multiple_of=VOCABULARY_MULTIPLE)
    return model


def _vision(recipe: Recipe, dtype: torch.dtype) -> PreTrainedModel:
    tower = recipe.vision
    if tower.config is not None:
        config = _config(tower.config, vision_use_head=False)
        return SiglipVisionModel._from_config(config, dtype=dtype)
    config = _ready_vision(recipe)
    return _pretrained(SiglipVisionModel, tower.model or "", tower.revision, dtype, config=config)


def _scratch_language(arguments: dict[str, Any], tokens: ChatTokens) -> Any:
    rows = -(-tokens.size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    return _config(arguments, vocab_size=rows, bos_token_id=None, eos_token_id=tokens.end)


def _ready_vision(recipe: Recipe, config: Any = None) -> Any:
    """The config of a ready SigLIP tower (by default its files') as it is used here: without last layer and head."""
    tower = recipe.vision
    if config is None:
        loaded = AutoConfig.from_pretrained(locate(tower.model or "", tower.revision), local_files_only=True)
        config = getattr(loaded, "vision_config", loaded)
    if not isinstance(config, SiglipVisionConfig):
        raise MvlError(f"{tower.model} is a {config.model_type}, not a SigLIP vision tower")
    if (config.image_size, config.patch_size) != (recipe.grid.tile, recipe.grid.patch):
        raise MvlError(f"{tower.model} takes {config.image_size} px, the recipe's grid has {recipe.grid.tile} px")
    config.num_hidden_layers -= 1
    config.vision_use_head = False
    return config


def _config(arguments: dict[str, Any], **fixed: Any) -> Any:
    data = {**arguments, **fixed}
    return AutoConfig.for_model(data.pop("model_type"), **data)


def _pretrained(kind: Any, name: str, revision: str | None, dtype: torch.dtype, **extra: Any) -> PreTrainedModel:
    folder = locate(name, revision)
    try:
        return kind.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True, **extra)
    except (OSError, ValueError, KeyError) as error:
        raise MvlError(
            f"{name}: the tower cannot be loaded ({' '.join(str(error).split())[:200]})",
            hint="a tower is a folder in Hugging Face form with safetensors",
        ) from error
