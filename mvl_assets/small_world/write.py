"""Lessons and cards as sources: a LLaVA JSON file and a folder of images as others bring them; and the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from mvl_assets.common.atomic_write import replace_dir
from mvl_assets.config.prompts import Prompt
from mvl_assets.small_world.cards import draw_card
from mvl_assets.small_world.lessons import SUBJECTS, Turn, iter_lessons

VOCABULARY_SIZE = 2048
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ROWS_FILE = "rows.json"
CARD_QUESTION = "Describe the picture."
# A folder of images stays small enough for every file system and tool.
_IMAGES_PER_FOLDER = 5000

WrittenRow = tuple[str, Image.Image, Sequence[Turn]]
"""(id, image, turns)"""


def write_lessons(
    folder: Path,
    prompts: Mapping[str, Prompt],
    n_lessons: int,
    seed: int = 0,
    subjects: Collection[str] = SUBJECTS,
) -> None:
    """Write lessons below `folder`, which appears complete or not at all.

    Args:
        folder: Where `rows.json` and `images/` come.
        prompts: The set `drawn`, by name.
        n_lessons: How many, those about other subjects included; a longer series begins with the shorter one.
        seed: Another seed draws others.
        subjects: Lessons about others are left out.
    """
    lessons = enumerate(iter_lessons(prompts, seed, 0, n_lessons, subjects))
    _write_rows(folder, ((f"{lesson.subject}_{n:06d}", lesson.drawing.image, lesson.turns) for n, lesson in lessons))


def write_cards(folder: Path, n_cards: int, seed: int = 0) -> None:
    """Write cards with their captions below `folder`, which appears complete or not at all.

    Args:
        folder: Where `rows.json` and `images/` come.
        n_cards: How many; a longer series begins with the shorter one.
        seed: Another seed draws others.
    """
    cards = ((n, draw_card(Random(f"card/{seed}/{n}"))) for n in range(n_cards))
    _write_rows(folder, ((f"card_{n:06d}", card.image, [(CARD_QUESTION, card.caption)]) for n, card in cards))


def iter_texts(folder: Path) -> Iterator[str]:
    """Yield the turns of written lessons or cards."""
    for row in json.loads((folder / ROWS_FILE).read_text(encoding="utf-8")):
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


def _write_rows(folder: Path, rows: Iterable[WrittenRow]) -> None:
    with replace_dir(folder) as target, (target / ROWS_FILE).open("w", encoding="utf-8") as file:
        for number, (row_id, image, turns) in enumerate(rows):
            name = f"images/{number // _IMAGES_PER_FOLDER:03d}/{number:06d}.png"
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, compress_level=1)
            row = {"id": row_id, "image": name, "conversations": _list_messages(turns)}
            file.write(("[\n" if number == 0 else ",\n") + json.dumps(row, ensure_ascii=False))
        file.write("\n]\n")


def _list_messages(turns: Sequence[Turn]) -> list[dict[str, str]]:
    messages = [
        {"from": sender, "value": text} for turn in turns for sender, text in zip(("human", "gpt"), turn, strict=True)
    ]
    messages[0]["value"] = f"<image>\n{messages[0]['value']}"
    return messages
