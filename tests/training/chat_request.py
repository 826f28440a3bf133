"""A question to a served checkpoint."""

from __future__ import annotations

import base64
import io
import json
import urllib.request
from typing import Any

from mvl_assets.media.image import standardise_image
from tests.patience import PATIENCE_S


def asked(base_url: str, pictures: list[bytes], question: str) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    for data in pictures:
        buffer = io.BytesIO()
        standardise_image(data).save(buffer, "PNG")
        url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return _ask(base_url, parts, question)


def asked_about_video(base_url: str, frames: list[bytes], question: str) -> dict[str, Any]:
    """vLLM reads a list of frames under the type of a JPEG sequence, whatever format each of them has."""
    url = "data:video/jpeg;base64," + ",".join(base64.b64encode(frame).decode() for frame in frames)
    return _ask(base_url, [{"type": "video_url", "video_url": {"url": url}}], question)


def _ask(base_url: str, parts: list[dict[str, Any]], question: str) -> dict[str, Any]:
    parts = [*parts, {"type": "text", "text": question}]
    message = {"model": "student", "messages": [{"role": "user", "content": parts}], "temperature": 0, "max_tokens": 8}
    request = urllib.request.Request(
        f"{base_url}/chat/completions", json.dumps(message).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        return dict(json.load(response))
