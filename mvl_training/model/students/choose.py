"""The student class of a recipe, and how it starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.model.student_model import Student
from mvl_training.model.students.internvl import InternVLStudent
from mvl_training.model.students.llava_onevision import LlavaOnevisionStudent
from mvl_training.model.students.qwen_vl import QwenStudent
from mvl_training.recipe import Recipe
from mvl_training.recipe_student import StudentFamily

STUDENTS: Mapping[StudentFamily, type[Student]] = {
    "qwen2_5_vl": QwenStudent,
    "qwen3_vl": QwenStudent,
    "internvl": InternVLStudent,
}


def choose_student_class(recipe: Recipe) -> type[Student]:
    """Return the class of a recipe's student."""
    return LlavaOnevisionStudent if recipe.student is None else STUDENTS[recipe.student.family]


def start_student(recipe: Recipe, tokenizer: ChatTokenizer, dtype: torch.dtype = torch.float32) -> Student:
    """Return a recipe's student before any training.

    Raises:
        MvlError: A model cannot be read, or is not what the recipe says.
    """
    return choose_student_class(recipe).start(recipe, tokenizer, dtype)


def load_student(recipe: Recipe, export_dir: Path, dtype: torch.dtype = torch.float32) -> Student:
    """Load a recipe's student from an export.

    Raises:
        MvlError: The folder is not an export of such a student.
    """
    return choose_student_class(recipe).load(recipe, export_dir, dtype)
