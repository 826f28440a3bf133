"""The one place that knows the families: which inputs and which placeholder tokens a recipe's student has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.errors import MvlError
from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.data.students import internvl, qwen_vl
from mvl_training.data.students.inputs import StudentInputs
from mvl_training.data.students.llava_onevision import LlavaOnevisionInputs
from mvl_training.data.students.processor_files import read_model_config, resolve_processor_dir
from mvl_training.recipe import Recipe
from mvl_training.recipe_student import StudentConfig, StudentFamily

OPENERS: Mapping[StudentFamily, Callable[[ChatTokenizer, Path, StudentConfig], StudentInputs]] = {
    "qwen2_5_vl": qwen_vl.open_qwen2_5_vl,
    "qwen3_vl": qwen_vl.open_qwen3_vl,
    "internvl": internvl.open_internvl,
}

VISUAL_TOKENS: Mapping[StudentFamily, tuple[str, str]] = {
    "qwen2_5_vl": qwen_vl.VISUAL_TOKENS,
    "qwen3_vl": qwen_vl.VISUAL_TOKENS,
    "internvl": internvl.VISUAL_TOKENS,
}


def open_inputs(
    recipe: Recipe, stage: TrainingStage, tokenizer: ChatTokenizer, model_dir: Path | None = None
) -> StudentInputs:
    """Return the inputs of a recipe's student in a stage.

    Args:
        recipe: The recipe.
        stage: One of its stages.
        tokenizer: The student's.
        model_dir: Folder of a whole student's export, for its processor settings; None: those of the recipe's model.

    Raises:
        MvlError: The student's files cannot be read, or are of another family.
    """
    if recipe.student is None:
        image_mode = recipe.get_stage(stage).image_mode
        assert image_mode != "native"
        return LlavaOnevisionInputs(
            tokenizer,
            recipe.towers.grid.to_tile_grid(),
            image_mode=image_mode,
            video_newlines=recipe.video_newlines,
        )
    folder = model_dir or resolve_processor_dir(recipe.student)
    check_family(folder, recipe.student.family)
    return OPENERS[recipe.student.family](tokenizer, folder, recipe.student)


def load_student_tokenizer(family: StudentFamily, model_dir: Path) -> ChatTokenizer:
    """Load the tokenizer of a whole student.

    Raises:
        MvlError: It cannot be read, lacks the family's placeholder tokens, or the folder is of another family.
    """
    check_family(model_dir, family)
    return ChatTokenizer.load(model_dir, VISUAL_TOKENS[family])


def check_family(model_dir: Path, family: StudentFamily) -> None:
    """Refuse a folder of another family.

    Raises:
        MvlError: The folder holds no model, or one of another family.
    """
    model_type = read_model_config(model_dir).get("model_type")
    if model_type != family:
        raise MvlError(
            f"{model_dir} is {'no model' if model_type is None else f'a model of type {model_type}'}, "
            f"the recipe's student is {family}",
            hint="`student.family` is the `model_type` of the model's config.json",
        )


def count_tile_tokens(recipe: Recipe) -> int:
    """Return how many tokens a tile of a recipe's student becomes at most.

    Raises:
        MvlError: The student's files cannot be read.
    """
    if recipe.student is None:
        return recipe.towers.grid.to_tile_grid().patches_per_side ** 2
    if recipe.student.family == "internvl":
        return internvl.read_tokens_per_tile(resolve_processor_dir(recipe.student))
    return 1
