"""Model inputs from stored rows: tiles, token ids and labels. Shared by planning, training and evaluation. No torch."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.rejects import RejectError
from mvl_assets.common.text import format_exception_line
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.errors import MvlError
from mvl_assets.inference.local_server.local_models import is_packaged, prepare_model
from mvl_assets.media import tiles
from mvl_assets.media.image import standardise_image
from mvl_assets.media.tiles import TileGrid, TileLayout
from mvl_training.data.chat_format import ChatTokenizer, EncodedSample, VisualPlaceholder, encode_conversation
from mvl_training.data.raw_packs import FrameLimits
from mvl_training.recipe import ChatFormat, Recipe, VideoNewlines


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
        tiles: uint8 (T, 3, P, P).
        layouts: How tiles become tokens, one layout for each image or video.
    """

    row_id: str
    encoded: EncodedSample
    tiles: np.ndarray
    layouts: tuple[TileLayout, ...]


class SampleProcessor:
    """The rules of one stage, applied to rows of its mixture.

    Rows are dictionaries with `row_id`, `conversations` [{"from", "value"}], `image_ids` and `video`; if `video` is not
    None, the images are its frames.

    Args:
        tokenizer: The student's.
        grid: How images are tiled.
        image_mode: As in `StageConfig`.
        chat_format: As in `StageConfig`.
        system_prompt: As in `Recipe`.
        paper_parity: As in `Recipe`.
        frame_limits: Frames taken from a video.
        video_newlines: As in `Recipe`.
        image_first: As in `Recipe`.
        max_seq_len: Token limit of a sample.
    """

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        grid: TileGrid,
        *,
        image_mode: Literal["flat", "anyres"],
        chat_format: ChatFormat,
        system_prompt: str,
        paper_parity: bool,
        frame_limits: FrameLimits,
        video_newlines: VideoNewlines,
        image_first: bool,
        max_seq_len: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.grid = grid
        self.image_mode = image_mode
        self.chat_format: ChatFormat = chat_format
        self.system_prompt = system_prompt
        self.paper_parity = paper_parity
        self.frame_limits = frame_limits
        self.video_newlines: VideoNewlines = video_newlines
        self.image_first = image_first
        self.max_seq_len = max_seq_len

    @classmethod
    def for_stage(cls, recipe: Recipe, stage: TrainingStage, tokenizer: ChatTokenizer) -> SampleProcessor:
        """Return the processor for a stage of a recipe."""
        stage_config = recipe.get_stage(stage)
        return cls(
            tokenizer,
            recipe.grid.to_tile_grid(),
            image_mode=stage_config.image_mode,
            chat_format=stage_config.chat_format,
            system_prompt=recipe.system_prompt,
            paper_parity=recipe.paper_parity,
            frame_limits=FrameLimits.for_stage(recipe, stage),
            video_newlines=recipe.video_newlines,
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

    def compute_layouts(self, sizes: Sequence[tuple[int, int]], *, is_video: bool) -> tuple[TileLayout, ...]:
        """Return layouts for images of these standardised (width, height); one layout for all frames of a video."""
        if is_video:
            return (tiles.compute_video_layout(len(sizes), self.grid, self.video_newlines),)
        if self.image_mode == "flat":
            return (tiles.compute_flat_layout(self.grid),) * len(sizes)
        if len(sizes) == 1:
            width, height = sizes[0]
            return (tiles.compute_anyres_layout(height, width, self.grid),)
        return (tiles.compute_padded_layout(self.grid),) * len(sizes)

    def tile_images(
        self, images: Sequence[Image.Image], *, is_video: bool
    ) -> tuple[np.ndarray, tuple[TileLayout, ...]]:
        """Return the tiles, uint8 (T, 3, P, P), and the layouts of standardised images."""
        layouts = self.compute_layouts([image.size for image in images], is_video=is_video)
        if is_video or self.image_mode == "flat":
            image_tiles = [tiles.cut_flat(image, self.grid) for image in images]
        elif len(images) == 1:
            image_tiles = [tiles.cut_anyres(images[0], self.grid)]
        else:
            image_tiles = [tiles.cut_padded(image, self.grid) for image in images]
        tile_size = self.grid.tile_size
        stacked = np.concatenate(image_tiles) if image_tiles else np.zeros((0, 3, tile_size, tile_size), dtype=np.uint8)
        return stacked, layouts

    def encode(self, row: Mapping[str, Any], layouts: Sequence[TileLayout]) -> EncodedSample:
        """Return tokens and labels.

        Raises:
            RejectError: The row cannot be trained on, or is longer than the stage's limit.
        """
        visuals = [VisualPlaceholder("video" if layout.is_video else "image", layout.n_tokens) for layout in layouts]
        encoded = encode_conversation(
            row["conversations"],
            visuals,
            self.tokenizer,
            chat_format=self.chat_format,
            system_prompt=self.system_prompt,
            paper_parity=self.paper_parity,
            image_first=self.image_first,
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
        layouts = self.compute_layouts([sizes[image_id] for image_id in image_ids], is_video=row["video"] is not None)
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
        image_tiles, layouts = self.tile_images(images, is_video=row["video"] is not None)
        return ProcessedSample(row["row_id"], self.encode(row, layouts), image_tiles, layouts)


def resolve_model_dir(name: str, revision: str | None = None) -> Path:
    """Return the local folder of a model or tokenizer.

    Args:
        name: A path, a model that is prepared from a package, or a hub id (with a `/`), which is downloaded:
            safetensors, configs and tokenizer, nothing that could run code.
        revision: Of the hub id.

    Raises:
        MvlError: There is no such model, or it cannot be downloaded.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if is_packaged(name):
        return prepare_model(name)
    if "/" not in name or name.startswith(("/", ".")):
        raise MvlError(f"no model folder {name!r}", hint="give a folder, a packaged model's name, or a hub id")
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
    return _download(name, lambda: snapshot_download(name, revision=revision, allow_patterns=patterns))


def load_tokenizer(recipe: Recipe) -> ChatTokenizer:
    """Load the recipe's tokenizer, with the image and video markers added.

    For a hub id only `tokenizer.json` is downloaded.

    Raises:
        MvlError: There is no such tokenizer, or it cannot be downloaded or read.
    """
    name = recipe.language.tokenizer or recipe.language.model
    assert name is not None
    return ChatTokenizer.load(resolve_dir_with(name, "tokenizer.json", recipe.language.revision))


def resolve_dir_with(name: str, file_name: str, revision: str | None = None) -> Path:
    """Return the local folder of a model of which only one file is needed; for a hub id only that is downloaded.

    Raises:
        MvlError: There is no such model, or it cannot be downloaded.
    """
    if Path(name).is_dir() or is_packaged(name) or "/" not in name or name.startswith(("/", ".")):
        return resolve_model_dir(name)
    from huggingface_hub import hf_hub_download

    return _download(name, lambda: hf_hub_download(name, file_name, revision=revision)).parent


def _download(name: str, download: Callable[[], str]) -> Path:
    """Return the path that `download` fetches from the model hub; any error of it becomes an MvlError."""
    try:
        return Path(download())
    except Exception as error:
        raise MvlError(
            f"{name} cannot be downloaded from the model hub: {format_exception_line(error)}",
            hint="download it to a folder and name the folder in the recipe",
        ) from error


def compute_plan_hash(recipe: Recipe, stage: TrainingStage, tokenizer: ChatTokenizer) -> str:
    """Return a digest of the recipe fields and the tokenizer, on which a sample's counts depend."""
    return compute_digest(recipe.build_plan_inputs(stage), tokenizer.to_json())
