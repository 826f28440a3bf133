"""Pages, chats and tables from the web: WIT, M3IT, WildVision, links with captions, screenshots, tables with text."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mvl_assets.demo_data.layouts.common import BYTES, Layout, cell, conversation, dump, save, shards
from mvl_assets.demo_data.rows import RawFile, Row

WIT_COLUMNS = (
    "language",
    "page_url",
    "image_url",
    "page_title",
    "section_title",
    "hierarchical_section_title",
    "caption_reference_description",
    "caption_attribution_description",
    "caption_alt_text_description",
    "mime_type",
    "original_height",
    "original_width",
    "is_main_image",
    "attribution_passes_lang_id",
    "page_changed_recently",
    "context_page_description",
    "context_section_description",
)
SHARD = 10
"""Pictures in one folder of img2dataset; 10,000 in earnest."""

# Any bytes do: no row names the file.
_PLACEHOLDER = b"A placeholder that no row names.\n"


def wit(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`wit_v1.train.all-00000-of-00010.tsv.gz` as Google publishes it, and what img2dataset made of its links.

    Every third row has its caption only in the attribution, every fifth belongs to a German page. Faults: `no_caption`
    leaves all captions empty, `bad_csv` loses a cell.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(WIT_COLUMNS)
    for number, row in enumerate(rows):
        cells = _wit_cells(number, row)
        writer.writerow(cells[:-1] if row.fault == "bad_csv" else cells)
    # No name and no time in the header: equal rows, equal bytes.
    packed = gzip.compress(text.getvalue().encode(), mtime=0)
    (folder / "wit_v1.train.all-00000-of-00010.tsv.gz").write_bytes(packed)
    _img2dataset(folder / "pictures", [(_wit_url(row), row.pictures[0]) for row in rows])


def m3it(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`data/vqa/<name>/train.jsonl` of {instruction, inputs, image_base64_str[], outputs, meta_info}.

    Faults: `bad_base64`, `bad_json` (half a line), `missing_field` (a row of a test set, without its answer).
    """
    lines = []
    for row in rows:
        packed = [base64.b64encode(picture.data or b"").decode() for picture in row.pictures]
        question, answer = row.turns[0]
        record = {
            "instruction": "Look at the picture and answer the question in a few words.",
            "inputs": question,
            "image_base64_str": [text[:-1] + "*" for text in packed] if row.fault == "bad_base64" else packed,
            "outputs": "" if row.fault == "missing_field" else answer,
            "meta_info": {"img_index": row.key},
        }
        line = json.dumps(record, ensure_ascii=False)
        lines.append(line[: len(line) // 2] if row.fault == "bad_json" else line)
    place = folder / "data" / "vqa" / name
    place.mkdir(parents=True)
    (place / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def wildvision(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Two shards of {conversation_id, model, conversation[{role, content}], turn, language, image, tstamp}."""
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema(
        [
            ("conversation_id", pa.string()),
            ("model", pa.string()),
            ("conversation", pa.list_(message)),
            ("turn", pa.int64()),
            ("language", pa.string()),
            ("image", BYTES),
            ("tstamp", pa.float64()),
        ]
    )
    roles = {"human": "user", "gpt": "assistant"}

    def record(number: int, row: Row) -> dict[str, Any]:
        turns = [
            {"role": roles.get(turn["from"], turn["from"]), "content": turn["value"].replace("<image>\n", "")}
            for turn in conversation(row)
        ]
        return {
            "conversation_id": row.key,
            "model": ("model-a", "model-b")[number % 2],
            "conversation": turns,
            "turn": len(row.turns),
            "language": "English",
            "image": cell(row.pictures[0]),
            "tstamp": 1.7e9 + number,
        }

    shards(folder / "data", [record(number, row) for number, row in enumerate(rows)], schema)


def url_captions(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`data/train-….parquet` of {link, caption, message_id, timestamp}; `pictures/<sha256 of the link>.<ending>`.

    Fault `no_caption` leaves the caption empty.
    """
    columns = ("link", "caption", "message_id", "timestamp")
    schema = pa.schema([(column, pa.string()) for column in columns])
    links = [f"https://pictures.example.org/{name}/{row.key}/{row.pictures[0].name}?ex=1" for row in rows]
    records = [
        {
            "link": link,
            "caption": "" if row.fault == "no_caption" else row.turns[0][1],
            "message_id": row.key,
            "timestamp": "2023-11-06T00:00:00+00:00",
        }
        for row, link in zip(rows, links, strict=True)
    ]
    shards(folder / "data", records, schema)
    save(folder / "pictures", [_named_by_url(link, row.pictures[0]) for row, link in zip(rows, links, strict=True)])


def design2code(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`testset_final/<n>.html` and `<n>.png` side by side, and the placeholder `rick.jpg`.

    Faults: `missing_html`, `bad_utf8` (a page in Latin-1), `empty_answer` (an empty page).
    """
    place = folder / "testset_final"
    place.mkdir()
    for row in rows:
        html = row.turns[0][1]
        data = html.replace("<title>", "<title>Café ").encode("latin-1") if row.fault == "bad_utf8" else html.encode()
        if row.fault != "missing_html":
            (place / f"{row.key}.html").write_bytes(b"" if row.fault == "empty_answer" else data)
    save(place, [RawFile(f"{row.key}.png", picture.data) for row in rows for picture in row.pictures])
    (place / "rick.jpg").write_bytes(_PLACEHOLDER)


def finqa(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`dataset/train.json`, an array of {id, pre_text[], table[][], post_text[], qa}; there are no pictures.

    Of a row's fields it takes `table` (cells joined with ` | `, one row a line). Fault `no_answer` is a row of the
    held-back test set.
    """
    records = []
    for row in rows:
        qa: dict[str, object] = {"question": row.turns[0][0]}
        if row.fault != "no_answer":
            qa |= {"answer": row.turns[0][1], "exe_ans": row.turns[0][1], "program": ""}
        table = [line.split(" | ") for line in str(row.fields["table"]).splitlines()]
        record = {
            "id": row.key,
            "pre_text": ["the table is given below ."],
            "table": table,
            "post_text": ["."],
            "qa": qa,
        }
        records.append(record)
    dump(folder / "dataset" / "train.json", records)


def finevision(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Two shards of The Cauldron's rows with four ratings of every turn and the least of each."""
    turn = pa.struct([("user", pa.string()), ("assistant", pa.string())])
    kinds = ("relevance", "image_correspondence", "visual_dependency", "formatting")
    fields: list[tuple[str, pa.DataType]] = [("images", pa.list_(BYTES)), ("texts", pa.list_(turn))]
    fields.append(("source", pa.string()))
    for kind in kinds:
        fields += [(f"{kind}_ratings", pa.list_(pa.int64())), (f"{kind}_min", pa.int64())]

    def record(number: int, row: Row) -> dict[str, Any]:
        ratings = [1 + (number + part) % 5 for part in range(len(row.turns))]
        turns = () if row.fault == "no_turns" else row.turns
        return {
            "images": [cell(picture) for picture in row.pictures],
            "texts": [{"user": asked, "assistant": answer} for asked, answer in turns],
            "source": name,
            **{f"{kind}_ratings": ratings for kind in kinds},
            **{f"{kind}_min": min(ratings) for kind in kinds},
        }

    shards(folder / name, [record(number, row) for number, row in enumerate(rows)], pa.schema(fields))


def _wit_url(row: Row) -> str:
    return f"https://upload.example.org/wikipedia/commons/{row.key}/{row.pictures[0].name}"


def _wit_cells(number: int, row: Row) -> list[str]:
    caption = "" if row.fault == "no_caption" else row.turns[0][1]
    language = "de" if number % 5 == 4 else "en"
    cells = {
        "language": language,
        "page_url": f"https://{language}.example.org/wiki/Article_{number}",
        "image_url": _wit_url(row),
        "page_title": f"Article {number}",
        "section_title": "Gallery" if number % 2 else "",
        "hierarchical_section_title": f"Article {number}" + (" / Gallery" if number % 2 else ""),
        "caption_reference_description": "" if number % 3 == 2 else caption,
        "caption_attribution_description": caption if number % 3 == 2 else "",
        "mime_type": "image/jpeg",
        "is_main_image": "true" if number % 2 == 0 else "false",
        "attribution_passes_lang_id": "true",
        "page_changed_recently": "true",
        # Quotes, tabs and line breaks are what such a cell is known for.
        "context_page_description": f'Article {number} is called "a page".\n\tIt goes on.',
    }
    return [cells.get(column, "") for column in WIT_COLUMNS]


def _img2dataset(folder: Path, links: Sequence[tuple[str, RawFile]]) -> None:
    """Its output format `files`: a folder of pictures with sidecars and a table for every shard."""
    names = ("url", "key", "status", "error_message")
    schema = pa.schema([(name, pa.string()) for name in names])
    for first in range(0, len(links), SHARD):
        shard = f"{first // SHARD:05d}"
        records = []
        for number, (url, picture) in enumerate(links[first : first + SHARD]):
            key = f"{shard}{number:04d}"
            there = picture.data is not None
            status, error = ("success", None) if there else ("failed_to_download", "HTTP Error 404: Not Found")
            record = {"url": url, "key": key, "status": status, "error_message": error}
            records.append(record)
            if there:
                save(folder / shard, [RawFile(f"{key}.jpg", picture.data)])
                dump(folder / shard / f"{key}.json", record)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(records, schema=schema), folder / f"{shard}.parquet")


def _named_by_url(link: str, picture: RawFile) -> RawFile:
    return RawFile(hashlib.sha256(link.encode()).hexdigest() + PurePosixPath(picture.name).suffix, picture.data)


LAYOUTS = {
    "wit": Layout("wit", wit),
    "m3it": Layout("records", m3it),
    "wildvision": Layout("records", wildvision),
    "url_captions": Layout("url_captions", url_captions),
    "design2code": Layout("screenshot_html", design2code),
    "finqa": Layout("table_text", finqa),
    "finevision": Layout("finevision_parquet", finevision),
}
