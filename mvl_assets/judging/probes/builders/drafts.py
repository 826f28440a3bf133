"""What the builders share: the draft of a pair, and questions that no drawn image answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from mvl_assets.judging.probes.contrast_pairs import ContrastPair, ProbeFamily, ProbeFault, ProbeQAPair

# Of none of the drawings: each asks about something that no chart, page, figure, grid of shapes, program or food chain
# of these probes could show.
_OFF_IMAGE_PAIRS = (
    (
        "What growth in sales is to be expected in the next quarter?",
        "Sales are to grow by 12 percent in the next quarter, mostly in the northern region.",
    ),
    (
        "What breed is the dog, and what is it doing?",
        "It is a beagle, and it sleeps on a striped rug in front of the fireplace.",
    ),
    (
        "How does the woman at the desk seem to feel?",
        "She smiles and seems relaxed, as if her working day had just begun.",
    ),
    (
        "What is the weather like behind the window?",
        "Heavy rain runs down the glass, and the trees bend in the wind.",
    ),
    (
        "In which year was the bridge in the background built?",
        "The stone bridge was built in 1887, as the plate on its left pillar says.",
    ),
    (
        "What make is the parked car, and is anyone in it?",
        "It is a white delivery van, and its driver reads a newspaper.",
    ),
    (
        "What does the chef add to the pan after the onions?",
        "After the onions he adds sliced peppers and a spoon of tomato paste.",
    ),
    (
        "Who is winning the match, and by how much?",
        "The team in the striped shirts leads by two goals in the second half.",
    ),
)


@dataclass(frozen=True, slots=True)
class Draft:
    """A contrast pair without its family and image; its halves have one question unless there is a `bad_question`."""

    fault: ProbeFault
    reason: str
    question: str
    good: str
    bad: str
    false_part: str
    reference: str
    bad_question: str | None = None

    def build(self, family: ProbeFamily, image: Mapping[str, Any]) -> ContrastPair:
        """Return the contrast pair."""
        return ContrastPair(
            family=family,
            fault=self.fault,
            reason=self.reason,
            false_part=self.false_part,
            image=image,
            good=ProbeQAPair(question=self.question, answer=self.good),
            bad=ProbeQAPair(question=self.bad_question or self.question, answer=self.bad),
            reference=self.reference,
        )


def make_off_image_draft(rng: Random, question: str, good: str, reference: str) -> Draft:
    """Return a draft whose bad pair is about something that no probe image shows."""
    bad_question, bad = rng.choice(_OFF_IMAGE_PAIRS)
    return Draft(
        "off_image",
        "The image shows nothing of this.",
        question,
        good,
        bad,
        bad_question,
        reference,
        bad_question=bad_question,
    )


def join_words(words: list[str]) -> str:
    """Return an enumeration: "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
