"""From a sample to its rewriting requests.

One request per sample, or one per question-answer pair where the prompt keeps the question. The order of the parts is
instructions, pictures, data: what is equal for many samples comes first, where a server can cache it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvl_assets.config.prompts import Prompt
from mvl_assets.inference.request import ModelRef, OutputFormat, Request
from mvl_assets.model_stage.dialogue import QAPair, extract_qa_pairs, format_pairs, strip_markers


@dataclass(frozen=True, slots=True)
class RewriteRequest:
    """One request with what is needed to make rows of its answer.

    `preserved_question` is the sample's question, markers included, where the prompt keeps it. `blind` says that the prompt
    wants the sample's pictures and the model cannot see them.
    """

    request: Request
    sample_id: str
    version_id: str
    n_images: int
    has_video: bool
    preserved_question: str | None
    blind: bool


def build_requests(sample: Mapping[str, Any], prompt: Prompt, model: ModelRef) -> list[RewriteRequest]:
    """The requests for one row of `samples`; none when it has no answered question. Equal ones come once."""
    pairs = extract_qa_pairs(sample["conversations"])
    image_ids: Sequence[str] = sample["image_ids"] or ()
    requests_by_key: dict[str, RewriteRequest] = {}
    for preserved_question, values in _build_prompt_inputs(prompt, pairs):
        messages, blind = build_messages(prompt, values, image_ids, model)
        request = Request(
            messages=messages,
            model=model,
            sampling=prompt.sampling,
            prompt_name=prompt.name,
            prompt_hash=prompt.hash,
            output=build_output_form(prompt),
        )
        rewrite_request = RewriteRequest(
            request=request,
            sample_id=sample["sample_id"],
            version_id=sample["version_id"],
            n_images=len(image_ids),
            has_video=sample["video"] is not None,
            preserved_question=preserved_question,
            blind=blind,
        )
        requests_by_key.setdefault(request.key, rewrite_request)
    return list(requests_by_key.values())


def build_messages(
    prompt: Prompt, values: Mapping[str, str], image_ids: Sequence[str], model: ModelRef
) -> tuple[tuple[dict[str, Any], ...], bool]:
    """The messages, and whether pictures were left out because the model cannot see them.

    A sample with pictures under a prompt that wants them gives content parts; everything else is one text. Where the
    pictures are left out the text says so.
    """
    head, tail = prompt.render(values)
    if prompt.modality == "vision" and image_ids and model.supports_images:
        image_parts = [{"type": "image", "image": image_id} for image_id in image_ids]
        content_parts = [{"type": "text", "text": head}, *image_parts, {"type": "text", "text": tail}]
        return ({"role": "user", "content": content_parts},), False
    blind = prompt.modality == "vision" and bool(image_ids)
    paragraphs = [head, prompt.no_image_note if blind else None, tail]
    return ({"role": "user", "content": "\n\n".join(p for p in paragraphs if p)},), blind


def build_output_form(prompt: Prompt) -> OutputFormat:
    return OutputFormat(prompt.output, schema=prompt.schema, options=prompt.options or ())


def _build_prompt_inputs(prompt: Prompt, pairs: Sequence[QAPair]) -> list[tuple[str | None, dict[str, str]]]:
    """(kept question, input values) for every request of a sample."""
    if not pairs:
        return []
    if prompt.unit == "pair":
        return [(p.question, {"question": strip_markers(p.question), "answer": strip_markers(p.answer)}) for p in pairs]
    values_by_input = {"pairs": format_pairs(pairs), "caption": "\n".join(strip_markers(p.answer) for p in pairs)}
    return [(None, {name: values_by_input[name] for name in prompt.inputs})]
