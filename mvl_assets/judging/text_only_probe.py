"""Does a pair need its picture? A model is asked the question alone (optional: `text_only_probe` of a profile).

If its answer agrees with the rewrite or with the source's answer, the pair can be answered without the picture, and
teaches a student to answer without looking. Only what can be compared is asked: pairs about an image whose rewrite, or
whose kept original, has a short or a marked result. Options and yes or no can be guessed, so the prompt asks for
"unknown" in place of a guess, and a profile drops nothing unless it says `drop: true`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvl_assets.answer_matching.matching import extract_final_answer, matches_reference
from mvl_assets.config.prompts import Prompt
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.judging.reference import find_reference
from mvl_assets.judging.verdict import Verdict, VerdictError
from mvl_assets.model_stage.dialogue import QAPair, strip_markers
from mvl_assets.model_stage.messages import build_messages, build_output_form
from mvl_assets.model_stage.reask import Resolution

NEEDS_IMAGE = "needs_image"
"""What a probe decides, in the place of a criterion."""
ANSWERABLE_WITHOUT_IMAGE = "answerable_without_image"
"""The drop reason."""


@dataclass(frozen=True, slots=True)
class ProbedPair:
    """A question, and the results that an answer is compared with: the rewrite's, and the source's to it."""

    question: str
    results: tuple[str, ...]


def list_probed_pairs(
    pairs: Sequence[QAPair], references: Sequence[QAPair], image_ids: Sequence[str]
) -> list[ProbedPair]:
    """Return the pairs of a conversation to ask about; none without an image."""
    probed_pairs = []
    for pair in pairs if image_ids else ():
        question = strip_markers(pair.question)
        sources = [pair, find_reference(pair, references)]
        results = tuple(source.answer for source in sources if source and _has_result(source.answer, question))
        if results:
            probed_pairs.append(ProbedPair(question, results))
    return probed_pairs


def _has_result(answer: str, question: str) -> bool:
    return matches_reference("unknown", answer, question) is not None


def build_probe_request(prompt: Prompt, pair: ProbedPair, model: ModelRef) -> Request:
    """Return the request about a pair."""
    messages, _ = build_messages(prompt, {"question": pair.question}, (), model)
    return Request(messages, model, prompt.sampling, prompt.name, prompt.hash, build_output_form(prompt))


def parse_probe_answer(pair: ProbedPair, request_key: str, answer: Mapping[str, Any]) -> Verdict:
    """Return a verdict that is Yes where the pair needs its picture: the answer is none of its results.

    Raises:
        VerdictError: The answer is not finished.
    """
    if answer["finish_reason"] != "stop":
        raise VerdictError("length" if answer["finish_reason"] == "length" else "not_finished", "no end of the answer")
    # Without a marked result nothing was answered, whatever the last line mentions.
    result = extract_final_answer(answer["text"])
    is_answered = result is not None and any(matches_reference(result, known, pair.question) for known in pair.results)
    return Verdict(NEEDS_IMAGE, request_key, is_yes=not is_answered, p_yes=None)


def resolve_image_need(resolutions: Sequence[Resolution[Verdict]]) -> bool | None:
    """Return whether a conversation needs its picture: at least one of its questions does; None where that is open."""
    verdicts = [resolution.parsed for resolution in resolutions]
    if any(verdict is not None and verdict.is_yes for verdict in verdicts):
        return True
    return None if None in verdicts or not verdicts else False
