"""The examples of `docs/add_a_source.md` do what the page says: its files are laid out, its field maps read them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mvl_assets.config.catalog import RecordsMapping, read_catalog
from mvl_assets.config.strict_yaml import iter_documents
from tests.raw_files import good, make_image, put, read_all, source

PAGE = Path(__file__).resolve().parents[2] / "docs" / "add_a_source.md"
IMAGES = {
    "csv": ("bars.png", "images/lines.png"),
    "JSON:": ("pictures/00007.png", "pictures/00012.png"),
    "Parquet": (),
    "Lines": ("a/cat.png",),
}
"""Where each example's pictures lie, by a word of its heading."""


def examples() -> dict[str, list[tuple[str, str]]]:
    """The fenced blocks (language, text) under each heading that has a field map."""
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    result = {
        part.splitlines()[0]: re.findall(r"^```(\w+)\n(.*?)^```", part, re.DOTALL | re.MULTILINE) for part in sections
    }
    return {heading: blocks for heading, blocks in result.items() if any(language == "yaml" for language, _ in blocks)}


def field_map(text: str, folder: Path) -> RecordsMapping:
    put(folder, "map.yaml", text.encode())
    (document,) = iter_documents(folder / "map.yaml")
    return RecordsMapping.model_validate(document.value)


def lay_out(root: Path, heading: str, language: str, text: str) -> None:
    """The example's file, and its pictures."""
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}")[1]
    name = re.findall(r"`\w+/([\w./-]+)`", section)[0]
    (word,) = (word for word in IMAGES if word in heading)
    for number, file in enumerate(IMAGES[word]):
        put(root, file, make_image(number))
    if language == "python":
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        exec(compile(text, str(PAGE), "exec"), {"photo": make_image(9), "folder": (root / name).parent})
    else:
        put(root, name, text.encode())


def test_the_page_has_four_examples() -> None:
    assert len(examples()) == 4


@pytest.mark.parametrize("heading", examples())
def test_the_example_gives_what_the_page_says(heading: str, tmp_path: Path) -> None:
    (language, data), (_, fields), (_, told) = examples()[heading]
    root = tmp_path / "raw"
    lay_out(root, heading, language, data)
    rows = read_all(source("records", field_map(fields, tmp_path)), root)
    expected: list[list[Any]] = json.loads(told)
    assert [[turn.value for turn in sample.turns] for sample in good(rows)] == expected
    assert len(rows) == len(expected)
    marked = [sum(text.count("<image>") for text in talk) for talk in expected]
    assert [len(sample.images) for sample in good(rows)] == marked
    assert all(result.read().startswith(b"\x89PNG") for sample in good(rows) for result in sample.images)


def test_the_entry_around_a_field_map_is_one_the_catalog_takes(tmp_path: Path) -> None:
    entry = re.findall(r"^```\n(type: .*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[0]
    fields = "{files: '*.csv', shape: csv, question: '{question}', answer: '{answer}'}"
    put(tmp_path, "chart/defs.yaml", entry.replace("{...}", fields).encode())
    (spec,) = read_catalog(tmp_path).values()
    assert (spec.slug, spec.format, spec.group) == ("my_charts", "records", "B")
