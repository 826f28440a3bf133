"""Qwen2.5-VL and Qwen3-VL: a vision tower over patches of images at their own resolution, and M-RoPE.

Qwen3-VL's vision tower gives features of several of its layers, which are added to the states of the first layers of
the language tower (DeepStack, arXiv 2406.04334).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mvl_training.data.pack_loader import PackedBatch
from mvl_training.data.processing import SampleProcessor
from mvl_training.data.students.qwen_vl import PatchGrid, QwenInputs
from mvl_training.model.student_model import VisionSizes, pad_left
from mvl_training.model.students.whole_student import WholeStudent
from mvl_training.recipe import ModelComponent

NOMINAL_PATCHES = 1024
"""Patches of an image that a patch attends to where a layer has no windows, for the cost model: 448 px at 14 px."""


class QwenStudent(WholeStudent):
    """See `Student`."""

    @staticmethod
    def find_component(parameter_name: str) -> ModelComponent | None:
        """Return the component of a parameter; the mergers, which end the vision tower, are the projector."""
        if ".visual." not in parameter_name:
            return "language"
        return "projector" if "merger" in parameter_name else "vision"

    def describe_vision(self) -> VisionSizes:
        """Return the sizes of the vision tower; most layers of Qwen2.5-VL attend within windows."""
        config = self.vlm.config.vision_config
        window = getattr(config, "window_size", None)
        n_layers_in_windows = 0 if window is None else config.depth - len(config.fullatt_block_indexes)
        n_window_patches = 0 if window is None else (window // config.patch_size) ** 2
        attended = (
            n_layers_in_windows * n_window_patches + (config.depth - n_layers_in_windows) * NOMINAL_PATCHES
        ) / config.depth
        return VisionSizes(config.depth, config.hidden_size, config.spatial_merge_size**2, attended, 1)

    @staticmethod
    def apply_limits(hf_processor: Any, processor: SampleProcessor) -> None:
        """Give transformers' processor the limits of pixels that training has."""
        assert isinstance(processor.inputs, QwenInputs)
        settings = processor.inputs.settings
        for own, limits in (
            (hf_processor.image_processor, settings.image_limits),
            (hf_processor.video_processor, settings.video_limits),
        ):
            own.size = {"shortest_edge": limits.least, "longest_edge": limits.most}
        # The default changes with transformers 5.22.
        hf_processor.video_processor.cap_pixels_per_frame = False

    def build_language_inputs(self, batch: PackedBatch) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        """Return embeddings with visual features in place of the placeholders, and M-RoPE's positions."""
        embedded_1LD = self.vlm.get_input_embeddings()(batch.input_ids_1L)
        grids_V3 = self._build_grids(batch.layouts, batch.tiles_T3PP.device)
        outputs = self.vlm.model.visual(self.build_pixels(batch.tiles_T3PP), grid_thw=grids_V3)
        features_VD = outputs.pooler_output.to(embedded_1LD.dtype)
        inputs: dict[str, torch.Tensor | list[torch.Tensor]] = {
            "position_ids": batch.position_ids_1L if batch.rope_ids_31L is None else batch.rope_ids_31L
        }
        layer_features = list(getattr(outputs, "deepstack_features", None) or ())
        if batch.layouts:
            if len(features_VD) != len(batch.visual_positions_V):
                raise RuntimeError(
                    f"{len(features_VD)} features for {len(batch.visual_positions_V)} placeholder tokens"
                )
            embedded_1LD = embedded_1LD.index_copy(1, batch.visual_positions_V, features_VD[None])
            if layer_features:
                is_visual_1L = torch.zeros_like(batch.input_ids_1L, dtype=torch.bool)
                is_visual_1L[0, batch.visual_positions_V] = True
                inputs |= {"visual_pos_masks": is_visual_1L, "deepstack_visual_embeds": layer_features}
        else:
            # Ties every vision parameter to the loss of a pack without images.
            zero_anchor = sum((features.sum() for features in layer_features), features_VD.sum()) * 0.0
            embedded_1LD = embedded_1LD + zero_anchor.to(embedded_1LD.dtype)
        return inputs | {"inputs_embeds": embedded_1LD}

    def build_pixels(self, tiles: torch.Tensor) -> torch.Tensor:
        """Return the patches of tiles, float32 (patches, values); values are ordered (RGB, the rest)."""
        return self.normalize(tiles.flatten(0, 1).unflatten(1, (3, -1)), channel_dim=1).flatten(1)

    def _build_grids(self, layouts: Sequence[Any], device: torch.device) -> torch.Tensor:
        """Return the steps, rows and columns of patches of each image, (V, 3); of a blank tile without any."""
        merge_size = self.vlm.config.vision_config.spatial_merge_size
        grids = [(layout.n_steps, layout.n_rows * merge_size, layout.n_columns * merge_size) for layout in layouts]
        return torch.tensor(grids or [(1, merge_size, merge_size)], device=device)

    def generate(self, batch: PackedBatch, *, max_new_tokens: int, end_id: int) -> list[list[int]]:
        """Return the ids that greedy decoding adds to each prompt, by transformers' own inputs."""
        config = self.vlm.config
        input_ids, attention_mask = pad_left(batch.input_ids_1L[0].split(batch.cu_seqlens.diff().tolist()))
        token_types = torch.zeros_like(input_ids)
        visual_inputs: dict[str, torch.Tensor] = {}
        tiles = batch.tiles_T3PP.split([layout.n_tiles for layout in batch.layouts]) if batch.layouts else ()
        for is_video, token_id, pixel_name, grid_name in (
            (False, config.image_token_id, "pixel_values", "image_grid_thw"),
            (True, config.video_token_id, "pixel_values_videos", "video_grid_thw"),
        ):
            chosen = [pair for pair in zip(batch.layouts, tiles, strict=True) if pair[0].is_video == is_video]
            token_types = token_types.masked_fill((input_ids == token_id) & (attention_mask == 1), 1 + is_video)
            if chosen:
                layouts, own_tiles = zip(*chosen, strict=True)
                visual_inputs[pixel_name] = self.build_pixels(torch.cat(own_tiles))
                visual_inputs[grid_name] = self._build_grids(layouts, input_ids.device)
        step_seconds = [
            layout.step_seconds for layout in batch.layouts if isinstance(layout, PatchGrid) and layout.is_video
        ]
        if step_seconds and config.model_type == "qwen2_5_vl":
            visual_inputs["second_per_grid_ts"] = torch.tensor(step_seconds, device=input_ids.device)
        generated_ids = self.vlm.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            mm_token_type_ids=token_types,
            **visual_inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=end_id,
            pad_token_id=end_id,
        )
        ids: list[list[int]] = generated_ids[:, input_ids.shape[1] :].tolist()
        return ids
