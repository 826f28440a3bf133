"""Human labels of rewritten pairs: a sheet to fill in, and reading it back.

The sheet is CSV, so that any spreadsheet opens it. It does not say what the judge thinks: whoever labels should not
know. Columns that are read: `rewrite_id` (or `judged_id`), `label` (good or bad; yes or no, 1 or 0 mean the same; empty
is skipped) and, where several people label, `annotator`: give each a copy, and put the copies together.
"""

from __future__ import annotations

import csv
import heapq
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvl_assets.common.digest import digest_hex
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.dialogue import pairs_of, readable

COLUMNS = ("rewrite_id", "category", "source", "pictures", "question", "answer", "label", "annotator")
WORDS = {
    **dict.fromkeys(("good", "yes", "true", "1", "keep"), True),
    **dict.fromkeys(("bad", "no", "false", "0", "drop"), False),
}
SOMEBODY = "somebody"
# Of a cell's first character, which makes a spreadsheet read the cell as a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Label:
    """What one person says to one pair. `row_id` is a `rewrite_id` or a `judged_id`."""

    row_id: str
    annotator: str
    good: bool


@dataclass(frozen=True, slots=True)
class Labels:
    """`blank` rows have no label yet."""

    labels: list[Label]
    blank: int


def read_labels(path: Path) -> Labels:
    """Raises `MvlError` naming the line for a missing column, an unknown label, or two labels of one person for one
    pair."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MvlError(f"{path}: byte {error.start} is not UTF-8", hint="save the sheet as CSV in UTF-8") from error
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or []
        id_column = next((name for name in ("rewrite_id", "judged_id") if name in names), None)
        if id_column is None or "label" not in names:
            raise MvlError(
                f"{path}: needs the columns rewrite_id (or judged_id) and label, has {', '.join(names) or 'none'}",
                hint="`mvl judge sample --out FILE` writes a sheet with them",
            )
        found: dict[tuple[str, str], Label] = {}
        blank = 0
        for row in reader:
            word = (row["label"] or "").strip().casefold()
            if not word:
                blank += 1
                continue
            place = f"{path}:{reader.line_num}"
            if word not in WORDS:
                raise MvlError(f"{place}: label {word!r}", hint="good or bad")
            label = Label((row[id_column] or "").strip(), (row.get("annotator") or "").strip() or SOMEBODY, WORDS[word])
            if found.setdefault((label.row_id, label.annotator), label) != label:
                raise MvlError(
                    f"{place}: {label.annotator} labels {label.row_id} both good and bad", hint="keep one of the two"
                )
    return Labels(list(found.values()), blank)


# -- the sheet ---------------------------------------------------------------------------------------------------------


def sample(lake: Lake, rows: int, seed: int = 0) -> list[dict[str, Any]]:
    """Judged rows for labelling: as many of each category as of any other, as far as there are; within a category those
    whose hash with the seed is smallest, so a larger sample contains the smaller. Memory holds the sample and, per
    category, `rows` ids."""
    columns = ["rewrite_id", "sample_id", "category", "source"]
    by_category: list[list[tuple[str, dict[str, Any]]]] = []
    for name in lake.names("judged"):
        keyed = ((digest_hex(seed, row["rewrite_id"]), row) for row in lake.table(name).rows(columns))
        by_category.append(heapq.nsmallest(rows, keyed, key=lambda pair: pair[0]))
    shares = _shares([len(some) for some in by_category], rows)
    return [row for some, share in zip(by_category, shares, strict=True) for _, row in some[:share]]


def _shares(available: Sequence[int], wanted: int) -> list[int]:
    """Equal shares; what one cannot give the others do."""
    shares = [0] * len(available)
    while wanted > 0 and any(a > s for a, s in zip(available, shares, strict=True)):
        for place, most in enumerate(available):
            if wanted and shares[place] < most:
                shares[place] += 1
                wanted -= 1
    return shares


def write_sheet(lake: Lake, chosen: Sequence[Mapping[str, Any]], path: Path) -> int:
    """Writes the sheet and, in a folder beside it, the pictures as they are stored; returns how many pictures.

    Raises `MvlError` when the sheet exists: it may hold somebody's work.
    """
    folder = path.with_name(f"{path.stem}_pictures")
    if path.exists():
        raise MvlError(f"{path} exists, and may hold labels", hint="give another name with --out, or move it away")
    folder.mkdir(parents=True, exist_ok=True)
    pictures = 0
    with path.open("x", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in _resolved(lake, chosen):
            names = _put_pictures(lake, row["rewrite_id"], row["image_ids"], folder)
            pictures += len(names)
            writer.writerow(
                {name: _cell(value) for name, value in {**row, "pictures": " ".join(names)}.items() if name in COLUMNS}
            )
    return pictures


def _resolved(lake: Lake, chosen: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in chosen:
        index = lake.index(f"rewritten/{row['category']}")
        rewrite = index.rows([row["rewrite_id"]], ["rewrite_id", "version_id", "conversations"]).get(row["rewrite_id"])
        if rewrite is None:  # replaced since it was judged
            continue
        version = rewrite["version_id"]
        seen = lake.index("samples").rows([version], ["version_id", "image_ids"])[version]
        pairs = pairs_of(rewrite["conversations"])
        yield {
            **row,
            "image_ids": seen["image_ids"] or [],
            "question": _numbered([readable(pair.question) for pair in pairs]),
            "answer": _numbered([pair.answer for pair in pairs]),
        }


def _numbered(texts: Sequence[str]) -> str:
    if len(texts) == 1:
        return texts[0]
    return "\n".join(f"{number}. {text}" for number, text in enumerate(texts, 1))


def _put_pictures(lake: Lake, rewrite_id: str, image_ids: Sequence[str], folder: Path) -> list[str]:
    formats = {i: info.format.lower() for i, info in lake.images.describe(set(image_ids)).items()}
    names = []
    for number, (image_id, data) in enumerate(lake.images.fetch(list(dict.fromkeys(image_ids))).items(), 1):
        name = f"{rewrite_id[:12]}_{number}.{formats.get(image_id, 'img').replace('jpeg', 'jpg')}"
        (folder / name).write_bytes(data)
        names.append(f"{folder.name}/{name}")
    return names


def _cell(value: object) -> str:
    """Text that no spreadsheet takes for a formula: what the data says may begin with an equals sign."""
    text = str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
