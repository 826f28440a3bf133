"""Asks the judges of a profile about the contrast pairs. Answers are stored in the lake like any others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import Prompt, get_judge_prompts, list_expected_tokens, load_prompts
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.judging.judge_requests import build_judge_requests, parse_judge_answer
from mvl_assets.judging.panel import combine_verdicts
from mvl_assets.judging.probes.contrast_pairs import ContrastPair, ProbeQAPair
from mvl_assets.judging.probes.score import JudgeResponse, PairResult
from mvl_assets.judging.verdict import Verdict
from mvl_assets.judging.votes import build_vote_chains, count_votes, forecast_votes
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.dialogue import QAPair
from mvl_assets.model_stage.loop import StageRun
from mvl_assets.model_stage.reask import ReaskChain, Resolution
from mvl_assets.model_stage.stage import FollowUpForecast, ModelStage, RowRequests, ServedModel
from mvl_assets.stages import PROBE_ANSWERS

PANEL = "panel"
"""In the place of a judge's name: what the panel decides."""


def run_probes(
    lake: Lake,
    profile: Profile,
    pairs: Sequence[ContrastPair],
    *,
    run_id: str,
    prompts: Mapping[str, Prompt] | None = None,
    endpoints: Sequence[Sequence[Endpoint] | None] = (),
) -> dict[str, list[PairResult]]:
    """Ask every judge of the profile about each pair, with the prompts of its family and as the profile says.

    Args:
        lake: The lake.
        profile: Names the judges.
        pairs: The pairs.
        run_id: The run that answers are marked with.
        prompts: The prompts by name; None takes those of the profile.
        endpoints: Per judge, endpoints instead of the profile's.

    Returns:
        The results by the judge's name in the profile; with a panel, also what it decides.
    """
    prompts = load_prompts(profile=profile) if prompts is None else prompts
    verdicts_by_judge: dict[str, list[list[Verdict] | None]] = {}
    for name, judge_endpoints in zip_longest(profile.judges, endpoints[: len(profile.judges)]):
        stage = ProbeStage(profile, name, pairs, prompts, judge_endpoints)
        verdicts_by_judge[name] = _request_verdicts(lake, stage, run_id)
        if profile.n_votes > 1 and any(map(_needs_votes, verdicts_by_judge[name])):
            stage.first_verdicts = verdicts_by_judge[name]
            verdicts_by_judge[name] = _request_verdicts(lake, stage, run_id)
    if len(verdicts_by_judge) > 1:
        verdicts_by_judge[PANEL] = [
            None if verdicts[0] is None else combine_verdicts(verdicts, profile.judging.panel_rule)
            for verdicts in zip(*verdicts_by_judge.values(), strict=True)
        ]
    return {name: _join_halves(pairs, verdicts) for name, verdicts in verdicts_by_judge.items()}


class ProbeStage(ModelStage[int, Verdict]):
    """The criteria of its family, asked about the good and the bad pair of every contrast pair, in turn.

    Args:
        profile: Names the judges.
        judge: Which of them is asked, by its name in the profile.
        pairs: The contrast pairs.
        prompts: The prompts by name.
        endpoints: Endpoints instead of the profile's.

    Attributes:
        first_verdicts: The verdicts on all pairs, when those that lack a P(yes) are to be voted on.
    """

    name = PROBE_ANSWERS
    # The second part of the answers' path, which every stage needs; all probes share it.
    source = "judge"

    def __init__(
        self,
        profile: Profile,
        judge: str,
        pairs: Sequence[ContrastPair],
        prompts: Mapping[str, Prompt],
        endpoints: Sequence[Endpoint] | None = None,
    ) -> None:
        self.models = [ServedModel.from_profile(profile.judges[judge], endpoints)]
        self.first_verdicts: Sequence[list[Verdict] | None] | None = None
        self._profile = profile
        self._judge = profile.judges[judge]
        self._criteria = {
            family: get_judge_prompts(prompts, family, reference=profile.gives_reference)
            for family in {pair.family for pair in pairs}
        }
        self.expected_tokens = list_expected_tokens(list(chain.from_iterable(self._criteria.values())))
        images_by_id: dict[str, bytes] = {}
        self._halves: list[tuple[ContrastPair, ProbeQAPair, str]] = []
        for pair in pairs:
            data = pair.render_png()
            image_id = compute_digest(data)
            images_by_id[image_id] = data
            self._halves += [(pair, half, image_id) for half in (pair.good, pair.bad)]
        self.fetch_images = lambda ids: {image_id: images_by_id[image_id] for image_id in ids}

    def iter_requests(
        self, model: ServedModel, rotate_from: int = 0, *, sendable_only: bool = False
    ) -> Iterator[RowRequests[int]]:
        return self.rebuild_requests(model, range(len(self._halves)))

    def rebuild_requests(self, model: ServedModel, subjects: Sequence[int]) -> Iterator[RowRequests[int]]:
        for index in subjects:
            pair, half, image_id = self._halves[index]
            references = [QAPair(pair.good.question, pair.reference)]
            requests, _ = build_judge_requests(
                self._criteria[pair.family], half.turns, [image_id], model.ref, references
            )
            chains = [ReaskChain(request) for request in requests]
            if self.first_verdicts is not None:
                votes = build_vote_chains(requests, self._profile.n_votes, self._profile.judging.vote_temperature)
                chains = votes if _needs_votes(self.first_verdicts[index]) else []
            yield RowRequests(index, chains)

    def forecast_follow_ups(self, model: ServedModel) -> FollowUpForecast:
        return forecast_votes(self._judge, self._profile.n_votes)

    def parse(
        self, subject: int, position: int, request_key: str, answer: Mapping[str, Any], length_factor: int = 1
    ) -> Verdict:
        criteria = self._criteria[self._halves[subject][0].family]
        return parse_judge_answer(criteria[position % len(criteria)], request_key, answer)


def _request_verdicts(lake: Lake, stage: ProbeStage, run_id: str) -> list[list[Verdict] | None]:
    """Return the verdicts on each half, or None where one is missing; with `first_verdicts`, those after the vote."""
    with StageRun(lake, stage, run_id) as run:
        run.send()
        resolved = [resolutions for _, (resolutions,) in run.iter_resolved()]
    if stage.first_verdicts is None:
        return [_collect(resolutions) for resolutions in resolved]
    return [
        first
        if first is None or not votes
        else [count_votes(verdict, votes[n :: len(first)]) for n, verdict in enumerate(first)]
        for first, votes in zip(stage.first_verdicts, resolved, strict=True)
    ]


def _collect(resolutions: Sequence[Resolution[Verdict]]) -> list[Verdict] | None:
    verdicts = [resolution.parsed for resolution in resolutions if resolution.parsed is not None]
    return verdicts if len(verdicts) == len(resolutions) else None


def _needs_votes(verdicts: Sequence[Verdict] | None) -> bool:
    return verdicts is not None and any(verdict.p_yes is None for verdict in verdicts)


def _join_halves(pairs: Sequence[ContrastPair], verdicts: Sequence[list[Verdict] | None]) -> list[PairResult]:
    responses = [None if half is None else JudgeResponse.from_verdicts(half) for half in verdicts]
    return [PairResult(pair, good, bad) for pair, good, bad in zip(pairs, responses[::2], responses[1::2], strict=True)]
