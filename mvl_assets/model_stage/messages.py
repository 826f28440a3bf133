"""The messages of a request, built from a rendered prompt.

The order of the parts is instructions, images, data: parts that many rows share come first, where a server can cache
them as a prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mvl_assets.config.prompts import Prompt
from mvl_assets.inference.request import ModelRef, OutputFormat


def build_messages(
    prompt: Prompt, values: Mapping[str, str], image_ids: Sequence[str], model: ModelRef, sample_id: str = ""
) -> tuple[tuple[dict[str, Any], ...], bool]:
    """Return the messages, and whether images were left out because the model cannot see them.

    The content is a list of parts if the row has images and the prompt wants them, else one text. Where images are left
    out, the text says so.

    Args:
        prompt: The prompt.
        values: The values of its slots, by name.
        image_ids: The row's images.
        model: The model that is asked.
        sample_id: What the prompt's task types are drawn by.
    """
    head, tail = prompt.render(values, sample_id)
    if prompt.modality == "vision" and image_ids and model.supports_images:
        image_parts = [{"type": "image", "image": image_id} for image_id in image_ids]
        content_parts = [{"type": "text", "text": head}, *image_parts, {"type": "text", "text": tail}]
        return ({"role": "user", "content": content_parts},), False
    blind = prompt.modality == "vision" and bool(image_ids)
    paragraphs = [head, prompt.no_image_note if blind else None, tail]
    return ({"role": "user", "content": "\n\n".join(p for p in paragraphs if p)},), blind


def build_output_form(prompt: Prompt) -> OutputFormat:
    """Return the form that the prompt constrains an answer to."""
    return OutputFormat(prompt.output, schema=prompt.schema, options=prompt.options or ())
