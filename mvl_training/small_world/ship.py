"""Puts a trained model into the package: weights as bfloat16, where they came from, and their digest.

python -m mvl_training.small_world.ship EXPORT NAME --card CARD.md
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mvl_assets.common.atomic_write import replace_dir
from mvl_assets.inference.local_server.local_models import (
    ORIGIN_FILE,
    SHIPPED_MODELS_DIR,
    WEIGHTS_FILE,
    compute_weights_digest,
)

LICENSE = "Apache-2.0"
CARD_FILE = "README.md"
# What a run writes for itself.
_LEFT_OUT = {"mvl.json", CARD_FILE, ORIGIN_FILE, WEIGHTS_FILE}


def ship_model(export_dir: Path, name: str, card: str, models_dir: Path = SHIPPED_MODELS_DIR) -> Path:
    """Copy an export into the package, under a name that profiles and recipes use. It replaces an older one.

    Args:
        export_dir: A folder of transformers' layout, with all weights in one file.
        name: What the model is called.
        card: The text of its model card.
        models_dir: Where the models of the package lie.

    Returns:
        The model's folder.
    """
    weights = {key: tensor.to(torch.bfloat16) for key, tensor in load_file(export_dir / WEIGHTS_FILE).items()}
    with replace_dir(models_dir / name) as target:
        for path in sorted(export_dir.iterdir()):
            if path.is_file() and path.name not in _LEFT_OUT:
                shutil.copyfile(path, target / path.name)
        config = json.loads((export_dir / "config.json").read_text(encoding="utf-8"))
        (target / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}, indent=2) + "\n")
        save_file(weights, target / WEIGHTS_FILE, metadata={"format": "pt"})
        n_parameters = sum(tensor.numel() for tensor in weights.values())
        origin = {"sha256": compute_weights_digest(target), "parameters": n_parameters, "license": LICENSE}
        (target / CARD_FILE).write_text(card, encoding="utf-8")
        (target / ORIGIN_FILE).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    return models_dir / name


def main() -> None:
    """Ship the export named on the command line."""
    parser = argparse.ArgumentParser(description="Put a trained model into the package")
    parser.add_argument("export_dir", type=Path)
    parser.add_argument("name")
    parser.add_argument("--card", type=Path, required=True, help="its model card, Markdown")
    options = parser.parse_args()
    print(ship_model(options.export_dir, options.name, options.card.read_text(encoding="utf-8")))  # noqa: T201


if __name__ == "__main__":
    main()
