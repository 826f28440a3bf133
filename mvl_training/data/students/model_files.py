"""Folders of models: given ones, those of packages, and downloads from the model hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mvl_assets.common.text import format_exception_line
from mvl_assets.errors import MvlError
from mvl_assets.inference.local_server.local_models import is_packaged, prepare_model


def resolve_model_dir(name: str, revision: str | None = None) -> Path:
    """Return the local folder of a model or tokenizer.

    Args:
        name: A path, a model that is prepared from a package, or a hub id (with a `/`), which is downloaded:
            safetensors, configs and tokenizer, nothing that could run code.
        revision: Of the hub id.

    Raises:
        MvlError: There is no such model, or it cannot be downloaded.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if is_packaged(name):
        return prepare_model(name)
    if "/" not in name or name.startswith(("/", ".")):
        raise MvlError(f"no model folder {name!r}", hint="give a folder, a packaged model's name, or a hub id")
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
    return _download(name, lambda: snapshot_download(name, revision=revision, allow_patterns=patterns))


def resolve_dir_with(name: str, *file_names: str, revision: str | None = None) -> Path:
    """Return the local folder of a model of which only some files are needed; for a hub id only they are downloaded.

    Args:
        name: As of `resolve_model_dir`.
        *file_names: Files that are needed, where the model has them.
        revision: Of the hub id.

    Raises:
        MvlError: There is no such model, or it cannot be downloaded.
    """
    if Path(name).is_dir() or is_packaged(name) or "/" not in name or name.startswith(("/", ".")):
        return resolve_model_dir(name)
    from huggingface_hub import hf_hub_download, snapshot_download

    if len(file_names) == 1:
        return _download(name, lambda: hf_hub_download(name, file_names[0], revision=revision)).parent
    return _download(name, lambda: snapshot_download(name, revision=revision, allow_patterns=list(file_names)))


def _download(name: str, download: Callable[[], str]) -> Path:
    """Return the path that `download` fetches from the model hub; any error of it becomes an MvlError."""
    try:
        return Path(download())
    except Exception as error:
        raise MvlError(
            f"{name} cannot be downloaded from the model hub: {format_exception_line(error)}",
            hint="download it to a folder and name the folder in the recipe",
        ) from error
