"""What is true of the drawings of a source: the file beside its data that says so, which no reader reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mvl_assets.demo_data.drawings.drawing import DrawnQAPair
from mvl_assets.demo_data.rows import RawRow
from mvl_assets.media.image import compute_image_id
from mvl_assets.readers.files import DEMO_TRUTH_FILE

DrawnTruths = Mapping[str, tuple[DrawnQAPair, ...]]
"""The true questions and answers about an image, by the image's id."""


def write_truths(source_dir: Path, rows: Iterable[RawRow]) -> None:
    """Write one JSON object per drawing that has questions: its image's id, its caption, and the questions."""
    lines: dict[str, dict[str, Any]] = {}
    for row in rows:
        for file in row.images:
            if file.data is not None and file.drawing is not None and file.drawing.qa_pairs:
                qa_pairs = [asdict(qa_pair) for qa_pair in file.drawing.qa_pairs]
                lines[compute_image_id(file.data)] = {"caption": file.drawing.caption, "qa_pairs": qa_pairs}
    with (source_dir / DEMO_TRUTH_FILE).open("w", encoding="utf-8") as truth_file:
        for image_id, truth in lines.items():
            truth_file.write(json.dumps({"image_id": image_id, **truth}, ensure_ascii=False) + "\n")


def read_truths(source_dir: Path) -> DrawnTruths:
    """Return the truths of a folder that `mvl demo-data` wrote; none if it has no such file."""
    path = source_dir / DEMO_TRUTH_FILE
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8") as file:
        truths = [json.loads(line) for line in file]
    return {truth["image_id"]: tuple(_parse_qa_pair(values) for values in truth["qa_pairs"]) for truth in truths}


def _parse_qa_pair(values: Mapping[str, Any]) -> DrawnQAPair:
    return DrawnQAPair(values["question"], values["answer"], values["rationale"], tuple(values["choices"]))
