"""An exam of a teacher: drawings that no lesson has, with what is true of them.

Two parts: explaining known answers and answering questions, which must give the drawing's own reasons and result; and
telling true answers from those with a planted fault, by P(yes).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from random import Random
from typing import Literal

from PIL import Image

from mvl_assets.config.prompts import Prompt
from mvl_assets.model_stage.dialogue import QAPair, format_pairs
from mvl_assets.small_world.faults import FaultContext, draw_fault
from mvl_assets.small_world.lessons import (
    SUBJECTS,
    answer,
    build_explanation,
    find_criterion,
    get_broken_criterion,
    vary_question,
)

# Lessons draw with other words, so that no drawing of the exam is one of theirs.
_SEED = "exam"


@dataclass(frozen=True, slots=True)
class ExamQuestion:
    """A request about an image, and the only right reply.

    Attributes:
        subject: Kind of drawing.
        task: `explain` gives the result and asks for reasons; `answer` asks for both.
        image: PNG.
        request: What the model reads.
        reply: What is true.
    """

    subject: str
    task: Literal["explain", "answer"]
    image: bytes
    request: str
    reply: str


@dataclass(frozen=True, slots=True)
class ExamVerdict:
    """A pair to judge about an image.

    Attributes:
        subject: Kind of drawing.
        fault: Class of the planted fault; none in a true answer.
        image: PNG.
        request: What the judge reads; the right reply is Yes where there is no fault.
    """

    subject: str
    fault: str | None
    image: bytes
    request: str


def iter_questions(prompts: Mapping[str, Prompt], n_drawings: int, *, grey: bool = False) -> Iterator[ExamQuestion]:
    """Yield two questions about each drawing.

    Args:
        prompts: The set `drawn`, by name.
        n_drawings: Drawings of each subject.
        grey: Show a grey image in place of the drawing: what can be guessed from the words.
    """
    for name, subject in SUBJECTS.items():
        for number in range(n_drawings):
            rng = Random(f"{_SEED}/question/{name}/{number}")
            drawing = subject.draw(rng, number)
            image = _encode_png(Image.new("RGB", drawing.image.size, (128, 128, 128)) if grey else drawing.image)
            pair = vary_question(rng, rng.choice(drawing.qa_pairs))
            yield ExamQuestion(
                name, "explain", image, *build_explanation(prompts[f"rewrite_{subject.family}"], pair)
            )
            yield ExamQuestion(name, "answer", image, *answer(pair))


def iter_verdicts(prompts: Mapping[str, Prompt], n_drawings: int) -> Iterator[ExamVerdict]:
    """Yield a true answer, and one with a planted fault, to one question about each drawing.

    Args:
        prompts: The set `drawn`, by name.
        n_drawings: Drawings of each subject.
    """
    for name, subject in SUBJECTS.items():
        for number in range(n_drawings):
            rng = Random(f"{_SEED}/verdict/{name}/{number}")
            drawing, other_drawing = subject.draw(rng, number), subject.draw(rng, number)
            pair = vary_question(rng, rng.choice(drawing.qa_pairs))
            fault = draw_fault(rng, FaultContext(drawing, pair, other_drawing))
            if fault is None:
                continue
            fault_name, faulty_answer = fault
            image = _encode_png(drawing.image)
            prompt = find_criterion(prompts, get_broken_criterion(fault_name))
            for text, planted in ((pair.detailed_answer, None), (faulty_answer, fault_name)):
                _, request = prompt.render({"conversation": format_pairs([QAPair(pair.question, text)])})
                yield ExamVerdict(name, planted, image, request)


def compute_shares(questions: Sequence[ExamQuestion], replies: Sequence[str]) -> dict[tuple[str, str], float]:
    """Return the share of right replies by subject and task; case and white space do not count."""
    results: defaultdict[tuple[str, str], list[bool]] = defaultdict(list)
    for question, reply in zip(questions, replies, strict=True):
        is_right = " ".join(reply.lower().split()) == " ".join(question.reply.lower().split())
        results[question.subject, question.task].append(is_right)
    return {key: sum(values) / len(values) for key, values in results.items()}


def compute_aucs(verdicts: Sequence[ExamVerdict], p_yes: Sequence[float]) -> dict[str, float]:
    """Return, by class of fault, how often a true answer has the higher P(yes) of the two; a tie counts half."""
    true_values = [value for verdict, value in zip(verdicts, p_yes, strict=True) if verdict.fault is None]
    faulty_values: defaultdict[str, list[float]] = defaultdict(list)
    for verdict, value in zip(verdicts, p_yes, strict=True):
        if verdict.fault is not None:
            faulty_values[verdict.fault].append(value)
    return {
        fault: sum((good > bad) + 0.5 * (good == bad) for good in true_values for bad in values)
        / (len(true_values) * len(values))
        for fault, values in faulty_values.items()
    }


def _encode_png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
