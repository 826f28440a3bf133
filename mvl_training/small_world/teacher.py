"""Sets up the project in which the teacher of the small world is trained, by the pipeline itself.

    python -m mvl_training.small_world.teacher FOLDER
    cd FOLDER && mvl run --until checkpoint
    python -m mvl_training.small_world.ship FOLDER/.mvl/checkpoints/…/export small-world-teacher --card CARD.md

The first command draws cards and lessons as two sources, trains the tokenizer on the lessons' words, and pretrains the
vision tower on further cards; the second ingests, packs and trains. Each takes hours on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mvl_assets.config.profile import load_profile
from mvl_assets.config.prompts import load_prompts
from mvl_assets.small_world.write import iter_texts, train_tokenizer, write_cards, write_lessons
from mvl_training.small_world.vision_pretraining import N_CARDS as N_TOWER_CARDS
from mvl_training.small_world.vision_pretraining import TOWER_CONFIG, pretrain_vision_tower

TEMPLATE_DIR = Path(__file__).with_name("teacher_project")
N_CARDS, N_LESSONS = 60_000, 48_000


def create_project(folder: Path, *, n_cards: int, n_lessons: int, n_tower_cards: int) -> None:
    """Write the project: settings, sources with their files, tokenizer and vision tower. What is there stays.

    Args:
        folder: The project's folder.
        n_cards: Cards of the source `cards`.
        n_lessons: Lessons of the source `lessons`.
        n_tower_cards: Cards that the vision tower is pretrained on.
    """
    for template in sorted(TEMPLATE_DIR.rglob("*.yaml")):
        path = folder / template.relative_to(TEMPLATE_DIR)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(template.read_text(encoding="utf-8").replace("FOLDER", str(folder)), encoding="utf-8")
    raw_dir = folder / ".mvl" / "raw"
    if not (raw_dir / "lessons").exists():
        profile = load_profile("demo").model_copy(update={"prompts": "drawn"})
        write_lessons(raw_dir / "lessons", load_prompts(profile=profile), n_lessons)
    if not (raw_dir / "cards").exists():
        write_cards(raw_dir / "cards", n_cards)
    if not (folder / "tokenizer").exists():
        train_tokenizer(iter_texts(raw_dir / "lessons"), folder / "tokenizer")
    if not (folder / "vision").exists():
        pretrain_vision_tower(TOWER_CONFIG, folder / "vision", n_tower_cards)


def main() -> None:
    """Create the project named on the command line."""
    parser = argparse.ArgumentParser(description="Project of the small world's teacher")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cards", type=int, default=N_CARDS)
    parser.add_argument("--lessons", type=int, default=N_LESSONS)
    parser.add_argument("--tower-cards", type=int, default=N_TOWER_CARDS)
    options = parser.parse_args()
    create_project(
        options.folder.absolute(),
        n_cards=options.cards,
        n_lessons=options.lessons,
        n_tower_cards=options.tower_cards,
    )
    print(f"next: cd {options.folder} && mvl run --until checkpoint")  # noqa: T201


if __name__ == "__main__":
    main()
