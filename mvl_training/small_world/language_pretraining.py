"""Pretraining of the student's language tower: next tokens of what lessons say, without their drawings.

    python -m mvl_training.small_world.language_pretraining FOLDER/.mvl/raw/lessons FOLDER/tokenizer OUT

The student of the demo starts from it, and from a vision tower pretrained on cards (`vision_pretraining`), as students
at full size start from a language model and a vision tower that were pretrained apart.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

from mvl_assets.common.atomic_write import replace_dir
from mvl_assets.inference.local_server.torch_compat import patch_cpu_torch
from mvl_assets.small_world.write import iter_texts

patch_cpu_torch()
from transformers import Qwen2Config, Qwen2ForCausalLM  # noqa: E402

LANGUAGE_CONFIG: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
END_OF_TEXT = "<|endoftext|>"
SEQUENCE_LENGTH = 256


def iter_sequences(texts: Iterable[str], tokenizer: Tokenizer, length: int = SEQUENCE_LENGTH) -> Iterator[torch.Tensor]:
    """Yield the texts' tokens in sequences of `length` + 1, each text followed by the end of text; a rest is left out.

    Sequences overlap by one token, so that each token but the first is predicted once.
    """
    (end,) = tokenizer.encode(END_OF_TEXT).ids
    buffer: list[int] = []
    for text in texts:
        buffer += [*tokenizer.encode(text).ids, end]
        while len(buffer) > length:
            yield torch.tensor(buffer[: length + 1])
            del buffer[:length]


def pretrain_language_tower(
    texts: Iterable[str],
    tokenizer_dir: Path,
    out: Path,
    n_steps: int,
    *,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> None:
    """Train a Qwen2 tower and write it with its tokenizer as a folder, which appears complete or not at all.

    Args:
        texts: What it learns to continue; as many as the steps need.
        tokenizer_dir: Folder of the tokenizer.
        out: The folder.
        n_steps: Steps.
        batch_size: Sequences of a step.
        learning_rate: Highest learning rate of AdamW, after a warm-up of 3 %; falls to 0 by half a cosine.
        seed: Of the weights.
    """
    torch.manual_seed(seed)
    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    tower = Qwen2ForCausalLM(Qwen2Config(vocab_size=tokenizer.get_vocab_size(), **LANGUAGE_CONFIG))
    optimizer = torch.optim.AdamW(tower.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, n_steps, pct_start=0.03)
    sequences = iter_sequences(texts, tokenizer)
    started_at = time.monotonic()
    for step in range(n_steps):
        ids_BS = torch.stack(list(islice(sequences, batch_size)))
        logits_BSV = tower(ids_BS[:, :-1]).logits
        loss = functional.cross_entropy(logits_BSV.flatten(0, 1), ids_BS[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if step % 25 == 0:
            record = {"step": step, "of": n_steps, "loss": round(loss.item(), 3)}
            print(json.dumps(record | {"seconds": round(time.monotonic() - started_at)}), flush=True)  # noqa: T201
    with replace_dir(out) as target:
        tower.save_pretrained(target)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tokenizer_dir / name, target / name)


def main() -> None:
    """Pretrain the language tower of the demo's student."""
    parser = argparse.ArgumentParser(description="Pretrain a language tower on the words of lessons")
    parser.add_argument("lessons", type=Path, help="folder of written lessons")
    parser.add_argument("tokenizer", type=Path, help="folder of the tokenizer")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()
    pretrain_language_tower(iter_texts(options.lessons), options.tokenizer, options.out, options.steps)


if __name__ == "__main__":
    main()
