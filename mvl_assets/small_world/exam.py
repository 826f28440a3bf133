"""An exam of a teacher: questions about drawings that no lesson has, whose right replies are known.

    MVL_PROFILE=PROFILE python -m mvl_assets.small_world.exam --drawings 50

asks the model that rewrites in the profile, through its server, and prints the share of right replies by subject, with
the drawings and with grey images in their place, and how well the judge of the profile tells planted faults.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.profile import Profile, load_profile
from mvl_assets.config.prompts import Prompt, load_prompts
from mvl_assets.config.settings import load_settings
from mvl_assets.inference.request import Request
from mvl_assets.judging.probes.report import build_probe_json
from mvl_assets.judging.probes.run import run_probes
from mvl_assets.lake.lake import Lake
from mvl_assets.media.image import build_blank_image, encode_image
from mvl_assets.model_stage.loop import answer_requests
from mvl_assets.model_stage.stage import ServedModel
from mvl_assets.small_world.drawn_pairs import build_drawn_pairs
from mvl_assets.small_world.lessons import SUBJECTS, answer, build_explanation, vary_question
from mvl_assets.stages import PROBE_ANSWERS

# Lessons draw with other words, so that no drawing of the exam is one of theirs.
_SEED = "exam"
_ANSWERS = "exam"
"""The source under which the replies are stored."""

Task = Literal["explain", "answer"]
"""`explain` gives the result and asks for reasons; `answer` asks for both."""


@dataclass(frozen=True, slots=True)
class ExamQuestion:
    """A request about an image, and the only right reply.

    Attributes:
        subject: Kind of drawing.
        task: What is asked for.
        image: PNG.
        request: What the model reads.
        reply: What is true.
    """

    subject: str
    task: Task
    image: bytes
    request: str
    reply: str


def iter_questions(prompts: Mapping[str, Prompt], n_drawings: int, *, grey: bool = False) -> Iterator[ExamQuestion]:
    """Yield two questions about each drawing.

    Args:
        prompts: The set `drawn`, by name.
        n_drawings: Drawings of each subject.
        grey: Show a grey image in place of the drawing: what can be guessed from the words.
    """
    for name, subject in SUBJECTS.items():
        for number in range(n_drawings):
            rng = Random(f"{_SEED}/{name}/{number}")
            drawing = subject.draw(rng, number)
            image = encode_image(drawing.image, "PNG")
            if grey:
                image = build_blank_image(image)
            pair = vary_question(rng, rng.choice(drawing.qa_pairs))
            yield ExamQuestion(name, "explain", image, *build_explanation(prompts[f"rewrite_{subject.family}"], pair))
            yield ExamQuestion(name, "answer", image, *answer(pair))


def request_replies(lake: Lake, profile: Profile, questions: Sequence[ExamQuestion]) -> list[str | None]:
    """Return the greedy replies of the model that rewrites in a profile; None where it gave none."""
    model = ServedModel.from_profile(profile.get_model("rewrite"))
    images = {compute_digest(question.image): question.image for question in questions}
    requests = [
        Request(
            messages=(
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": compute_digest(question.image)},
                        {"type": "text", "text": question.request},
                    ],
                },
            ),
            model=model.ref,
            sampling={"temperature": 0.0, "max_tokens": 256},
            prompt_name=_ANSWERS,
            prompt_hash=question.task,
        )
        for question in questions
    ]
    texts, _ = answer_requests(
        lake,
        PROBE_ANSWERS,
        _ANSWERS,
        model,
        requests,
        run_id=_ANSWERS,
        fetch_images=lambda ids: {image_id: images[image_id] for image_id in ids},
    )
    return [texts.get(request.key) for request in requests]


def compute_shares(questions: Sequence[ExamQuestion], replies: Sequence[str | None]) -> dict[str, dict[Task, float]]:
    """Return the share of right replies by subject and task; case and white space do not count."""
    results: defaultdict[str, defaultdict[Task, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for question, reply in zip(questions, replies, strict=True):
        is_right = reply is not None and reply.lower().split() == question.reply.lower().split()
        results[question.subject][question.task].append(is_right)
    return {
        subject: {task: sum(values) / len(values) for task, values in by_task.items()}
        for subject, by_task in results.items()
    }


def main() -> None:
    """Hold the exam, and print its results as one JSON object."""
    parser = argparse.ArgumentParser(description="Exam of the models of a profile on drawings")
    parser.add_argument("--drawings", type=int, default=50, help="drawings of each subject")
    n_drawings = parser.parse_args().drawings
    lake, profile = Lake(load_settings().lake_root), load_profile(load_settings().profile)
    prompts = load_prompts(profile=profile)
    result: dict[str, object] = {}
    for grey in (False, True):
        questions = list(iter_questions(prompts, n_drawings, grey=grey))
        replies = request_replies(lake, profile, questions)
        result["grey" if grey else "drawings"] = compute_shares(questions, replies)
    results_by_judge = run_probes(lake, profile, build_drawn_pairs(n_drawings), run_id=_ANSWERS)
    result["judges"] = {name: build_probe_json(results)["scores"] for name, results in results_by_judge.items()}
    print(json.dumps(result))  # noqa: T201


if __name__ == "__main__":
    main()
