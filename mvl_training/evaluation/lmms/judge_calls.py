"""What judge models reply while tasks of lmms-eval score questions, so that a failed call is never scored.

lmms-eval turns a judge that fails, or whose reply holds no verdict, into a number: 0 points, a tie, or -1 in a mean.
Here such a question is marked, and its benchmark gets no score.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

UNJUDGED = "mvl_unjudged"
"""Field of a question's sample that says why it has no verdict; samples with one have no such field."""

MAX_REASON_CHARS = 300


class JudgeCalls:
    """Notes the replies of judges, by the thread that scores a question.

    A task may ask several times until it gets a reply, so the last one of a question decides.
    """

    def __init__(self, verdict: str | None) -> None:
        """Set what a reply must hold.

        Args:
            verdict: Regular expression that the task finds its verdict by, from the beginning of the reply; None: any
                text will do.
        """
        self._verdict = None if verdict is None else re.compile(verdict)
        self._local = threading.local()

    def observe_call(self, call: Callable[..., Any], read_reply: Callable[[Any], str | None]) -> Callable[..., Any]:
        """Return the function of a judge's client, with its replies noted.

        Args:
            call: The function; an exception of it is a call without a reply.
            read_reply: Returns the text of what it returns.
        """

        @functools.wraps(call)
        def run_observed(*args: Any, **kwargs: Any) -> Any:
            try:
                response = call(*args, **kwargs)
            except Exception as error:
                self._record("", f"{type(error).__name__}: {error}")
                raise
            self._record(read_reply(response) or "", "the judge's reply is empty")
            return response

        return run_observed

    def check_verdicts(self, process_results: Callable[..., Mapping[str, Any]]) -> Callable[..., Mapping[str, Any]]:
        """Return a task's function that scores a question, which then marks a question without a verdict."""

        @functools.wraps(process_results)
        def process_checked(*args: Any, **kwargs: Any) -> Mapping[str, Any]:
            replies: list[tuple[str, str]] = []
            self._local.replies = replies
            try:
                metrics = process_results(*args, **kwargs)
            finally:
                self._local.replies = None
            reason = self._describe_failure(replies)
            return metrics if reason is None else {**metrics, UNJUDGED: reason[:MAX_REASON_CHARS]}

        return process_checked

    def _record(self, reply: str, failure: str) -> None:
        replies = getattr(self._local, "replies", None)
        if replies is not None:
            replies.append((reply.strip(), failure))

    def _describe_failure(self, replies: list[tuple[str, str]]) -> str | None:
        """Return why a question has no verdict; None if it has one, or if its task did not need a judge for it."""
        if not replies:
            return None
        reply, failure = replies[-1]
        if not reply:
            return failure
        if self._verdict is not None and self._verdict.search(reply) is None:
            return f"the judge's reply holds no verdict: {reply}"
        return None


def observe_judges(calls: JudgeCalls) -> None:
    """Note the replies of all clients of judges that lmms-eval 0.7.3 and its tasks use, in this process."""
    import requests
    from lmms_eval.llm_judge import providers
    from openai.resources.chat.completions import Completions

    named = [getattr(providers, name) for name in providers.__all__]
    for server_class in {base for provider in named for base in provider.__mro__ if "evaluate" in vars(base)}:
        server_class.evaluate = calls.observe_call(server_class.evaluate, _read_server_reply)
    completions: Any = Completions
    completions.create = calls.observe_call(completions.create, _read_completion)
    requests.post = calls.observe_call(requests.post, _read_http_reply)


def _read_server_reply(response: Any) -> str | None:
    return response.content if response.success else None


def _read_completion(response: Any) -> str | None:
    return response.choices[0].message.content if response.choices else None


def _read_http_reply(response: Any) -> str | None:
    """Return the text of a chat completion; None if there is none."""
    try:
        return str(response.json()["choices"][0]["message"]["content"]) if response.ok else None
    except (ValueError, KeyError, IndexError, TypeError):
        return None
