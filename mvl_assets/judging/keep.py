"""The keep rule: a small expression in the profile, parsed into checks. Moving a threshold sends no request.

    rule    := all { "or" all }
    all     := term { "and" term }
    term    := "all_yes" | "both_yes" | "matches_reference" | "p_yes" ["." criterion] ">=" number | "(" rule ")"

`all_yes`: every criterion's verdict is Yes (the paper's rule, arXiv 2412.05237 §2). `both_yes`: the second judge's too.
`p_yes >= t`: the lowest P(yes) of all criteria is at least t; with a criterion's name, that one's.
`matches_reference`: the rewritten answer matches the reference answer; where there is nothing to compare, the profile's
`no_reference` decides.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import load_prompts
from mvl_assets.errors import MvlError
from mvl_assets.judging.verdict import Verdict


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """The verdicts on one rewrite, as the keep rule sees them.

    Attributes:
        verdicts: The judge's, one per criterion.
        matches_reference: None where there is nothing to compare with.
        second_verdicts: None where there is no second judge, or it gave no verdict.
    """

    verdicts: Sequence[Verdict]
    matches_reference: bool | None
    second_verdicts: Sequence[Verdict] | None = None

    @property
    def all_yes(self) -> bool:
        """Whether every verdict is Yes."""
        return all(v.is_yes for v in self.verdicts)

    @property
    def p_yes(self) -> float | None:
        """The lowest P(yes); None when one is not known."""
        return compute_min_p_yes(self.verdicts)

    @property
    def p_yes_by_criterion(self) -> Mapping[str, float | None]:
        """P(yes) by criterion."""
        return {v.criterion: v.p_yes for v in self.verdicts}


def compute_min_p_yes(verdicts: Sequence[Verdict]) -> float | None:
    """Return the lowest P(yes) of the criteria; None when one is not known."""
    values = [v.p_yes for v in verdicts]
    return None if None in values or not values else min(v for v in values if v is not None)


# Returns None where a rule holds, else the drop reason.
RuleCheck = Callable[[JudgedPair], str | None]


@dataclass(frozen=True, slots=True)
class KeepRule:
    """A parsed rule."""

    text: str
    check: RuleCheck

    def find_drop_reason(self, pair: JudgedPair) -> str | None:
        """Return None for a pair that is kept, else the reason by the first term that failed."""
        return self.check(pair)


def parse_keep_rule(
    text: str, no_reference: bool, criteria: Sequence[str] = (), *, second_judge: bool = False
) -> KeepRule:
    """Return the parsed rule.

    Args:
        text: The rule.
        no_reference: Whether a pair is kept where there is no reference answer to compare with.
        criteria: The names that may follow `p_yes.`.
        second_judge: Whether there is a second judge, which `both_yes` needs.

    Raises:
        MvlError: The rule cannot be read; says where.
    """
    return KeepRule(text, _KeepRuleParser(text, no_reference, criteria, second_judge).parse())


def validate_keep_rule(profile: Profile) -> None:
    """Check the profile's rule before it is needed.

    Raises:
        MvlError: The rule cannot be read with the criteria of all prompts.
    """
    criterion_names = sorted({prompt.criterion_name for prompt in load_prompts(profile=profile).values()})
    parse_keep_rule(
        profile.keep.rule, profile.keep.no_reference, criterion_names, second_judge=profile.second_judge is not None
    )


class _KeepRuleParser:
    """Turns the syntax tree of a rule, whose grammar is a part of Python's, into checks."""

    def __init__(self, text: str, no_reference: bool, criteria: Sequence[str], second_judge: bool) -> None:
        self.text = text
        self.no_reference = no_reference
        self.criteria = criteria
        self.second_judge = second_judge

    def parse(self) -> RuleCheck:
        # In one line: a line break is white space like any other.
        line = " ".join(self.text.split())
        try:
            return self._build_check(ast.parse(line, mode="eval").body)
        except SyntaxError as error:
            raise self._build_error(
                f"{error.msg} at character {error.offset or len(line) + 1}" if line else "is empty"
            ) from error
        except (MemoryError, RecursionError, ValueError) as error:
            raise self._build_error("cannot be read") from error

    def _build_check(self, node: ast.expr) -> RuleCheck:
        match node:
            case ast.BoolOp(op=ast.Or(), values=values):
                checks = [self._build_check(value) for value in values]
                return lambda pair: _combine_alternatives([check(pair) for check in checks])
            case ast.BoolOp(values=values):
                checks = [self._build_check(value) for value in values]
                return lambda pair: next((reason for check in checks if (reason := check(pair))), None)
            case ast.Name(id="all_yes"):
                return _check_all_yes
            case ast.Name(id="both_yes"):
                if not self.second_judge:
                    raise self._build_error("both_yes needs a second_judge among the profile's roles")
                return _check_both_yes
            case ast.Name(id="matches_reference"):
                return self._check_reference_match
            case ast.Name(id="p_yes") | ast.Attribute(value=ast.Name(id="p_yes")):
                raise self._build_error("p_yes needs `>=` and a number")
            case ast.Compare(left=ast.Name(id="p_yes")):
                return _build_p_yes_check("", self._get_threshold(node))
            case ast.Compare(left=ast.Attribute(value=ast.Name(id="p_yes"), attr=criterion)):
                if criterion not in self.criteria:
                    raise self._build_error(f"no criterion {criterion!r}; known are {', '.join(self.criteria)}")
                return _build_p_yes_check(criterion, self._get_threshold(node))
        raise self._build_error(f"expected all_yes, both_yes, matches_reference or p_yes, found {ast.unparse(node)!r}")

    def _get_threshold(self, node: ast.Compare) -> float:
        match node:
            case ast.Compare(ops=[ast.GtE()], comparators=[ast.Constant(value=int() | float() as value)]):
                if isinstance(value, bool):
                    raise self._build_error("p_yes needs `>=` and a number")
                if not 0 <= value <= 1:
                    raise self._build_error(f"{value} is not a probability")
                return float(value)
        raise self._build_error("p_yes needs `>=` and a number")

    def _check_reference_match(self, pair: JudgedPair) -> str | None:
        if pair.matches_reference is None:
            return None if self.no_reference else "no_reference"
        return None if pair.matches_reference else "reference_mismatch"

    def _build_error(self, message: str) -> MvlError:
        return MvlError(
            f"keep rule {self.text!r}: {message}",
            hint="for example: matches_reference and p_yes >= 0.4; see judging/keep.py",
        )


def _check_all_yes(pair: JudgedPair) -> str | None:
    return next((f"no_{v.criterion}" for v in pair.verdicts if not v.is_yes), None)


def _check_both_yes(pair: JudgedPair) -> str | None:
    if (reason := _check_all_yes(pair)) is not None:
        return reason
    if pair.second_verdicts is None:
        return "no_second_verdict"
    return next((f"second_no_{v.criterion}" for v in pair.second_verdicts if not v.is_yes), None)


def _build_p_yes_check(criterion: str, threshold: float) -> RuleCheck:
    def check(pair: JudgedPair) -> str | None:
        value = pair.p_yes_by_criterion[criterion] if criterion else pair.p_yes
        if value is None:
            return "no_p_yes"
        return None if value >= threshold else f"low_p_yes{'_' + criterion if criterion else ''}"

    return check


def _combine_alternatives(reasons: Sequence[str | None]) -> str | None:
    return None if None in reasons else reasons[0]
