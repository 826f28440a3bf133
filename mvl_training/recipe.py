"""Recipes: everything that decides what is trained and how, as data.

Defines the fields and their limits, reads YAML files, and selects the fields that digests take in. No torch: the asset
definitions import this module. The values in `recipes/paper-7b.yaml` come from MAmmoTH-VL (arXiv 2412.05237) Table 1
and the authors' released training scripts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from mvl_assets.common.suggestions import format_suggestion
from mvl_assets.common.training_stages import TRAINING_STAGES, TrainingStage
from mvl_assets.config.project import RECIPES_DIR, find_own_dir, list_files
from mvl_assets.config.strict_yaml import StrictModel, iter_documents
from mvl_assets.errors import MvlError
from mvl_training.recipe_student import (
    NATIVE_IMAGE_MODE,
    GridConfig,
    StudentConfig,
    TowerConfig,
    Towers,
    fill_in_student_options,
    find_student_mistakes,
)

ModelComponent = Literal["projector", "language", "vision"]

ChatFormat = Literal["plain", "chatml"]
"""`plain` is LLaVA's alignment format (images, caption, newline); `chatml` is Qwen's chat format."""

LossWeighting = Literal["sample", "token", "sqrt"]
"""What counts alike in the loss of a step: samples, tokens, or samples by the square root of their loss tokens."""

VideoNewlines = Literal["one", "grid"]
"""Newline tokens of a video: one at its end, or one after each row of each frame."""

TRAIN_CODE_VERSION = "4"
"""Increased by hand when the same inputs would give other weights, so that work of older code is not reused."""

DIGEST_KEYS = {
    "system_prompt": "system",
    "anyres_max": "shrink_to",
    "learning_rates": "train",
    "chat_format": "conversation",
    "image_mode": "pictures",
    "global_batch_size": "batch",
    "max_seq_len": "length",
    "max_grad_norm": "clip",
    "max_frames": "frames",
    "zero_stage": "zero",
}
"""Old names of renamed keys, by their new name. Digests of a recipe keep the old names: otherwise equal inputs would
get another identity, and finished work would be done again."""


DEFAULT_OPTIONS = {"loss_weighting": "token", "video_newlines": "one", "image_first": False, "folder_frames": None}
PARITY_OPTIONS = {"loss_weighting": "sample", "video_newlines": "grid", "image_first": True, "folder_frames": 10}
"""Options of a recipe that does not give them, without and with `paper_parity`."""

LAYOUT_OPTIONS = ("video_newlines", "image_first", "folder_frames")


class RecipeError(MvlError):
    """A recipe cannot be found, or is invalid."""


class ExpectedData(StrictModel):
    """What a forecast assumes of a stage's data until it is planned.

    Attributes:
        samples: Number of samples.
        tokens: Mean number of language-model tokens of a sample.
        tiles: Mean number of vision tiles of a sample.
    """

    samples: int = Field(ge=1)
    tokens: float = Field(gt=0)
    tiles: float = Field(ge=0)


class LoraConfig(StrictModel):
    """Low-rank adapters in place of the language tower's own weights, which stay as they are.

    Attributes:
        rank: Rank of an adapter.
        alpha: An adapter's output is multiplied with `alpha / rank`.
        dropout: Share of an adapter's inputs that are zeroed while it trains.
        targets: Linear layers of the language tower that get adapters.
        quantization: `nf4` holds the weights of all linear layers of the language tower in 4 bits; None: as they are.
    """

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    targets: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )
    quantization: Literal["nf4"] | None = None


# Settings of a stage that its weights do not depend on.
UNTRAINED_SETTINGS = frozenset(
    {
        "save_interval",
        "save_minutes",
        "keep_checkpoints",
        "keep_every_samples",
        "staged_checkpoints",
        "held_out_interval",
        "held_out_samples",
        "loss_spike_factor",
        "expected",
        # Equal but for the order in which sums are rounded.
        "recompute",
        "compile_layers",
        "liger_kernels",
    }
)


class StageConfig(StrictModel):
    """One training stage.

    Attributes:
        learning_rates: Learning rate of each component that learns; components not named are frozen.
        chat_format: How conversations become tokens.
        image_mode: `flat` gives every image one tile without newline (the released alignment script), `anyres` tiles
            a sample's only image and pads several, `native` is what the processor of a whole `student` does.
        global_batch_size: Samples per optimizer step over all ranks.
        max_seq_len: Token limit of a sample.
        max_pack_tokens: Most tokens of a pack, which one forward pass takes; None: `max_seq_len`. Larger packs take
            more memory for activations and need fewer micro-steps.
        epochs: Passes over the data.
        steps: Optimizer steps, in place of `epochs` (the data is repeated when it runs out).
        schedule: Learning rate after the warm-up.
        warmup: Share of the steps over which learning rates rise.
        weight_decay: Weight decay of AdamW.
        max_grad_norm: Gradients are clipped to this norm.
        loss_spike_factor: Stop when a step's loss is above this multiple of the median of the 50 before it; None:
            never.
        max_frames: Most frames taken from a video.
        zero_stage: DeepSpeed's ZeRO stage.
        precision: bf16 needs ZeRO-2 or 3: without ZeRO, DeepSpeed sums no fp32 gradients of bf16 weights, and the
            fp32 copy that ZeRO-1 keeps of them cannot be gathered for an export.
        gradient_checkpointing: Recompute activations in the backward pass.
        recompute: With `gradient_checkpointing`: `all` of a layer, or with `attention_kept` all but the outputs of
            its attention.
        compile_layers: Compile each layer of the language tower (`torch.compile`); the first steps take a minute more.
        liger_kernels: Use Liger's fused RMSNorm, rotary embedding and SwiGLU (CUDA only; `pip install 'mvl[liger]'`).
        lora: Train adapters of the language tower, at its learning rate; None: its own weights.
        offload: Keep the optimizer's states in the CPU's memory (ZeRO-1 to 3).
        save_interval: Steps between checkpoints.
        save_minutes: Minutes between checkpoints, besides those of `save_interval`; None: no limit of time.
        keep_checkpoints: How many of the newest checkpoints are kept.
        keep_every_samples: Besides, the first checkpoint after each so many samples is kept, for curves over samples
            seen; None: none.
        staged_checkpoints: Write checkpoints to the scratch folder of each machine (`MVL_SCRATCH`) first, and copy them
            while training goes on.
        held_out_interval: Steps between measurements on held-out samples, which the last step makes, too; None: none.
        held_out_samples: Held-out samples per category that are measured.
        expected: What forecasts assume of the data.
    """

    learning_rates: dict[ModelComponent, float] = Field(min_length=1)
    chat_format: ChatFormat
    image_mode: Literal["flat", "anyres", "native"]
    global_batch_size: int = Field(ge=1)
    max_seq_len: int = Field(ge=16)
    max_pack_tokens: int | None = Field(default=None, ge=16)
    epochs: int = Field(default=1, ge=1)
    steps: int | None = Field(default=None, ge=1)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(default=0.0, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    loss_spike_factor: float | None = Field(default=None, gt=1.0)
    max_frames: int = Field(default=32, ge=1)
    zero_stage: Literal[0, 1, 2, 3] = 2
    precision: Literal["fp32", "bf16"] = "bf16"
    gradient_checkpointing: bool = False
    recompute: Literal["all", "attention_kept"] = "all"
    compile_layers: bool = False
    liger_kernels: bool = False
    lora: LoraConfig | None = None
    offload: bool = False
    save_interval: int = Field(default=1000, ge=1)
    save_minutes: float | None = Field(default=None, gt=0)
    keep_checkpoints: int = Field(default=2, ge=1)
    keep_every_samples: int | None = Field(default=None, ge=1)
    staged_checkpoints: bool = False
    held_out_interval: int | None = Field(default=500, ge=1)
    held_out_samples: int = Field(default=16, ge=1)
    expected: ExpectedData | None = None

    @model_validator(mode="after")
    def _validate_stage(self) -> Self:
        for component, rate in self.learning_rates.items():
            if not rate > 0 or not math.isfinite(rate):
                raise ValueError(
                    f"the learning rate of {component} must be above 0 (leave the component out to freeze it)"
                )
        if self.pack_tokens < self.max_seq_len:
            raise ValueError(f"`max_pack_tokens` {self.pack_tokens} is below `max_seq_len` {self.max_seq_len}")
        if self.lora is not None and "language" not in self.learning_rates:
            raise ValueError("`lora` needs a learning rate of `language`, whose adapters it trains")
        if self.lora is not None and self.lora.quantization is not None and self.zero_stage == 3:
            raise ValueError("`lora.quantization` needs `zero_stage` 0, 1 or 2: weights in 4 bits are not partitioned")
        if self.recompute != "all" and not self.gradient_checkpointing:
            raise ValueError("`recompute` needs `gradient_checkpointing`")
        if self.offload and not self.zero_stage:
            raise ValueError("`offload` needs `zero_stage` 1, 2 or 3")
        if self.precision == "bf16" and self.zero_stage < 2:
            raise ValueError(
                f"`precision` bf16 needs `zero_stage` 2 or 3, not {self.zero_stage} (2 takes no more memory)"
            )
        return self

    @property
    def pack_tokens(self) -> int:
        """Most tokens of a pack."""
        return self.max_pack_tokens or self.max_seq_len


class Recipe(StrictModel):
    """What is trained, from the towers to the last checkpoint.

    Attributes:
        name: A name that is `demo` or begins with `demo-` may train on a CPU without being asked to (`is_demo`).
        description: What the recipe trains, in words.
        seed: Seed of the initial weights and the data's order.
        paper_parity: Train as the released code does. The loss is taken on the markers `<|im_start|>`, `<|im_end|>`
            and newline everywhere, user turns included, and on the assistant's header. Off, the loss is taken on the
            assistant's words and the `<|im_end|>` that ends them. It also decides the next four where they are not
            given: sample, grid, true and 10, and without parity token, one, false and None.
        loss_weighting: `sample`: the mean over samples of their mean loss per token, so that a short answer counts as
            much as a long one. `token`: the mean over all tokens. `sqrt`: between the two.
        video_newlines: Newline tokens of a video; transformers knows `one`, vLLM with our plugin both.
        image_first: Move the marker of a turn's only image or video to the front of the turn.
        folder_frames: Most frames of a video that ShareGPT4Video's folders hold as images; None: `max_frames`.
        nproc_per_node: Number of ranks per machine that the recipe is meant for.
        system_prompt: System prompt of conversations that have none of their own.
        student: The model that training starts from; None: LLaVA-OneVision, assembled from the next three.
        language: The language tower.
        vision: The vision tower.
        grid: How images are tiled.
        stages: The training stages, by name; one of the three may be all.
    """

    name: str
    description: str = ""
    seed: int = 0
    paper_parity: bool = False
    loss_weighting: LossWeighting
    video_newlines: VideoNewlines
    image_first: bool
    folder_frames: int | None = Field(ge=1)
    nproc_per_node: int = Field(default=1, ge=1)
    system_prompt: str = "You are a helpful assistant."
    student: StudentConfig | None = None
    language: TowerConfig | None = None
    vision: TowerConfig | None = None
    grid: GridConfig | None = None
    stages: dict[TrainingStage, StageConfig] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _fill_in_options(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return (PARITY_OPTIONS if data.get("paper_parity") else DEFAULT_OPTIONS) | fill_in_student_options(data)

    @model_validator(mode="after")
    def _validate_consistency(self) -> Self:
        if self.student is not None:
            stages: dict[str, Any] = {name: stage_config.model_dump() for name, stage_config in self.stages.items()}
            if mistakes := find_student_mistakes(self.student, dict(self), stages):
                raise ValueError("; ".join(mistakes))
            return self
        if missing := [name for name in ("language", "vision", "grid") if getattr(self, name) is None]:
            raise ValueError(f"{', '.join(missing)}: missing; a recipe has these three, or a `student`")
        language, vision, grid = self.towers
        if language.config is not None and language.tokenizer is None:
            raise ValueError("language: a tower from scratch needs a `tokenizer`")
        if vision.tokenizer is not None:
            raise ValueError("vision: a vision tower has no `tokenizer`")
        config = vision.config
        if config is not None:
            tower_sides = (config.get("image_size"), config.get("patch_size"))
            if tower_sides != (grid.tile, grid.patch):
                raise ValueError(
                    f"grid: tile {grid.tile} px in patches of {grid.patch} px, but the vision tower takes {tower_sides}"
                )
        patches_per_side = grid.tile // grid.patch
        for name, stage_config in self.stages.items():
            if stage_config.max_seq_len < patches_per_side**2 + 16:
                raise ValueError(f"stages.{name}.max_seq_len: one image alone takes {patches_per_side**2} tokens")
            if stage_config.image_mode == NATIVE_IMAGE_MODE:
                raise ValueError(f"stages.{name}.image_mode: native belongs to a recipe with a `student`")
        return self

    @property
    def towers(self) -> Towers:
        """What LLaVA-OneVision is assembled from.

        Raises:
            ValueError: The recipe names a whole student instead.
        """
        if self.language is None or self.vision is None or self.grid is None:
            raise ValueError(f"recipe {self.name} has no towers")
        return Towers(self.language, self.vision, self.grid)

    @property
    def is_demo(self) -> bool:
        """Whether the recipe is small enough to be trained on a CPU, by its name."""
        return self.name == "demo" or self.name.startswith("demo-")

    @property
    def stage_names(self) -> list[TrainingStage]:
        """The recipe's stages in the order of training."""
        return [name for name in TRAINING_STAGES if name in self.stages]

    def get_previous_stage(self, name: TrainingStage) -> TrainingStage | None:
        """Return the stage whose checkpoint this one starts from, None for the first."""
        index = self.stage_names.index(name)
        return self.stage_names[index - 1] if index else None

    def get_stage(self, name: str) -> StageConfig:
        """Return the settings of a stage.

        Raises:
            RecipeError: The recipe has no such stage; the hint names those it has.
        """
        for stage_name, stage_config in self.stages.items():
            if stage_name == name:
                return stage_config
        raise RecipeError(f"recipe {self.name} has no stage {name!r}", hint=f"it has {', '.join(self.stages)}")

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain data, which `parse_recipe` reads."""
        return self.model_dump(mode="json", exclude=self._list_absent_parts())

    def _list_absent_parts(self) -> set[str]:
        """Return which parts of a student the recipe has not: data and digests leave them out."""
        return {name for name in ("student", "language", "vision", "grid") if getattr(self, name) is None}

    def build_plan_inputs(self, stage: TrainingStage) -> dict[str, Any]:
        """Return the fields a pack plan depends on, and no others: a changed learning rate keeps the plan.

        Keys are those of digests (`DIGEST_KEYS`).
        """
        stage_config = self.get_stage(stage)
        return {
            **self._build_student_inputs(),
            "seed": self.seed,
            "paper_parity": self.paper_parity,
            # Only where they differ, so that plans made before there was a choice keep their identity.
            **{name: getattr(self, name) for name in LAYOUT_OPTIONS if getattr(self, name) != DEFAULT_OPTIONS[name]},
            **_use_digest_keys(
                {
                    "system_prompt": self.system_prompt,
                    "max_seq_len": stage_config.max_seq_len,
                    "max_frames": stage_config.max_frames,
                    "image_mode": stage_config.image_mode,
                    "chat_format": stage_config.chat_format,
                }
            ),
        }

    def _build_student_inputs(self) -> dict[str, Any]:
        """Return what decides how the student takes text and images."""
        if self.student is not None:
            return {"student": self.student.model_dump(mode="json")}
        language, _, grid = self.towers
        return {
            "tokenizer": language.tokenizer or language.model,
            "tokenizer_revision": language.revision,
            "grid": _use_digest_keys(grid.model_dump(mode="json")),
        }

    def build_training_inputs(self, stage: TrainingStage) -> dict[str, Any]:
        """Return what the weights of a stage depend on besides its data and its initial weights.

        Left out: names, other stages, how often and how many checkpoints are kept, when a loss spike stops the run,
        what is measured meanwhile, and what only forecasts use. Keys are those of digests (`DIGEST_KEYS`).
        """
        stage_config = self.get_stage(stage).model_dump(mode="json", exclude=set(UNTRAINED_SETTINGS))
        # Only where there are some, so that work from before there was a choice keeps its identity.
        if stage_config["lora"] is None:
            del stage_config["lora"]
        elif stage_config["lora"]["quantization"] is None:
            del stage_config["lora"]["quantization"]
        excluded: Any = {"name": True, "description": True, "stages": True, "nproc_per_node": True}
        excluded |= {"language": {"sizes"}, "vision": {"sizes"}} | dict.fromkeys(self._list_absent_parts(), True)
        common = self.model_dump(mode="json", exclude=excluded)
        if self.grid is not None:
            common["grid"] = _use_digest_keys(common["grid"])
        return {
            **_use_digest_keys(common),
            "stage": stage,
            "settings": _use_digest_keys(stage_config),
            "code": TRAIN_CODE_VERSION,
        }


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Load a recipe by name, of the project's `recipes/` or the package's, or a YAML file by path.

    Raises:
        RecipeError: The recipe does not exist, is not a single YAML mapping, or has mistakes; each is named with its
            line.
    """
    path = Path(name_or_path)
    files = list_files(RECIPES_DIR, find_own_dir("recipes"), "*.yaml")
    if path.suffix not in (".yaml", ".yml"):
        path = files.get(f"{name_or_path}.yaml", path)
    if not path.is_file():
        names = sorted(file_name.removesuffix(".yaml") for file_name in files)
        suggestion = format_suggestion(str(name_or_path), names)
        hint = f"{suggestion}known: {', '.join(names)}, or a path to a YAML file"
        raise RecipeError(f"no recipe {str(name_or_path)!r}", hint=hint)
    try:
        documents = list(iter_documents(path))
    except MvlError as error:
        raise RecipeError(error.message) from error
    if len(documents) != 1:
        raise RecipeError(f"{path}: a recipe is one YAML document, this file holds {len(documents)}")
    (document,) = documents
    if not isinstance(document.value, Mapping):
        raise RecipeError(f"{path}:{document.line}: expected a mapping at the top")
    return _validate(document.value, lambda key_path: f"{path}:{document.find_line(key_path)}")


def parse_recipe(data: Mapping[str, Any], source_name: str = "recipe") -> Recipe:
    """Build a recipe from plain data.

    Raises:
        RecipeError: The data has mistakes; all of them in one line, each after `source_name`.
    """
    return _validate(data, lambda key_path: source_name)


def _validate(data: Mapping[str, Any], locate: Callable[[Sequence[int | str]], str]) -> Recipe:
    """Validate plain data; `locate` says where the value at a path of keys was read."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        mistakes = [
            f"{locate(detail['loc'])}: {'.'.join(map(str, detail['loc'])) or 'top'}:"
            f" {detail['msg'].removeprefix('Value error, ')}"
            for detail in error.errors()
        ]
        raise RecipeError("; ".join(mistakes)) from error


def _use_digest_keys(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {DIGEST_KEYS.get(name, name): value for name, value in fields.items()}
