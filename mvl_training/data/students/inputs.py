"""What a student family says of its inputs: token counts from sizes alone, pixels, placeholder tokens, positions.

docs/students.md says what an adapter must give besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from mvl_training.data.chat_format import ChatStyle, ChatTokenizer, VisualPlaceholder


class VisualLayout(Protocol):
    """How one image, or one video, becomes tokens."""

    @property
    def n_tiles(self) -> int:
        """Tiles that the vision tower encodes."""

    @property
    def n_tokens(self) -> int:
        """Placeholder tokens, whose embeddings become visual features."""

    @property
    def is_video(self) -> bool:
        """Whether it is a video."""


class StudentInputs(Protocol):
    """The inputs of one student in one stage.

    Attributes:
        tokenizer: The student's.
        chat_style: Of its chat template.
    """

    tokenizer: ChatTokenizer
    chat_style: ChatStyle

    @property
    def blank_tiles(self) -> np.ndarray:
        """uint8 (T, …): a grey image's tiles, which the vision tower takes where a pack has no image."""

    def compute_layouts(
        self, sizes: Sequence[tuple[int, int]], *, is_video: bool, seconds: Sequence[float] = ()
    ) -> tuple[VisualLayout, ...]:
        """Return the layouts of a sample's images, or the one layout of a video's frames, from their sizes alone.

        Args:
            sizes: Standardised (width, height) of each image or frame.
            is_video: Whether they are the frames of a video.
            seconds: Times of the frames; empty: unknown.

        Raises:
            RejectError: The student does not take images or videos of these sizes.
        """

    def cut_tiles(
        self, images: Sequence[Image.Image], *, is_video: bool, seconds: Sequence[float] = ()
    ) -> tuple[np.ndarray, tuple[VisualLayout, ...]]:
        """Return the tiles of standardised images, uint8 (T, …), and their layouts.

        Args:
            images: RGB images, or the frames of a video.
            is_video: Whether they are the frames of a video.
            seconds: Times of the frames; empty: unknown.
        """

    def build_placeholder(self, layout: VisualLayout) -> VisualPlaceholder:
        """Return what stands for an image or video in the tokens."""

    def compute_rope_ids(self, input_ids: np.ndarray, layouts: Sequence[VisualLayout]) -> np.ndarray | None:
        """Return the positions of a sample's tokens in time, height and width, int64 (3, L); None: they are 0 to L - 1.

        Args:
            input_ids: int32 (L,).
            layouts: Of its images and videos, in order.
        """
