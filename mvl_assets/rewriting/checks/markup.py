"""Markup that does not close: Markdown fences, LaTeX environments and delimiters, a template's control tokens.

A single `$` is not looked at: it is a price as often as a formula.
"""

from __future__ import annotations

import re
from collections import Counter

from mvl_assets.rewriting.checks.pair import CheckedPair

_CONTROL_TOKEN = re.compile(r"<\|?(?:im_start|im_end|endoftext|eot_id|start_header_id|/?s)\|?>|\[/?INST\]|</?think>")
_ENVIRONMENT = re.compile(r"\\(begin|end)\s*\{([^}]*)\}")
_DELIMITERS = (("\\[", "\\]"), ("\\(", "\\)"))
_LEFT, _RIGHT = re.compile(r"\\left(?![a-zA-Z])"), re.compile(r"\\right(?![a-zA-Z])")
_UNCLOSED_ARGUMENT = re.compile(r"\\(?:[dt]?frac|sqrt|boxed|text|mathrm|mathbf)\s*\{[^{}]*\Z")


def find_broken_markup(pair: CheckedPair) -> str | None:
    """Return what is broken."""
    text = pair.answer
    if "<" in text or "[" in text:
        token = _CONTROL_TOKEN.search(text)
        if token and not (pair.family == "code" and token[0] == "</s>"):
            return f"a token of a chat template: {token[0]!r}"
    if "```" in text and text.count("```") % 2:
        return "a fence of code that does not close"
    if "$$" in text and text.count("$$") % 2:
        return "a displayed formula that does not close"
    return _find_broken_latex(text) if "\\" in text and pair.family != "code" else None


def _find_broken_latex(text: str) -> str | None:
    environments: Counter[str] = Counter()
    for kind, name in _ENVIRONMENT.findall(text):
        environments[name] += 1 if kind == "begin" else -1
    for name, n in environments.items():
        if n:
            return f"\\begin and \\end of {name!r} do not match"
    for opening, closing in _DELIMITERS:
        # "\\[2pt]" is a line break with a length.
        if text.replace("\\\\", "").count(opening) != text.replace("\\\\", "").count(closing):
            return f"{opening} and {closing} do not match"
    if len(_LEFT.findall(text)) != len(_RIGHT.findall(text)):
        return "\\left and \\right do not match"
    if unclosed := _UNCLOSED_ARGUMENT.search(text):
        return f"an argument that does not close: {unclosed[0][:40]!r}"
    return None
