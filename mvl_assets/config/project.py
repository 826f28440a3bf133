"""The project's settings (`mvl.yaml`), and its own files, which lie over those that the package ships.

A project is a folder:

| in the project | is |
|---|---|
| `mvl.yaml` | the settings below; marks the folder as a project |
| `sources/`, `benchmarks/` | YAML documents of sources, and of benchmarks, in any number of files |
| `prompts/`, `profiles/`, `recipes/`, `studies/` | files; one of the same name takes the place of the package's |
| `workspace.yaml` | the code locations of Dagster's web interface |
| `.mvl/` | everything that the pipeline writes (`MVL_HOME`) |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from mvl_assets.common.project_root import PROJECT_FILE, find_project_root
from mvl_assets.config.strict_yaml import StrictModel, YamlError, iter_documents
from mvl_assets.errors import MvlError

PACKAGE_DIR = Path(__file__).resolve().parents[1]
RECIPES_DIR = PACKAGE_DIR.parent / "mvl_training" / "recipes"
"""Recipes of the training package, which this one does not import."""
OwnFolder = Literal["sources", "benchmarks", "prompts", "profiles", "recipes", "studies"]
PROJECT_HINT = "correct the file; a new one is made by `mvl init`"
CATEGORY_NAME = re.compile(r"[a-z][a-z0-9_]*")


class CategoryConfig(StrictModel):
    """An own category.

    Attributes:
        multi_image: Whether its rows have several images or videos, which only the last training stage takes.
    """

    multi_image: bool = False


class ProjectConfig(StrictModel):
    """The content of `mvl.yaml`.

    Attributes:
        catalog: The sources that the project's own lie over: the name of a catalog of the package (`mammoth_vl`: the
            paper's 153 and nine more), a folder of YAML files, or null for none.
        profile: The profile of commands that name none (`MVL_PROFILE` names another).
        categories: Own categories by name, besides the package's.
        title: What published data is called; null says what it is made of.
    """

    catalog: str | None = "mammoth_vl"
    profile: str = "demo"
    categories: dict[str, CategoryConfig] = Field(default_factory=dict)
    title: str | None = Field(default=None, min_length=1, max_length=200)

    @field_validator("categories")
    @classmethod
    def _validate_names(cls, categories: dict[str, CategoryConfig]) -> dict[str, CategoryConfig]:
        for name in categories:
            if not CATEGORY_NAME.fullmatch(name):
                raise ValueError(f"{name!r}: a category is named in lower case letters, digits and `_`")
        return categories


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file of the project, by its path in its folder, and whether it takes the place of one of the package."""

    path: Path
    replaces_base: bool


def load_project() -> ProjectConfig:
    """Return the settings of the project; the defaults outside of any.

    Raises:
        MvlError: `mvl.yaml` has a mistake; names its line and key.
    """
    root = find_project_root()
    if root is None:
        return ProjectConfig()
    path = root / PROJECT_FILE
    return _read_project_file(path, path.stat().st_mtime_ns)


@lru_cache
def _read_project_file(path: Path, mtime_ns: int) -> ProjectConfig:
    documents = list(iter_documents(path))
    if len(documents) > 1:
        raise YamlError(str(path), f"holds {len(documents)} YAML documents, not one", hint=PROJECT_HINT)
    return documents[0].validate(ProjectConfig, hint=PROJECT_HINT) if documents else ProjectConfig()


def find_own_dir(name: OwnFolder) -> Path | None:
    """Return a folder of the project, which need not exist; None outside of any."""
    root = find_project_root()
    return None if root is None else root / name


def write_own_entry(
    folder_name: OwnFolder, slug: str, text: str, *, is_taken: bool, taken_error: MvlError, preview_command: str
) -> Path:
    """Write an entry into a file of its own in a folder of the project, and return the file.

    Args:
        folder_name: The folder.
        slug: Name of the entry, and of the file.
        text: The entry.
        is_taken: Whether another entry has the name.
        taken_error: Raised if it has, or if the file exists.
        preview_command: What shows the entry without writing it.

    Raises:
        MvlError: The name is taken, or there is no project.
    """
    folder = find_own_dir(folder_name)
    if folder is None:
        raise MvlError("this folder is in no project", hint=f"make one with `mvl init`, or use {preview_command}")
    target = folder / f"{slug}.yaml"
    if is_taken or target.exists():
        raise taken_error
    folder.mkdir(exist_ok=True)
    with target.open("x", encoding="utf-8") as file:
        file.write(text)
    return target


def list_files(base_dir: Path, own_dir: Path | None, pattern: str) -> dict[str, Path]:
    """Return the files of the package by name, with the project's own in place of those of the same name."""
    folders = [base_dir] if own_dir is None else [base_dir, own_dir]
    return {path.name: path for folder in folders for path in sorted(folder.glob(pattern))}


def list_own_files(base_dir: Path, own_dir: Path | None, *patterns: str) -> list[OwnFile]:
    """Return the project's own files, sorted by their paths below `own_dir`."""
    if own_dir is None or own_dir == base_dir:
        return []
    paths = sorted(path.relative_to(own_dir) for pattern in patterns for path in own_dir.glob(pattern))
    return [OwnFile(path, (base_dir / path).is_file()) for path in paths]
