"""Raw sources for `ingest.py` in layouts of the demo data, written once per size and cached.

Images are 32 drawings of smooth noise, 640 x 480 at quality 85, about 70 kB each. Every row has
different bytes, because its number is in a comment of the JPEG: no image can be skipped as a duplicate, and all cost
the same to decode.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mvl_assets.common.atomic_write import replace_dir
from mvl_assets.demo_data.layouts import LAYOUTS
from mvl_assets.demo_data.rows import RawFile, RawRow

LAYOUT_BY_KIND = {"jpeg": "llava_json", "parquet": "llava_parquet", "text": "llava_jsonl"}
"""Layout of the demo data by kind of source."""

DATA_VERSION = 1
ROWS_PER_FILE = 1000
N_DRAWINGS = 32
WORDS = (
    "the",
    "chart",
    "shows",
    "that",
    "a",
    "value",
    "of",
    "12",
    "grew",
    "by",
    "half",
    "while",
    "every",
    "other",
    "one",
)


def ensure_source(cache: Path, kind: str, n_rows: int, seed: int, n_parts: int) -> list[Path]:
    """Return folders with `n_rows` rows in `n_parts` sources of about equal size, written unless they exist."""
    folders = [cache / f"{kind}-{n_rows}-{seed}-{DATA_VERSION}-{part}of{n_parts}" for part in range(n_parts)]
    for part, folder in enumerate(folders):
        if not folder.is_dir():
            with replace_dir(folder) as temp_folder:
                for file_number, rows_of_file in enumerate(
                    _iter_row_batches(_iter_rows(kind, range(part, n_rows, n_parts), seed))
                ):
                    file_dir = temp_folder / f"part{file_number:04d}" if kind == "parquet" else temp_folder
                    file_dir.mkdir(parents=True, exist_ok=True)
                    LAYOUTS[LAYOUT_BY_KIND[kind]].write_source(file_dir, f"part{file_number:04d}", rows_of_file)
    return folders


def measure_folder_bytes(folder: Path) -> int:
    """Return the size of all files of a folder in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _iter_row_batches(rows: Iterator[RawRow]) -> Iterator[list[RawRow]]:
    while batch := list(islice(rows, ROWS_PER_FILE)):
        yield batch


def _iter_rows(kind: str, row_numbers: range, seed: int) -> Iterator[RawRow]:
    rng = np.random.default_rng(seed)
    drawings = [] if kind == "text" else [_draw_jpeg(rng) for _ in range(N_DRAWINGS)]
    for row_number in row_numbers:
        text_words = rng.choice(WORDS, 180)
        turns = ((f"Question {row_number}: {' '.join(text_words[:20])}?", f"{' '.join(text_words[20:])}."),)
        name = f"{row_number // ROWS_PER_FILE:04d}/{row_number:08d}.jpg"
        images = (
            (RawFile(name, _add_number_comment(drawings[row_number % N_DRAWINGS], row_number)),) if drawings else ()
        )
        yield RawRow(str(row_number), turns, images)


def _draw_jpeg(rng: np.random.Generator) -> bytes:
    noise = Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    noise.resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _add_number_comment(jpeg: bytes, number: int) -> bytes:
    return jpeg[:2] + b"\xff\xfe\x00\x12" + b"%016d" % number + jpeg[2:]


def write_large_array(folder: Path, n_bytes: int, seed: int) -> None:
    """Write `rows.json`, a JSON array of at least `n_bytes` bytes with rows of about 5 kB of text."""
    rng = np.random.default_rng(seed)
    answers = [" ".join(rng.choice(WORDS, 1000)) for _ in range(N_DRAWINGS)]
    folder.mkdir(parents=True)
    with (folder / "rows.json").open("w", encoding="utf-8") as file:
        number = written_bytes = 0
        while written_bytes < n_bytes:
            row = {
                "id": str(number),
                "conversations": _build_conversations(f"Question {number}?", answers[number % N_DRAWINGS]),
            }
            written_bytes += file.write(("[" if number == 0 else ",\n") + json.dumps(row))
            number += 1
        file.write("]\n")


def write_large_tar(folder: Path, n_bytes: int, seed: int) -> None:
    """Write `images.tar` of at least `n_bytes` bytes, and a row for each of its images."""
    folder.mkdir(parents=True)
    with (
        tarfile.open(folder / "images.tar", "w") as archive,
        (folder / "rows.jsonl").open("w", encoding="utf-8") as file,
    ):
        for number, data in _iter_numbered_images(n_bytes, seed):
            info = tarfile.TarInfo(f"images/{number:08d}.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
            conversations = _build_conversations("<image>\nWhat?", f"Image {number}.")
            file.write(json.dumps({"id": str(number), "image": info.name, "conversations": conversations}) + "\n")


def write_large_parquet(folder: Path, n_bytes: int, seed: int) -> None:
    """Write `rows.parquet` with at least `n_bytes` bytes of images, in row groups of 1,000."""
    folder.mkdir(parents=True)
    turn_type = pa.struct([("from", pa.string()), ("value", pa.string())])
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("id", pa.string()), ("image", image_type), ("conversations", pa.list_(turn_type))])
    rows = (
        {
            "id": str(number),
            "image": {"bytes": data, "path": f"{number:08d}.jpg"},
            "conversations": _build_conversations("<image>\nWhat?", f"Image {number}."),
        }
        for number, data in _iter_numbered_images(n_bytes, seed)
    )
    with pq.ParquetWriter(folder / "rows.parquet", schema) as writer:
        while batch := list(islice(rows, ROWS_PER_FILE)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def _iter_numbered_images(n_bytes: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """Yield numbered images until they have `n_bytes` bytes in total."""
    rng = np.random.default_rng(seed)
    drawings = [_draw_jpeg(rng) for _ in range(N_DRAWINGS)]
    number = written_bytes = 0
    while written_bytes < n_bytes:
        data = _add_number_comment(drawings[number % N_DRAWINGS], number)
        yield number, data
        number, written_bytes = number + 1, written_bytes + len(data)


def _build_conversations(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
