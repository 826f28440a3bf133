"""Answers per second of a checkpoint's runner on this machine: questions together against one after the other.

    python benchmarks/evaluation.py --json [EXPORT] [--questions 64] [--tokens 32] [--repetitions 3]

EXPORT is the export folder of a checkpoint; by default the last one that `make demo` trained. Questions have one image
of a size of the mixture's (`runs.sample_shapes`), from a fixed seed; `--tokens` bounds their answers. The floor is one
forward pass over the same prompts, without an answer. Repetitions are interleaved; medians, with CPU seconds, which
other work on the machine disturbs least. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from training_parts.common import SEED
from training_parts.data import draw_jpeg, draw_text

from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_training.evaluation.student_runner import StudentRunner

PACKAGES = ("torch", "transformers")


def draw_questions(n_questions: int) -> list[tuple[list[bytes], str]]:
    """Return (images, text) of questions, each with one image."""
    rng = np.random.default_rng(SEED)
    return [([draw_jpeg(rng).data], draw_text(rng, 12)) for _ in range(n_questions)]


def find_last_export() -> Path:
    """Return the newest export of the stage one_vision in this project.

    Raises:
        MvlError: There is none.
    """
    exports = list(load_settings().checkpoints_dir.glob("one_vision/*/export"))
    if not exports:
        raise MvlError("no checkpoint of the stage one_vision", hint="run `make demo`, or name an export folder")
    return max(exports, key=lambda folder: folder.stat().st_mtime)


def measure_runner(export_dir: Path, n_questions: int, n_tokens: int, repetitions: int) -> dict[str, Any]:
    """Measure the runner both ways, and the forward pass over the prompts."""
    runner = StudentRunner(export_dir, max_new_tokens=n_tokens)
    questions = draw_questions(n_questions)
    references = [(images, text, "x") for images, text in questions]
    answers: dict[str, list[str]] = {}

    def answer_together() -> None:
        answers["together"] = runner.answer_questions(questions)

    def answer_singly() -> None:
        answers["singly"] = [runner.answer_questions([question])[0] for question in questions]

    ways: dict[str, Callable[[], Any]] = {
        "together": answer_together,
        "singly": answer_singly,
        "floor_prompts_only": lambda: runner.compute_losses(references),
    }
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, run in ways.items():
            started_at, cpu_start = time.monotonic(), time.process_time()
            run()
            runs[name].append((time.monotonic() - started_at, time.process_time() - cpu_start))
    figures: dict[str, Any] = {
        name: {
            "questions_per_second": round(n_questions / statistics.median(seconds for seconds, _ in measured), 2),
            "cpu_seconds_per_question": round(statistics.median(cpu for _, cpu in measured) / n_questions, 4),
        }
        for name, measured in runs.items()
    }
    figures["equal_answers"] = sum(map(str.__eq__, answers["together"], answers["singly"]))
    figures["speedup"] = round(
        figures["together"]["questions_per_second"] / figures["singly"]["questions_per_second"], 2
    )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", nargs="?", type=Path, help="export folder of a checkpoint")
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32, help="tokens of every answer, at most")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the figures on one line")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    figures = {
        **measure_runner(options.export or find_last_export(), options.questions, options.tokens, options.repetitions),
        "questions": options.questions,
        "tokens": options.tokens,
        "seed": SEED,
        "cores": len(os.sched_getaffinity(0)),
        "load_at_start": load,
        "versions": {name: version(name) for name in PACKAGES},
    }
    print(json.dumps(figures) if options.json else json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
