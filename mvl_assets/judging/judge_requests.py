"""The requests that ask a judge about one conversation, and what an answer says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mvl_assets.config.prompts import CONVERSATION_INPUT, REFERENCE_INPUT, Prompt
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.judging.reference import format_reference
from mvl_assets.judging.verdict import Verdict, parse_verdict
from mvl_assets.model_stage.dialogue import QAPair, extract_qa_pairs, format_pairs
from mvl_assets.model_stage.messages import build_messages, build_output_form


def build_judge_requests(
    criteria: Sequence[Prompt],
    turns: Iterable[Mapping[str, str]],
    image_ids: Sequence[str],
    model: ModelRef,
    references: Sequence[QAPair],
) -> tuple[list[Request], bool]:
    """Return one request per criterion about a conversation.

    Args:
        criteria: One prompt per criterion.
        turns: Turns of the conversation, human and gpt in turn.
        image_ids: Images of the conversation, in order.
        model: The judge.
        references: The source's own questions and answers, which a prompt with the input `reference` gives the judge.

    Returns:
        The requests in the order of `criteria`, and whether the images were left out (blind).
    """
    pairs = extract_qa_pairs(turns)
    values = {CONVERSATION_INPUT: format_pairs(pairs)}
    if any(REFERENCE_INPUT in criterion.inputs for criterion in criteria):
        values[REFERENCE_INPUT] = format_reference(pairs, references)
    messages_by_criterion = [
        build_messages(criterion, {name: values[name] for name in criterion.inputs}, image_ids, model)
        for criterion in criteria
    ]
    requests = [
        Request(messages, model, criterion.sampling, criterion.name, criterion.hash, build_output_form(criterion))
        for criterion, (messages, _) in zip(criteria, messages_by_criterion, strict=True)
    ]
    return requests, any(blind for _, blind in messages_by_criterion)


def parse_judge_answer(criterion: Prompt, request_key: str, answer: Mapping[str, Any]) -> Verdict:
    """Return the verdict of a stored answer.

    Raises:
        VerdictError: The answer is not a verdict.
    """
    return parse_verdict(
        criterion.criterion_name,
        request_key,
        answer["text"],
        answer["finish_reason"],
        answer["first_token_logprobs"],
        is_constrained=answer.get("output_form") not in ("openai", "none"),
    )
