"""Questions in the form of the pipe to `benchmarks.lmms_worker`, built from what a task of lmms-eval asks.

Plain data, without an import of lmms-eval.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

DEFAULT_MAX_NEW_TOKENS = 1024
"""Default limit, enough for a reasoned answer; the paper's chain-of-thought tasks have the same."""

PREVIEW_FILE = "preview.json"
"""In a benchmark's folder: its first questions, each as `task`, `doc_id` and the fields of `summarize_question`."""

# Most questions, and about the most bytes of images, in one line of the pipe; they are answered together.
MAX_QUESTIONS_PER_LINE = 64
MAX_BYTES_PER_LINE = 64 << 20


class LmmsError(Exception):
    """An error for the user; the project's environment shows it as an `MvlError`.

    Attributes:
        message: One line.
        hint: What to do about it.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message, self.hint = message, hint
        super().__init__(message if hint is None else f"{message} | {hint}")


class QuestionError(LmmsError):
    """A question cannot be asked as the task requires."""


def build_benchmark_question(
    task: str,
    messages: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    *,
    max_new_tokens: int | None,
    system_prompt: str | None = None,
) -> dict[str, Any]:
    """Return a question in the form that `benchmarks.lmms_worker` reads.

    Args:
        task: Name of the task, for error messages.
        messages: The conversation as lmms-eval's `doc_to_messages` gives it.
        settings: The task's generation settings.
        max_new_tokens: Replaces the task's own limit unless None.
        system_prompt: Text of a system message before the task's own messages; None adds none.

    Raises:
        QuestionError: The task requires sampled answers, or has media that cannot be shown. An altered question must
            not be scored.
    """
    if unsupported_sampling := _describe_sampling(settings):
        raise QuestionError(f"{task} requires {unsupported_sampling}, but answers here are greedy, as in the paper")
    own_messages = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    return {
        "messages": [
            {"role": m["role"], "parts": [_convert_part(p) for p in _to_parts(m["content"])]}
            for m in (*own_messages, *messages)
        ],
        "max_new_tokens": max_new_tokens or int(settings.get("max_new_tokens") or DEFAULT_MAX_NEW_TOKENS),
    }


def summarize_question(question: Mapping[str, Any]) -> dict[str, Any]:
    """Return the text of a question, its first image (base64) if it has one, and how many images and videos it has."""
    parts = [part for message in question["messages"] for part in message["parts"]]
    images = [part["image"] for part in parts if "image" in part]
    return {
        "text": "\n".join(part["text"] for part in parts if "text" in part),
        "image": images[0] if images else None,
        "n_images": len(images),
        "n_videos": sum("video" in part for part in parts),
    }


def resolve_stop_sequences(settings: Mapping[str, Any], fewshot_delimiter: str | None) -> list[str]:
    """Return the texts at which the task truncates the answer.

    For a task without any, lmms-eval fills in `fewshot_delimiter` (an empty line), which would end a reasoned answer
    after its first paragraph. It is left out, because the task does not ask for it.
    """
    until = settings.get("until") or []
    stop_sequences = [until] if isinstance(until, str) else list(until)
    return [] if stop_sequences == [fewshot_delimiter] else [stop for stop in stop_sequences if stop]


def truncate_at_stop(text: str, stop_sequences: Sequence[str]) -> str:
    """Return the text before the first stop sequence in it."""
    return text[: min([len(text), *(position for stop in stop_sequences if (position := text.find(stop)) >= 0)])]


def _describe_sampling(settings: Mapping[str, Any]) -> str | None:
    """Describe decoding other than greedy; a temperature together with `do_sample: false` has no effect."""
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
        return {"image": _encode_png(part["url"])}
    if (
        kind == "video"
        and isinstance(part["url"], str | Path)
        and not part.get("start_time")
        and not part.get("end_time")
    ):
        return {"video": str(Path(part["url"]).resolve())}
    raise QuestionError(f"a question holds a {kind} in a form that cannot be shown: {str(part)[:120]}")


def _encode_png(image: Any) -> str:
    """Return base64 of the image, without loss; a file is sent as it is."""
    if isinstance(image, str | Path):
        return base64.b64encode(Path(image).read_bytes()).decode("ascii")
    if not isinstance(image, Image.Image):
        raise QuestionError(f"an image is a {type(image).__name__}")
    buffer = io.BytesIO()
    # CMYK and other modes have no PNG.
    (image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA") else image.convert("RGB")).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def iter_question_batches(questions: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield questions in batches of bounded size, one batch per line of the pipe, as they are needed."""
    batch: list[dict[str, Any]] = []
    batch_bytes = 0
    for question in questions:
        n_bytes = sum(len(part.get("image", "")) for m in question["messages"] for part in m["parts"])
        if batch and (len(batch) == MAX_QUESTIONS_PER_LINE or batch_bytes + n_bytes > MAX_BYTES_PER_LINE):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(question)
        batch_bytes += n_bytes
    if batch:
        yield batch
