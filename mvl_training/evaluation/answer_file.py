"""Answer files: JSON lines that one process appends to, readable after that process was killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def iter_answer_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a file in order, none if it does not exist; lines torn by a kill are skipped."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row
