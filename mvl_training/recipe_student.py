"""What a recipe says of its student: the towers that LLaVA-OneVision is assembled from, or a whole model of a family.

What a family cannot do is refused here, when the recipe is read: no file of the model is needed for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from mvl_assets.config.strict_yaml import StrictModel
from mvl_assets.media.tiles import TileGrid

StudentFamily = Literal["qwen2_5_vl", "qwen3_vl", "internvl"]
"""Families by transformers' `model_type`."""

NATIVE_IMAGE_MODE = "native"


class TowerConfig(StrictModel):
    """A tower: either pretrained weights (`model`) or a configuration to start from scratch (`config`).

    Attributes:
        model: A local folder or a hub id with safetensors.
        revision: Revision of the hub id.
        config: Arguments of a transformers config of type `config.model_type`.
        sizes: Sizes in the config of `model`, for forecasts before it is downloaded.
        tokenizer: Language tower only: a local folder, the name of a model that
            `mvl_assets.inference.local_server.local_models` prepares, or a hub id. With `model` it defaults to the
            model's own.
    """

    model: str | None = None
    revision: str | None = None
    config: dict[str, Any] | None = None
    sizes: dict[str, Any] | None = None
    tokenizer: str | None = None

    @model_validator(mode="after")
    def _validate_origin(self) -> Self:
        if (self.model is None) == (self.config is None):
            raise ValueError("give either `model` (pretrained weights) or `config` (from scratch)")
        if self.config is not None and self.sizes is not None:
            raise ValueError("`sizes` belongs to a `model`; a `config` holds them itself")
        for name in ("config", "sizes"):
            if (field_value := getattr(self, name)) is not None and "model_type" not in field_value:
                raise ValueError(f"`{name}` needs `model_type`")
        return self


class GridConfig(StrictModel):
    """How images are tiled.

    Attributes:
        tile: Side of a tile in pixels.
        patch: Side of a vision tower's patch in pixels.
        side: Tile shapes are 1x1 to `side` x `side` ...
        tiles: ... with at most this many tiles; None: no further limit.
        anyres_max: The N of "anyres_max_N": features of more than N tiles are shrunk to N tiles.
    """

    tile: int = Field(gt=0)
    patch: int = Field(gt=0)
    side: int = Field(ge=1)
    tiles: int | None = Field(default=None, ge=1)
    anyres_max: int = Field(ge=1)

    def to_tile_grid(self) -> TileGrid:
        """Return the grid as tiling takes it, with all its tile shapes."""
        limit = self.tiles or self.side**2
        shapes = tuple(
            (rows, columns)
            for rows in range(1, self.side + 1)
            for columns in range(1, self.side + 1)
            if rows * columns <= limit
        )
        return TileGrid(self.tile, self.patch, shapes, self.anyres_max)


class Towers(NamedTuple):
    """The parts of a recipe that assembles LLaVA-OneVision."""

    language: TowerConfig
    vision: TowerConfig
    grid: GridConfig


@dataclass(frozen=True, slots=True)
class FamilyRules:
    """What decides whether a recipe fits a family.

    Attributes:
        image_limit: The key of `student` that limits the tokens of an image.
        system_prompt: What the family's chat template writes where a conversation has no system prompt; empty: nothing.
    """

    image_limit: Literal["max_pixels", "max_tiles"]
    system_prompt: str


STUDENT_FAMILIES: Mapping[str, FamilyRules] = {
    "qwen2_5_vl": FamilyRules("max_pixels", "You are a helpful assistant."),
    "qwen3_vl": FamilyRules("max_pixels", ""),
    "internvl": FamilyRules("max_tiles", ""),
}


class StudentConfig(StrictModel):
    """A model that training starts from as a whole.

    Attributes:
        family: The family, by transformers' `model_type`.
        model: A local folder or a hub id with safetensors, tokenizer and processor.
        revision: Revision of the hub id.
        max_pixels: Most pixels of an image, larger ones are made smaller; None: as the model's processor says.
        max_tiles: Most tiles of an image besides the one of the whole; None: as the model's processor says.
    """

    family: StudentFamily
    model: str
    revision: str | None = None
    max_pixels: int | None = Field(default=None, ge=1)
    max_tiles: int | None = Field(default=None, ge=1)


def fill_in_student_options(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's data with the system prompt of its student's family, if it names a student and no prompt."""
    student = data.get("student")
    family = student.get("family") if isinstance(student, Mapping) else getattr(student, "family", None)
    rules = STUDENT_FAMILIES.get(family) if isinstance(family, str) else None
    return dict(data) if rules is None else {"system_prompt": rules.system_prompt} | dict(data)


def find_student_mistakes(
    student: StudentConfig, options: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return what a recipe says that its student cannot do, in words.

    Args:
        student: The student.
        options: Options of the recipe: `system_prompt`, `paper_parity`, `video_newlines` and the towers.
        stages: Settings of its stages by name.
    """
    family, rules = student.family, STUDENT_FAMILIES[student.family]
    mistakes = [
        f"{name}: belongs to a student assembled from towers, `student` names a whole one"
        for name in ("language", "vision", "grid")
        if options[name] is not None
    ]
    other_limit = "max_tiles" if rules.image_limit == "max_pixels" else "max_pixels"
    if getattr(student, other_limit) is not None:
        mistakes.append(f"student.{other_limit}: {family} limits images by `{rules.image_limit}`")
    if options["system_prompt"] != rules.system_prompt:
        mistakes.append(
            f"system_prompt: the chat template of {family} has {rules.system_prompt!r}; leave it out"
            " (a system turn in the data is used as it is)"
        )
    if options["paper_parity"]:
        mistakes.append("paper_parity: the released code trains LLaVA-OneVision only")
    if options["video_newlines"] != "one":
        mistakes.append("video_newlines: belongs to LLaVA-OneVision; leave it out")
    for name, stage in stages.items():
        required = {
            "image_mode": (NATIVE_IMAGE_MODE, f"{family} processes images in its own way"),
            "chat_format": ("chatml", f"{family} has a chat template"),
            "liger_kernels": (False, f"it has not been tried with {family}"),
            "compile_layers": (False, f"it has not been tried with {family}"),
        }
        mistakes += [
            f"stages.{name}.{key}: has to be {value!r}, because {reason}"
            for key, (value, reason) in required.items()
            if stage[key] != value
        ]
        if stage["lora"] is not None and stage["lora"]["quantization"] is not None:
            mistakes.append(f"stages.{name}.lora.quantization: has to be left out; it has not been tried with {family}")
        if stage["zero_stage"] == 3:
            mistakes.append(
                f"stages.{name}.zero_stage: has to be 0, 1 or 2, because 3 has not been tried with {family}"
            )
    return mistakes
