"""The intermediate row of all exports: messages, images, ids, and what is known of how the row came to be.

Formats differ in how they write this, and in nothing else. A user message has a marker `<image>` for each image, in
the order of `images`, and nowhere else is there one: a video is its sampled frames, a marker that is missing stands
before the first question, and the word itself, in a text about it, gets a space (`< image>`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvl_assets.common.markers import IMAGE_MARKER, VIDEO_MARKER
from mvl_assets.lake.errors import LakeError

ROLE_BY_SPEAKER = {"human": "user", "gpt": "assistant", "system": "system"}

PROVENANCE_COLUMNS = (
    "source",
    "category",
    "kind",
    "modality",
    "license",
    "sample_id",
    "rewrite_id",
    "native_id",
    "file",
    "upstream_dataset",
    "task_type",
    "prompt",
    "prompt_hash",
    "model",
    "model_revision",
    "blind",
    "judge_model",
    "p_yes",
    "all_yes",
    "matches_reference",
    "content_score",
    "relevance_score",
    "scores",
)
"""What every exported row says about itself. Null where it was not rewritten or judged; `scores` is a JSON object of
what others gave it (`scores/<name>`), by name."""

_OTHER_PLACEHOLDER = re.compile(r"<(?=(?:video|audio)>)")


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image of a row, and where its bytes are in the lake."""

    image_id: str
    address: int
    size: int
    format: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ExportRow:
    """One training row.

    Attributes:
        row_id: Id of the row in its mixture: `mvl trace` finds it.
        messages: `{"role": "user" | "assistant" | "system", "content": text}`.
        images: The images, in the order of their markers.
        provenance: The columns of `PROVENANCE_COLUMNS`.
        joined: The joined row that it was built from, with the original's text and the verdicts.
    """

    row_id: str
    messages: list[dict[str, str]]
    images: list[ImageRef]
    provenance: dict[str, Any]
    joined: Mapping[str, Any]

    @property
    def image_ids(self) -> list[str]:
        return [image.image_id for image in self.images]


def build_export_row(row: Mapping[str, Any], image_by_id: Mapping[str, ImageRef]) -> ExportRow:
    """Return a joined row, as `read_located_rows` returns it with provenance.

    Raises:
        LakeError: An image of the row is not in the lake.
    """
    missing_ids = [image_id for image_id in row["image_ids"] if image_id not in image_by_id]
    if missing_ids:
        raise LakeError(
            f"row {row['row_id']}: image {missing_ids[0]} is not in the lake",
            hint="ingest its source again, or materialise the mixture again",
        )
    images = [image_by_id[image_id] for image_id in row["image_ids"]]
    messages = build_messages(row["conversations"], len(images), is_video=row["video"] is not None)
    return ExportRow(row["row_id"], messages, images, {name: row[name] for name in PROVENANCE_COLUMNS}, row)


def build_messages(turns: Sequence[Mapping[str, str]], n_images: int, *, is_video: bool) -> list[dict[str, str]]:
    """Return turns as messages with exactly `n_images` markers, all in questions."""
    messages = [{"role": ROLE_BY_SPEAKER[turn["from"]], "content": turn["value"] or ""} for turn in turns]
    questions = [message for message in messages if message["role"] == "user"]
    if is_video:
        marked = next((message for message in questions if VIDEO_MARKER in message["content"]), None)
        if marked is not None:  # elsewhere it is a word: an answer may be about the tag
            marked["content"] = marked["content"].replace(VIDEO_MARKER, IMAGE_MARKER * n_images, 1)
    n_missing = n_images
    for message in messages:
        parts = message["content"].split(IMAGE_MARKER)
        n_kept = min(len(parts) - 1, n_missing) if message["role"] == "user" else 0
        n_missing -= n_kept
        message["content"] = IMAGE_MARKER.join([*parts[:n_kept], escape_marker(IMAGE_MARKER).join(parts[n_kept:])])
    if n_missing and questions:
        questions[0]["content"] = f"{IMAGE_MARKER}\n" * n_missing + questions[0]["content"]
    return messages


def escape_marker(marker: str) -> str:
    """Return a marker as a word that no trainer takes for one."""
    return f"< {marker[1:]}"


def escape_other_placeholders(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return messages without `<video>` and `<audio>`, for trainers that count these in all texts."""
    return [{**message, "content": _OTHER_PLACEHOLDER.sub("< ", message["content"])} for message in messages]


def split_content(content: str) -> list[dict[str, str | None]]:
    """Return a text with markers as typed parts: `{"type": "image"}` and `{"type": "text", "text": ...}`, in order."""
    parts: list[dict[str, str | None]] = []
    for number, text in enumerate(content.split(IMAGE_MARKER)):
        if number:
            parts.append({"type": "image", "text": None})
        if text.strip():
            parts.append({"type": "text", "text": text.strip("\n")})
    return parts


def strip_image_markers(content: str) -> str:
    """Return a text without markers and the blank lines that they leave around it."""
    return content.replace(f"{IMAGE_MARKER}\n", "").replace(IMAGE_MARKER, "").strip("\n")
