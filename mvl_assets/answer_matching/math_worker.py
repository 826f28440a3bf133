"""The process of `math_equality`: reads pairs of formulas as lines of JSON, writes true, false or null for each."""

from __future__ import annotations

import json
import logging
import resource
import sys
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from math_verify.parser import ExprExtractionConfig

MAX_MEMORY_BYTES = 2 << 30
_CONFIGS = (LatexExtractionConfig(), ExprExtractionConfig())


def main() -> None:
    """Answer until the input ends."""
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    answers = sys.stdout
    # sympy prints now and then.
    sys.stdout = sys.stderr
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        try:
            is_equal = compare(*json.loads(line))
        except (Exception, RecursionError):  # whatever sympy makes of hostile text
            is_equal = None
        print(json.dumps(is_equal), file=answers, flush=True)


def compare(formula: str, reference: str) -> bool | None:
    """Return whether two formulas are equal; None where one of them is none."""
    parsed, parsed_reference = _parse(formula), _parse(reference)
    # Text that is no formula comes back as it is, alone.
    if any(all(isinstance(value, str) for value in values) for values in (parsed, parsed_reference)):
        return None
    # No timeout of the library's: it needs the main thread's signals, and the parent has its own.
    return bool(verify(parsed_reference, parsed, timeout_seconds=None))


def _parse(text: str) -> list[Any]:
    has_delimiters = "$" in text or "\\(" in text or "\\[" in text or "\\boxed" in text
    return parse(text if has_delimiters else f"${text}$", _CONFIGS, parsing_timeout=None)


if __name__ == "__main__":
    main()
