"""One answer out of those that several people gave to a question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from mvl_assets.common.rejects import RejectError

# What people were told to write when there is no answer: VizWiz (vizwiz.org/tasks-and-datasets/vqa) and TextVQA
# (textvqa.org/dataset).
_UNANSWERABLE_ANSWERS = frozenset(
    {"unanswerable", "unsuitable", "unsuitable image", "answering does not require reading text in the image"}
)


def select_majority_answer(answers: object) -> str:
    """Return the answer given most often; of those given equally often, the one that came first.

    Args:
        answers: A list of texts or of `{"answer": text}`. Blank ones do not count.

    Raises:
        RejectError: `bad_answers` for anything else, `no_answer` when none is left, `unanswerable` when most say so.
    """
    if not isinstance(answers, list):
        raise RejectError("bad_answers", f"the answers are a {type(answers).__name__}")
    answer_counts = Counter(text for answer in answers if (text := _get_answer_text(answer)))
    if not answer_counts:
        raise RejectError("no_answer", "no person gave an answer")
    return require_answerable(max(answer_counts, key=answer_counts.__getitem__))


def require_answerable(answer: str) -> str:
    """Return the answer itself. Raises `RejectError("unanswerable")` when it only says that there is none."""
    if answer.strip().casefold() in _UNANSWERABLE_ANSWERS:
        raise RejectError("unanswerable", f"most people say: {answer.strip()}")
    return answer


def _get_answer_text(answer: object) -> str:
    text = answer.get("answer") if isinstance(answer, Mapping) else answer
    if not isinstance(text, str):
        raise RejectError("bad_answers", f"one of the answers is a {type(text).__name__}")
    return text.strip()
