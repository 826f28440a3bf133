"""Contrast pairs about drawings: a true answer, and the same with a planted fault of a named class."""

from __future__ import annotations

from random import Random

from mvl_assets.judging.probes.contrast_pairs import ContrastPair, ProbeQAPair
from mvl_assets.media.image import encode_image
from mvl_assets.small_world.drawn_faults import FAULTS, FaultContext, draw_fault
from mvl_assets.small_world.lessons import SUBJECTS, vary_question

# Lessons draw with other words, so that no drawing of these pairs is one of theirs.
_SEED = "planted"


class DrawnPair(ContrastPair):
    """A contrast pair whose image is a drawing: `image` has its `subject` and its `number`."""

    def render_png(self) -> bytes:
        """Return the image."""
        subject, number = self.image["subject"], self.image["number"]
        return encode_image(SUBJECTS[subject].draw(_create_rng(subject, number), number).image, "PNG")


def build_drawn_pairs(n_drawings: int) -> list[DrawnPair]:
    """Return a pair about each drawing on which a fault can be planted, always the same ones.

    Args:
        n_drawings: Drawings of each subject.
    """
    pairs = []
    for name, subject in SUBJECTS.items():
        for number in range(n_drawings):
            rng = _create_rng(name, number)
            drawing, other_drawing = subject.draw(rng, number), subject.draw(rng, number)
            qa_pair = vary_question(rng, rng.choice(drawing.qa_pairs))
            fault = draw_fault(rng, FaultContext(drawing, qa_pair, other_drawing))
            if fault is None:
                continue
            pairs.append(
                DrawnPair(
                    family=subject.family,
                    fault=fault[0],
                    reason=(FAULTS[fault[0]].__doc__ or "").strip(),
                    false_part=fault[1],
                    image={"subject": name, "number": number},
                    good=ProbeQAPair(question=qa_pair.question, answer=qa_pair.detailed_answer),
                    bad=ProbeQAPair(question=qa_pair.question, answer=fault[1]),
                    reference=qa_pair.answer,
                )
            )
    return pairs


def _create_rng(subject: str, number: int) -> Random:
    return Random(f"{_SEED}/{subject}/{number}")
