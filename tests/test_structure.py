"""The tree of the tests: it mirrors the packages, and helpers are imported in one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from mvl_assets.config.settings import PROJECT_ROOT

TESTS = PROJECT_ROOT / "tests"
FILES = sorted(TESTS.rglob("*.py"))

# Tests of several packages at once.
WITHOUT_PACKAGE = frozenset({"browser", "fuzz", "hostile", "object_store", "pipeline"})


def find_package(folder: Path) -> Path:
    """Return the package that the tests of a folder belong to: `tests/training/*` are those of `mvl_training`."""
    first, *rest = folder.relative_to(TESTS).parts
    parts = ["mvl_training", *rest] if first == "training" else ["mvl_assets", first, *rest]
    return PROJECT_ROOT.joinpath(*parts)


def list_imports(path: Path) -> list[str]:
    """Return the modules and names that a file imports, as it writes them."""
    modules = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            modules += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
    return modules


def test_every_folder_of_tests_mirrors_a_package() -> None:
    folders = {path.parent for path in FILES} - {TESTS}
    checked = [folder for folder in folders if folder.relative_to(TESTS).parts[0] not in WITHOUT_PACKAGE]
    assert [str(folder) for folder in sorted(checked) if not find_package(folder).is_dir()] == []


def test_test_files_have_unique_names() -> None:
    names = [path.name for path in FILES if path.name.startswith("test_")]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_helpers_are_imported_from_helper_modules_by_their_full_name(path: Path) -> None:
    modules = list_imports(path)
    bare_names = {file.stem for file in FILES} | {file.name for file in TESTS.iterdir() if file.is_dir()}
    assert [name for name in modules if name.split(".")[0] in bare_names] == []
    assert [name for name in modules if any(part.startswith("test_") for part in name.split("."))] == []
