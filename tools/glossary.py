"""Write the table of pipeline stages in docs/glossary.md from `mvl_assets.stages`."""

from __future__ import annotations

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from mvl_assets.stages import STAGES, Stage  # noqa: E402

GLOSSARY = PROJECT / "docs" / "glossary.md"
BEGIN, END = (
    "<!-- stages: written by `python tools/glossary.py` from mvl_assets/stages.py -->\n",
    "<!-- end of stages -->",
)


def format_row(stage: Stage) -> str:
    """Return the stage as a row of the Markdown table."""
    upstream = ", ".join(stage.upstream) or "the source's files"
    table = f"`{stage.table}`" if stage.table else "files"
    partitions = "one per source" if stage.is_partitioned else "none"
    roles = ", ".join(stage.model_roles) or "none"
    return f"| {stage.name} | {stage.description} | {upstream} | {table} | {partitions} | {roles} |"


def render(text: str) -> str:
    """Return the glossary with an up-to-date table of stages."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    header = ["| stage | makes | from | table | partitions | model roles |", "|---|---|---|---|---|---|"]
    return "\n".join([before + BEGIN, *header, *map(format_row, STAGES), "", END]) + after


def main(arguments: list[str]) -> int:
    """Write the table; with `--check` return 1 if it is not up to date."""
    text = GLOSSARY.read_text(encoding="utf-8")
    rendered = render(text)
    if "--check" in arguments:
        return int(rendered != text)
    GLOSSARY.write_text(rendered, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
