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

from mvl_training.evaluation.lmms.errors import Fault

MAX_NEW_TOKENS = 1024
"""Where a task says nothing: room for a reasoned answer (the paper's chain-of-thought tasks allow as much)."""

# One line of the pipe holds so many questions, and about so many bytes of pictures: a server answers them at a time.
QUESTIONS_PER_LINE = 64
BYTES_PER_LINE = 64 << 20


class QuestionError(Fault):
    """A question that cannot be asked as the task wants it."""


def question(
    task: str, messages: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], *, bound: int | None
) -> dict[str, Any]:
    """A question of `answering`'s protocol; `bound` stands in place of the task's `max_new_tokens`.

    Raises `QuestionError` for sampled answers and for media that cannot be shown: a wrong question must not be scored.
    """
    if refused := _sampling(settings):
        raise QuestionError(f"{task} wants {refused}, and answers here are greedy, as in the paper")
    return {
        "messages": [{"role": m["role"], "parts": [_part(p) for p in _listed(m["content"])]} for m in messages],
        "max_new_tokens": bound or int(settings.get("max_new_tokens") or MAX_NEW_TOKENS),
    }


def stops(settings: Mapping[str, Any], delimiter: str | None) -> list[str]:
    """The texts at which the task wants the answer cut.

    lmms-eval gives a task that says nothing its few-shot `delimiter` (an empty line), at which a reasoned answer would
    end after its first paragraph: that one is not the task's word.
    """
    until = settings.get("until") or []
    said = [until] if isinstance(until, str) else list(until)
    return [] if said == [delimiter] else [stop for stop in said if stop]


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text before the first of `stops`."""
    return text[: min([len(text), *(at for stop in stops if (at := text.find(stop)) >= 0)])]


def _sampling(settings: Mapping[str, Any]) -> str | None:
    """What a task asks beyond greedy decoding, in words. A temperature beside `do_sample: false` has no effect."""
    drawn = settings.get("do_sample", (settings.get("temperature") or 0) > 0)
    if drawn:
        return "sampled answers"
    beams = int(settings.get("num_beams") or 1)
    return f"{beams} beams" if beams > 1 else None


def _listed(content: Any) -> Sequence[Mapping[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _part(part: Mapping[str, Any]) -> dict[str, str]:
    kind = part["type"]
    if kind == "text":
        return {"text": part["text"]}
    if kind == "image":
        return {"picture": _png(part["url"])}
    if (
        kind == "video"
        and isinstance(part["url"], str | Path)
        and not part.get("start_time")
        and not part.get("end_time")
    ):
        return {"film": str(Path(part["url"]).resolve())}
    raise QuestionError(f"a question holds a {kind} in a form that cannot be shown: {str(part)[:120]}")


def _png(picture: Any) -> str:
    """Base64 of the picture without loss; a file as it is."""
    if isinstance(picture, str | Path):
        return base64.b64encode(Path(picture).read_bytes()).decode("ascii")
    if not isinstance(picture, Image.Image):
        raise QuestionError(f"a picture is a {type(picture).__name__}")
    data = io.BytesIO()
    # CMYK and other modes have no PNG.
    (picture if picture.mode in ("1", "L", "LA", "P", "RGB", "RGBA") else picture.convert("RGB")).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode("ascii")


def lines(questions: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Questions in lines of bounded size, made as they are sent."""
    line: list[dict[str, Any]] = []
    size = 0
    for question in questions:
        weight = sum(len(part.get("picture", "")) for m in question["messages"] for part in m["parts"])
        if line and (len(line) == QUESTIONS_PER_LINE or size + weight > BYTES_PER_LINE):
            yield line
            line, size = [], 0
        line.append(question)
        size += weight
    if line:
        yield line
