"""Rewriting requests about a sample: one per sample, or one per pair where the prompt preserves the question."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvl_assets.answer_matching.brevity import strip_brevity_request
from mvl_assets.config.prompts import Prompt
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.model_stage.dialogue import QAPair, extract_qa_pairs, format_pairs, strip_markers
from mvl_assets.model_stage.messages import build_messages, build_output_form


@dataclass(frozen=True, slots=True)
class RewriteRequest:
    """One request about a sample.

    Attributes:
        request: The request.
        preserved_question: The sample's question, markers included, where the prompt keeps it; without a request for a
            short answer, which the rewrite is not.
        blind: Whether the prompt wants the sample's images and the model cannot see them.
    """

    request: Request
    preserved_question: str | None
    blind: bool


def build_requests(sample: Mapping[str, Any], prompt: Prompt, model: ModelRef) -> list[RewriteRequest]:
    """Return the distinct requests about one row of `samples`; none if it has no answered question."""
    pairs = extract_qa_pairs(sample["conversations"])
    image_ids: Sequence[str] = sample["image_ids"] or ()
    requests_by_key: dict[str, RewriteRequest] = {}
    for preserved_question, values in _build_prompt_inputs(prompt, pairs):
        messages, blind = build_messages(prompt, values, image_ids, model, sample["sample_id"])
        request = Request(
            messages=messages,
            model=model,
            sampling=prompt.sampling,
            prompt_name=prompt.name,
            prompt_hash=prompt.hash,
            output=build_output_form(prompt),
        )
        requests_by_key.setdefault(request.key, RewriteRequest(request, preserved_question, blind))
    return list(requests_by_key.values())


def list_prompt_inputs(prompt: Prompt, turns: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the texts that a prompt takes from a conversation, per request: equal ones make equal requests."""
    return [values for _, values in _build_prompt_inputs(prompt, extract_qa_pairs(turns))]


def _build_prompt_inputs(prompt: Prompt, pairs: Sequence[QAPair]) -> list[tuple[str | None, dict[str, str]]]:
    """Return (preserved question, input values) for every request of a sample."""
    if not pairs:
        return []
    if prompt.unit == "pair":
        return [
            (
                strip_brevity_request(p.question),
                {"question": strip_markers(p.question), "answer": strip_markers(p.answer)},
            )
            for p in pairs
        ]
    values_by_input = {"pairs": format_pairs(pairs), "caption": "\n".join(strip_markers(p.answer) for p in pairs)}
    return [(None, {name: values_by_input[name] for name in prompt.inputs})]
