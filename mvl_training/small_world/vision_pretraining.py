"""Pretraining of a vision tower on cards: each patch says which characters, shapes and colours lie on it.

A caption tells a tower that a word is somewhere; the marks of a card tell each patch what is on it, which teaches
reading with a tenth of the images.

    python -m mvl_training.small_world.vision_pretraining OUT --cards 200000
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mvl_assets.common.atomic_write import replace_dir
from mvl_assets.inference.local_server.torch_compat import patch_cpu_torch
from mvl_assets.small_world.cards import CARD_SIZE, MARK_NAMES, Card, draw_card

patch_cpu_torch()
from transformers import SiglipVisionConfig, SiglipVisionModel  # noqa: E402

TOWER_CONFIG: dict[str, Any] = {
    "hidden_size": 160,
    "intermediate_size": 448,
    "num_hidden_layers": 5,
    "num_attention_heads": 5,
    "image_size": CARD_SIZE,
    "patch_size": 16,
}
"""Of the teacher's vision tower."""

N_CARDS = 120_000
"""Cards that the teacher's vision tower was pretrained on."""

_INDEX_BY_NAME = {name: index for index, name in enumerate(MARK_NAMES)}
# A mark belongs to the patches that hold this share of it, or that it fills this share of.
_MIN_OVERLAP = 0.3


class CardDataset(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Cards as pixels (3, P, P) from -1 to 1, and marks of their patches (S, M) of 0 and 1, in row order.

    Args:
        seed: Another seed draws others.
        start: Number of the first card.
        stop: One more than the number of the last.
        patch_size: Pixels of a patch's side.
    """

    def __init__(self, seed: str, start: int, stop: int, patch_size: int) -> None:
        self._seed, self._range, self._patch_size = seed, range(start, stop), patch_size

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        worker = get_worker_info()
        numbers = self._range if worker is None else self._range[worker.id :: worker.num_workers]
        for number in numbers:
            card = draw_card(Random(f"tower/{self._seed}/{number}"))
            pixels = torch.from_numpy(np.asarray(card.image, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1.0
            yield pixels, label_patches(card, self._patch_size)


def label_patches(card: Card, patch_size: int) -> torch.Tensor:
    """Return which marks lie on each patch, (S, M) of 0 and 1."""
    side = CARD_SIZE // patch_size
    labels = np.zeros((side, side, len(MARK_NAMES)), dtype=np.float32)
    edges = np.arange(side) * patch_size
    for name, (left, top, right, bottom) in card.marks:
        covered_x = np.clip(np.minimum(right, edges + patch_size) - np.maximum(left, edges), 0, None)
        covered_y = np.clip(np.minimum(bottom, edges + patch_size) - np.maximum(top, edges), 0, None)
        share_x = covered_x / min(patch_size, right - left)
        share_y = covered_y / min(patch_size, bottom - top)
        labels[..., _INDEX_BY_NAME[name]] = np.maximum(
            labels[..., _INDEX_BY_NAME[name]], np.outer(share_y, share_x) >= _MIN_OVERLAP
        )
    return torch.from_numpy(labels.reshape(side * side, -1))


def pretrain_vision_tower(
    config: dict[str, Any], out: Path, n_cards: int, *, batch_size: int = 64, learning_rate: float = 1e-3, seed: int = 0
) -> None:
    """Train a SigLIP tower and write it as a Hugging Face folder, which appears complete or not at all.

    Args:
        config: Of the tower (`SiglipVisionConfig`).
        out: The folder.
        n_cards: Cards to see, each once.
        batch_size: Cards of a step.
        learning_rate: Highest learning rate of AdamW, after a warm-up of 3 %; falls to 0 by half a cosine.
        seed: Of weights and cards.
    """
    torch.manual_seed(seed)
    tower = SiglipVisionModel(SiglipVisionConfig(**config))
    head = nn.Linear(tower.config.hidden_size, len(MARK_NAMES))
    nn.init.constant_(head.bias, -4.0)  # almost all labels are 0
    parameters = [*tower.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    n_steps = n_cards // batch_size
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, n_steps, pct_start=0.03)
    dataset = CardDataset(str(seed), 0, n_steps * batch_size, int(config["patch_size"]))
    started_at = time.monotonic()
    for step, (pixels_B3PP, labels_BSM) in enumerate(DataLoader(dataset, batch_size, num_workers=1, prefetch_factor=8)):
        # A student takes the states before the last layer (`student_model`), so these have to learn.
        states_BSD = tower(pixels_B3PP, output_hidden_states=True).hidden_states[-2]
        logits_BSM = head(states_BSD)
        loss = functional.binary_cross_entropy_with_logits(logits_BSM, labels_BSM, reduction="sum") / batch_size
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        scheduler.step()
        if step % 50 == 0:
            recall, precision = _measure(logits_BSM, labels_BSM)
            record = {"step": step, "of": n_steps, "loss": round(loss.item(), 2), "recall": recall}
            record |= {"precision": precision, "seconds": round(time.monotonic() - started_at)}
            print(json.dumps(record), flush=True)  # noqa: T201
    with replace_dir(out) as target:
        tower.save_pretrained(target)


def _measure(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Return recall and precision of all marks of all patches, at a probability of one half."""
    predicted, is_true = logits > 0, labels > 0.5
    hits = (predicted & is_true).sum().item()
    return round(hits / max(1, is_true.sum().item()), 3), round(hits / max(1, predicted.sum().item()), 3)


def main() -> None:
    """Pretrain the tower of the teacher's recipe."""
    parser = argparse.ArgumentParser(description="Pretrain a vision tower on cards")
    parser.add_argument("out", type=Path)
    parser.add_argument("--cards", type=int, default=N_CARDS)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    options = parser.parse_args()
    pretrain_vision_tower(
        TOWER_CONFIG, options.out, options.cards, batch_size=options.batch_size, learning_rate=options.learning_rate
    )


if __name__ == "__main__":
    main()
