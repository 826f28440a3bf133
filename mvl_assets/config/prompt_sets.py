"""Sets of prompts: one for large models, and variants of it such as `small`, which a profile names.

| files | are |
|---|---|
| `prompts/*.md` of the package | the default set |
| `prompts/<set>/*.md` of the package | a variant, whole in itself: it takes nothing from the default set |
| `prompts/*.md` of a project | in place of the default set's of the same name; of another name, in every set |
| `prompts/<set>/*.md` of a project | the same for this set; a set may also be a project's alone |
"""

from __future__ import annotations

from pathlib import Path

from mvl_assets.common.suggestions import format_suggestion
from mvl_assets.config.project import list_files
from mvl_assets.errors import MvlError


def list_set_names(base_dir: Path, own_dir: Path | None) -> list[str]:
    """Return the names of the variants, the package's and a project's own."""
    folders = [base_dir] if own_dir is None else [base_dir, own_dir]
    return sorted({path.parent.name for folder in folders for path in folder.glob("*/*.md")})


def list_set_files(base_dir: Path, own_dir: Path | None, set_name: str | None) -> dict[str, Path]:
    """Return the files of a set by what messages call them: their name, or `<set>/<name>`.

    Args:
        base_dir: The package's prompts.
        own_dir: A project's own.
        set_name: The variant; None is the default set.

    Raises:
        MvlError: There is no such set.
    """
    default_files = list_files(base_dir, own_dir, "*.md")
    if set_name is None:
        return default_files
    set_names = list_set_names(base_dir, own_dir)
    if set_name not in set_names:
        raise MvlError(
            f"there is no set of prompts {set_name!r}",
            hint=f"{format_suggestion(set_name, set_names)}`prompts:` of a profile is one of "
            f"{', '.join(set_names) or 'none'}, each a subfolder of prompts/, or null for the default set",
        )
    set_files = list_files(base_dir / set_name, None if own_dir is None else own_dir / set_name, "*.md")
    own_additions = {
        name: path for name, path in default_files.items() if not (base_dir / name).is_file() and name not in set_files
    }
    return own_additions | {f"{set_name}/{name}": path for name, path in set_files.items()}
