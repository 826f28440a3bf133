"""Files to which one process appends an answer a line, read back after it may have been killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def iter_answer_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a file in order; nothing when there is no file. Lines torn by a kill are skipped."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row
