"""Turns pytest's JUnit report into `docs/tested.md`: what was run, what was skipped and why.

make test && .venv/bin/python tools/tested.py
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from pathlib import Path

NEVER_HERE = """\
Never run by these tests, because they need what a CPU machine without a network does not have: any GPU (the CUDA paths
of training, the `small` and `paper` profiles and recipes), downloads from a hub, an object store, several machines
(`deploy/dagster.cluster.yaml` is checked against Dagster's schema only), and a model that sees as rewriter or judge.
"""


def table(reports: list[Path]) -> str:
    """The reports as Markdown. Rooms are the folders below `tests/`."""
    rooms: dict[str, Counter[str]] = defaultdict(Counter)
    seconds: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for case in (c for r in reports for c in ET.parse(r).iter("testcase")):  # noqa: S314 - of our own test runs
        parts = case.get("classname", "").split(".")
        room = parts[1] if len(parts) > 2 else parts[-1]
        seconds[room] += float(case.get("time", 0))
        skip = case.find("skipped")
        failed = case.find("failure") is not None or case.find("error") is not None
        rooms[room]["failed" if failed else "skipped" if skip is not None else "passed"] += 1
        if skip is not None:
            skipped[f"{room}: {skip.get('message', '')}"] += 1
    lines = ["# What was run", "", "Written by `tools/tested.py` from the reports of test runs.", ""]
    lines += ["| room | passed | skipped | failed | seconds |", "|---|---|---|---|---|"]
    for room in sorted(rooms):
        count = rooms[room]
        lines.append(f"| {room} | {count['passed']} | {count['skipped']} | {count['failed']} | {seconds[room]:.0f} |")
    total = sum(rooms.values(), Counter())
    lines.append(f"| all | {total['passed']} | {total['skipped']} | {total['failed']} | {sum(seconds.values()):.0f} |")
    lines += ["", "Skipped:", ""] + ([f"- {reason} ({n})" for reason, n in sorted(skipped.items())] or ["- nothing"])
    return "\n".join([*lines, "", NEVER_HERE])


if __name__ == "__main__":
    sources = [Path(name) for name in sys.argv[1:]] or [Path(".mvl/test-report.xml")]
    Path("docs/tested.md").write_text(table(sources), encoding="utf-8")
