"""The project of the teacher is whole: sources with files, a recipe that loads, its tokenizer and its vision tower."""

import json
from pathlib import Path

from mvl_training.recipe import load_recipe
from mvl_training.small_world.teacher import create_project


def test_the_project_is_written_once_and_its_recipe_loads(tmp_path: Path):
    sizes = {"n_cards": 3, "n_lessons": 5, "n_tower_cards": 64}
    create_project(tmp_path, **sizes)
    recipe = load_recipe(tmp_path / "recipes" / "teacher.yaml")
    assert recipe.loss_weighting == "sample"
    assert (Path(recipe.vision.model or "") / "model.safetensors").is_file()
    assert (Path(recipe.language.tokenizer or "") / "tokenizer.json").is_file()
    for source, n_rows in (("cards", 3), ("lessons", 5)):
        folder = tmp_path / ".mvl" / "raw" / source
        rows = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
        assert len(rows) == n_rows and all((folder / row["image"]).is_file() for row in rows)
    tower = (tmp_path / "vision" / "model.safetensors").stat().st_mtime_ns
    create_project(tmp_path, **sizes)
    assert (tmp_path / "vision" / "model.safetensors").stat().st_mtime_ns == tower
