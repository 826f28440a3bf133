"""Good and bad pairs that are known as such, asked of a judge: does it see the faults the paper's judge was to see?

Belongs here: the pairs (`probes.yaml`) and counting. How their pictures are drawn is the miniatures' business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.profile import ModelRole, Profile
from mvl_assets.config.prompts import Prompt, get_judge_prompts, load_prompts
from mvl_assets.config.strict_yaml import iter_documents
from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.judging.cases import JudgeCase, resolve_verdicts
from mvl_assets.judging.judge import build_judge_requests
from mvl_assets.judging.keep import compute_min_p_yes
from mvl_assets.judging.verdict import Verdict
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.client import ModelStageClient, to_model_ref

PROBES_FILE = Path(__file__).with_name("probes.yaml")
# Answers of their own, beside those of the sources: a second call with the same judge sends nothing.
PROBE_STAGE = "probe"

ProbeFault = Literal["unseen_content", "misread_content", "wrong_step", "off_image"]
PROBE_FAULTS: tuple[ProbeFault, ...] = get_args(ProbeFault)


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProbeQAPair(_StrictModel):
    question: str
    answer: str

    @property
    def turns(self) -> list[dict[str, str]]:
        return [{"from": "human", "value": self.question}, {"from": "gpt", "value": self.answer}]


class ContrastPair(_StrictModel):
    """A good and a bad pair about one image; `reason` says why the bad one is bad."""

    fault: ProbeFault
    reason: str
    image: str
    good: ProbeQAPair
    bad: ProbeQAPair


class ProbeSet(_StrictModel):
    """The pairs, and the images they are about, described for whatever draws them."""

    images: dict[str, dict[str, Any]]
    pairs: list[ContrastPair]


@dataclass(frozen=True, slots=True)
class JudgeResponse:
    """What the judge says to one pair: Yes to every criterion, and the least P(yes)."""

    all_yes: bool
    p_yes: float | None


@dataclass(frozen=True, slots=True)
class PairResult:
    """One of the twins' pairs each; None where the judge gave no verdict."""

    pair: ContrastPair
    good: JudgeResponse | None
    bad: JudgeResponse | None


@dataclass(frozen=True, slots=True)
class ProbeScore:
    """Over the twins of one fault that got verdicts: bad pairs that were caught, good ones that were kept, and twins of
    which the good one had the higher P(yes)."""

    n_pairs: int
    n_unanswered: int
    true_rejects: int
    true_keeps: int
    ranked_correctly: int


def load_probes(path: Path = PROBES_FILE) -> ProbeSet:
    """Raises `MvlError` naming the place in the file that is wrong."""
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
    role: ModelRole = "judge",
    prompts: Mapping[str, Prompt] | None = None,
    endpoints: Sequence[Endpoint] | None = None,
) -> list[PairResult]:
    """Asks the profile's judge the general criteria about every pair. `images` are the drawn ones, by name.

    Answers are kept in the lake like any others. Raises what asking a model raises.
    """
    criteria = get_judge_prompts(load_prompts() if prompts is None else prompts, "general")
    criterion_names = [p.criterion_name for p in criteria]
    model = profile.get_model(role)
    image_ids = {name: compute_digest(data) for name, data in images.items()}
    images_by_id = {image_ids[name]: data for name, data in images.items()}
    cases = [
        JudgeCase(
            {},
            qa_pair.turns,
            (build_judge_requests(criteria, qa_pair.turns, [image_ids[contrast_pair.image]], to_model_ref(model))[0],),
            blind=not model.supports_images,
        )
        for contrast_pair in probe_set.pairs
        for qa_pair in (contrast_pair.good, contrast_pair.bad)
    ]
    client = ModelStageClient(
        lake, PROBE_STAGE, "judge", model, run_id, endpoints, fetch_images=lambda ids: {i: images_by_id[i] for i in ids}
    )
    client.send_requests(request for case in cases for request in case.requests[0])
    resolutions = iter(resolve_verdicts(lake.get_answer_log(PROBE_STAGE, "judge"), cases, criterion_names))
    responses = [_build_response([next(resolutions).parsed for _ in criteria]) for _ in cases]
    return [
        PairResult(contrast_pair, *response_pair)
        for contrast_pair, response_pair in zip(
            probe_set.pairs, zip(responses[::2], responses[1::2], strict=True), strict=True
        )
    ]


def _build_response(parsed: Sequence[object]) -> JudgeResponse | None:
    verdicts = [outcome for outcome in parsed if isinstance(outcome, Verdict)]
    if len(verdicts) < len(parsed):
        return None
    return JudgeResponse(all(v.is_yes for v in verdicts), compute_min_p_yes(verdicts))


def compute_probe_score(results: Sequence[PairResult]) -> ProbeScore:
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
