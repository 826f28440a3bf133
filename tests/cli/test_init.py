"""A project of one's own, made by the wheel in an empty folder; nothing is made where there is no project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from mvl_assets.config.settings import PROJECT_ROOT
from tests.raw_files import make_image

SOURCE = """\
type: mvl_assets.components.source_dataset.SourceDataset
attributes:
  slug: my_scans
  title: My scans
  category: medical
  group: B
  modality: single_image
  format: records
  family: medical
  records: {files: "*.csv", shape: csv, question: "{question}", answer: "{answer}", images: ["{file}"]}
"""
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the unpacked wheel, with nothing of the clone beside it."""
    tree, folder = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("installed")
    for part in ("mvl_assets", "mvl_training", "prompts", "docs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT_ROOT / part, tree / part, ignore=ignored, symlinks=True)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT_ROOT / file, tree)
    subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=tree, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def mvl(installed: Path, folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept: Mapping[str, str] = {n: v for n, v in os.environ.items() if not n.startswith(("MVL_", "DAGSTER_HOME"))}
    environment = {**kept, "PYTHONPATH": str(installed), "NO_COLOR": "1", "DAGSTER_DISABLE_TELEMETRY": "1", **variables}
    return subprocess.run(
        [sys.executable, "-m", "mvl_assets.cli", *words], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def project(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new project with one source of an own category and family, and its files."""
    folder = tmp_path_factory.mktemp("stranger") / "my-lake"
    done = mvl(installed, folder.parent, "init", "my-lake", "--copy", "prompts", "--copy", "deploy")
    assert done.returncode == 0, done.stderr
    settings = (folder / "mvl.yaml").read_text(encoding="utf-8")
    (folder / "mvl.yaml").write_text(settings.replace("categories: {}", "categories: {medical: {}}"), encoding="utf-8")
    (folder / "sources" / "scans.yaml").write_text(SOURCE, encoding="utf-8")
    prompt = (folder / "prompts" / "rewrite_domain.md").read_text(encoding="utf-8")
    prompt = prompt.replace("family: domain", "family: medical")
    (folder / "prompts" / "rewrite_medical.md").write_text(prompt, encoding="utf-8")
    raw = folder / ".mvl" / "raw" / "my_scans"
    raw.mkdir(parents=True)
    for colour, name in enumerate(("a.png", "b.png")):
        (raw / name).write_bytes(make_image(colour))
    (raw / "rows.csv").write_text("file,question,answer\na.png,Is it broken?,Yes\nb.png,Which bone?,Ulna\n")
    return folder


def test_a_new_project_has_every_place_and_the_files_that_were_asked_for(installed: Path, project: Path) -> None:
    names = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert {"mvl.yaml", "workspace.yaml", "README.md", ".gitignore", "profiles/own.yaml"} <= names
    assert {"prompts/judge_general.md", "deploy/dagster.yaml", "deploy/train-hosts.sh"} <= names
    assert (project / "recipes").is_dir()
    again = mvl(installed, project.parent, "init", "my-lake")
    assert again.returncode == 1 and "is a project already" in again.stderr


def test_own_rows_are_read_by_the_installed_package(installed: Path, project: Path) -> None:
    below = project / "sources"
    done = mvl(installed, below, "run", "--until", "category")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "-- category: 1 made, 0 up to date, 0 failed" in done.stdout
    listed = mvl(installed, below, "sources").stdout
    assert f"project {project}, catalog none, profile own" in listed and "my_scans" in listed
    assert not (below / ".mvl").exists()


def test_the_installed_package_knows_the_papers_catalog_and_recipes(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "mvl.yaml").write_text("catalog: mammoth_vl\n", encoding="utf-8")
    listed = mvl(installed, tmp_path, "sources", "--json")
    assert listed.stdout.count('"in_paper": true') == 153, listed.stderr
    assert mvl(installed, tmp_path, "recipe", "show", "paper-7b").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mvl.yaml"], "reading makes nothing"


def test_outside_of_a_project_nothing_is_made(installed: Path, tmp_path: Path) -> None:
    done = mvl(installed, tmp_path, "sources")
    assert done.returncode == 1 and "no mvl project" in done.stderr and "mvl init my-lake" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert mvl(installed, tmp_path, "sources", "--help").returncode == 0


def test_reading_makes_no_folder_where_mvl_home_points(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "mvl.yaml").write_text("catalog: null\n", encoding="utf-8")
    done = mvl(installed, tmp_path, "status", MVL_HOME=str(tmp_path / "not_there"))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mvl.yaml"]
