"""`mvl init`: make a project, a folder of one's own sources, prompts, profiles and recipes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import click

from mvl_assets.common.project_root import PROJECT_FILE
from mvl_assets.config.project import PACKAGE_DIR, RECIPES_DIR
from mvl_assets.errors import MvlError

TEMPLATE_DIR = PACKAGE_DIR / "project_template"
# Folders of the package that a project may copy, to change what is in them.
COPIED_DIRS = {
    "prompts": PACKAGE_DIR / "prompts",
    "prompts/small": PACKAGE_DIR / "prompts" / "small",
    "profiles": PACKAGE_DIR / "profiles",
    "recipes": RECIPES_DIR,
    "deploy": PACKAGE_DIR / "deploy",
}
RENAMED_FILES = {"gitignore": ".gitignore"}
"""A file named `.gitignore` would hide the template's own files from Git."""


@click.command(name="init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--copy",
    "copied",
    multiple=True,
    type=click.Choice(list(COPIED_DIRS)),
    help="Also copy these files of the package, to change them; may be repeated, also in a project that exists.",
)
def command(folder: Path, copied: tuple[str, ...]) -> None:
    """Make a project in FOLDER, with places for your own sources, prompts, profiles and recipes.

    Files that exist are left as they are.
    """
    is_new = not (folder / PROJECT_FILE).is_file()
    if not is_new and not copied:
        raise MvlError(f"{folder} is a project already", hint="`--copy prompts` copies the package's prompts into it")
    copies = list(_iter_template_files(folder)) if is_new else []
    for name in copied:
        copies += [(path, folder / name / path.name) for path in sorted(COPIED_DIRS[name].iterdir()) if path.is_file()]
    n_written = sum(_copy_file(source, target) for source, target in copies)
    click.echo(f"{folder.resolve()}: {n_written} files written, {len(copies) - n_written} were there")
    if is_new:
        click.echo(
            f"next: cd {folder}; `mvl sources sniff PATH` looks at your files, `mvl sources add PATH` declares them,"
            " and `mvl run --until category` reads them; README.md has the rest"
        )


def _iter_template_files(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each file of the template and its place; `mvl.yaml`, which makes the folder a project, comes last."""
    for path in sorted(TEMPLATE_DIR.rglob("*"), key=lambda path: path.name == PROJECT_FILE):
        if path.is_file():
            relative_path = path.relative_to(TEMPLATE_DIR)
            yield path, folder / relative_path.with_name(RENAMED_FILES.get(path.name, path.name))


def _copy_file(source: Path, target: Path) -> bool:
    """Copy a file unless the target exists; return whether it was copied."""
    if target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return True
