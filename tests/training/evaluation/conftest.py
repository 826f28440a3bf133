"""A small lake with held-out questions: generated images, samples, category rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image, ImageDraw

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.sample_facts import compute_holdout_hash
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import ImageRow
from mvl_assets.media.image import compute_image_id, encode_image

COLOURS = ("red", "green", "blue", "white")
CATEGORIES = ("general", "chart", "language")
ROWS = 12


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MVL_HOME", str(tmp_path))
    monkeypatch.delenv("MVL_LAKE", raising=False)
    monkeypatch.setenv("MVL_PROFILE", "demo")
    return tmp_path


@pytest.fixture
def lake(home: Path) -> Lake:
    """`ROWS` samples in each of three categories, all of source `drawn-<category>`; `language` has no pictures."""
    lake = Lake(str(home / "lake"))
    for category in CATEGORIES:
        fill(lake, category)
    return lake


def fill(lake: Lake, category: str) -> None:
    source = f"drawn-{category}"
    samples, rows = [], []
    for number in range(ROWS):
        colour = COLOURS[number % len(COLOURS)]
        pictures = [] if category == "language" else [draw(colour, number)]
        lake.get_images(source).insert([_image(data) for data in pictures])
        sample_id = compute_digest(source, number)
        samples.append(
            {
                "version_id": compute_digest(sample_id, 1),
                "sample_id": sample_id,
                "source": source,
                "revision": 1,
                "withdrawn": False,
                "native_id": str(number),
                "file": "rows.json",
                "position": number,
                "conversations": [
                    {"from": "human", "value": "<image>\n" * len(pictures) + f"What colour is shape {number}?"},
                    {"from": "gpt", "value": colour},
                ],
                "image_ids": [compute_image_id(data) for data in pictures],
                "video": None,
                "license": "cc0-1.0",
                "content_hash": compute_digest("content", number),
                "run_id": "test",
            }
        )
        group = compute_image_id(pictures[0]) if pictures else sample_id
        rows.append(
            {
                "sample_id": sample_id,
                "version_id": compute_digest(sample_id, 1),
                "source": source,
                "category": category,
                "image_group_id": group,
                "holdout_hash": compute_holdout_hash(group),
            }
        )
    insert(lake, "samples", samples)
    table = lake.get_table(f"category/{category}")
    table.publish([_complete(rows, table.spec.columns)], partition_key=source)


def insert(lake: Lake, name: str, rows: list[dict]) -> None:
    table = lake.get_table(name)
    table.insert(_complete(rows, table.spec.columns))


def _complete(rows: list[dict], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{n: row.get(n) for n in schema.names} for row in rows], schema=schema)


def draw(colour: str, number: int) -> bytes:
    image = Image.new("RGB", (256, 240), "black")
    ImageDraw.Draw(image).rectangle((20 + number, 20, 200, 200), fill=colour)
    return encode_image(image, "PNG")


def _image(data: bytes) -> ImageRow:
    return ImageRow(compute_image_id(data), data, "PNG", 256, 240, 1, "RGB", None)
