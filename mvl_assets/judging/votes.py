"""P(yes) by votes, where a server gives no log-probabilities: the share of Yes among several answers.

The first vote is the judge's answer itself; the others are the same request at a temperature, each with a seed of its
own and so with a key of its own, under which its answer is stored like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mvl_assets.config.profile import ModelProfile
from mvl_assets.inference.request import Request
from mvl_assets.judging.verdict import BY_VOTES, Verdict
from mvl_assets.model_stage.reask import ReaskChain, Resolution
from mvl_assets.model_stage.stage import NO_FOLLOW_UPS, FollowUpForecast

# Far from the seeds of re-asks, which count from 2.
FIRST_SEED = 1001


def build_vote_chains(requests: Sequence[Request], n_votes: int, temperature: float) -> list[ReaskChain]:
    """Return the further votes on all criteria: of each vote one chain per criterion, in the order of `requests`.

    Args:
        requests: The first requests, one per criterion.
        n_votes: How many votes there are, the first included.
        temperature: The temperature of the others.
    """
    return [
        ReaskChain(
            replace(request, sampling={**request.sampling, "temperature": temperature, "seed": FIRST_SEED + number})
        )
        for number in range(n_votes - 1)
        for request in requests
    ]


def forecast_votes(judge: ModelProfile, n_votes: int) -> FollowUpForecast:
    """Return how many further votes follow a judge's answer: all or none, where the profile tells.

    A model that thinks gives no log-probabilities of its verdict. Whether a remote server gives any is found out when
    it is asked; until then votes are a possibility.
    """
    most = float(n_votes - 1)
    if judge.thinking_tokens or judge.logprobs is False:
        return FollowUpForecast(most, most)
    if judge.logprobs or judge.serve is not None or judge.output_form == "vllm":
        return NO_FOLLOW_UPS
    return FollowUpForecast(0.0, most)


def count_votes(first: Verdict, others: Sequence[Resolution[Verdict]]) -> Verdict:
    """Return the verdict of all votes on a criterion: Yes where more than half say so.

    A vote without a verdict counts as No, so that a pair is never kept because an answer is missing.
    """
    n_yes = first.is_yes + sum(other.parsed is not None and other.parsed.is_yes for other in others)
    p_yes = n_yes / (1 + len(others))
    vote_keys = tuple(other.request_key for other in others if other.parsed is not None)
    return replace(first, is_yes=p_yes > 0.5, p_yes=p_yes, p_yes_from=BY_VOTES, vote_keys=vote_keys)
