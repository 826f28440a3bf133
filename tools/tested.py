"""Write `docs/tested.md` from pytest's JUnit reports: tests that ran, tests that were skipped, and why.

make test && .venv/bin/python tools/tested.py [REPORT ...]
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from pathlib import Path

UNTESTED_NOTE = """\
Never covered, because a CPU machine without a network cannot run it: any GPU (the CUDA paths
of training, the `small` and `paper` profiles and recipes), downloads from a hub, a real object store, several machines
(`mvl_assets/deploy/dagster.cluster.yaml` is checked against Dagster's schema only), and a vision model as rewriter or
judge.
"""


def render_test_report(report_paths: list[Path]) -> str:
    """Return the reports as markdown, by folder of `tests/`."""
    counts_by_package: dict[str, Counter[str]] = defaultdict(Counter)
    seconds: dict[str, float] = defaultdict(float)
    skipped: Counter[str] = Counter()
    cases = (case for path in report_paths for case in ET.parse(path).iter("testcase"))  # noqa: S314 - of our own runs
    # A test that was run again counts as in its last report.
    for case in {(case.get("classname"), case.get("name")): case for case in cases}.values():
        name_parts = case.get("classname", "").split(".")
        package = name_parts[1] if len(name_parts) > 2 else name_parts[-1]
        seconds[package] += float(case.get("time", 0))
        skip_element = case.find("skipped")
        failed = case.find("failure") is not None or case.find("error") is not None
        counts_by_package[package]["failed" if failed else "skipped" if skip_element is not None else "passed"] += 1
        if skip_element is not None:
            skipped[f"{package}: {skip_element.get('message', '')}"] += 1
    lines = ["# What was run", "", "Written by `tools/tested.py` from the reports of test runs.", ""]
    lines += ["| tests | passed | skipped | failed | seconds |", "|---|---|---|---|---|"]
    for package in sorted(counts_by_package):
        count = counts_by_package[package]
        lines.append(
            f"| {package} | {count['passed']} | {count['skipped']} | {count['failed']} | {seconds[package]:.0f} |"
        )
    total = sum(counts_by_package.values(), Counter())
    lines.append(f"| all | {total['passed']} | {total['skipped']} | {total['failed']} | {sum(seconds.values()):.0f} |")
    lines += ["", "Skipped:", ""] + ([f"- {reason} ({n})" for reason, n in sorted(skipped.items())] or ["- nothing"])
    return "\n".join([*lines, "", UNTESTED_NOTE])


if __name__ == "__main__":
    junit_paths = [Path(name) for name in sys.argv[1:]] or [Path(".mvl/test-report.xml")]
    Path("docs/tested.md").write_text(render_test_report(junit_paths), encoding="utf-8")
