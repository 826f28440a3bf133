"""Probes of a judge: contrast pairs with known faults, to measure how many of the faults in the paper it detects.

The pairs are in `probes.yaml`, which also describes their images; `probe_images` draws them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import Prompt, get_judge_prompts, load_prompts
from mvl_assets.config.strict_yaml import iter_documents
from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.judging.judge import build_judge_requests, parse_judge_answer
from mvl_assets.judging.keep import compute_min_p_yes
from mvl_assets.judging.verdict import Verdict
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.loop import StageRun
from mvl_assets.model_stage.reask import ReaskChain, Resolution
from mvl_assets.model_stage.stage import ModelStage, RowRequests, ServedModel
from mvl_assets.stages import PROBE_ANSWERS

PROBES_FILE = Path(__file__).with_name("probes.yaml")

ProbeFault = Literal["unseen_content", "misread_content", "wrong_step", "off_image"]
PROBE_FAULTS: tuple[ProbeFault, ...] = get_args(ProbeFault)


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProbeQAPair(_StrictModel):
    """A question and its answer."""

    question: str
    answer: str

    @property
    def turns(self) -> list[dict[str, str]]:
        """The pair as a conversation."""
        return [{"from": "human", "value": self.question}, {"from": "gpt", "value": self.answer}]


class ContrastPair(_StrictModel):
    """A good and a bad pair about one image; `reason` says why the bad one is bad."""

    fault: ProbeFault
    reason: str
    image: str
    good: ProbeQAPair
    bad: ProbeQAPair


class ProbeSet(_StrictModel):
    """The pairs and the descriptions of their images (arguments of `probe_images.render_probe_png`)."""

    images: dict[str, dict[str, Any]]
    pairs: list[ContrastPair]


@dataclass(frozen=True, slots=True)
class JudgeResponse:
    """The judge's response to one pair: whether it is Yes to every criterion, and the lowest P(yes)."""

    all_yes: bool
    p_yes: float | None


@dataclass(frozen=True, slots=True)
class PairResult:
    """The judge's responses to a good and a bad pair; None where it gave no verdict."""

    pair: ContrastPair
    good: JudgeResponse | None
    bad: JudgeResponse | None


@dataclass(frozen=True, slots=True)
class ProbeScore:
    """How well a judge tells good from bad, over the contrast pairs of one fault.

    Attributes:
        n_pairs: Contrast pairs.
        n_unanswered: Contrast pairs that lack a verdict; the counts below leave them out.
        true_rejects: Bad pairs that the judge rejects.
        true_keeps: Good pairs that it keeps.
        ranked_correctly: Contrast pairs whose good pair has the higher P(yes).
    """

    n_pairs: int
    n_unanswered: int
    true_rejects: int
    true_keeps: int
    ranked_correctly: int


def load_probes(path: Path = PROBES_FILE) -> ProbeSet:
    """Return the probes of a file.

    Raises:
        MvlError: Something in the file is wrong; names the line.
    """
    (document,) = iter_documents(path)
    try:
        probe_set = ProbeSet.model_validate(document.value)
    except ValidationError as error:
        first = error.errors()[0]
        line = document.find_line(first["loc"])
        raise MvlError(f"{path}:{line}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if undescribed_images := {pair.image for pair in probe_set.pairs} - set(probe_set.images):
        raise MvlError(f"{path}: no image is described for {', '.join(sorted(undescribed_images))}")
    return probe_set


def run_probes(
    lake: Lake,
    profile: Profile,
    probe_set: ProbeSet,
    images: Mapping[str, bytes],
    *,
    run_id: str,
    judge: str | None = None,
    prompts: Mapping[str, Prompt] | None = None,
    endpoints: Sequence[Endpoint] | None = None,
) -> list[PairResult]:
    """Ask a judge of the profile the general criteria about every pair. Answers are stored in the lake like any others.

    Args:
        lake: The lake.
        profile: Names the judge.
        probe_set: The pairs.
        images: The images as they were drawn, by name.
        run_id: The run that answers are marked with.
        judge: Which judge of the panel, by its name in the profile; None is the first.
        prompts: The prompts by name; None takes those of the profile.
        endpoints: Endpoints instead of the profile's.
    """
    stage = _ProbeStage(profile, probe_set, images, judge=judge, prompts=prompts, endpoints=endpoints)
    with StageRun(lake, stage, run_id) as run:
        run.send()
        responses = [_build_response(resolutions) for _, (resolutions,) in run.iter_resolved()]
    return [
        PairResult(contrast_pair, good, bad)
        for contrast_pair, good, bad in zip(probe_set.pairs, responses[::2], responses[1::2], strict=True)
    ]


class _ProbeStage(ModelStage[int, Verdict]):
    """The general criteria, asked about the good and the bad pair of every contrast pair, in turn."""

    name = PROBE_ANSWERS
    # The second part of the answers' path, which every stage needs; all probes share it.
    source = "judge"

    def __init__(
        self,
        profile: Profile,
        probe_set: ProbeSet,
        images: Mapping[str, bytes],
        *,
        judge: str | None,
        prompts: Mapping[str, Prompt] | None,
        endpoints: Sequence[Endpoint] | None,
    ) -> None:
        self._criteria = get_judge_prompts(load_prompts(profile=profile) if prompts is None else prompts, "general")
        self.models = [ServedModel.from_profile(profile.models[judge or profile.roles["judge"]], endpoints)]
        image_ids = {name: compute_digest(data) for name, data in images.items()}
        images_by_id = {image_ids[name]: data for name, data in images.items()}
        self.fetch_images = lambda ids: {image_id: images_by_id[image_id] for image_id in ids}
        self._pairs = [
            (qa_pair, image_ids[contrast_pair.image])
            for contrast_pair in probe_set.pairs
            for qa_pair in (contrast_pair.good, contrast_pair.bad)
        ]

    def iter_requests(
        self, model: ServedModel, rotate_from: int = 0, *, sendable_only: bool = False
    ) -> Iterator[RowRequests[int]]:
        return self.rebuild_requests(model, range(len(self._pairs)))

    def rebuild_requests(self, model: ServedModel, subjects: Sequence[int]) -> Iterator[RowRequests[int]]:
        for index in subjects:
            qa_pair, image_id = self._pairs[index]
            requests, _ = build_judge_requests(self._criteria, qa_pair.turns, [image_id], model.ref, ())
            yield RowRequests(index, [ReaskChain(request) for request in requests])

    def parse(
        self, subject: int, position: int, request_key: str, answer: Mapping[str, Any], length_factor: int = 1
    ) -> Verdict:
        return parse_judge_answer(self._criteria[position], request_key, answer)


def _build_response(resolutions: Sequence[Resolution[Verdict]]) -> JudgeResponse | None:
    verdicts = [resolution.parsed for resolution in resolutions if resolution.parsed is not None]
    if len(verdicts) < len(resolutions):
        return None
    return JudgeResponse(all(v.is_yes for v in verdicts), compute_min_p_yes(verdicts))


def compute_probe_score(results: Sequence[PairResult]) -> ProbeScore:
    """Return the counts over some contrast pairs."""
    answered_pairs = [(result.good, result.bad) for result in results if result.good and result.bad]
    return ProbeScore(
        n_pairs=len(results),
        n_unanswered=len(results) - len(answered_pairs),
        true_rejects=sum(not bad.all_yes for _, bad in answered_pairs),
        true_keeps=sum(good.all_yes for good, _ in answered_pairs),
        ranked_correctly=sum(
            good.p_yes > bad.p_yes for good, bad in answered_pairs if good.p_yes is not None and bad.p_yes is not None
        ),
    )
