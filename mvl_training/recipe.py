"""Recipes: everything that decides what is trained and how, as data.

Belongs here: the fields, their limits, reading a YAML file, and hashes of what a result depends on. Does not: anything
that needs torch (this module is imported by the asset definitions).

Sources of the values in `recipes/paper-7b.yaml`: MAmmoTH-VL (arXiv 2412.05237) Table 1 and the authors' released
training scripts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mvl_assets.errors import MvlError
from mvl_assets.media.tiles import TileGrid

RECIPES_DIR = Path(__file__).parent / "recipes"

StageName = Literal["alignment", "single_image", "one_vision"]
STAGES: tuple[StageName, ...] = ("alignment", "single_image", "one_vision")
ModelComponent = Literal["projector", "language", "vision"]

TRAIN_CODE_VERSION = "3"
"""Raised by hand when the same inputs would be trained to other weights: finished work of older code is not found."""


class RecipeError(MvlError):
    """A recipe cannot be found or says something impossible."""


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TowerConfig(_StrictModel):
    """A tower: either ready weights (`model`) or a configuration to start from scratch (`config`).

    `model` is a local folder or a hub id with safetensors; `sizes` are its config's numbers, for forecasts before it is
    downloaded. `config` holds the arguments of a transformers config of type `config.model_type`. `tokenizer` (language
    tower only) is a local folder, the name of a model that `mvl_assets.inference.local_server.local_models` prepares, or a hub id;
    with `model` it defaults to the model's own.
    """

    model: str | None = None
    revision: str | None = None
    config: dict[str, Any] | None = None
    sizes: dict[str, Any] | None = None
    tokenizer: str | None = None

    @model_validator(mode="after")
    def _validate_origin(self) -> Self:
        if (self.model is None) == (self.config is None):
            raise ValueError("give either `model` (ready weights) or `config` (from scratch)")
        if self.config is not None and self.sizes is not None:
            raise ValueError("`sizes` belongs to a `model`; a `config` says them itself")
        for name in ("config", "sizes"):
            if (field_value := getattr(self, name)) is not None and "model_type" not in field_value:
                raise ValueError(f"`{name}` needs `model_type`")
        return self


class GridConfig(_StrictModel):
    """Tiling. `tile` and `patch` in pixels; tile shapes are 1x1 … `side`x`side` with at most `tiles` tiles;
    `shrink_to` is the N of "anyres_max_N": features beyond N tiles are shrunk to N tiles."""

    tile: int = Field(gt=0)
    patch: int = Field(gt=0)
    side: int = Field(ge=1)
    tiles: int | None = Field(default=None, ge=1)
    shrink_to: int = Field(ge=1)

    def to_tile_grid(self) -> TileGrid:
        limit = self.tiles or self.side**2
        shapes = tuple(
            (rows, columns)
            for rows in range(1, self.side + 1)
            for columns in range(1, self.side + 1)
            if rows * columns <= limit
        )
        return TileGrid(self.tile, self.patch, shapes, self.shrink_to)


class ExpectedData(_StrictModel):
    """What a forecast assumes of a stage's data until it is planned: samples, and the mean number of language-model
    tokens and vision tiles of one."""

    samples: int = Field(ge=1)
    tokens: float = Field(gt=0)
    tiles: float = Field(ge=0)


class StageConfig(_StrictModel):
    """One stage of training.

    `train` maps the parts that learn to their learning rate; parts not named are frozen. `batch` counts samples per
    optimizer step over all ranks, as in the paper; with packing it decides the packs per step. `length` is the token
    limit of a sample and the size of a pack. `steps` overrides `epochs` (the data is repeated when it runs out).
    `pictures`: `flat` gives every picture one tile without newline (the released alignment script), `anyres` tiles a
    sample's only picture and pads several. `frames` is the limit per video. `offload` keeps the optimizer's states in
    the CPU's memory (ZeRO-1 to 3). `precision` bf16 needs ZeRO-2 or 3: without ZeRO, DeepSpeed sums no fp32 gradients
    of bf16 weights, and the fp32 copy that ZeRO-1 keeps of them cannot be gathered for an export. `spike` stops the run
    when a step's loss is above so many times the median of the 50 before it. `expected` is for forecasts.
    """

    train: dict[ModelComponent, float] = Field(min_length=1)
    conversation: Literal["plain", "chatml"]
    pictures: Literal["flat", "anyres"]
    batch: int = Field(ge=1)
    length: int = Field(ge=16)
    epochs: int = Field(default=1, ge=1)
    steps: int | None = Field(default=None, ge=1)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(default=0.0, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    clip: float = Field(default=1.0, gt=0.0)
    spike: float | None = Field(default=None, gt=1.0)
    frames: int = Field(default=32, ge=1)
    zero: Literal[0, 1, 2, 3] = 2
    precision: Literal["fp32", "bf16"] = "bf16"
    gradient_checkpointing: bool = False
    offload: bool = False
    save_every: int = Field(default=1000, ge=1)
    keep: int = Field(default=2, ge=1)
    expected: ExpectedData | None = None

    @model_validator(mode="after")
    def _validate_stage(self) -> Self:
        for component, rate in self.train.items():
            if not rate > 0 or not math.isfinite(rate):
                raise ValueError(f"the learning rate of {component} must be above 0 (leave the part out to freeze it)")
        if self.offload and not self.zero:
            raise ValueError("`offload` needs `zero` 1, 2 or 3")
        if self.precision == "bf16" and self.zero < 2:
            raise ValueError(f"`precision` bf16 needs `zero` 2 or 3, not {self.zero} (2 takes no more memory)")
        return self


class Recipe(_StrictModel):
    """The whole road from towers to the last checkpoint.

    `paper_parity` takes the loss as the released code does: on the markers `<|im_start|>`, `<|im_end|>` and newline
    everywhere, user turns included, and on the assistant's header. Off, the loss is taken on the assistant's words and
    the `<|im_end|>` that ends them. `processes` is the number of ranks on one machine that the recipe is meant for.
    """

    name: str
    description: str = ""
    seed: int = 0
    paper_parity: bool = False
    processes: int = Field(default=1, ge=1)
    system: str = "You are a helpful assistant."
    language: TowerConfig
    vision: TowerConfig
    grid: GridConfig
    stages: dict[StageName, StageConfig] = Field(min_length=1)

    @model_validator(mode="after")
    def _validate_consistency(self) -> Self:
        if self.language.config is not None and self.language.tokenizer is None:
            raise ValueError("language: a tower from scratch needs a `tokenizer`")
        if self.vision.tokenizer is not None:
            raise ValueError("vision: a vision tower has no `tokenizer`")
        config = self.vision.config
        if config is not None:
            tower_sides = (config.get("image_size"), config.get("patch_size"))
            if tower_sides != (self.grid.tile, self.grid.patch):
                raise ValueError(
                    f"grid: tile {self.grid.tile} px in patches of {self.grid.patch} px, "
                    f"but the vision tower takes {tower_sides}"
                )
        patches_per_side = self.grid.tile // self.grid.patch
        for name, stage_config in self.stages.items():
            if stage_config.length < patches_per_side**2 + 16:
                raise ValueError(f"stages.{name}.length: one picture alone takes {patches_per_side**2} tokens")
        return self

    def get_stage(self, name: str) -> StageConfig:
        """The stage, or RecipeError naming those there are."""
        for stage_name, stage_config in self.stages.items():
            if stage_name == name:
                return stage_config
        raise RecipeError(f"recipe {self.name} has no stage {name!r}", hint=f"it has {', '.join(self.stages)}")

    def as_data(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def build_plan_inputs(self, stage: StageName) -> dict[str, Any]:
        """The fields a pack plan depends on, and no others: a changed learning rate keeps the plan."""
        stage_config = self.get_stage(stage)
        return {
            "tokenizer": self.language.tokenizer or self.language.model,
            "tokenizer_revision": self.language.revision,
            "grid": self.grid.model_dump(mode="json"),
            "seed": self.seed,
            "system": self.system,
            "paper_parity": self.paper_parity,
            "length": stage_config.length,
            "frames": stage_config.frames,
            "pictures": stage_config.pictures,
            "conversation": stage_config.conversation,
        }

    def build_training_inputs(self, stage: StageName) -> dict[str, Any]:
        """What the weights of a stage depend on besides its data and its initial weights. Left out: names, other
        stages, how often and how many checkpoints are kept, when a spike stops the run, what only forecasts use."""
        stage_config = self.get_stage(stage).model_dump(
            mode="json", exclude={"save_every", "keep", "spike", "expected"}
        )
        excluded: Any = {"name": True, "description": True, "stages": True, "processes": True}
        common = self.model_dump(mode="json", exclude=excluded | {"language": {"sizes"}, "vision": {"sizes"}})
        return {**common, "stage": stage, "settings": stage_config, "code": TRAIN_CODE_VERSION}


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A recipe of `recipes/` by name, or a YAML file by path. Raises RecipeError with the line of each mistake."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = RECIPES_DIR / f"{name_or_path}.yaml"
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        available = ", ".join(sorted(recipe_path.stem for recipe_path in RECIPES_DIR.glob("*.yaml")))
        raise RecipeError(
            f"no recipe {str(name_or_path)!r}", hint=f"known: {available}, or a path to a YAML file"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path.name}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, Mapping):
        raise RecipeError(f"{path.name}: expected a mapping at the top")
    return parse_recipe(data, path.name)


def parse_recipe(data: Mapping[str, Any], source_name: str = "recipe") -> Recipe:
    """A recipe from plain data; raises RecipeError with every mistake in one line."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(str(field_name) for field_name in detail['loc']) or 'top'}: {detail['msg'].removeprefix('Value error, ')}"
            for detail in error.errors()
        )
        raise RecipeError(f"{source_name}: {mistakes}") from error
