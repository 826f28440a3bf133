"""InternVL in transformers' form: a ViT over tiles, pixel shuffle, a projector and a language model."""

from __future__ import annotations

from typing import Any

import torch

from mvl_training.data.pack_loader import PackedBatch
from mvl_training.data.processing import SampleProcessor
from mvl_training.data.students.internvl import InternVLInputs
from mvl_training.model.student_model import VisionSizes
from mvl_training.model.students.whole_student import WholeStudent
from mvl_training.recipe import ModelComponent


class InternVLStudent(WholeStudent):
    """See `Student`."""

    @staticmethod
    def find_component(parameter_name: str) -> ModelComponent | None:
        """Return the component of a parameter."""
        if ".vision_tower." in parameter_name:
            return "vision"
        return "projector" if ".multi_modal_projector." in parameter_name else "language"

    def describe_vision(self) -> VisionSizes:
        """Return the sizes of the vision tower; a tile's patches attend to each other."""
        config = self.vlm.config.vision_config
        n_patches = (config.image_size[0] // config.patch_size[0]) * (config.image_size[1] // config.patch_size[1])
        n_features = int(n_patches * self.vlm.config.downsample_ratio**2)
        return VisionSizes(config.num_hidden_layers, config.hidden_size, n_patches, n_patches, n_features)

    @staticmethod
    def apply_limits(hf_processor: Any, processor: SampleProcessor) -> None:
        """Give transformers' processor the limits of tiles that training has."""
        assert isinstance(processor.inputs, InternVLInputs)
        settings = processor.inputs.settings
        hf_processor.image_processor.min_patches = settings.min_tiles
        hf_processor.image_processor.max_patches = settings.max_tiles

    def build_pixels(self, tiles: torch.Tensor) -> torch.Tensor:
        """Return tiles as `pixel_values`, float32 (T, 3, P, P)."""
        return self.normalize(tiles, channel_dim=1)

    def build_language_inputs(self, batch: PackedBatch) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        """Return embeddings with visual features in place of the placeholders, and counted positions."""
        embedded_1LD = self.vlm.get_input_embeddings()(batch.input_ids_1L)
        pixels = self.build_pixels(batch.tiles_T3PP)
        features_TSD = self.vlm.model.get_image_features(pixel_values=pixels, return_dict=True).pooler_output
        features_VD = features_TSD.flatten(0, 1).to(embedded_1LD.dtype)
        if batch.layouts:
            if len(features_VD) != len(batch.visual_positions_V):
                raise RuntimeError(f"{len(features_VD)} features for {len(batch.visual_positions_V)} placeholders")
            embedded_1LD = embedded_1LD.index_copy(1, batch.visual_positions_V, features_VD[None])
        else:
            # Ties every vision parameter to the loss of a pack without images.
            embedded_1LD = embedded_1LD + features_VD.sum() * 0.0
        return {"inputs_embeds": embedded_1LD, "position_ids": batch.position_ids_1L}
