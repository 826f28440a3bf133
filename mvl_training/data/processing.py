"""From a stored row to what the model takes: tiles, token ids, labels. Training, planning and asking share it.

Belongs here: choosing each picture's layout by the stage's rules, and joining tiles with tokens. Does not: the geometry
itself (`mvl_assets.media.tiles`), the chat format (`conversation`), tensors (`batches`). No torch.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from mvl_assets.common.digest import digest_hex
from mvl_assets.errors import MvlError
from mvl_assets.inference.local_server.local_models import is_packaged, prepare_model
from mvl_assets.media import image, tiles
from mvl_assets.media.tiles import Layout, TileGrid
from mvl_training.data import chat_format
from mvl_training.data.chat_format import ChatTokens, Encoded, Unusable, Visual
from mvl_training.recipe import Recipe, StageName


@dataclass(frozen=True, slots=True)
class Counts:
    """What one sample will take. `visual` of the `tokens` come from its pictures. `content` is a digest of its tokens,
    targets and pictures: what it will teach."""

    tokens: int
    tiles: int
    targets: int
    visual: int
    content: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample ready for a pack. `tiles` is uint8 (n, 3, tile, tile); `layouts` say which tokens they become."""

    row_id: str
    encoded: Encoded
    tiles: np.ndarray
    layouts: tuple[Layout, ...]


class SampleProcessor:
    """The rules of one stage, applied to rows of its mixture.

    Rows are dictionaries with `row_id`, `conversations` [{"from", "value"}], `image_ids` and `video` (the pictures are
    then its frames).
    """

    def __init__(
        self,
        tokens: ChatTokens,
        grid: TileGrid,
        *,
        pictures: Literal["flat", "anyres"],
        style: Literal["plain", "chatml"],
        system: str,
        paper_parity: bool,
        frames: int,
        length: int,
    ) -> None:
        self.tokens = tokens
        self.grid = grid
        self.pictures = pictures
        self.style: Literal["plain", "chatml"] = style
        self.system = system
        self.paper_parity = paper_parity
        self.frames = frames
        self.length = length

    @classmethod
    def for_stage(cls, recipe: Recipe, stage: StageName, tokens: ChatTokens) -> SampleProcessor:
        settings = recipe.stage(stage)
        return cls(
            tokens,
            recipe.grid.build(),
            pictures=settings.pictures,
            style=settings.conversation,
            system=recipe.system,
            paper_parity=recipe.paper_parity,
            frames=settings.frames,
            length=settings.length,
        )

    def used_pictures(self, row: Mapping[str, Any]) -> list[str]:
        """Ids of the pictures the sample will show, in order: all of them, or the chosen frames of a video."""
        ids = list(row["image_ids"] or [])
        if row["video"] is None:
            return ids
        return [ids[i] for i in tiles.pick_frames(len(ids), self.frames)]

    def _stored_pictures(self, row: Mapping[str, Any], stored: Container[str]) -> list[str]:
        """The pictures it will show. Raises Unusable when one is not among those that the lake has."""
        used = self.used_pictures(row)
        if missing := [i for i in used if i not in stored]:
            raise Unusable("missing_picture", f"picture {missing[0]} is not in the lake")
        return used

    def layouts(self, sizes: Sequence[tuple[int, int]], *, video: bool) -> tuple[Layout, ...]:
        """Layouts for pictures of the given standardised (width, height); one layout for all frames of a video."""
        if video:
            return (tiles.video_layout(len(sizes), self.grid),)
        if self.pictures == "flat":
            return (tiles.flat_layout(self.grid),) * len(sizes)
        if len(sizes) == 1:
            width, height = sizes[0]
            return (tiles.anyres_layout(height, width, self.grid),)
        return (tiles.padded_layout(self.grid),) * len(sizes)

    def cut(self, images: Sequence[Image.Image], *, video: bool) -> tuple[np.ndarray, tuple[Layout, ...]]:
        """Tiles (uint8) and layouts of standardised pictures."""
        layouts = self.layouts([i.size for i in images], video=video)
        if video or self.pictures == "flat":
            cut = [tiles.cut_flat(i, self.grid) for i in images]
        elif len(images) == 1:
            cut = [tiles.cut_anyres(images[0], self.grid)]
        else:
            cut = [tiles.cut_padded(i, self.grid) for i in images]
        side = self.grid.tile
        stacked = np.concatenate(cut) if cut else np.zeros((0, 3, side, side), dtype=np.uint8)
        return stacked, layouts

    def encode(self, row: Mapping[str, Any], layouts: Sequence[Layout]) -> Encoded:
        """Tokens and labels; raises Unusable, also for a sample longer than the stage's limit."""
        visuals = [Visual("video" if y.kind == "video" else "image", y.tokens) for y in layouts]
        encoded = chat_format.encode(
            row["conversations"],
            visuals,
            self.tokens,
            style=self.style,
            system=self.system,
            paper_parity=self.paper_parity,
        )
        if len(encoded.ids) > self.length:
            raise Unusable("too_long", f"{len(encoded.ids)} tokens, the limit is {self.length}")
        if encoded.targets == 0:
            raise Unusable("no_target", "no token to take the loss on")
        return encoded

    def count(self, row: Mapping[str, Any], sizes: Mapping[str, tuple[int, int]]) -> Counts:
        """What the row will take, without its pixels. `sizes` are standardised (width, height) by picture id.

        Raises Unusable.
        """
        used = self._stored_pictures(row, sizes)
        layouts = self.layouts([sizes[i] for i in used], video=row["video"] is not None)
        encoded = self.encode(row, layouts)
        content = digest_hex(encoded.ids.tobytes(), encoded.labels.tobytes(), used)
        tiles, visual = sum(y.tiles for y in layouts), sum(y.tokens for y in layouts)
        return Counts(len(encoded.ids), tiles, encoded.targets, visual, content)

    def build(self, row: Mapping[str, Any], pictures: Mapping[str, bytes]) -> Sample:
        """The sample with its pixels. Raises Unusable, `picture.PictureError`."""
        images = [image.standardise(pictures[i]) for i in self._stored_pictures(row, pictures)]
        cut, layouts = self.cut(images, video=row["video"] is not None)
        return Sample(row["row_id"], self.encode(row, layouts), cut, layouts)


def locate(name: str, revision: str | None = None) -> Path:
    """The local folder of a model or tokenizer: a path, a model that is prepared from a package, or a hub id.

    A hub id (with a `/`) is downloaded: safetensors, configs and tokenizer, nothing that could run code.
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
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:
        raise MvlError(
            f"{name} cannot be fetched from the model hub: {' '.join(str(error).split())[:200]}",
            hint="download it to a folder and name the folder in the recipe",
        ) from error


def load_tokens(recipe: Recipe) -> ChatTokens:
    """The recipe's tokenizer with the picture markers added. For a hub id only `tokenizer.json` is downloaded."""
    name = recipe.language.tokenizer or recipe.language.model
    assert name is not None
    if Path(name).is_dir() or is_packaged(name) or "/" not in name or name.startswith(("/", ".")):
        return ChatTokens.load(locate(name))
    from huggingface_hub import hf_hub_download

    try:
        file = hf_hub_download(name, "tokenizer.json", revision=recipe.language.revision)
    except Exception as error:
        raise MvlError(
            f"the tokenizer of {name} cannot be fetched: {' '.join(str(error).split())[:200]}",
            hint="download it to a folder and name the folder as the recipe's `tokenizer`",
        ) from error
    return ChatTokens.load(Path(file).parent)


def plan_hash(recipe: Recipe, stage: StageName, tokens: ChatTokens) -> str:
    """Identity of everything a sample's counts depend on besides the sample: recipe fields and tokenizer."""
    return digest_hex(recipe.plan_inputs(stage), tokens.digest_text())
