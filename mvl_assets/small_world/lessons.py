"""Lessons about a drawing: conversations whose every answer follows from what was drawn.

Four kinds, all in the very words of the prompts in `prompts/drawn`: explain a known answer (the rewriter's work),
answer a question with reasons, say Yes or No to a conversation that may have a fault (the judge's), and describe the
drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType

from mvl_assets.config.prompts import Prompt
from mvl_assets.demo_data.contents import (
    DETAILED_CAPTION_PROMPTS,
    draw_shape_question_image,
    format_choices,
)
from mvl_assets.demo_data.drawings import charts, diagrams, documents, geometry, scenes, tables
from mvl_assets.demo_data.drawings.drawing import Drawing, DrawnQAPair
from mvl_assets.judging.probes.contrast_pairs import ProbeFamily
from mvl_assets.model_stage.dialogue import QAPair, format_pairs
from mvl_assets.small_world.drawn_faults import FaultContext, draw_fault

Turn = tuple[str, str]
"""(question, answer)."""

# A description names all there is to see, which teaches more about seeing than a question about a part of it.
_CAPTION_SHARE = 0.3
_VERDICT_SHARE = 0.5
_N_VERDICTS = 5


@dataclass(frozen=True, slots=True)
class Subject:
    """A kind of drawing.

    Attributes:
        draw: Draws one; the number makes kinds in it come in turn.
        family: The prompt family of the sources that have such drawings.
        weight: How often it is drawn, relative to the others.
    """

    draw: Callable[[Random, int], Drawing]
    family: ProbeFamily
    weight: int


SUBJECTS: Mapping[str, Subject] = MappingProxyType(
    {
        "shapes": Subject(draw_shape_question_image, "general", 3),
        "scenes": Subject(lambda rng, _: scenes.draw_scene(rng), "detection", 4),
        "landscapes": Subject(lambda rng, _: scenes.draw_landscape(rng), "general", 1),
        "charts": Subject(lambda rng, _: charts.draw_chart(rng), "chart", 3),
        "tables": Subject(lambda rng, _: tables.draw_table(rng), "chart", 1),
        "figures": Subject(lambda rng, _: geometry.draw_figure(rng), "math", 3),
        "diagrams": Subject(lambda rng, _: diagrams.draw_diagram(rng), "domain", 3),
        "signs": Subject(lambda rng, _: documents.draw_sign(rng), "ocr", 3),
    }
)


@dataclass(frozen=True, slots=True)
class Lesson:
    """A drawing with the turns about it."""

    subject: str
    drawing: Drawing
    turns: tuple[Turn, ...]


def iter_lessons(
    prompts: Mapping[str, Prompt], seed: int, start: int, stop: int, subjects: Collection[str] = SUBJECTS
) -> Iterator[Lesson]:
    """Yield the lessons numbered `start` to `stop`; a lesson depends on the seed and its number alone.

    Args:
        prompts: The set `drawn`, by name.
        seed: Another seed draws others.
        start: Number of the first.
        stop: One more than the number of the last.
        subjects: Lessons about others are left out.
    """
    names = [name for name, subject in SUBJECTS.items() for _ in range(subject.weight)]
    for number in range(start, stop):
        rng = Random(f"lesson/{seed}/{number}")
        name = rng.choice(names)
        if name in subjects:
            yield build_lesson(prompts, rng, name, number)


def build_lesson(prompts: Mapping[str, Prompt], rng: Random, name: str, number: int) -> Lesson:
    """Return a lesson of up to six turns about a drawing of the subject `name`.

    Most of the work of a lesson is its image, so several questions share it. One half of the lessons has verdicts
    alone: reasons that are known to be true would give a verdict away, and where each lesson weighs the same
    (`loss_weighting: sample`), one word of a verdict weighs as much as many of an explanation.
    """
    subject = SUBJECTS[name]
    drawing, other_drawing = subject.draw(rng, number), subject.draw(rng, number)
    pairs = [vary_question(rng, pair) for pair in rng.sample(drawing.qa_pairs, len(drawing.qa_pairs))]
    if rng.random() < _VERDICT_SHARE:
        contexts = [FaultContext(drawing, rng.choice(pairs), other_drawing) for _ in range(_N_VERDICTS)]
        return Lesson(name, drawing, tuple(build_judgement(prompts, rng, context) for context in contexts))
    turns = []
    if rng.random() < _CAPTION_SHARE:
        turns.append((rng.choice(DETAILED_CAPTION_PROMPTS), drawing.caption))
    for pair in pairs[:3]:
        prompt = prompts[f"rewrite_{subject.family}"]
        turns.append(build_explanation(prompt, pair) if rng.random() < 0.6 else answer(pair))
    return Lesson(name, drawing, tuple(turns))


def vary_question(rng: Random, pair: DrawnQAPair) -> DrawnQAPair:
    """Return the question, half of the time with lettered choices where it has some: then the letter is the answer."""
    if not pair.choices or rng.random() < 0.5:
        return pair
    question, letter = format_choices(rng, pair)
    return DrawnQAPair(question, letter, pair.rationale, tuple("ABCD"[: len(pair.choices)]))


def build_explanation(prompt: Prompt, pair: DrawnQAPair) -> Turn:
    """Return the rewriter's work on one pair."""
    _, request = prompt.render({"question": pair.question, "answer": pair.answer})
    return request, pair.detailed_answer


def answer(pair: DrawnQAPair) -> Turn:
    """Return the question with its full answer."""
    return pair.question, pair.detailed_answer


def build_judgement(prompts: Mapping[str, Prompt], rng: Random, context: FaultContext) -> Turn:
    """Return the judge's work on one pair: Yes to a true answer, No to the criterion that a fault breaks."""
    fault = draw_fault(rng, context) if rng.random() < 0.5 else None
    name, text = fault or ("", context.qa_pair.detailed_answer)
    criterion = rng.choice(("accuracy", "accuracy", "relevance")) if fault is None else get_broken_criterion(name)
    _, request = find_criterion(prompts, criterion).render(
        {"conversation": format_pairs([QAPair(context.qa_pair.question, text)])}
    )
    return request, "Yes" if fault is None else "No"


def get_broken_criterion(fault_name: str) -> str:
    """Return the criterion that a fault breaks."""
    return "relevance" if fault_name == "other_question" else "accuracy"


def find_criterion(prompts: Mapping[str, Prompt], criterion: str) -> Prompt:
    """Return the judge's prompt of a criterion."""
    return next(prompt for prompt in prompts.values() if prompt.criterion_name == criterion)
