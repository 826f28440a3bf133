"""Raw sources for `ingest.py`, in the layouts of the miniatures, written once for a size and kept.

Pictures are 32 drawings of soft noise, 640 x 480 at quality 85, about 70 kB each. Every row has bytes of its own: the
number of the row stands in a comment of the JPEG, so nothing that goes by content can skip a picture, and none costs
less to decode than another.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mvl_assets.demo_data.layouts import LAYOUTS
from mvl_assets.demo_data.rows import RawFile, Row

KINDS = {"jpeg": "llava_json", "parquet": "llava_parquet", "text": "llava_jsonl"}
"""What a source is made of, and the miniature's layout that writes it."""

EDITION = 1
AT_A_TIME = 1000
DRAWINGS = 32
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


def source_at(cache: Path, kind: str, rows: int, seed: int, parts: int) -> list[Path]:
    """The folders of `rows` rows in `parts` sources of about equal size, written when they are not there."""
    folders = [cache / f"{kind}-{rows}-{seed}-{EDITION}-{part}of{parts}" for part in range(parts)]
    for part, folder in enumerate(folders):
        if not folder.is_dir():
            fresh = folder.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            for number, some in enumerate(_in_lots(_rows(kind, range(part, rows, parts), seed))):
                place = fresh / f"part{number:04d}" if kind == "parquet" else fresh
                place.mkdir(parents=True, exist_ok=True)
                LAYOUTS[KINDS[kind]].write(place, f"part{number:04d}", some)
            fresh.rename(folder)
    return folders


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _in_lots(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while some := list(islice(rows, AT_A_TIME)):
        yield some


def _rows(kind: str, numbers: range, seed: int) -> Iterator[Row]:
    rng = np.random.default_rng(seed)
    drawings = [] if kind == "text" else [_drawing(rng) for _ in range(DRAWINGS)]
    for number in numbers:
        words = rng.choice(WORDS, 180)
        turns = ((f"Question {number}: {' '.join(words[:20])}?", f"{' '.join(words[20:])}."),)
        name = f"{number // AT_A_TIME:04d}/{number:08d}.jpg"
        pictures = (RawFile(name, _numbered(drawings[number % DRAWINGS], number)),) if drawings else ()
        yield Row(str(number), turns, pictures)


def _drawing(rng: np.random.Generator) -> bytes:
    small = Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _numbered(jpeg: bytes, number: int) -> bytes:
    return jpeg[:2] + b"\xff\xfe\x00\x12" + b"%016d" % number + jpeg[2:]


def large_array(folder: Path, size: int, seed: int) -> None:
    """`rows.json`, one JSON array of `size` bytes or a little more: rows of some 5 kB of text."""
    rng = np.random.default_rng(seed)
    answers = [" ".join(rng.choice(WORDS, 1000)) for _ in range(DRAWINGS)]
    folder.mkdir(parents=True)
    with (folder / "rows.json").open("w", encoding="utf-8") as file:
        number = written = 0
        while written < size:
            row = {"id": str(number), "conversations": _talk(f"Question {number}?", answers[number % DRAWINGS])}
            written += file.write(("[" if number == 0 else ",\n") + json.dumps(row))
            number += 1
        file.write("]\n")


def large_tar(folder: Path, size: int, seed: int) -> None:
    """`images.tar` of `size` bytes or a little more, and a row for each of its pictures."""
    folder.mkdir(parents=True)
    with (
        tarfile.open(folder / "images.tar", "w") as archive,
        (folder / "rows.jsonl").open("w", encoding="utf-8") as file,
    ):
        for number, data in _pictures(size, seed):
            info = tarfile.TarInfo(f"images/{number:08d}.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
            talk = _talk("<image>\nWhat?", f"Picture {number}.")
            file.write(json.dumps({"id": str(number), "image": info.name, "conversations": talk}) + "\n")


def large_parquet(folder: Path, size: int, seed: int) -> None:
    """`rows.parquet` with `size` bytes of pictures or a little more, in groups of 1,000 rows."""
    folder.mkdir(parents=True)
    turn = pa.struct([("from", pa.string()), ("value", pa.string())])
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("id", pa.string()), ("image", image), ("conversations", pa.list_(turn))])
    rows = (
        {
            "id": str(number),
            "image": {"bytes": data, "path": f"{number:08d}.jpg"},
            "conversations": _talk("<image>\nWhat?", f"Picture {number}."),
        }
        for number, data in _pictures(size, seed)
    )
    with pq.ParquetWriter(folder / "rows.parquet", schema) as writer:
        while some := list(islice(rows, AT_A_TIME)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))


def _pictures(size: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """Numbered pictures of `size` bytes together."""
    rng = np.random.default_rng(seed)
    drawings = [_drawing(rng) for _ in range(DRAWINGS)]
    number = written = 0
    while written < size:
        data = _numbered(drawings[number % DRAWINGS], number)
        yield number, data
        number, written = number + 1, written + len(data)


def _talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
