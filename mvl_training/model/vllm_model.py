"""vLLM's LLaVA-OneVision with images laid out as in training, where vLLM differs.

The N of "anyres_max_N" is the config's; vLLM always takes 9. Each of several images in a prompt is one padded tile
and a newline; vLLM cuts them all into tiles. Videos have a newline after each row of each frame where the config says
`video_newlines: grid`; vLLM writes one at the end. Contains only what differs from vLLM's class, and is imported by
vLLM only (`vllm_plugin`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from vllm.model_executor.models import llava_onevision as upstream
from vllm.model_executor.models.llava_next import LlavaNextProcessingInfo
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import ImageProcessorItems, ImageSize, MultiModalDataItems
from vllm.multimodal.processing import PromptReplacement

SHRINK_THRESHOLD = 1.1
PADDING_LEVEL = 127
"""Both as in `mvl_assets.media.tiles`, which cannot be imported where this package is installed alone."""

IS_PADDED = "mvl_is_padded"
"""Option of the processor: images become one padded tile each. Options are part of the keys of vLLM's cache."""


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

    def get_num_video_tokens(self, *, image_width: int, image_height: int, num_frames: int) -> int:
        """Return the tokens of a video: pooled frames, and the newlines that its model was trained with."""
        if not has_row_newlines(self.get_hf_config()):
            return super().get_num_video_tokens(
                image_width=image_width, image_height=image_height, num_frames=num_frames
            )
        side = math.isqrt(self._get_num_frame_tokens(image_width=image_width, image_height=image_height))
        return num_frames * side * (side + 1)

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


class MultiModalProcessor(upstream.LlavaOnevisionMultiModalProcessor):  # type: ignore[type-arg]
    """Pads each of several images to a square, and keeps the tile that shows all of it."""

    def apply(self, inputs: Any, timing_ctx: Any) -> Any:
        """Process a prompt. How its images are laid out depends on their number."""
        if "image" in inputs.mm_data_items and inputs.mm_data_items.get_count("image") > 1:
            options = {**inputs.hf_processor_mm_kwargs, IS_PADDED: True}
            inputs = dataclasses.replace(inputs, hf_processor_mm_kwargs=options)
        return super().apply(inputs, timing_ctx)

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, object]) -> Any:
        if IS_PADDED not in hf_kwargs:
            return super()._apply_hf_processor_main(mm_items, hf_kwargs)
        hf_kwargs = {name: value for name, value in hf_kwargs.items() if name != IS_PADDED}
        # Those that vLLM's cache does not hold yet, which may be none.
        if images := mm_items.get("image"):
            padded = ImageProcessorItems([add_padding(image) for image in images.get_all()])
            mm_items = MultiModalDataItems({**mm_items, "image": padded})
        processed = super()._apply_hf_processor_main(mm_items, hf_kwargs)
        if images:
            # The first tile of each image shows the whole.
            processed["pixel_values"] = torch.stack([tiles[:1] for tiles in processed["pixel_values"]])
        return processed

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[Any]:
        hf_kwargs = {name: value for name, value in hf_processor_mm_kwargs.items() if name != IS_PADDED}
        updates = super()._get_prompt_updates(mm_items, hf_kwargs, out_mm_kwargs)
        if IS_PADDED not in hf_processor_mm_kwargs:
            return updates
        image_token: int = self.info.get_hf_config().image_token_index
        n_features = self.info.get_vision_encoder_info().get_patch_grid_length() ** 2
        padded = PromptReplacement("image", target=[image_token], replacement=[image_token] * (n_features + 1))
        return [padded if update.modality == "image" else update for update in updates]


def has_row_newlines(config: Any) -> bool:
    """Return whether each row of each video frame ends with a newline, as an export's config says."""
    return getattr(config, "video_newlines", "one") == "grid"


def add_padding(image: Image.Image) -> Image.Image:
    """Return an RGB image in the middle of a grey square of its longer side."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), (PADDING_LEVEL,) * 3)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


@MULTIMODAL_REGISTRY.register_processor(
    MultiModalProcessor,
    info=ProcessingInfo,
    dummy_inputs=upstream.LlavaOnevisionDummyInputsBuilder,
)
class LlavaOnevisionForConditionalGeneration(upstream.LlavaOnevisionForConditionalGeneration):
    """The model, with the features of images and videos arranged as the config says."""

    def _merge_image_patch_embeddings(
        self, image_size: torch.Tensor, patch_embeddings: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        kwargs["vision_aspect_ratio"] = self.config.vision_aspect_ratio
        return super()._merge_image_patch_embeddings(image_size, patch_embeddings, **kwargs)

    def _process_video_pixels(self, inputs: Any) -> Any:
        videos = super()._process_video_pixels(inputs)
        if not has_row_newlines(self.config):
            return videos
        side = math.ceil(self.config.vision_config.image_size // self.config.vision_config.patch_size / 2)
        return [self._end_rows(video.flatten(0, -2)[:-1].unflatten(0, (-1, side))) for video in videos]

    def _end_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows of features (R, side, D) with a newline after each, ((side + 1) R, D)."""
        newlines = self.image_newline.to(rows).expand(len(rows), 1, -1)
        return torch.cat([rows, newlines], dim=1).flatten(0, 1)
