"""LLaVA's own formats and their descendants: JSON and JSONL, parquet in two key styles, M4-Instruct, LLaVA-Video.

Also the ways in which published files of these formats differ from their description.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from mvl_assets.demo_data.layouts.common import (
    IMAGE_STRUCT,
    SourceLayout,
    build_conversation,
    build_image_cell,
    resolve_config_name,
    write_files,
    write_json,
    write_parquet_shards,
)
from mvl_assets.demo_data.rows import RawFile, RawRow


def write_llava_json(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `<name>.json`, an array of {id, image, conversations}; text-only rows have none. Images in `images/`."""
    _write_llava_json(source_dir, slug, rows, [_build_llava_record(row) for row in rows])


def write_llava_jsonl(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write the rows of `write_llava_json` with one object per line; fault `bad_json` cuts a line short."""
    lines = []
    for row in rows:
        line = json.dumps(_build_llava_record(row), ensure_ascii=False)
        lines.append(line[: len(line) // 2] if row.fault == "bad_json" else line)
    (source_dir / f"{slug}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_files(source_dir / "images", (image for row in rows for image in row.images))


def write_llava_json_int_ids(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write the rows of `write_llava_json` with the row's number as id."""
    _write_llava_json(
        source_dir, slug, rows, [{**_build_llava_record(row), "id": number} for number, row in enumerate(rows)]
    )


def write_llava_json_more_fields(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write the rows of `write_llava_json`, every second with `markdown` and `text` in its turns, as one SVIT shard."""
    records = [_build_llava_record(row) for row in rows]
    for record in records[1::2]:
        record["conversations"] = [
            {**turn, "markdown": None, "text": turn["value"]} for turn in record["conversations"]
        ]
    _write_llava_json(source_dir, slug, rows, records)


def write_llava_json_sourced_turns(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write the rows of `write_llava_json` with a `data_source` in every turn."""
    records = [{**_build_llava_record(row), "conversations": _build_sourced_conversation(slug, row)} for row in rows]
    _write_llava_json(source_dir, slug, rows, records)


def write_cambrian_folder(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `<name>.jsonl` of {id, source, image, conversations}, the archive of images already unpacked to `<name>/`.

    `source` is the config that the catalog names, as a file. Text-only rows have no `image`. Fault `bad_json` cuts a
    line short: two such lines are known in Cambrian-10M.
    """
    _write_cambrian_folder(source_dir, slug, rows, [build_conversation(row) for row in rows])


def write_cambrian_sourced_turns(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write the rows of `write_cambrian_folder` with a `data_source` in every turn."""
    _write_cambrian_folder(source_dir, slug, rows, [_build_sourced_conversation(slug, row) for row in rows])


def write_llava_parquet(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write two shards of {id, image{bytes, path}, conversations[{from, value}], data_source}."""
    _write_llava_shards(source_dir, slug, rows, ("from", "value"), ("human", "gpt"))


def write_llava_parquet_roles(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write the other key style in use: turns are {role, content} with the roles user and assistant."""
    _write_llava_shards(source_dir, slug, rows, ("role", "content"), ("user", "assistant"))


def write_llava_parquet_nulls(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write turns with the keys of both styles, two of them null; the style changes from row to row."""
    turn = pa.struct([(key, pa.string()) for key in ("from", "value", "role", "content")])
    schema = pa.schema([("id", pa.string()), ("image", IMAGE_STRUCT), ("conversations", pa.list_(turn))])
    roles = {"human": "user", "gpt": "assistant"}

    def build_record(number: int, row: RawRow) -> dict[str, Any]:
        turns: list[dict[str, Any]] = list(build_conversation(row))
        if number % 2:
            turns = [{"role": roles.get(t["from"], t["from"]), "content": t["value"]} for t in turns]
        image = build_image_cell(row.images[0]) if row.images else None
        return {"id": row.row_id, "image": image, "conversations": turns}

    write_parquet_shards(source_dir / "data", [build_record(number, row) for number, row in enumerate(rows)], schema)


def write_llava_parquet_files(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write rows that have only the paths of their images.

    The images are in `images/`, unpacked from a zip that has `#Uxxxx` for every character outside ASCII, as
    Vision-FLAN's does.
    """
    rows_without_bytes = [replace(row, images=tuple(RawFile(file.name, None) for file in row.images)) for row in rows]
    _write_llava_shards(source_dir, slug, rows_without_bytes, ("from", "value"), ("human", "gpt"))
    files = (image for row in rows for image in row.images)
    write_files(source_dir / "images", (RawFile(_escape_non_ascii(file.name), file.data) for file in files))


def _escape_non_ascii(slug: str) -> str:
    return "".join(letter if letter.isascii() else f"#U{ord(letter):04x}" for letter in slug)


def write_m4_instruct(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `<name>.json`, an array of {sample_id, image[], conversations, metadata}; images in `<config>/`."""
    config_name = resolve_config_name(slug)
    write_json(source_dir / f"{slug}.json", [_build_m4_record(config_name, row) for row in rows])
    write_files(source_dir / config_name, (image for row in rows for image in row.images))


def write_m4_instruct_zip(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write the rows of `write_m4_instruct`, with the images packed in `<config>.zip` as they are published."""
    config_name = resolve_config_name(slug)
    write_json(source_dir / f"{slug}.json", [_build_m4_record(config_name, row) for row in rows])
    files = {image.name: image.data for row in rows for image in row.images if image.data is not None}
    with zipfile.ZipFile(source_dir / f"{config_name}.zip", "w", zipfile.ZIP_STORED) as archive:
        for member, data in files.items():
            # A ZipInfo of its own carries 1980-01-01 instead of the time of writing: equal rows, equal bytes.
            archive.writestr(zipfile.ZipInfo(f"{config_name}/{member}"), data)


def write_llava_video(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `0_30_s_<name>_oe.json`, an array of {id, video, conversations, data_source}; mp4 files in `videos/`."""
    videos = [row.video for row in rows if row.video is not None]
    records = [
        {
            "id": row.row_id,
            "conversations": build_conversation(row),
            "data_source": f"0_30_s_{slug}",
            "video": f"videos/{video.name}",
        }
        for row, video in zip(rows, videos, strict=True)
    ]
    write_json(source_dir / f"0_30_s_{slug}_oe.json", records)
    write_files(source_dir / "videos", videos)


def _write_llava_json(
    source_dir: Path, slug: str, rows: Sequence[RawRow], records: Sequence[Mapping[str, Any]]
) -> None:
    write_json(source_dir / f"{slug}.json", records)
    write_files(source_dir / "images", (image for row in rows for image in row.images))


def _build_sourced_conversation(slug: str, row: RawRow) -> list[dict[str, str]]:
    return [{**turn, "data_source": slug} for turn in build_conversation(row)]


def _write_cambrian_folder(
    source_dir: Path, slug: str, rows: Sequence[RawRow], conversations: Sequence[list[dict[str, str]]]
) -> None:
    file = f"{resolve_config_name(slug)}.json"
    lines = []
    for row, turns in zip(rows, conversations, strict=True):
        image = {"image": f"{slug}/{row.images[0].name}"} if row.images else {}
        line = json.dumps({"id": row.row_id, "source": file, **image, "conversations": turns}, ensure_ascii=False)
        lines.append(line[: len(line) // 2] if row.fault == "bad_json" else line)
    (source_dir / f"{slug}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_files(source_dir / slug, (image for row in rows for image in row.images))


def _build_m4_record(config_name: str, row: RawRow) -> dict[str, Any]:
    return {
        "sample_id": row.row_id,
        "image": [f"{config_name}/{image.name}" for image in row.images],
        "conversations": build_conversation(row),
        "metadata": {"dataset": config_name, "split": "train", "question_type": "open-ended"},
    }


def _build_llava_record(row: RawRow) -> dict[str, Any]:
    record: dict[str, Any] = {"id": row.row_id}
    if row.images:
        names = [image.name for image in row.images]
        record["image"] = names[0] if len(names) == 1 else names
    record["conversations"] = build_conversation(row)
    return record


def _write_llava_shards(
    folder: Path, slug: str, rows: Sequence[RawRow], keys: tuple[str, str], roles: tuple[str, str]
) -> None:
    turn = pa.struct([(keys[0], pa.string()), (keys[1], pa.string())])
    schema = pa.schema(
        [("id", pa.string()), ("image", IMAGE_STRUCT), ("conversations", pa.list_(turn)), ("data_source", pa.string())]
    )
    role_names = {"human": roles[0], "gpt": roles[1]}

    def build_record(row: RawRow) -> dict[str, Any]:
        turns = [{keys[0]: role_names.get(t["from"], t["from"]), keys[1]: t["value"]} for t in build_conversation(row)]
        image = build_image_cell(row.images[0]) if row.images else None
        return {"id": row.row_id, "image": image, "conversations": turns, "data_source": slug}

    write_parquet_shards(folder / "data", [build_record(row) for row in rows], schema)


LAYOUTS = {
    "llava_json": SourceLayout("llava_json", write_llava_json),
    "llava_jsonl": SourceLayout("llava_json", write_llava_jsonl),
    "llava_json_int_ids": SourceLayout("llava_json", write_llava_json_int_ids),
    "llava_json_more_fields": SourceLayout("llava_json", write_llava_json_more_fields),
    "llava_json_sourced_turns": SourceLayout("llava_json", write_llava_json_sourced_turns),
    "cambrian_folder": SourceLayout("cambrian_jsonl", write_cambrian_folder),
    "cambrian_sourced_turns": SourceLayout("cambrian_jsonl", write_cambrian_sourced_turns),
    "llava_parquet": SourceLayout("llava_parquet", write_llava_parquet),
    "llava_parquet_roles": SourceLayout("llava_parquet", write_llava_parquet_roles),
    "llava_parquet_nulls": SourceLayout("llava_parquet", write_llava_parquet_nulls),
    "llava_parquet_files": SourceLayout("llava_parquet", write_llava_parquet_files),
    "m4_instruct": SourceLayout("m4_instruct", write_m4_instruct),
    "m4_instruct_zip": SourceLayout("m4_instruct", write_m4_instruct_zip),
    "llava_video": SourceLayout("llava_video", write_llava_video),
}
