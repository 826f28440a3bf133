"""vLLM's LLaVA-OneVision with the N of "anyres_max_N" read from the model's config, where vLLM always takes 9.

Contains only what differs from vLLM's class, and is imported by vLLM only (`vllm_plugin`). A model whose config says
"anyres_max_9", the default, is treated as vLLM treats it.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from vllm.model_executor.models import llava_onevision as upstream
from vllm.model_executor.models.llava_next import LlavaNextProcessingInfo
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import ImageSize

SHRINK_THRESHOLD = 1.1
"""Same as in `mvl_assets.media.tiles`, which cannot be imported where this package is installed alone."""


class ProcessingInfo(upstream.LlavaOnevisionProcessingInfo):
    """Token counts of images, with the N of the config."""

    def _get_num_unpadded_features(self, *, npatches: int, **image_dims: int) -> tuple[int, int]:
        """Return (features, newlines) of an image's tiles, each of `npatches` x `npatches` features."""
        n_features, n_newlines = LlavaNextProcessingInfo._get_num_unpadded_features(
            self, npatches=npatches, **image_dims
        )
        config: Any = self.get_hf_config()
        tiles = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
        ratio = math.sqrt(n_features / (tiles * npatches**2))
        if ratio <= SHRINK_THRESHOLD:
            return n_features, n_newlines
        height = int(n_newlines // ratio)
        return height * int(n_features // n_newlines // ratio), height

    def get_image_size_with_most_features(self) -> ImageSize:
        """Return the image size with the most tokens; vLLM refuses images with more."""
        return self._largest_image_size

    @cached_property
    def _largest_image_size(self) -> ImageSize:
        # An image fills its tiles along at least one side; the other may end at any patch.
        encoder = self.get_vision_encoder_info()
        tile, patch = encoder.get_image_size(), encoder.get_patch_size()
        shapes = {(height // tile, width // tile) for height, width in self.get_hf_config().image_grid_pinpoints}
        longest = max(max(shape) for shape in shapes) * tile
        sizes = [
            (full_side, partial_side)
            for full_side in range(tile, longest + 1, tile)
            for partial_side in range(patch, longest + 1, patch)
        ]
        candidates = [ImageSize(width, height) for pair in sizes for width, height in (pair, pair[::-1])]
        return max(
            candidates, key=lambda size: self.get_num_image_tokens(image_width=size.width, image_height=size.height)
        )


@MULTIMODAL_REGISTRY.register_processor(
    upstream.LlavaOnevisionMultiModalProcessor,
    info=ProcessingInfo,
    dummy_inputs=upstream.LlavaOnevisionDummyInputsBuilder,
)
class LlavaOnevisionForConditionalGeneration(upstream.LlavaOnevisionForConditionalGeneration):
    """The model, with image features arranged for the N of the config."""

    def _merge_image_patch_embeddings(
        self, image_size: torch.Tensor, patch_embeddings: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        kwargs["vision_aspect_ratio"] = self.config.vision_aspect_ratio
        return super()._merge_image_patch_embeddings(image_size, patch_embeddings, **kwargs)
