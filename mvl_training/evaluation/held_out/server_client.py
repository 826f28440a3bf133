"""Client of the server backend: held-out questions as chat requests to a checkpoint's own server."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence

from mvl_assets.errors import MvlError
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.local_server.server import ensure_server, start_server_in_background
from mvl_assets.inference.local_server.server_spec import ServerSpec
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.lake.lake import Lake
from mvl_assets.media.image import MAX_SIDE, build_blank_image
from mvl_training.evaluation.held_out.local_worker import ModelAnswer
from mvl_training.evaluation.held_out.questions import HeldOutQuestion
from mvl_training.runs.stage_run import Checkpoint

STAGE = "evaluation"

# Marks an image to be sent grey (an image id is 32 hex characters). It is part of request keys: do not change it.
BLANK_IMAGE_PREFIX = "grey-"

# The suite is small, and a machine that trains has little memory to spare.
MAX_NUM_SEQS = 16
IDLE_TIMEOUT_S = 120.0

# There is no prompt file: the question is asked as the row has it. Both are part of request keys.
PROMPT, PROMPT_HASH = "held_out", "as-asked"


class UnansweredQuestionsError(MvlError):
    """Some questions got no answer, so the scores would not be comparable."""


def build_request(question: HeldOutQuestion, model: ModelRef, *, max_new_tokens: int, blank_images: bool) -> Request:
    """Return a greedy chat request with the question's images in order, then its text."""
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
    """Return the answers of the checkpoint's server by question id; their losses are None.

    The server is started unless the lake has all answers of this checkpoint version.

    Raises:
        UnansweredQuestionsError: A question failed.
        MvlError: The server cannot be started.
    """
    requests_by_question = _build_requests(checkpoint, questions, max_new_tokens)
    answer_log = lake.get_answer_log(STAGE, checkpoint.stage)
    requests = list(requests_by_question.values())
    if n_pending := _count_pending(lake, checkpoint, requests):
        log(f"asking the server of {checkpoint.stage} {n_pending} requests")
        server = ensure_server(build_server_spec(checkpoint, questions, max_new_tokens=max_new_tokens))
        # The checkpoint sees images as large as in training.
        endpoint = dataclasses.replace(server, max_image_side=MAX_SIDE)
        outcome = answer_all(
            requests,
            endpoints=[endpoint],
            log=answer_log,
            fetch_images=lambda ids: fetch_images(lake, ids),
            run_id=run_id,
            total=len(requests),
        )
        if outcome.failures:
            first_failure = outcome.failures[0]
            raise UnansweredQuestionsError(
                f"{len(outcome.failures)} of {len(requests)} requests to {checkpoint.stage} failed, the first with"
                f" {first_failure.error}: {first_failure.message}",
                hint="`mvl serve status` shows the server and its log; a rerun asks only what is missing",
            )
    answers_by_key = answer_log.get((request.key for request in requests), ["text"])
    return {
        question.question_id: ModelAnswer(
            question.question_id,
            answer=answers_by_key[requests_by_question[question.question_id, False].key]["text"],
            blank_image_answer=answers_by_key[requests_by_question[question.question_id, True].key]["text"]
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
    """Start the checkpoint's server without waiting for it, unless all answers are known."""
    if _count_pending(lake, checkpoint, list(_build_requests(checkpoint, questions, max_new_tokens).values())):
        start_server_in_background(build_server_spec(checkpoint, questions, max_new_tokens=max_new_tokens))


def _build_requests(
    checkpoint: Checkpoint, questions: Sequence[HeldOutQuestion], max_new_tokens: int
) -> dict[tuple[str, bool], Request]:
    """Return requests by question id and whether the images are grey; without images there is one request."""
    model = ModelRef(name=f"mvl-{checkpoint.stage}", revision=checkpoint.version)
    return {
        (question.question_id, blank_images): build_request(
            question, model, max_new_tokens=max_new_tokens, blank_images=blank_images
        )
        for question in questions
        for blank_images in ((False, True) if question.image_ids else (False,))
    }


def _count_pending(lake: Lake, checkpoint: Checkpoint, requests: Sequence[Request]) -> int:
    """Count distinct requests without an answer; questions with the same content are one request."""
    request_keys = {request.key for request in requests}
    return len(request_keys - lake.get_answer_log(STAGE, checkpoint.stage).find_answered(request_keys))


def build_server_spec(
    checkpoint: Checkpoint, questions: Sequence[HeldOutQuestion], *, max_new_tokens: int
) -> ServerSpec:
    """Return a server with room for the longest training sequence, an answer, and the most images of a question."""
    max_images = max((len(question.image_ids) for question in questions), default=0)
    return ServerSpec(
        model=str(checkpoint.export_dir),
        served_model_name=f"mvl-{checkpoint.stage}",
        max_model_len=checkpoint.max_seq_len + max_new_tokens,
        max_num_seqs=MAX_NUM_SEQS,
        idle_timeout_s=IDLE_TIMEOUT_S,
        args=("--limit-mm-per-prompt", json.dumps({"image": max(1, max_images)})),
    )
