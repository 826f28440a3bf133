"""From a sample to its rewriting requests.

One request per sample, or one per question-answer pair where the prompt keeps the question. The order of the parts is
instructions, pictures, data: what is equal for many samples comes first, where a server can cache it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvl_assets.config.prompts import Prompt
from mvl_assets.inference.request import ModelRef, OutputForm, Request
from mvl_assets.model_stage.dialogue import Pair, listed, pairs_of, readable


@dataclass(frozen=True, slots=True)
class Ask:
    """One request with what is needed to make rows of its answer.

    `kept_question` is the sample's question, markers included, where the prompt keeps it. `blind` says that the prompt
    wants the sample's pictures and the model cannot see them.
    """

    request: Request
    sample_id: str
    version_id: str
    n_images: int
    video: bool
    kept_question: str | None
    blind: bool


def asks_of(sample: Mapping[str, Any], prompt: Prompt, model: ModelRef) -> list[Ask]:
    """The requests for one row of `samples`; none when it has no answered question. Equal ones come once."""
    pairs = pairs_of(sample["conversations"])
    images: Sequence[str] = sample["image_ids"] or ()
    asks: dict[str, Ask] = {}
    for kept, values in _inputs(prompt, pairs):
        messages, blind = messages_of(prompt, values, images, model)
        request = Request(
            messages=messages,
            model=model,
            sampling=prompt.sampling,
            prompt=prompt.name,
            prompt_hash=prompt.hash,
            output=output_form(prompt),
        )
        ask = Ask(
            request=request,
            sample_id=sample["sample_id"],
            version_id=sample["version_id"],
            n_images=len(images),
            video=sample["video"] is not None,
            kept_question=kept,
            blind=blind,
        )
        asks.setdefault(request.key, ask)
    return list(asks.values())


def messages_of(
    prompt: Prompt, values: Mapping[str, str], images: Sequence[str], model: ModelRef
) -> tuple[tuple[dict[str, Any], ...], bool]:
    """The messages, and whether pictures were left out because the model cannot see them.

    A sample with pictures under a prompt that wants them gives content parts; everything else is one text. Where the
    pictures are left out the text says so.
    """
    head, tail = prompt.render(values)
    if prompt.sees == "vision" and images and model.sees_images:
        shown = [{"type": "image", "image": image} for image in images]
        parts = [{"type": "text", "text": head}, *shown, {"type": "text", "text": tail}]
        return ({"role": "user", "content": parts},), False
    blind = prompt.sees == "vision" and bool(images)
    paragraphs = [head, prompt.blind if blind else None, tail]
    return ({"role": "user", "content": "\n\n".join(p for p in paragraphs if p)},), blind


def output_form(prompt: Prompt) -> OutputForm:
    return OutputForm(prompt.output, schema=prompt.schema, options=prompt.options or ())


def _inputs(prompt: Prompt, pairs: Sequence[Pair]) -> list[tuple[str | None, dict[str, str]]]:
    """(kept question, input values) for every request of a sample."""
    if not pairs:
        return []
    if prompt.per == "pair":
        return [(p.question, {"question": readable(p.question), "answer": readable(p.answer)}) for p in pairs]
    known = {"pairs": listed(pairs), "caption": "\n".join(readable(p.answer) for p in pairs)}
    return [(None, {name: known[name] for name in prompt.inputs})]
