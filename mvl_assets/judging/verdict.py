"""Parser of stored Yes/No answers: the verdict and P(yes)."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

from mvl_assets.common.rejects import RejectError

YES, NO = "yes", "no"
BY_LOGPROBS, BY_VOTES = "logprobs", "votes"
"""Where P(yes) comes from."""

_FIRST_WORD = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


class VerdictError(RejectError):
    """An answer that is not a verdict."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Yes or No to one criterion.

    Attributes:
        criterion: Its name.
        request_key: The request that was answered.
        is_yes: The verdict.
        p_yes: The probability of Yes; None when the server gave log-probabilities of neither word.
        p_yes_from: `logprobs`, `votes`, or None where it is not known.
        vote_keys: The requests of the further votes that have a verdict.
    """

    criterion: str
    request_key: str
    is_yes: bool
    p_yes: float | None
    p_yes_from: str | None = None
    vote_keys: tuple[str, ...] = ()


def parse_verdict(
    criterion: str,
    request_key: str,
    text: str,
    finish_reason: str,
    logprobs: str | None,
    *,
    is_constrained: bool = True,
) -> Verdict:
    """Return the verdict of a finished answer, which is one of the two words.

    A constrained choice may come back with `length` when its one word filled the token limit; the word is whole then.

    Args:
        criterion: Name of the criterion.
        request_key: Key of the request that was answered.
        text: The answer.
        finish_reason: Why the model stopped.
        logprobs: JSON object of token to log-probability for the first generated token; None if the server gave none.
        is_constrained: Whether the server was told the options; else the first word counts ("**Yes.**", "No, the").

    Raises:
        VerdictError: The answer is another text, or is not finished.
    """
    word = text.strip()
    if not is_constrained and (first_word := _FIRST_WORD.match(word)):
        word = first_word[1]
    word = word.casefold()
    if word not in (YES, NO):
        raise VerdictError("no_verdict", f"{text[:80]!r} is neither Yes nor No")
    if finish_reason not in ("stop", "length"):
        raise VerdictError("not_finished", f"finish_reason {finish_reason!r}")
    p_yes = compute_p_yes(logprobs)
    return Verdict(criterion, request_key, word == YES, p_yes, None if p_yes is None else BY_LOGPROBS)


def compute_p_yes(logprobs: str | None) -> float | None:
    """Return p(Yes) / (p(Yes) + p(No)) at the first token, each word summed over its spellings ("Yes", " yes", "YES").

    A word that is not among the tokens counts as 0. Tokenizers mark a leading space as "Ġ" or "▁".

    Args:
        logprobs: JSON {token: log-probability}; None where the server gave none.
    """
    if logprobs is None:
        return None
    probability = {YES: 0.0, NO: 0.0}
    for token, logprob in json.loads(logprobs).items():
        word = token.strip(" \n\tĠ▁").casefold()
        # A server's arithmetic may have failed: NaN is not a probability, and a probability's logarithm is at most 0.
        if word in probability and logprob is not None and not math.isnan(logprob):
            probability[word] += math.exp(min(logprob, 0.0))
    total = probability[YES] + probability[NO]
    return probability[YES] / total if total > 0 else None
