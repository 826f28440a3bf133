"""What a project has of its own, in words: which files, and which of them take the place of the package's."""

from __future__ import annotations

from pathlib import Path

from mvl_assets.common.project_root import find_project_root
from mvl_assets.config.catalog import load_full_catalog
from mvl_assets.config.profile import PROFILES_DIR, load_profile
from mvl_assets.config.project import RECIPES_DIR, OwnFile, find_own_dir, list_own_files, load_project
from mvl_assets.config.prompts import PROMPTS_DIR
from mvl_assets.config.settings import load_settings


def describe_project() -> str:
    """Return which project, catalog and profile are in use, then a line per kind of own file."""
    catalog = load_full_catalog()
    prompt_set = load_profile(load_settings().profile).prompts
    first_line = (
        f"project {find_project_root() or 'none'}, catalog {load_project().catalog or 'none'}, "
        f"profile {load_settings().profile}" + (f", prompts {prompt_set}" if prompt_set else "")
    )
    own_sources = [OwnFile(Path(slug), slug in catalog.replaced_slugs) for slug in catalog.own_files]
    own_files = {
        "sources": own_sources,
        "prompts": list_own_files(PROMPTS_DIR, load_settings().prompts_dir, "*.md", "*/*.md"),
        "profiles": list_own_files(PROFILES_DIR, find_own_dir("profiles"), "*.yaml"),
        "recipes": list_own_files(RECIPES_DIR, find_own_dir("recipes"), "*.yaml"),
    }
    return "\n".join([first_line, *(_format_own_files(kind, files) for kind, files in own_files.items() if files)])


def _format_own_files(kind: str, files: list[OwnFile]) -> str:
    """Return the number of files, and the names of those that replace one of the package or the catalog."""
    replacing = [file.path.as_posix() for file in files if file.replaces_base]
    return f"  own {kind}: {len(files)}" + (f", in place of the package's: {', '.join(replacing)}" if replacing else "")
