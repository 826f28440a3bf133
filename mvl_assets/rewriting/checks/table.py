"""The table of checks, in the order in which they are made: the first that finds something names the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mvl_assets.config.profile import CheckName
from mvl_assets.model_stage.dialogue import QAPair
from mvl_assets.rewriting.checks.caption_talk import find_caption_talk
from mvl_assets.rewriting.checks.copies import find_copy
from mvl_assets.rewriting.checks.endings import find_open_end
from mvl_assets.rewriting.checks.json_debris import find_json_debris
from mvl_assets.rewriting.checks.language import find_other_language
from mvl_assets.rewriting.checks.markup import find_broken_markup
from mvl_assets.rewriting.checks.options import find_lost_options
from mvl_assets.rewriting.checks.pair import Check, CheckedPair
from mvl_assets.rewriting.checks.reference import find_contradiction
from mvl_assets.rewriting.checks.refusal import find_refusal
from mvl_assets.rewriting.checks.repetition import find_repetition

CHECKS: Mapping[CheckName, Check] = {
    "refusal": find_refusal,
    "json_debris": find_json_debris,
    "broken_markup": find_broken_markup,
    "repetition": find_repetition,
    "ends_in_middle": find_open_end,
    "unchanged": find_copy,
    "options_lost": find_lost_options,
    "reference_contradicted": find_contradiction,
    "caption_talk": find_caption_talk,
    "other_language": find_other_language,
}
"""By the class of the reject."""


# No prompt allows answers as long as that; patterns take more than linear time in the worst case.
MAX_CHECKED_CHARS = 65_536


@dataclass(frozen=True, slots=True)
class Drop:
    """A dialogue of an answer that is dropped: which one, from 0, and why."""

    ordinal: int
    reason: str
    message: str


def find_drop(
    checks: Mapping[CheckName, Check],
    ordinal: int,
    dialogue: Sequence[QAPair],
    originals: Sequence[QAPair],
    *,
    is_preserved: bool,
    family: str,
) -> Drop | None:
    """Return why a dialogue is dropped; None if it passes.

    Args:
        checks: Those that are made, by name.
        ordinal: Which dialogue of the answer it is, from 0.
        dialogue: Its pairs; one that fails drops them all, since a conversation cannot do without a turn.
        originals: See `CheckedPair`.
        is_preserved: See `CheckedPair`.
        family: The prompt family.
    """
    for number, turn in enumerate(dialogue, 1):
        if max(len(turn.question), len(turn.answer)) > MAX_CHECKED_CHARS:
            continue
        pair = CheckedPair(turn.question, turn.answer, originals, is_preserved, family)
        for name, check in checks.items():
            if message := check(pair):
                prefix = f"turn {number}: " if len(dialogue) > 1 else ""
                return Drop(ordinal, name, prefix + message)
    return None
