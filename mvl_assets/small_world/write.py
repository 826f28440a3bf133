"""Lessons as a source: one LLaVA JSON file and a folder of images, as any other source brings them; and the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from mvl_assets.common.atomic_write import replace_dir
from mvl_assets.config.prompts import Prompt
from mvl_assets.small_world.lessons import Lesson, iter_lessons

VOCABULARY_SIZE = 2048
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# A folder of images stays small enough for every file system and tool.
_IMAGES_PER_FOLDER = 5000


def write_lessons(folder: Path, prompts: Mapping[str, Prompt], n_lessons: int, seed: int = 0) -> None:
    """Write lessons below `folder`, which appears complete or not at all.

    Args:
        folder: Where `lessons.json` and `images/` come.
        prompts: The set `drawn`, by name.
        n_lessons: How many; a longer series begins with the shorter one.
        seed: Another seed draws others.
    """
    with replace_dir(folder) as target, (target / "lessons.json").open("w", encoding="utf-8") as file:
        for number, lesson in enumerate(iter_lessons(prompts, seed, 0, n_lessons)):
            row = _write_row(target, number, lesson)
            file.write(("[\n" if number == 0 else ",\n") + json.dumps(row, ensure_ascii=False))
        file.write("\n]\n")


def _write_row(folder: Path, number: int, lesson: Lesson) -> dict[str, Any]:
    name = f"images/{number // _IMAGES_PER_FOLDER:03d}/{number:06d}.png"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lesson.drawing.image.save(path, compress_level=1)
    turns: list[dict[str, str]] = []
    for question, text in lesson.turns:
        turns += [{"from": "human", "value": question}, {"from": "gpt", "value": text}]
    turns[0]["value"] = f"<image>\n{turns[0]['value']}"
    return {"id": f"{lesson.subject}_{number:06d}", "image": name, "conversations": turns}


def iter_texts(folder: Path) -> Iterator[str]:
    """Yield the turns of written lessons."""
    for row in json.loads((folder / "lessons.json").read_text(encoding="utf-8")):
        yield from (turn["value"] for turn in row["conversations"])


def train_tokenizer(texts: Iterable[str], folder: Path) -> None:
    """Write a byte-level BPE tokenizer in ChatML's terms; numbers are read digit by digit."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY_SIZE, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    with replace_dir(folder) as target:
        tokenizer.save(str(target / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        (target / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
