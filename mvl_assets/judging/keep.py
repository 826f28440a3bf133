"""The keep rule: a small expression in the profile, read into terms. Moving a threshold asks no model anything.

    rule    := all { "or" all }
    all     := term { "and" term }
    term    := "all_yes" | "both_yes" | "answer_agrees" | "p_yes" ["." criterion] ">=" number | "(" rule ")"

`all_yes`: every criterion's verdict is Yes (the paper's rule, arXiv 2412.05237 §2). `both_yes`: the second judge's too.
`p_yes >= t`: the least P(yes) of all criteria is at least t; with a criterion's name, that one's. `answer_agrees`: the
rewritten answer agrees with the original key; where there is nothing to compare, the profile's `without_key` decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import load_prompts
from mvl_assets.errors import MvlError
from mvl_assets.judging.verdict import Verdict

_TOKEN = re.compile(r"\s*(?:(>=)|(\(|\))|(\d+(?:\.\d*)?|\.\d+)|([A-Za-z_][A-Za-z_0-9.]*))")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known of one rewrite. `answer_agrees` is None where there is nothing to compare with, `second` where
    there is no second judge or it gave no verdict."""

    verdicts: Sequence[Verdict]
    answer_agrees: bool | None
    second: Sequence[Verdict] | None = None

    @property
    def all_yes(self) -> bool:
        return all(v.yes for v in self.verdicts)

    @property
    def p_yes(self) -> float | None:
        return least_p_yes(self.verdicts)

    @property
    def p_yes_by_criterion(self) -> Mapping[str, float | None]:
        return {v.criterion: v.p_yes for v in self.verdicts}


def least_p_yes(verdicts: Sequence[Verdict]) -> float | None:
    """The least of the criteria's P(yes); None when one is not known."""
    values = [v.p_yes for v in verdicts]
    return None if None in values or not values else min(v for v in values if v is not None)


# A term says None for "holds", or the class of why it does not.
Check = Callable[[Judgement], str | None]


@dataclass(frozen=True, slots=True)
class KeepRule:
    """A parsed rule. `drop_reason` is None for a pair that stays, else the first term that failed."""

    text: str
    check: Check

    def drop_reason(self, judgement: Judgement) -> str | None:
        return self.check(judgement)


def parse_rule(text: str, without_key: bool, criteria: Sequence[str] = (), *, second_judge: bool = False) -> KeepRule:
    """Raises `MvlError` that names the place where the rule is wrong. `criteria` are the names `p_yes.` may have;
    `both_yes` needs a second judge."""
    return KeepRule(text, _Parser(text, without_key, criteria, second_judge).parse())


def check_rule(profile: Profile) -> None:
    """Raises `MvlError` when the profile's rule cannot be read with the criteria of any prompt, before it is needed."""
    names = sorted({prompt.criterion or prompt.name for prompt in load_prompts().values()})
    parse_rule(profile.keep.rule, profile.keep.without_key, names, second_judge=profile.second_judge is not None)


class _Parser:
    def __init__(self, text: str, without_key: bool, criteria: Sequence[str], second_judge: bool) -> None:
        self.text = text
        self.without_key = without_key
        self.criteria = criteria
        self.second_judge = second_judge
        self.tokens: list[str] = []
        place = 0
        while text[place:].strip():
            match = _TOKEN.match(text, place)
            if match is None:
                raise self._error(f"cannot read {text[place:].strip()!r}")
            self.tokens.append(match[0].strip())
            place = match.end()

    def parse(self) -> Check:
        check = self._any()
        if self.tokens:
            raise self._error(f"expected `and` or `or` before {self.tokens[0]!r}")
        return check

    def _any(self) -> Check:
        checks = [self._all()]
        while self._take("or"):
            checks.append(self._all())
        return checks[0] if len(checks) == 1 else lambda j: _unless_any([check(j) for check in checks])

    def _all(self) -> Check:
        checks = [self._term()]
        while self._take("and"):
            checks.append(self._term())
        return checks[0] if len(checks) == 1 else lambda j: next((r for check in checks if (r := check(j))), None)

    def _term(self) -> Check:
        if self._take("("):
            check = self._any()
            if not self._take(")"):
                raise self._error("a closing parenthesis is missing")
            return check
        word = self.tokens.pop(0) if self.tokens else ""
        if word == "all_yes":
            return _all_yes
        if word == "both_yes":
            if not self.second_judge:
                raise self._error("both_yes needs a second_judge among the profile's roles")
            return _both_yes
        if word == "answer_agrees":
            return self._answer_agrees
        name, _, criterion = word.partition(".")
        if name == "p_yes":
            if criterion and criterion not in self.criteria:
                raise self._error(f"no criterion {criterion!r}; there are {', '.join(self.criteria)}")
            return _p_yes(criterion, self._threshold())
        raise self._error(f"expected all_yes, both_yes, answer_agrees or p_yes, found {word!r}")

    def _threshold(self) -> float:
        if not self._take(">=") or not self.tokens or not re.fullmatch(r"[\d.]+", self.tokens[0]):
            raise self._error("p_yes needs `>=` and a number")
        value = float(self.tokens.pop(0))
        if not 0 <= value <= 1:
            raise self._error(f"{value} is no probability")
        return value

    def _answer_agrees(self, judgement: Judgement) -> str | None:
        if judgement.answer_agrees is None:
            return None if self.without_key else "no_key"
        return None if judgement.answer_agrees else "answer_differs"

    def _take(self, token: str) -> bool:
        if self.tokens[:1] == [token]:
            self.tokens.pop(0)
            return True
        return False

    def _error(self, message: str) -> MvlError:
        return MvlError(
            f"keep rule {self.text!r}: {message}",
            hint="for example: answer_agrees and p_yes >= 0.4; see judging/keep.py",
        )


def _all_yes(judgement: Judgement) -> str | None:
    return next((f"no_{v.criterion}" for v in judgement.verdicts if not v.yes), None)


def _both_yes(judgement: Judgement) -> str | None:
    if (reason := _all_yes(judgement)) is not None:
        return reason
    if judgement.second is None:
        return "no_second_verdict"
    return next((f"second_no_{v.criterion}" for v in judgement.second if not v.yes), None)


def _p_yes(criterion: str, threshold: float) -> Check:
    def check(judgement: Judgement) -> str | None:
        value = judgement.p_yes_by_criterion[criterion] if criterion else judgement.p_yes
        if value is None:
            return "no_p_yes"
        return None if value >= threshold else f"low_p_yes{'_' + criterion if criterion else ''}"

    return check


def _unless_any(reasons: Sequence[str | None]) -> str | None:
    return None if None in reasons else reasons[0]
