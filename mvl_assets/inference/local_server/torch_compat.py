"""Makes torchvision importable where its compiled operators do not match the installed torch.

The PyPI wheel of torchvision is a CUDA build. With a CPU torch its operators are missing, `import torchvision` raises
`operator torchvision::nms does not exist`, and so does everything in transformers that touches a video processor.
Declaring the two operator schemas is enough: nothing here runs them. Call before the first import of torchvision.

The module itself imports nothing heavy; its functions import torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

OPERATOR_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

# The declarations last as long as this object: torch removes them when it is collected.
_declared_libraries: list[Any] = []


def make_torchvision_importable() -> bool:
    """Declare the missing operators, and return whether they were missing.

    Does nothing where torchvision works or is not installed. torchvision's own error is raised when it cannot be
    imported for another reason.
    """
    if importlib.util.find_spec("torchvision") is None or _can_import("torchvision"):
        return False
    _unload_package("torchvision")
    if not _declared_libraries:
        import torch

        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in OPERATOR_SCHEMAS:
            library.define(schema)
        _declared_libraries.append(library)
    importlib.import_module("torchvision")
    return True


def patch_cpu_torch() -> bool:
    """Patch a process that uses transformers or vLLM with a CPU torch. Call it before importing them.

    torchvision is made importable. torchcodec and torchaudio, whose PyPI wheels are CUDA builds too, are made to look
    absent where they cannot load: importing them raises OSError, and their users only handle a missing package.

    Returns:
        Whether something was patched: a Python process started by this one then needs the same.
    """
    patched = make_torchvision_importable()
    for package in ("torchcodec", "torchaudio"):
        if importlib.util.find_spec(package) is not None and not _can_import(package):
            _unload_package(package)
            sys.modules[package] = None  # type: ignore[assignment]
            patched = True
    return patched


def _can_import(package: str) -> bool:
    try:
        importlib.import_module(package)
    except (ImportError, RuntimeError, OSError):
        return False
    return True


def _unload_package(package: str) -> None:
    """Drop half-imported modules, or the next import would take them for complete."""
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]
