"""Human labels of rewritten pairs: a sheet to fill in, and reading it back.

The sheet is CSV, so that any spreadsheet opens it. It does not show the judge's verdicts, which annotators should not
know. Columns that are read: `rewrite_id` (or `judged_id`), `label` (good or bad; yes or no, 1 or 0 mean the same; empty
is skipped) and, where several people label, `annotator`: give each a copy, and join the copies.
"""

from __future__ import annotations

import csv
import heapq
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvl_assets.common.digest import compute_digest
from mvl_assets.errors import MvlError
from mvl_assets.lake.images import ImageStore
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.dialogue import extract_qa_pairs, format_numbered, strip_markers
from mvl_assets.stages import JUDGED

SHEET_COLUMNS = ("rewrite_id", "category", "source", "images", "question", "answer", "label", "annotator")
LABEL_VALUES = {
    **dict.fromkeys(("good", "yes", "true", "1", "keep"), True),
    **dict.fromkeys(("bad", "no", "false", "0", "drop"), False),
}
DEFAULT_ANNOTATOR = "unknown"
# First characters that make a spreadsheet read a cell as a formula.
FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Label:
    """One annotator's label of one pair. `row_id` is a `rewrite_id` or a `judged_id`."""

    row_id: str
    annotator: str
    is_good: bool


@dataclass(frozen=True, slots=True)
class LabelSheet:
    """The labels of a sheet; `n_unlabelled` rows have none yet."""

    labels: list[Label]
    n_unlabelled: int


def read_labels(path: Path) -> LabelSheet:
    """Return the labels of a sheet.

    Raises:
        MvlError: A column is missing, a label is unknown, or one person labels a pair twice; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MvlError(f"{path}: byte {error.start} is not UTF-8", hint="save the sheet as CSV in UTF-8") from error
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file)
        column_names = reader.fieldnames or []
        id_column = next((name for name in ("rewrite_id", "judged_id") if name in column_names), None)
        if id_column is None or "label" not in column_names:
            raise MvlError(
                f"{path}: needs the columns rewrite_id (or judged_id) and label,"
                f" has {', '.join(column_names) or 'none'}",
                hint="`mvl judge label-sheet --out FILE` writes a sheet with them",
            )
        labels_by_key: dict[tuple[str, str], Label] = {}
        n_unlabelled = 0
        for row in reader:
            label_text = (row["label"] or "").strip().casefold()
            if not label_text:
                n_unlabelled += 1
                continue
            location = f"{path}:{reader.line_num}"
            if label_text not in LABEL_VALUES:
                raise MvlError(f"{location}: label {label_text!r}", hint="good or bad")
            label = Label(
                (row[id_column] or "").strip(),
                (row.get("annotator") or "").strip() or DEFAULT_ANNOTATOR,
                LABEL_VALUES[label_text],
            )
            if labels_by_key.setdefault((label.row_id, label.annotator), label) != label:
                raise MvlError(
                    f"{location}: {label.annotator} labels {label.row_id} both good and bad", hint="keep one of the two"
                )
    return LabelSheet(list(labels_by_key.values()), n_unlabelled)


# -- the sheet ---------------------------------------------------------------------------------------------------------


def draw_label_set(lake: Lake, n_rows: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return judged rows for labelling, in equal numbers per category as far as there are enough.

    Within a category, rows are selected by the smallest hash of seed and row, so a larger set contains a smaller one.
    Memory holds `n_rows` rows per category.
    """
    columns = ["rewrite_id", "sample_id", "category", "source"]
    by_category: list[list[tuple[str, dict[str, Any]]]] = []
    for name in lake.list_tables(JUDGED.name):
        hashed_rows = (
            (compute_digest(seed, row["rewrite_id"]), row) for row in lake.get_table(name).iter_rows(columns)
        )
        by_category.append(heapq.nsmallest(n_rows, hashed_rows, key=lambda pair: pair[0]))
    shares = _allocate_evenly([len(category_rows) for category_rows in by_category], n_rows)
    return [row for some, share in zip(by_category, shares, strict=True) for _, row in some[:share]]


def _allocate_evenly(available: Sequence[int], total: int) -> list[int]:
    """Return equal shares of `total`; where one runs short, the others make up for it."""
    shares = [0] * len(available)
    while total > 0 and any(a > s for a, s in zip(available, shares, strict=True)):
        for index, n_available in enumerate(available):
            if total and shares[index] < n_available:
                shares[index] += 1
                total -= 1
    return shares


def write_label_sheet(lake: Lake, label_set: Sequence[Mapping[str, Any]], path: Path) -> int:
    """Write the sheet and, in a folder next to it, the images as they are stored; return how many images.

    Raises:
        MvlError: The sheet exists, and may hold labels.
    """
    image_dir = path.with_name(f"{path.stem}_images")
    if path.exists():
        raise MvlError(f"{path} exists, and may hold labels", hint="give another name with --out, or move it away")
    image_dir.mkdir(parents=True, exist_ok=True)
    n_images = 0
    with path.open("x", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, SHEET_COLUMNS)
        writer.writeheader()
        for row in _iter_sheet_rows(lake, label_set):
            image_paths = _write_images(lake.get_images(row["source"]), row["rewrite_id"], row["image_ids"], image_dir)
            n_images += len(image_paths)
            writer.writerow(
                {
                    name: _escape_cell(value)
                    for name, value in {**row, "images": " ".join(image_paths)}.items()
                    if name in SHEET_COLUMNS
                }
            )
    return n_images


def _iter_sheet_rows(lake: Lake, label_set: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in label_set:
        index = lake.get_index(f"rewritten/{row['category']}", row["source"])
        rewrite = index.read_rows([row["rewrite_id"]], ["version_id", "conversations"]).get(row["rewrite_id"])
        if rewrite is None:  # replaced since it was judged
            continue
        version_id = rewrite["version_id"]
        sample_row = lake.get_index("samples", row["source"]).read_rows([version_id], ["image_ids"])[version_id]
        pairs = extract_qa_pairs(rewrite["conversations"])
        yield {
            **row,
            "image_ids": sample_row["image_ids"] or [],
            "question": format_numbered([strip_markers(pair.question) for pair in pairs]),
            "answer": format_numbered([pair.answer for pair in pairs]),
        }


def _write_images(images: ImageStore, rewrite_id: str, image_ids: Sequence[str], image_dir: Path) -> list[str]:
    formats = {i: info.format.lower() for i, info in images.read_properties(set(image_ids)).items()}
    image_paths = []
    for number, (image_id, data) in enumerate(images.read_images(list(dict.fromkeys(image_ids))).items(), 1):
        name = f"{rewrite_id[:12]}_{number}.{formats.get(image_id, 'img').replace('jpeg', 'jpg')}"
        (image_dir / name).write_bytes(data)
        image_paths.append(f"{image_dir.name}/{name}")
    return image_paths


def _escape_cell(value: object) -> str:
    """Return text that no spreadsheet takes for a formula: data may begin with an equals sign."""
    text = str(value)
    return f"'{text}" if text.startswith(FORMULA_PREFIXES) else text
