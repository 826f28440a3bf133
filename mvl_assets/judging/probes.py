"""Good and bad pairs that are known as such, asked of a judge: does it see the faults the paper's judge was to see?

Belongs here: the pairs (`probes.yaml`) and counting. How their pictures are drawn is the miniatures' business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from mvl_assets.common.digest import digest_hex
from mvl_assets.config.profile import Profile, Role
from mvl_assets.config.prompts import Prompt, judge_prompts, load_prompts
from mvl_assets.config.strict_yaml import documents
from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.judging.cases import Case, rulings
from mvl_assets.judging.judge import judging_requests
from mvl_assets.judging.keep import least_p_yes
from mvl_assets.judging.verdict import Verdict
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.client import Asker, model_ref

FILE = Path(__file__).with_name("probes.yaml")
# Answers of their own, beside those of the sources: a second call with the same judge sends nothing.
STAGE = "planted"

Fault = Literal["unseen_content", "misread_content", "wrong_step", "off_image"]
FAULTS: tuple[Fault, ...] = get_args(Fault)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Said(_Part):
    question: str
    answer: str

    @property
    def turns(self) -> list[dict[str, str]]:
        return [{"from": "human", "value": self.question}, {"from": "gpt", "value": self.answer}]


class Twins(_Part):
    """A good and a bad pair about one picture; `why` the bad one is."""

    fault: Fault
    why: str
    picture: str
    good: Said
    bad: Said


class Planted(_Part):
    """`pictures` are described for `miniature.planted`."""

    pictures: dict[str, dict[str, Any]]
    cases: list[Twins]


@dataclass(frozen=True, slots=True)
class Heard:
    """What the judge says to one pair: Yes to every criterion, and the least P(yes)."""

    yes: bool
    p_yes: float | None


@dataclass(frozen=True, slots=True)
class Asked:
    """One of the twins' pairs each; None where the judge gave no verdict."""

    twins: Twins
    good: Heard | None
    bad: Heard | None


@dataclass(frozen=True, slots=True)
class Score:
    """Over the twins of one fault that got verdicts: bad pairs that were caught, good ones that were kept, and twins of
    which the good one had the higher P(yes)."""

    twins: int
    unanswered: int
    caught: int
    kept: int
    told_apart: int


def read_planted(path: Path = FILE) -> Planted:
    """Raises `MvlError` naming the place in the file that is wrong."""
    (document,) = documents(path)
    try:
        planted = Planted.model_validate(document.value)
    except ValidationError as error:
        first = error.errors()[0]
        line = document.line_of(first["loc"])
        raise MvlError(f"{path}:{line}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if unknown := {case.picture for case in planted.cases} - set(planted.pictures):
        raise MvlError(f"{path}: no picture is described for {', '.join(sorted(unknown))}")
    return planted


def ask_planted(
    lake: Lake,
    profile: Profile,
    planted: Planted,
    pictures: Mapping[str, bytes],
    *,
    run_id: str,
    role: Role = "judge",
    prompts: Mapping[str, Prompt] | None = None,
    endpoints: Sequence[Endpoint] | None = None,
) -> list[Asked]:
    """Asks the profile's judge the general criteria about every pair. `pictures` are the drawn ones, by name.

    Answers are kept in the lake like any others. Raises what asking a model raises.
    """
    criteria = judge_prompts(load_prompts() if prompts is None else prompts, "general")
    names = [p.criterion or p.name for p in criteria]
    model = profile.model_for(role)
    ids = {name: digest_hex(data) for name, data in pictures.items()}
    by_id = {ids[name]: data for name, data in pictures.items()}
    cases = [
        Case(
            {},
            said.turns,
            (judging_requests(criteria, said.turns, [ids[twins.picture]], model_ref(model))[0],),
            blind=not model.sees_images,
        )
        for twins in planted.cases
        for said in (twins.good, twins.bad)
    ]
    asker = Asker(lake, STAGE, "judge", model, run_id, endpoints, pictures=lambda ids: {i: by_id[i] for i in ids})
    asker.ask(request for case in cases for request in case.requests[0])
    found = iter(rulings(lake.answers(STAGE, "judge"), cases, names))
    heard = [_heard([next(found).read for _ in criteria]) for _ in cases]
    return [Asked(t, *pair) for t, pair in zip(planted.cases, zip(heard[::2], heard[1::2], strict=True), strict=True)]


def _heard(read: Sequence[object]) -> Heard | None:
    verdicts = [one for one in read if isinstance(one, Verdict)]
    if len(verdicts) < len(read):
        return None
    return Heard(all(v.yes for v in verdicts), least_p_yes(verdicts))


def score(asked: Sequence[Asked]) -> Score:
    heard = [(one.good, one.bad) for one in asked if one.good and one.bad]
    return Score(
        twins=len(asked),
        unanswered=len(asked) - len(heard),
        caught=sum(not bad.yes for _, bad in heard),
        kept=sum(good.yes for good, _ in heard),
        told_apart=sum(
            good.p_yes > bad.p_yes for good, bad in heard if good.p_yes is not None and bad.p_yes is not None
        ),
    )
