"""A question as it goes over the pipe, from what a task of lmms-eval asks.

Belongs here: messages, bounds and stops, as plain data. Does not: lmms-eval's interface (`adapters`); nothing here
imports it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mvl_training.evaluation.lmms.errors import LmmsError

DEFAULT_MAX_NEW_TOKENS = 1024
"""Where a task says nothing: room for a reasoned answer (the paper's chain-of-thought tasks allow as much)."""

# One line of the pipe holds so many questions, and about so many bytes of pictures: a server answers them at a time.
MAX_QUESTIONS_PER_LINE = 64
MAX_BYTES_PER_LINE = 64 << 20


class QuestionError(LmmsError):
    """A question that cannot be asked as the task wants it."""


def build_question(
    task: str, messages: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], *, max_new_tokens: int | None
) -> dict[str, Any]:
    """A question of `answering`'s protocol; `max_new_tokens` stands in place of the task's `max_new_tokens`.

    Raises `QuestionError` for sampled answers and for media that cannot be shown: a wrong question must not be scored.
    """
    if unsupported_sampling := _describe_sampling(settings):
        raise QuestionError(f"{task} wants {unsupported_sampling}, and answers here are greedy, as in the paper")
    return {
        "messages": [
            {"role": m["role"], "parts": [_convert_part(p) for p in _to_parts(m["content"])]} for m in messages
        ],
        "max_new_tokens": max_new_tokens or int(settings.get("max_new_tokens") or DEFAULT_MAX_NEW_TOKENS),
    }


def resolve_stop_sequences(settings: Mapping[str, Any], fewshot_delimiter: str | None) -> list[str]:
    """The texts at which the task wants the answer cut.

    lmms-eval gives a task that says nothing its few-shot `fewshot_delimiter` (an empty line), at which a reasoned answer would
    end after its first paragraph: that one is not the task's word.
    """
    until = settings.get("until") or []
    stop_sequences = [until] if isinstance(until, str) else list(until)
    return [] if stop_sequences == [fewshot_delimiter] else [stop for stop in stop_sequences if stop]


def truncate_at_stop(text: str, stop_sequences: Sequence[str]) -> str:
    """The text before the first of `resolve_stop_sequences`."""
    return text[: min([len(text), *(position for stop in stop_sequences if (position := text.find(stop)) >= 0)])]


def _describe_sampling(settings: Mapping[str, Any]) -> str | None:
    """What a task asks beyond greedy decoding, in words. A temperature beside `do_sample: false` has no effect."""
    is_sampled = settings.get("do_sample", (settings.get("temperature") or 0) > 0)
    if is_sampled:
        return "sampled answers"
    n_beams = int(settings.get("num_beams") or 1)
    return f"{n_beams} beams" if n_beams > 1 else None


def _to_parts(content: Any) -> Sequence[Mapping[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _convert_part(part: Mapping[str, Any]) -> dict[str, str]:
    kind = part["type"]
    if kind == "text":
        return {"text": part["text"]}
    if kind == "image":
        return {"picture": _encode_png(part["url"])}
    if (
        kind == "video"
        and isinstance(part["url"], str | Path)
        and not part.get("start_time")
        and not part.get("end_time")
    ):
        return {"film": str(Path(part["url"]).resolve())}
    raise QuestionError(f"a question holds a {kind} in a form that cannot be shown: {str(part)[:120]}")


def _encode_png(image: Any) -> str:
    """Base64 of the picture without loss; a file as it is."""
    if isinstance(image, str | Path):
        return base64.b64encode(Path(image).read_bytes()).decode("ascii")
    if not isinstance(image, Image.Image):
        raise QuestionError(f"a picture is a {type(image).__name__}")
    buffer = io.BytesIO()
    # CMYK and other modes have no PNG.
    (image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA") else image.convert("RGB")).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def iter_question_batches(questions: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Questions in lines of bounded size, made as they are sent."""
    batch: list[dict[str, Any]] = []
    batch_bytes = 0
    for question in questions:
        n_bytes = sum(len(part.get("picture", "")) for m in question["messages"] for part in m["parts"])
        if batch and (len(batch) == MAX_QUESTIONS_PER_LINE or batch_bytes + n_bytes > MAX_BYTES_PER_LINE):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(question)
        batch_bytes += n_bytes
    if batch:
        yield batch
