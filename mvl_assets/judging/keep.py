"""The keep rule: a small expression in the profile, parsed into checks. Moving a threshold sends no request.

    rule    := all { "or" all }
    all     := term { "and" term }
    term    := "all_yes" | "matches_reference" | "no_reference" | "p_yes" ["." criterion] ">=" number
             | "label" ("==" | "!=") ("good" | "bad" | "unsure" | "none") | "(" rule ")" | "true" | "false"

`all_yes`: every criterion's verdict is Yes (the paper's rule, arXiv 2412.05237 §2). `p_yes >= t`: the lowest P(yes) of
all criteria is at least t; with a criterion's name, that one's, where the family has it. With a panel, both are the
panel's. `matches_reference`: the rewritten answer was compared with the source's, and is the same. `no_reference`:
there was nothing to compare it with. One that contradicts the source's answer is neither. `label`: what people say of
the pair (`label_history.resolve_labels`). `keep: {labels: true}` in the profile lets labels beat any rule: it is then
`label == good or (label != bad and (rule))`. `true` and `false` keep every judged pair, and none, which studies compare
with.

The default asks for two things of every pair: the judge's Yes to each criterion, and evidence for the result. Where the
result is the source's, that is the evidence, and the judge vouches for the steps alone. Where nothing can be compared
(new questions, descriptions), a Yes that is nearly a No would decide by luck, so P(yes) must be at least 0.8 for each
criterion: odds of four to one, or four of five votes. What contradicts the source is dropped whatever the judge says.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mvl_assets.config.profile import DEFAULT_KEEP_RULE, Profile
from mvl_assets.config.prompts import Prompt, load_prompts
from mvl_assets.errors import MvlError
from mvl_assets.judging.verdict import Verdict

NO_LABEL = "none"
GOOD, BAD, UNSURE = "good", "bad", "unsure"
"""What people say of a pair."""
_LABELS = (GOOD, BAD, UNSURE, NO_LABEL)
LABEL_REASON_PREFIX = "label_"


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """The verdicts on one rewrite, as the keep rule sees them.

    Attributes:
        verdicts: The judge's or the panel's, one per criterion.
        matches_reference: None where there is nothing to compare with.
        label: What people say of it; `none` without a label.
    """

    verdicts: Sequence[Verdict]
    matches_reference: bool | None
    label: str = NO_LABEL

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


@dataclass(frozen=True, slots=True)
class RuleFailure:
    """Why a rule does not hold for a pair: the first term that failed, and how many terms before it held."""

    reason: str
    n_held: int = 0


# Returns None where a rule holds.
RuleCheck = Callable[[JudgedPair], RuleFailure | None]


@dataclass(frozen=True, slots=True)
class KeepRule:
    """A parsed rule; `uses_labels` says whether it asks for them."""

    text: str
    check: RuleCheck
    uses_labels: bool = False

    def find_drop_reason(self, pair: JudgedPair) -> str | None:
        """Return None for a pair that is kept, else the term that failed, of the alternative that came furthest."""
        failure = self.check(pair)
        return None if failure is None else failure.reason


def list_criterion_names(prompts: Mapping[str, Prompt]) -> list[str]:
    """Return the criteria of all judging prompts: a rule may name any of them."""
    return sorted({prompt.criterion_name for prompt in prompts.values() if prompt.role == "judge"})


def parse_keep_rule(text: str, criteria: Sequence[str] = ()) -> KeepRule:
    """Return the parsed rule.

    Args:
        text: The rule.
        criteria: The names that may follow `p_yes.`.

    Raises:
        MvlError: The rule cannot be read; says where.
    """
    parser = _KeepRuleParser(text, criteria)
    check = parser.parse()
    return KeepRule(text, check, parser.uses_labels)


def list_thresholds(text: str) -> list[float]:
    """Return the thresholds of P(yes) in a rule, ascending; none of a rule that cannot be read."""
    try:
        nodes = list(ast.walk(ast.parse(" ".join(text.split()), mode="eval")))
    except SyntaxError:
        return []
    numbers = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, int | float)}
    return sorted(map(float, numbers))


def format_keep_condition(text: str) -> str:
    """Return a rule as an SQL condition over columns of `judged/*`, for rows that were judged by another rule.

    Raises:
        MvlError: The rule cannot be read, or asks for single criteria, which no column has.
    """
    if "." in re.sub(r"\d*\.\d+|\d+\.", "", text):
        raise MvlError(
            f"keep rule {text!r}: single criteria are known when rows are judged, not when they are mixed",
            hint="write it with all_yes, p_yes, matches_reference and no_reference",
        )
    if parse_keep_rule(text).uses_labels:
        raise MvlError(
            f"keep rule {text!r}: labels are read when rows are judged, not when they are mixed",
            hint="write it without label",
        )
    # Of what the grammar has, this alone is no SQL. Nulls are false there: the grammar has no negation.
    return re.sub(r"\bno_reference\b", "(matches_reference IS NULL)", " ".join(text.split()))


def validate_keep_rule(profile: Profile) -> None:
    """Check the profile's rule before it is needed.

    Raises:
        MvlError: The rule cannot be read with the criteria of all prompts.
    """
    parse_keep_rule(profile.keep_rule, list_criterion_names(load_prompts(profile=profile)))


class _KeepRuleParser:
    """Turns the syntax tree of a rule, whose grammar is a part of Python's, into checks."""

    def __init__(self, text: str, criteria: Sequence[str]) -> None:
        self.text = text
        self.criteria = criteria
        self.uses_labels = False

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
                return _build_conjunction([self._build_check(value) for value in values])
            case ast.Name(id="all_yes"):
                return _check_all_yes
            case ast.Name(id="matches_reference"):
                return _check_reference_match
            case ast.Name(id="no_reference"):
                return _check_no_reference
            case ast.Name(id="true"):
                return lambda pair: None
            case ast.Name(id="false"):
                return lambda pair: RuleFailure("rule_keeps_none")
            case ast.Name(id="p_yes") | ast.Attribute(value=ast.Name(id="p_yes")):
                raise self._build_error("p_yes needs `>=` and a number")
            case ast.Compare(left=ast.Name(id="p_yes")):
                return _build_p_yes_check("", self._get_threshold(node))
            case ast.Compare(left=ast.Attribute(value=ast.Name(id="p_yes"), attr=criterion)):
                if criterion not in self.criteria:
                    raise self._build_error(f"no criterion {criterion!r}; known are {', '.join(self.criteria)}")
                return _build_p_yes_check(criterion, self._get_threshold(node))
            case ast.Name(id="label") | ast.Compare(left=ast.Name(id="label")):
                self.uses_labels = True
                return self._build_label_check(node)
        raise self._build_error(
            f"expected all_yes, matches_reference, no_reference, p_yes or label, found {ast.unparse(node)!r}"
        )

    def _build_label_check(self, node: ast.expr) -> RuleCheck:
        match node:
            case ast.Compare(ops=[ast.Eq() | ast.NotEq() as sign], comparators=[ast.Name(id=name)]) if name in _LABELS:
                expects_equal = isinstance(sign, ast.Eq)
                return lambda pair: (
                    None if (pair.label == name) == expects_equal else RuleFailure(f"{LABEL_REASON_PREFIX}{pair.label}")
                )
        raise self._build_error(f"label needs `==` or `!=` and one of {', '.join(_LABELS)}")

    def _get_threshold(self, node: ast.Compare) -> float:
        match node:
            case ast.Compare(ops=[ast.GtE()], comparators=[ast.Constant(value=int() | float() as value)]):
                if isinstance(value, bool):
                    raise self._build_error("p_yes needs `>=` and a number")
                if not 0 <= value <= 1:
                    raise self._build_error(f"{value} is not a probability")
                return float(value)
        raise self._build_error("p_yes needs `>=` and a number")

    def _build_error(self, message: str) -> MvlError:
        return MvlError(
            f"keep rule {self.text!r}: {message}",
            hint=f"for example: {DEFAULT_KEEP_RULE}; see judging/keep.py",
        )


def _check_all_yes(pair: JudgedPair) -> RuleFailure | None:
    return next((RuleFailure(f"no_{v.criterion}") for v in pair.verdicts if not v.is_yes), None)


def _check_reference_match(pair: JudgedPair) -> RuleFailure | None:
    if pair.matches_reference:
        return None
    return RuleFailure("no_reference" if pair.matches_reference is None else "reference_mismatch")


def _check_no_reference(pair: JudgedPair) -> RuleFailure | None:
    if pair.matches_reference is None:
        return None
    return RuleFailure("matches_reference" if pair.matches_reference else "reference_mismatch")


def _build_p_yes_check(criterion: str, threshold: float) -> RuleCheck:
    def check(pair: JudgedPair) -> RuleFailure | None:
        if criterion and criterion not in pair.p_yes_by_criterion:
            return None
        value = pair.p_yes_by_criterion[criterion] if criterion else pair.p_yes
        if value is None:
            return RuleFailure("no_p_yes")
        return None if value >= threshold else RuleFailure(f"low_p_yes{'_' + criterion if criterion else ''}")

    return check


def _build_conjunction(checks: Sequence[RuleCheck]) -> RuleCheck:
    def check_all(pair: JudgedPair) -> RuleFailure | None:
        for position, check in enumerate(checks):
            if (failure := check(pair)) is not None:
                return RuleFailure(failure.reason, position + failure.n_held)
        return None

    return check_all


def _combine_alternatives(failures: Sequence[RuleFailure | None]) -> RuleFailure | None:
    known = [failure for failure in failures if failure is not None]
    return None if len(known) < len(failures) else max(known, key=lambda failure: failure.n_held)
