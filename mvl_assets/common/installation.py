"""What is installed of the package's optional parts, and how to get the rest."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from mvl_assets.errors import MvlError

TRAINING_PACKAGES = ("torch", "transformers", "deepspeed")

_CLONE_DIR = Path(__file__).parents[2]


def list_missing_packages(names: tuple[str, ...] = TRAINING_PACKAGES) -> list[str]:
    """Return those of the packages that are not installed, without importing any."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def build_install_hint(extra: str) -> str:
    """Return the command that installs an extra: in a clone that of its Makefile, else pip's."""
    return "make setup" if (_CLONE_DIR / "Makefile").is_file() else f"pip install 'mvl[{extra}]'"


def require_training_packages() -> None:
    """Raise `MvlError` where a package that training needs is not installed."""
    require_packages("training", TRAINING_PACKAGES, extra="train")


def require_packages(purpose: str, names: tuple[str, ...], *, extra: str) -> None:
    """Raise `MvlError` where a package of an extra is not installed, which the purpose needs."""
    if missing := list_missing_packages(names):
        raise MvlError(f"{purpose} needs {', '.join(missing)}, not installed here", hint=build_install_hint(extra))
