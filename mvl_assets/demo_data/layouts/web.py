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

from mvl_assets.demo_data.layouts.common import (
    IMAGE_STRUCT,
    SourceLayout,
    build_conversation,
    build_image_cell,
    write_files,
    write_json,
    write_parquet_shards,
)
from mvl_assets.demo_data.rows import RawFile, RawRow
from mvl_assets.readers.url_images import IMAGE_FOLDER

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
SHARD_SIZE = 10
"""Pictures in one folder of img2dataset; 10,000 in earnest."""

# Any bytes do: no row names the file.
_PLACEHOLDER = b"A placeholder that no row names.\n"


def write_wit(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `wit_v1.train.all-00000-of-00010.tsv.gz` as Google publishes it, and what img2dataset made of its links.

    Every third row has its caption only in the attribution, every fifth belongs to a German page. Faults: `no_caption`
    leaves all captions empty, `bad_csv` removes a cell.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(WIT_COLUMNS)
    for number, row in enumerate(rows):
        cells = _build_wit_cells(number, row)
        writer.writerow(cells[:-1] if row.fault == "bad_csv" else cells)
    # No name and no time in the header: equal rows, equal bytes.
    tsv_gz = gzip.compress(text.getvalue().encode(), mtime=0)
    (source_dir / "wit_v1.train.all-00000-of-00010.tsv.gz").write_bytes(tsv_gz)
    _write_img2dataset(source_dir / IMAGE_FOLDER, [(_build_wit_url(row), row.images[0]) for row in rows])


def write_m3it(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `data/vqa/<name>/train.jsonl` of {instruction, inputs, image_base64_str[], outputs, meta_info}.

    Faults: `bad_base64`, `bad_json` (half a line), `missing_field` (a row of a test set, without its answer).
    """
    lines = []
    for row in rows:
        encoded_images = [base64.b64encode(image.data or b"").decode() for image in row.images]
        question, answer = row.turns[0]
        record = {
            "instruction": "Look at the picture and answer the question in a few words.",
            "inputs": question,
            "image_base64_str": [text[:-1] + "*" for text in encoded_images]
            if row.fault == "bad_base64"
            else encoded_images,
            "outputs": "" if row.fault == "missing_field" else answer,
            "meta_info": {"img_index": row.row_id},
        }
        line = json.dumps(record, ensure_ascii=False)
        lines.append(line[: len(line) // 2] if row.fault == "bad_json" else line)
    data_dir = source_dir / "data" / "vqa" / slug
    data_dir.mkdir(parents=True)
    (data_dir / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_wildvision(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write two shards of {conversation_id, model, conversation[{role, content}], turn, language, image, tstamp}."""
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema(
        [
            ("conversation_id", pa.string()),
            ("model", pa.string()),
            ("conversation", pa.list_(message)),
            ("turn", pa.int64()),
            ("language", pa.string()),
            ("image", IMAGE_STRUCT),
            ("tstamp", pa.float64()),
        ]
    )
    roles = {"human": "user", "gpt": "assistant"}

    def build_record(number: int, row: RawRow) -> dict[str, Any]:
        turns = [
            {"role": roles.get(turn["from"], turn["from"]), "content": turn["value"].replace("<image>\n", "")}
            for turn in build_conversation(row)
        ]
        return {
            "conversation_id": row.row_id,
            "model": ("model-a", "model-b")[number % 2],
            "conversation": turns,
            "turn": len(row.turns),
            "language": "English",
            "image": build_image_cell(row.images[0]),
            "tstamp": 1.7e9 + number,
        }

    write_parquet_shards(source_dir / "data", [build_record(number, row) for number, row in enumerate(rows)], schema)


def write_url_captions(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `data/train-….parquet` of {link, caption, message_id, timestamp}; `pictures/<sha256 of the link>.<ending>`.

    Fault `no_caption` leaves the caption empty.
    """
    columns = ("link", "caption", "message_id", "timestamp")
    schema = pa.schema([(column, pa.string()) for column in columns])
    links = [f"https://pictures.example.org/{slug}/{row.row_id}/{row.images[0].name}?ex=1" for row in rows]
    records = [
        {
            "link": link,
            "caption": "" if row.fault == "no_caption" else row.turns[0][1],
            "message_id": row.row_id,
            "timestamp": "2023-11-06T00:00:00+00:00",
        }
        for row, link in zip(rows, links, strict=True)
    ]
    write_parquet_shards(source_dir / "data", records, schema)
    write_files(
        source_dir / IMAGE_FOLDER, [_rename_by_url(link, row.images[0]) for row, link in zip(rows, links, strict=True)]
    )


def write_design2code(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `testset_final/<n>.html` and `<n>.png` side by side, and the placeholder `rick.jpg`.

    Faults: `missing_html`, `bad_utf8` (a page in Latin-1), `empty_answer` (an empty page).
    """
    data_dir = source_dir / "testset_final"
    data_dir.mkdir()
    for row in rows:
        html = row.turns[0][1]
        data = html.replace("<title>", "<title>Café ").encode("latin-1") if row.fault == "bad_utf8" else html.encode()
        if row.fault != "missing_html":
            (data_dir / f"{row.row_id}.html").write_bytes(b"" if row.fault == "empty_answer" else data)
    write_files(data_dir, [RawFile(f"{row.row_id}.png", image.data) for row in rows for image in row.images])
    (data_dir / "rick.jpg").write_bytes(_PLACEHOLDER)


def write_finqa(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `dataset/train.json`, an array of {id, pre_text[], table[][], post_text[], qa}; there are no images.

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
            "id": row.row_id,
            "pre_text": ["the table is given below ."],
            "table": table,
            "post_text": ["."],
            "qa": qa,
        }
        records.append(record)
    write_json(source_dir / "dataset" / "train.json", records)


def write_finevision(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write two shards of The Cauldron's rows with four ratings of every turn and the least of each."""
    turn = pa.struct([("user", pa.string()), ("assistant", pa.string())])
    kinds = ("relevance", "image_correspondence", "visual_dependency", "formatting")
    fields: list[tuple[str, pa.DataType]] = [("images", pa.list_(IMAGE_STRUCT)), ("texts", pa.list_(turn))]
    fields.append(("source", pa.string()))
    for kind in kinds:
        fields += [(f"{kind}_ratings", pa.list_(pa.int64())), (f"{kind}_min", pa.int64())]

    def build_record(number: int, row: RawRow) -> dict[str, Any]:
        ratings = [1 + (number + turn_index) % 5 for turn_index in range(len(row.turns))]
        turns = () if row.fault == "no_turns" else row.turns
        return {
            "images": [build_image_cell(image) for image in row.images],
            "texts": [{"user": question, "assistant": answer} for question, answer in turns],
            "source": slug,
            **{f"{kind}_ratings": ratings for kind in kinds},
            **{f"{kind}_min": min(ratings) for kind in kinds},
        }

    write_parquet_shards(
        source_dir / slug, [build_record(number, row) for number, row in enumerate(rows)], pa.schema(fields)
    )


def _build_wit_url(row: RawRow) -> str:
    return f"https://upload.example.org/wikipedia/commons/{row.row_id}/{row.images[0].name}"


def _build_wit_cells(number: int, row: RawRow) -> list[str]:
    caption = "" if row.fault == "no_caption" else row.turns[0][1]
    language = "de" if number % 5 == 4 else "en"
    cells = {
        "language": language,
        "page_url": f"https://{language}.example.org/wiki/Article_{number}",
        "image_url": _build_wit_url(row),
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


def _write_img2dataset(folder: Path, links: Sequence[tuple[str, RawFile]]) -> None:
    """Write img2dataset's output format `files`: a folder of images with sidecars and a table for every shard."""
    names = ("url", "key", "status", "error_message")
    schema = pa.schema([(name, pa.string()) for name in names])
    for first_number in range(0, len(links), SHARD_SIZE):
        shard = f"{first_number // SHARD_SIZE:05d}"
        records = []
        for number, (url, image) in enumerate(links[first_number : first_number + SHARD_SIZE]):
            key = f"{shard}{number:04d}"
            is_downloaded = image.data is not None
            status, error = ("success", None) if is_downloaded else ("failed_to_download", "HTTP Error 404: Not Found")
            record = {"url": url, "key": key, "status": status, "error_message": error}
            records.append(record)
            if is_downloaded:
                write_files(folder / shard, [RawFile(f"{key}.jpg", image.data)])
                write_json(folder / shard / f"{key}.json", record)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(records, schema=schema), folder / f"{shard}.parquet")


def _rename_by_url(link: str, image: RawFile) -> RawFile:
    return RawFile(hashlib.sha256(link.encode()).hexdigest() + PurePosixPath(image.name).suffix, image.data)


LAYOUTS = {
    "wit": SourceLayout("wit", write_wit),
    "m3it": SourceLayout("records", write_m3it),
    "wildvision": SourceLayout("records", write_wildvision),
    "url_captions": SourceLayout("url_captions", write_url_captions),
    "design2code": SourceLayout("screenshot_html", write_design2code),
    "finqa": SourceLayout("table_text", write_finqa),
    "finevision": SourceLayout("finevision_parquet", write_finevision),
}
