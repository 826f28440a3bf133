"""Asks a checkpoint through an OpenAI-compatible server, as any user of it would.

Belongs here: questions as chat requests, and the settings of the server that holds the checkpoint. Does not: sending,
retrying, starting the server (`mvl_assets.inference`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence

from mvl_assets.errors import MvlError
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.local_server.server import ensure_server, start_in_background
from mvl_assets.inference.local_server.server_spec import ServeSpec
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.lake.lake import Lake
from mvl_assets.media.image import LONGEST, blank_like
from mvl_training.evaluation.held_out.local_worker import Asked
from mvl_training.evaluation.held_out.questions import Question
from mvl_training.runs.stage_run import Checkpoint

STAGE = "evaluation"

# Marks a picture that is to be sent grey; an image id is 32 hex characters.
GREY = "grey-"

# A suite is small, and the machine that trained has little memory to spare.
SEQUENCES = 16
IDLE_SECONDS = 120.0

# No prompt file: the question is asked as the row has it.
PROMPT, PROMPT_HASH = "held_out", "as-asked"


class NotAnswered(MvlError):
    """Some questions got no answer, so the scores would not be comparable."""


def request_of(question: Question, model: ModelRef, *, max_new_tokens: int, grey: bool) -> Request:
    """The question as a chat message: its pictures in order, then its words. Greedy."""
    prefix = GREY if grey else ""
    parts: list[Mapping[str, str]] = [{"type": "image", "image": prefix + i} for i in question.image_ids]
    parts.append({"type": "text", "text": question.text})
    return Request(
        messages=({"role": "user", "content": parts},),
        model=model,
        sampling={"temperature": 0.0, "max_tokens": max_new_tokens},
        prompt=PROMPT,
        prompt_hash=PROMPT_HASH,
    )


def fetch_pictures(lake: Lake, ids: Sequence[str]) -> dict[str, bytes]:
    """Bytes by id; an id marked `GREY` gets a blank picture of the size of the one it stands for."""
    stored = lake.images.fetch({i.removeprefix(GREY) for i in ids})
    return {i: blank_like(stored[i.removeprefix(GREY)]) if i.startswith(GREY) else stored[i] for i in ids}


def ask(
    lake: Lake,
    checkpoint: Checkpoint,
    questions: Sequence[Question],
    *,
    max_new_tokens: int,
    run_id: str,
    log: Callable[[str], None],
) -> dict[str, Asked]:
    """What the checkpoint's server answers, by question id (losses are None). Starts the server unless all is known.

    Answers are paid for once per checkpoint version: they stay in the lake's answers, and a rerun only reads them.
    Raises `NotAnswered` when a question failed, and what starting a server raises.
    """
    asked = _requests(checkpoint, questions, max_new_tokens)
    answers = lake.answers(STAGE, checkpoint.stage)
    requests = list(asked.values())
    if pending := _pending(lake, checkpoint, requests):
        log(f"asking the server of {checkpoint.stage} {pending} requests")
        server = ensure_server(serve_spec(checkpoint, questions, max_new_tokens=max_new_tokens))
        # The checkpoint sees all of a picture that training saw.
        endpoint = dataclasses.replace(server, max_side=LONGEST)
        outcome = answer_all(
            requests,
            endpoints=[endpoint],
            log=answers,
            pictures=lambda ids: fetch_pictures(lake, ids),
            run_id=run_id,
            total=len(requests),
        )
        if outcome.failures:
            first = outcome.failures[0]
            raise NotAnswered(
                f"{len(outcome.failures)} of {len(requests)} requests to {checkpoint.stage} failed, the first with"
                f" {first.error}: {first.message}",
                hint="`mvl serve status` shows the server and its log; a rerun asks only what is missing",
            )
    said = answers.get((request.key for request in requests), ["text"])
    return {
        question.question_id: Asked(
            question.question_id,
            answer=said[asked[question.question_id, False].key]["text"],
            blank_answer=said[asked[question.question_id, True].key]["text"] if question.image_ids else None,
            loss=None,
            blank_loss=None,
        )
        for question in questions
    }


def start(lake: Lake, checkpoint: Checkpoint, questions: Sequence[Question], *, max_new_tokens: int) -> None:
    """Starts the checkpoint's server without waiting for it, unless all answers are known."""
    if _pending(lake, checkpoint, list(_requests(checkpoint, questions, max_new_tokens).values())):
        start_in_background(serve_spec(checkpoint, questions, max_new_tokens=max_new_tokens))


def _requests(
    checkpoint: Checkpoint, questions: Sequence[Question], max_new_tokens: int
) -> dict[tuple[str, bool], Request]:
    """By question id, and whether the pictures are grey (only where there are pictures)."""
    model = ModelRef(name=f"mvl-{checkpoint.stage}", revision=checkpoint.version)
    return {
        (question.question_id, grey): request_of(question, model, max_new_tokens=max_new_tokens, grey=grey)
        for question in questions
        for grey in ((False, True) if question.image_ids else (False,))
    }


def _pending(lake: Lake, checkpoint: Checkpoint, requests: Sequence[Request]) -> int:
    """How many different requests have no answer yet; questions with the same words are one request."""
    wanted = {request.key for request in requests}
    return len(wanted - lake.answers(STAGE, checkpoint.stage).answered(wanted))


def serve_spec(checkpoint: Checkpoint, questions: Sequence[Question], *, max_new_tokens: int) -> ServeSpec:
    """A checkpoint's server, with room for its longest training sequence, an answer, and the most pictures asked."""
    pictures = max((len(question.image_ids) for question in questions), default=0)
    return ServeSpec(
        model=str(checkpoint.export),
        served_name=f"mvl-{checkpoint.stage}",
        max_model_len=checkpoint.length + max_new_tokens,
        max_num_seqs=SEQUENCES,
        idle_seconds=IDLE_SECONDS,
        args=("--limit-mm-per-prompt", json.dumps({"image": max(1, pictures)})),
    )
