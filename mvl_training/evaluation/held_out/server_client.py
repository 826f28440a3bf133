"""Client of the server backend: held-out questions as chat requests to a checkpoint's own server."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence

from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.local_server.server import ensure_server, start_server_in_background
from mvl_assets.inference.local_server.server_spec import ServerSpec
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.lake.lake import Lake
from mvl_assets.media.image import MAX_SIDE, build_blank_image
from mvl_assets.model_stage.loop import answer_requests, count_pending_requests
from mvl_assets.model_stage.stage import ServedModel
from mvl_assets.stages import EVALUATION
from mvl_training.evaluation.held_out.local_worker import ModelAnswer
from mvl_training.evaluation.held_out.questions import HeldOutQuestion
from mvl_training.runs.training_run import Checkpoint

# Marks an image to be sent grey (an image id is 32 hex characters). It is part of request keys: do not change it.
BLANK_IMAGE_PREFIX = "grey-"

# The suite is small, and a machine that trains has little memory to spare.
MAX_NUM_SEQS = 16
IDLE_TIMEOUT_S = 120.0

# No prompt file: the question is asked as it is in the row. Both are part of request keys.
PROMPT, PROMPT_HASH = "held_out", "as-asked"


class UnansweredQuestionsError(MvlError):
    """Some questions got no answer, so the scores would not be comparable."""


def build_request(question: HeldOutQuestion, model: ModelRef, *, max_new_tokens: int, blank_images: bool) -> Request:
    """Return a greedy chat request with the question's images in order, then its text.

    Args:
        question: The question.
        model: The checkpoint's identity.
        max_new_tokens: Longest answer, in tokens.
        blank_images: Whether each image is replaced by a grey one of its size.
    """
    prefix = BLANK_IMAGE_PREFIX if blank_images else ""
    parts: list[Mapping[str, str]] = [{"type": "image", "image": prefix + i} for i in question.image_ids]
    parts.append({"type": "text", "text": question.text})
    return Request(
        messages=({"role": "user", "content": parts},),
        model=model,
        sampling={"temperature": 0.0, "max_tokens": max_new_tokens},
        prompt_name=PROMPT,
        prompt_hash=PROMPT_HASH,
    )


def fetch_images(lake: Lake, image_ids: Sequence[str]) -> dict[str, bytes]:
    """Return image bytes by id; an id with `BLANK_IMAGE_PREFIX` gets a grey image of the same size."""
    stored_images = lake.images.read_images({image_id.removeprefix(BLANK_IMAGE_PREFIX) for image_id in image_ids})
    return {
        i: build_blank_image(stored_images[i.removeprefix(BLANK_IMAGE_PREFIX)])
        if i.startswith(BLANK_IMAGE_PREFIX)
        else stored_images[i]
        for i in image_ids
    }


def request_answers(
    lake: Lake,
    checkpoint: Checkpoint,
    questions: Sequence[HeldOutQuestion],
    *,
    max_new_tokens: int,
    run_id: str,
    log: Callable[[str], None],
) -> dict[str, ModelAnswer]:
    """Return the answers of the checkpoint's server by question id (losses are None).

    Answers are stored per checkpoint version: a rerun reads them, and starts a server only if some are missing.

    Args:
        lake: The lake.
        checkpoint: What is asked.
        questions: The questions.
        max_new_tokens: Longest answer, in tokens.
        run_id: Stored with every answer.
        log: Takes one line per step.

    Raises:
        UnansweredQuestionsError: A question failed.
        MvlError: The server cannot be started.
    """
    requests_by_question = _build_requests(checkpoint, questions, max_new_tokens)
    requests = list(requests_by_question.values())

    def get_endpoints() -> list[Endpoint]:
        n_pending = count_pending_requests(lake, EVALUATION.name, checkpoint.stage, requests)
        log(f"asking the server of {checkpoint.stage} {n_pending} requests")
        server = ensure_server(build_server_spec(checkpoint, questions, max_new_tokens=max_new_tokens))
        # Images have the resolution that they had in training.
        return [dataclasses.replace(server, max_image_side=MAX_SIDE)]

    texts, failures = answer_requests(
        lake,
        EVALUATION.name,
        checkpoint.stage,
        ServedModel(_build_model_ref(checkpoint), get_endpoints),
        requests,
        run_id=run_id,
        fetch_images=lambda ids: fetch_images(lake, ids),
    )
    if failures:
        raise UnansweredQuestionsError(
            f"{len(failures)} of {len(requests)} requests to {checkpoint.stage} failed, the first with"
            f" {failures[0].error}: {failures[0].message}",
            hint="`mvl serve status` shows the server and its log; a rerun asks only what is missing",
        )
    return {
        question.question_id: ModelAnswer(
            question.question_id,
            answer=texts[requests_by_question[question.question_id, False].key],
            blank_image_answer=texts[requests_by_question[question.question_id, True].key]
            if question.image_ids
            else None,
            loss=None,
            blank_image_loss=None,
        )
        for question in questions
    }


def start_server(
    lake: Lake, checkpoint: Checkpoint, questions: Sequence[HeldOutQuestion], *, max_new_tokens: int
) -> None:
    """Start the checkpoint's server without waiting for it, unless all answers are stored.

    Args:
        lake: The lake.
        checkpoint: What is served.
        questions: What will be asked.
        max_new_tokens: Longest answer, in tokens.
    """
    requests = list(_build_requests(checkpoint, questions, max_new_tokens).values())
    if count_pending_requests(lake, EVALUATION.name, checkpoint.stage, requests):
        start_server_in_background(build_server_spec(checkpoint, questions, max_new_tokens=max_new_tokens))


def _build_requests(
    checkpoint: Checkpoint, questions: Sequence[HeldOutQuestion], max_new_tokens: int
) -> dict[tuple[str, bool], Request]:
    """Return requests by (question id, blank images or not); a question without images has one request."""
    model = _build_model_ref(checkpoint)
    return {
        (question.question_id, blank_images): build_request(
            question, model, max_new_tokens=max_new_tokens, blank_images=blank_images
        )
        for question in questions
        for blank_images in ((False, True) if question.image_ids else (False,))
    }


def _build_model_ref(checkpoint: Checkpoint) -> ModelRef:
    return ModelRef(name=f"mvl-{checkpoint.stage}", revision=checkpoint.version)


def build_server_spec(
    checkpoint: Checkpoint, questions: Sequence[HeldOutQuestion], *, max_new_tokens: int
) -> ServerSpec:
    """Return a server spec that fits the longest training sequence, an answer, and the most images of a question."""
    max_images = max((len(question.image_ids) for question in questions), default=0)
    return ServerSpec(
        model=str(checkpoint.export_dir),
        served_model_name=f"mvl-{checkpoint.stage}",
        max_model_len=checkpoint.max_seq_len + max_new_tokens,
        max_num_seqs=MAX_NUM_SEQS,
        idle_timeout_s=IDLE_TIMEOUT_S,
        args=("--limit-mm-per-prompt", json.dumps({"image": max(1, max_images)})),
    )
