"""Scores of a study of two arms, drawn with a known gain."""

from __future__ import annotations

import random

from mvl_training.studies.results import ArmQuestion
from mvl_training.studies.study import Study, parse_study

STUDY: Study = parse_study({"name": "s", "arms": {"base": {}, "other": {}}, "seeds": [0, 1, 2]}, "s")


def draw_rows(
    gain: float, *, seed_noise: float = 0.0, seeds: int = 3, questions: int = 400, per_image: int = 1
) -> list[ArmQuestion]:
    """Answers of two arms; questions about one image are answered alike."""
    rng, rows = random.Random(5), []
    difficulty = [rng.random() for _ in range(questions // per_image)]
    for seed in range(seeds):
        shifts = {"base": rng.gauss(0, seed_noise), "other": gain + rng.gauss(0, seed_noise)}
        luck = [rng.gauss(0, 0.1) for _ in difficulty]
        for arm, shift in shifts.items():
            for n in range(questions):
                image = n // per_image
                score = float(difficulty[image] + luck[image] < 0.5 + shift)
                rows.append(ArmQuestion(arm, seed, "b", f"q{n}", "", f"i{image}", True, score))
    return rows
