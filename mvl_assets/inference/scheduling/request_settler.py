"""Settles requests: each is answered or fails, exactly once."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from mvl_assets.inference.client.attempt import PendingRequest
from mvl_assets.inference.client.chat_protocol import Reply
from mvl_assets.inference.progress import FailedRequest, RequestOutcome
from mvl_assets.inference.scheduling.answer_writer import AnswerWriter
from mvl_assets.inference.scheduling.request_queue import RequestQueue
from mvl_assets.inference.scheduling.run_context import RunContext
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.schemas.rows import Answer


class RequestSettler:
    """Settles the requests of one run; answers count once they are durable."""

    def __init__(self, run: RunContext, queue: RequestQueue, log: AnswerLog, run_id: str) -> None:
        self._run = run
        self._queue = queue
        self._log = log
        self._run_id = run_id
        self.writer = AnswerWriter(
            log.append, self._on_durable, run.options.flush_answers, run.options.flush_interval_s
        )

    def answer(self, pending: PendingRequest, reply: Reply, latency_s: float) -> None:
        """Settle a request with its reply, and hand the answer to the writer."""
        request = pending.request
        self._run.outcome.prompt_tokens += reply.prompt_tokens
        self._run.outcome.completion_tokens += reply.completion_tokens
        self._settle(pending, RequestOutcome.ANSWERED)
        self.writer.add(
            Answer(
                request_key=request.key,
                source=self._log.source,
                stage=self._log.stage,
                model=request.model.name,
                model_revision=request.model.revision,
                prompt=request.prompt_name,
                prompt_hash=request.prompt_hash,
                text=reply.text,
                finish_reason=reply.finish_reason,
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
                first_token_logprobs=reply.first_token_logprobs,
                latency_s=latency_s,
                attempts=pending.attempts_sent,
                run_id=self._run_id,
                created_at=dt.datetime.now(dt.UTC),
                reasoning=reply.reasoning,
                output_form=reply.output_form,
            )
        )

    def fail(self, pending: PendingRequest, error: str, message: str) -> None:
        """Settle a request that gets no answer in this run."""
        request_key = pending.request.key
        self._run.outcome.failures.append(FailedRequest(request_key, error, message, pending.attempts_sent))
        self._queue.mark_failed(request_key)
        self._settle(pending, RequestOutcome.FAILED)

    def finish_if_done(self) -> None:
        """Finish the run once every request has been read and settled."""
        if self._queue.all_read and not self._queue.n_open:
            self._run.tasks.finish()

    def _settle(self, pending: PendingRequest, outcome: RequestOutcome) -> None:
        pending.outcome = outcome
        for attempt in pending.attempts:
            if attempt.task is not None:
                attempt.task.cancel()
        self._queue.mark_settled(pending)
        self.finish_if_done()

    def _on_durable(self, answers: Sequence[Answer]) -> None:
        self._run.outcome.answered += len(answers)
        self._queue.mark_durable(answer.request_key for answer in answers)
