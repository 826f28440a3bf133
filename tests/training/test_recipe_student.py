"""Recipes of whole students: what a family cannot do is refused when the recipe is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mvl_assets.config.settings import PROJECT_ROOT
from mvl_training.recipe import RecipeError, load_recipe, parse_recipe
from mvl_training.recipe_student import STUDENT_FAMILIES
from tests.training import tiny_model as small
from tests.training import tiny_students


@pytest.mark.parametrize("family", STUDENT_FAMILIES)
def test_a_family_needs_no_file_to_be_read_and_keeps_its_data(family: str) -> None:
    recipe = tiny_students.build_recipe(family, Path("nowhere"))
    assert recipe.system_prompt == STUDENT_FAMILIES[family].system_prompt
    assert parse_recipe(recipe.to_dict()) == recipe
    assert "grid" not in recipe.build_plan_inputs("single_image")


@pytest.mark.parametrize(
    ("changed", "stage", "mistake"),
    [
        ({"paper_parity": True}, {}, "paper_parity: the released code trains LLaVA-OneVision only"),
        ({"video_newlines": "grid"}, {}, "video_newlines: belongs to LLaVA-OneVision"),
        ({"system_prompt": "Be brief."}, {}, "system_prompt: the chat template of qwen2_5_vl has 'You are a helpful"),
        ({"grid": {"tile": 42, "patch": 14, "side": 1, "anyres_max": 1}}, {}, "grid: belongs to a student assembled"),
        ({}, {"image_mode": "anyres"}, "stages.single_image.image_mode: has to be 'native', because"),
        ({}, {"chat_format": "plain"}, "stages.single_image.chat_format: has to be 'chatml', because"),
        ({}, {"liger_kernels": True}, "stages.single_image.liger_kernels: has to be False, because"),
        ({}, {"lora": {"quantization": "nf4"}}, "stages.single_image.lora.quantization: has to be left out"),
        ({}, {"zero_stage": 3, "precision": "bf16"}, "stages.single_image.zero_stage: has to be 0, 1 or 2"),
    ],
)
def test_what_a_family_cannot_do_is_refused(changed: dict[str, Any], stage: dict[str, Any], mistake: str) -> None:
    data = tiny_students.build_recipe_data("qwen2_5_vl", Path("model"), **stage) | changed
    with pytest.raises(RecipeError) as caught:
        parse_recipe(data)
    assert mistake in caught.value.message


@pytest.mark.parametrize(
    ("family", "student", "mistake"),
    [
        ("internvl", {"max_pixels": 10_000}, "student.max_pixels: internvl limits images by `max_tiles`"),
        ("qwen3_vl", {"max_tiles": 4}, "student.max_tiles: qwen3_vl limits images by `max_pixels`"),
        ("llava", {}, "student.family: Input should be"),
    ],
)
def test_limits_of_other_families_and_unknown_families_are_refused(
    family: str, student: dict[str, Any], mistake: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(tiny_students.build_recipe_data(family, Path("model"), student))
    assert mistake in caught.value.message


def test_a_recipe_has_towers_or_a_student(tokenizer: Path) -> None:
    data = small.build_recipe_data(tokenizer)
    with pytest.raises(RecipeError, match="grid: missing; a recipe has these three, or a `student`"):
        parse_recipe({name: value for name, value in data.items() if name != "grid"})
    with pytest.raises(RecipeError, match="native belongs to a recipe with a `student`"):
        parse_recipe(small.build_recipe_data(tokenizer, image_mode="native"))


def test_the_recipe_of_the_page_about_students_is_one(tmp_path: Path) -> None:
    page = (PROJECT_ROOT / "docs" / "students.md").read_text(encoding="utf-8")
    file = tmp_path / "recipe.yaml"
    file.write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    assert load_recipe(file).student.max_pixels == yaml.safe_load(file.read_text())["student"]["max_pixels"]
