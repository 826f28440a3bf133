"""The settings of a model's image and video processors, from the files beside its weights.

transformers 5 writes one `processor_config.json`; models on the hub have `preprocessor_config.json` and, newer ones,
`video_preprocessor_config.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from mvl_assets.errors import MvlError
from mvl_training.data.students.model_files import resolve_dir_with
from mvl_training.recipe_student import StudentConfig

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")


def read_processor_settings(model_dir: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the settings of a processor itself, of its image processor and of its video processor.

    Args:
        model_dir: Folder of the model. A video processor without settings of its own has those of images, as in
            transformers.

    Raises:
        MvlError: The folder has no settings of images.
    """
    processor, images, videos = (_read_json(model_dir / name) for name in PROCESSOR_FILES)
    images = processor.pop("image_processor", None) or images
    videos = processor.pop("video_processor", None) or videos
    if not images:
        raise MvlError(
            f"{model_dir} has no settings of an image processor",
            hint="a student's folder needs preprocessor_config.json or processor_config.json",
        )
    return processor, images, videos or images


def read_model_config(model_dir: Path) -> dict[str, Any]:
    """Return a model's config.json, or nothing if there is none."""
    return _read_json(model_dir / "config.json")


def resolve_processor_dir(student: StudentConfig) -> Path:
    """Return a local folder with a student's tokenizer, config and processor settings; of a hub id only those files.

    Raises:
        MvlError: There is no such model, or it cannot be downloaded.
    """
    return resolve_dir_with(student.model, "tokenizer.json", "config.json", *PROCESSOR_FILES, revision=student.revision)


def read_pixel_limits(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the least and most pixels of an image, by the names of any version; None if the settings have none."""
    size = settings.get("size") or {}
    least = settings.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels")
    most = settings.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels")
    return None if least is None or most is None else (int(least), int(most))


def check_usual_settings(model_dir: Path, *processors: Mapping[str, Any]) -> None:
    """Refuse settings with which a processor would give other pixels than this project's own code.

    Raises:
        MvlError: There are some; it names them.
    """
    for settings in processors:
        unusual = [name for name in ("do_resize", "do_rescale", "do_normalize") if settings.get(name, True) is not True]
        if settings.get("cap_pixels_per_frame"):
            unusual.append("cap_pixels_per_frame")
        if settings.get("resample", Image.Resampling.BICUBIC) != Image.Resampling.BICUBIC:
            unusual.append("resample")
        if unusual:
            raise MvlError(
                f"{model_dir}: {', '.join(unusual)} of its processor are not those of the published models",
                hint="use the processor files that the model was published with",
            )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
