"""The rows that other packages hand over to the lake."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from mvl_assets.common.image_properties import ImageProperties


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image with its original bytes; `image_id` is the digest of `data`. Sides are pixels, EXIF-rotated."""

    image_id: str
    data: bytes
    format: str
    width: int
    height: int
    n_frames: int
    mode: str
    phash: str | None
    pdq: str | None = None
    pdq_quality: int | None = None
    trimmed_pdq: str | None = None
    sharpness: float | None = None

    @property
    def properties(self) -> ImageProperties:
        """The properties without the bytes."""
        return ImageProperties(
            len(self.data),
            self.format,
            self.width,
            self.height,
            self.n_frames,
            self.mode,
            self.phash,
            self.pdq,
            self.pdq_quality,
            self.trimmed_pdq,
            self.sharpness,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """The raw answer to one request, which was paid for; everything else is derived from it.

    Attributes:
        request_key: `Request.key`.
        source: Slug of the source.
        stage: Pipeline stage that asked.
        text: The answer as it arrived, without the thoughts before it.
        first_token_logprobs: JSON {token: log-probability} of the first generated token, for constrained choices.
        latency_s: Seconds from the last attempt to the answer.
        attempts: How often the request was sent.
        reasoning: The thoughts before the answer, of a model that shows them.
        output_form: The form in which the answer was constrained: `vllm`, `openai` or `none`.
    """

    request_key: str
    source: str
    stage: str
    model: str
    model_revision: str
    prompt: str
    prompt_hash: str
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    first_token_logprobs: str | None
    latency_s: float
    attempts: int
    run_id: str
    created_at: dt.datetime
    reasoning: str | None = None
    output_form: str | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """One row that did not get through a pipeline stage.

    Attributes:
        stage: Pipeline stage that rejected it.
        source: Slug of its source.
        row_key: Id of the row: of a sample, rewrite or mixture row, or its place in the raw files.
        error: Class of the error in snake_case.
        message: What is wrong, in one line.
        file: Raw file, if the row was rejected while reading.
        position: Row in that file, or without a file the dialogue of an answer, from 0.
        attempts: How often it was tried.
        request_key: The request whose answer was rejected, if any.
    """

    stage: str
    source: str
    row_key: str
    error: str
    message: str
    file: str | None = None
    position: int | None = None
    attempts: int = 1
    request_key: str | None = None
