"""Remains of JSON in a text: a model that closed a string of constrained decoding late, or wrote JSON inside it.

Code may hold all of that, and so may originals about code.
"""

from __future__ import annotations

import re

from mvl_assets.rewriting.checks.pair import CheckedPair

_DEBRIS = re.compile(
    r"[}\]]\s*,\s*[{\[]\s*(?:\"|\Z)"
    r"|\"\s*[}\]][\s}\],]*\Z"
    r"|[\"'](?:question|answer|kind|pairs|turns|scenario)[\"']\s*:"
    r"|\A\s*[{\[]\s*\""
    r"|\\n\\n|\\\""
)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)


def find_json_debris(pair: CheckedPair) -> str | None:
    """Return the remains."""
    if pair.family == "code":
        return None
    for text in (pair.question, pair.answer):
        if '"' not in text and "'" not in text and "\\" not in text and "}" not in text and "]" not in text:
            continue
        debris = _DEBRIS.search(_CODE.sub("", text) if "`" in text else text)
        if debris and not any(_DEBRIS.search(o.question) or _DEBRIS.search(o.answer) for o in pair.originals):
            return f"remains of JSON: {text[max(0, debris.start() - 10) : debris.end() + 10]!r}"
    return None
