"""Model inputs from stored rows: tiles, token ids and labels. Shared by planning, training and evaluation. No torch."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.rejects import RejectError
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.media.image import standardise_image
from mvl_training.data.chat_format import ChatTokenizer, EncodedSample, encode_conversation
from mvl_training.data.raw_packs import FrameLimits
from mvl_training.data.students.inputs import StudentInputs, VisualLayout
from mvl_training.data.students.model_files import resolve_dir_with
from mvl_training.data.students.open_inputs import load_student_tokenizer, open_inputs
from mvl_training.data.students.processor_files import resolve_processor_dir
from mvl_training.recipe import ChatFormat, Recipe


@dataclass(frozen=True, slots=True)
class SampleCost:
    """What one sample costs in training.

    Attributes:
        n_tokens: Tokens of the language model.
        n_tiles: Tiles of the vision tower.
        n_loss_tokens: Tokens that the loss is taken on.
        n_visual_tokens: How many of the tokens come from images and videos.
        content_hash: Digest of tokens, labels and image ids.
    """

    n_tokens: int
    n_tiles: int
    n_loss_tokens: int
    n_visual_tokens: int
    content_hash: str


@dataclass(frozen=True, slots=True)
class ProcessedSample:
    """One sample ready for a pack.

    Attributes:
        row_id: Id of the mixture row.
        encoded: Tokens and labels.
        tiles: uint8 (T, …): (T, 3, P, P) of LLaVA-OneVision.
        layouts: How tiles become tokens, one layout for each image or video.
        rope_ids_3L: int64 (3, L): positions in time, height and width; None of a student that counts its tokens.
    """

    row_id: str
    encoded: EncodedSample
    tiles: np.ndarray
    layouts: tuple[VisualLayout, ...]
    rope_ids_3L: np.ndarray | None = None


class SampleProcessor:
    """The rules of one stage, applied to rows of its mixture.

    Rows are dictionaries with `row_id`, `conversations` [{"from", "value"}], `image_ids` and `video`; if `video` is not
    None, the images are its frames.

    Args:
        inputs: How the student takes text, images and videos.
        chat_format: As in `StageConfig`.
        system_prompt: As in `Recipe`.
        paper_parity: As in `Recipe`.
        frame_limits: Frames taken from a video.
        image_first: As in `Recipe`.
        max_seq_len: Token limit of a sample.
    """

    def __init__(
        self,
        inputs: StudentInputs,
        *,
        chat_format: ChatFormat,
        system_prompt: str,
        paper_parity: bool,
        frame_limits: FrameLimits,
        image_first: bool,
        max_seq_len: int,
    ) -> None:
        self.inputs = inputs
        self.tokenizer = inputs.tokenizer
        self.chat_format: ChatFormat = chat_format
        self.system_prompt = system_prompt
        self.paper_parity = paper_parity
        self.frame_limits = frame_limits
        self.image_first = image_first
        self.max_seq_len = max_seq_len

    @classmethod
    def for_stage(cls, recipe: Recipe, stage: TrainingStage, tokenizer: ChatTokenizer) -> SampleProcessor:
        """Return the processor for a stage of a recipe."""
        stage_config = recipe.get_stage(stage)
        return cls(
            open_inputs(recipe, stage, tokenizer),
            chat_format=stage_config.chat_format,
            system_prompt=recipe.system_prompt,
            paper_parity=recipe.paper_parity,
            frame_limits=FrameLimits.for_stage(recipe, stage),
            image_first=recipe.image_first,
            max_seq_len=stage_config.max_seq_len,
        )

    def select_image_ids(self, row: Mapping[str, Any]) -> list[str]:
        """Return the ids of the images that the sample shows, in order: all, or the chosen frames of a video."""
        return self.frame_limits.select_image_ids(row)

    def _select_stored_image_ids(self, row: Mapping[str, Any], stored_ids: Container[str]) -> list[str]:
        """Return the ids of the images that the sample shows; raise RejectError if the lake lacks one."""
        image_ids = self.select_image_ids(row)
        if missing_ids := [image_id for image_id in image_ids if image_id not in stored_ids]:
            raise RejectError("missing_image", f"image {missing_ids[0]} is not in the lake")
        return image_ids

    def encode(self, row: Mapping[str, Any], layouts: Sequence[VisualLayout]) -> EncodedSample:
        """Return tokens and labels.

        Raises:
            RejectError: The row cannot be trained on, or is longer than the stage's limit.
        """
        encoded = encode_conversation(
            row["conversations"],
            [self.inputs.build_placeholder(layout) for layout in layouts],
            self.tokenizer,
            chat_format=self.chat_format,
            system_prompt=self.system_prompt,
            paper_parity=self.paper_parity,
            image_first=self.image_first,
            style=self.inputs.chat_style,
        )
        if len(encoded.input_ids) > self.max_seq_len:
            raise RejectError("too_long", f"{len(encoded.input_ids)} tokens, the limit is {self.max_seq_len}")
        if encoded.n_loss_tokens == 0:
            raise RejectError("no_target", "the sample has no token to take the loss on")
        return encoded

    def compute_cost(self, row: Mapping[str, Any], sizes: Mapping[str, tuple[int, int]]) -> SampleCost:
        """Return what the row costs in training, without reading its pixels.

        Args:
            row: A mixture row.
            sizes: Standardised (width, height) by image id.

        Raises:
            RejectError: The row cannot be trained on.
        """
        image_ids = self._select_stored_image_ids(row, sizes)
        layouts = self.inputs.compute_layouts(
            [sizes[image_id] for image_id in image_ids],
            is_video=row["video"] is not None,
            seconds=self.frame_limits.select_seconds(row),
        )
        encoded = self.encode(row, layouts)
        content_hash = compute_digest(encoded.input_ids.tobytes(), encoded.labels.tobytes(), image_ids)
        return SampleCost(
            n_tokens=len(encoded.input_ids),
            n_tiles=sum(layout.n_tiles for layout in layouts),
            n_loss_tokens=encoded.n_loss_tokens,
            n_visual_tokens=sum(layout.n_tokens for layout in layouts),
            content_hash=content_hash,
        )

    def build_sample(self, row: Mapping[str, Any], image_data: Mapping[str, bytes]) -> ProcessedSample:
        """Return the sample with its pixels.

        Args:
            row: A mixture row.
            image_data: Encoded images by id.

        Raises:
            RejectError: The row cannot be trained on.
            ImageError: An image cannot be decoded.
        """
        images = [
            standardise_image(image_data[image_id]) for image_id in self._select_stored_image_ids(row, image_data)
        ]
        image_tiles, layouts = self.inputs.cut_tiles(
            images, is_video=row["video"] is not None, seconds=self.frame_limits.select_seconds(row)
        )
        encoded = self.encode(row, layouts)
        rope_ids_3L = self.inputs.compute_rope_ids(encoded.input_ids, layouts)
        return ProcessedSample(row["row_id"], encoded, image_tiles, layouts, rope_ids_3L)


def load_tokenizer(recipe: Recipe) -> ChatTokenizer:
    """Load the recipe's tokenizer, to which the image and video markers are added, unless a whole student has its own.

    For a hub id only `tokenizer.json` is downloaded, of a whole student also the files of its processor.

    Raises:
        MvlError: There is no such tokenizer, or it cannot be downloaded or read.
    """
    if recipe.student is not None:
        return load_student_tokenizer(recipe.student.family, resolve_processor_dir(recipe.student))
    language = recipe.towers.language
    name = language.tokenizer or language.model
    assert name is not None
    return ChatTokenizer.load(resolve_dir_with(name, "tokenizer.json", revision=language.revision))


def compute_plan_hash(recipe: Recipe, stage: TrainingStage, tokenizer: ChatTokenizer) -> str:
    """Return a digest of the recipe fields and the tokenizer, on which a sample's counts depend."""
    return compute_digest(recipe.build_plan_inputs(stage), tokenizer.to_json())
