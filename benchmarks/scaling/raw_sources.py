"""Synthetic files of every source of the catalog, in the catalog's proportions, for the real readers.

Sources with images are Parquet in LLaVA's layout with the images inside, text sources are JSON Lines. A source without
a published count gets the median of the others. Images are JPEGs of 224 x 224 pixels in about 640 bytes, a size that a
model is sent unchanged; each has bytes of its own, because its number is in a comment. Rows of multi-image sources have
two images, rows of video sources four (their frames). Every 50th row of a source is the same in all sources, so that
there are duplicates to find.

A row is a function of its source and number: a source of 1,000 rows is the beginning of one of 2,000.
"""

from __future__ import annotations

import io
import json
import random
import statistics
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from mvl_assets.common.atomic_write import replace_dir
from mvl_assets.config.catalog import SourceSpec, load_catalog

SEED = 20241206
SIDE = 224
ROWS_PER_FILE = 200_000
ROWS_PER_ROW_GROUP = 1_000
N_DRAWINGS = 32
N_PHRASES = 64
SHARED_ROW_INTERVAL = 50
"""Every row with such a number is the same in all sources."""
IMAGES_PER_ROW = {"text": 0, "single_image": 1, "multi_image": 2, "video": 4}
ROW_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("conversations", pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))),
    ]
)
TEXT = "the chart shows that a value of twelve grew by half while every other stayed where it was in spring"


def list_sources() -> list[SourceSpec]:
    """List the sources of the catalog in its order: the 153 and those outside that mixtures draw on."""
    return [spec for spec in load_catalog().values() if spec.category != "released"]


def count_source_rows(n_rows: int) -> dict[str, int]:
    """Return how many of `n_rows` rows each source has, by slug; at least one each."""
    sources = list_sources()
    known_counts = {spec.slug: spec.expected.count for spec in sources if spec.expected is not None}
    median = round(statistics.median(known_counts.values()))
    counts = {spec.slug: known_counts.get(spec.slug, median) for spec in sources}
    total = sum(counts.values())
    return {slug: max(1, round(n_rows * count / total)) for slug, count in counts.items()}


def list_raw_sources(folder: Path) -> list[SourceSpec]:
    """List the sources as declared, but with the format and folder of their synthetic files."""
    return [
        spec.model_copy(
            update={
                "format": "llava_json" if spec.modality == "text" else "llava_parquet",
                "alternates": (),
                "records": None,
                "hub": None,
                "path": str(folder / spec.slug),
            }
        )
        for spec in list_sources()
    ]


def write_raw_sources(folder: Path, row_counts: Mapping[str, int]) -> None:
    """Write files with these numbers of rows, by slug, except those that are complete already."""
    for index, spec in enumerate(list_sources()):
        if spec.slug in row_counts and not (folder / spec.slug).is_dir():
            with replace_dir(folder / spec.slug) as temp_folder:
                temp_folder.mkdir(parents=True, exist_ok=True)
                for start in range(0, row_counts[spec.slug], ROWS_PER_FILE):
                    numbers = range(start, min(start + ROWS_PER_FILE, row_counts[spec.slug]))
                    _write_file(temp_folder / f"part{start // ROWS_PER_FILE:04d}", spec, index, numbers)


def _write_file(path: Path, spec: SourceSpec, source_index: int, numbers: range) -> None:
    if spec.modality == "text":
        with path.with_suffix(".jsonl").open("w", encoding="utf-8") as file:
            for row in _iter_rows(spec, source_index, numbers):
                file.write(json.dumps({"id": row["id"], "conversations": row["conversations"]}) + "\n")
        return
    with pq.ParquetWriter(path.with_suffix(".parquet"), ROW_SCHEMA) as writer:
        for start in range(numbers.start, numbers.stop, ROWS_PER_ROW_GROUP):
            group = range(start, min(start + ROWS_PER_ROW_GROUP, numbers.stop))
            writer.write_table(pa.Table.from_pylist(list(_iter_rows(spec, source_index, group)), schema=ROW_SCHEMA))


def _iter_rows(spec: SourceSpec, source_index: int, numbers: range) -> Iterator[dict[str, Any]]:
    phrases, drawings = _make_phrases(), _draw_images()
    n_images = IMAGES_PER_ROW[spec.modality or "single_image"]
    # Group B is rewritten because its answers are short.
    n_answer_phrases = 1 if spec.group == "B" else 4
    for number in numbers:
        is_shared = number % SHARED_ROW_INTERVAL == 0
        content = number // SHARED_ROW_INTERVAL if is_shared else (source_index + 1) * 100_000_000 + number
        first_phrase = content * 2_654_435_761 % (1 << 32)
        chosen = [phrases[(first_phrase >> (6 * k)) % N_PHRASES] for k in range(5)]
        answer = " ".join(chosen[1 : 1 + (1 if is_shared else n_answer_phrases)])
        turns = [
            {"from": "human", "value": "<image>\n" * n_images + f"What does item {content} say? {chosen[0]}?"},
            {"from": "gpt", "value": f"Item {content}: {answer}."},
        ]
        images = [
            {"bytes": _add_comment(drawings[(content + k) % N_DRAWINGS], content * 8 + k), "path": None}
            for k in range(n_images)
        ]
        yield {"id": str(number), "images": images, "conversations": turns}


@cache
def _make_phrases() -> list[str]:
    rng = random.Random(SEED)
    return [" ".join(rng.choices(TEXT.split(), k=10)) for _ in range(N_PHRASES)]


@cache
def _draw_images() -> list[bytes]:
    rng = random.Random(SEED)
    return [_draw_image(rng) for _ in range(N_DRAWINGS)]


def _draw_image(rng: random.Random) -> bytes:
    image = Image.new("RGB", (SIDE, SIDE), (200, 220, 240))
    draw = ImageDraw.Draw(image)
    for _ in range(3):
        left, top = 16 * rng.randrange(9), 16 * rng.randrange(9)
        draw.rectangle((left, top, left + 79, top + 79), fill=tuple(rng.choices(range(256), k=3)))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=30, optimize=True, subsampling=2)
    return buffer.getvalue()


def _add_comment(jpeg: bytes, number: int) -> bytes:
    return jpeg[:2] + b"\xff\xfe\x00\x12" + b"%016d" % number + jpeg[2:]
