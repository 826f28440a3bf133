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

from mvl_assets.demo_data.layouts.common import BYTES, Layout, cell, config_of, conversation, dump, save, shards
from mvl_assets.demo_data.rows import RawFile, Row


def llava_json(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`<name>.json`, an array of {id, image, conversations}; text-only rows have no `image`. Pictures in `images/`."""
    _array(folder, name, rows, [_llava_row(row) for row in rows])


def llava_jsonl(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """As `llava_json` with one object per line; fault `bad_json` cuts a line short."""
    lines = []
    for row in rows:
        line = json.dumps(_llava_row(row), ensure_ascii=False)
        lines.append(line[: len(line) // 2] if row.fault == "bad_json" else line)
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    save(folder / "images", (picture for row in rows for picture in row.pictures))


def llava_json_int_ids(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """As `llava_json` with the row's number as id."""
    _array(folder, name, rows, [{**_llava_row(row), "id": number} for number, row in enumerate(rows)])


def llava_json_more_fields(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """As `llava_json`; the turns of every second row carry `markdown` and `text` too, as those of one SVIT shard do."""
    records = [_llava_row(row) for row in rows]
    for record in records[1::2]:
        record["conversations"] = [
            {**turn, "markdown": None, "text": turn["value"]} for turn in record["conversations"]
        ]
    _array(folder, name, rows, records)


def llava_json_sourced_turns(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """As `llava_json` with a `data_source` in every turn."""
    records = [{**_llava_row(row), "conversations": _sourced(name, row)} for row in rows]
    _array(folder, name, rows, records)


def cambrian_folder(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`<name>.jsonl` of {id, source, image, conversations}, the archive of pictures already unpacked to `<name>/`.

    `source` is the config that the catalog names, as a file. Text-only rows have no `image`. Fault `bad_json` cuts a
    line short: two such lines are known in Cambrian-10M.
    """
    _cambrian(folder, name, rows, [conversation(row) for row in rows])


def cambrian_sourced_turns(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """As `cambrian_folder` with a `data_source` in every turn."""
    _cambrian(folder, name, rows, [_sourced(name, row) for row in rows])


def llava_parquet(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Two shards of {id, image{bytes, path}, conversations[{from, value}], data_source}."""
    _llava_shards(folder, name, rows, ("from", "value"), ("human", "gpt"))


def llava_parquet_roles(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """The other key style in the wild: turns are {role, content} with roles user and assistant."""
    _llava_shards(folder, name, rows, ("role", "content"), ("user", "assistant"))


def llava_parquet_nulls(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Turns with the keys of both styles, two of them null; the style changes from row to row."""
    turn = pa.struct([(key, pa.string()) for key in ("from", "value", "role", "content")])
    schema = pa.schema([("id", pa.string()), ("image", BYTES), ("conversations", pa.list_(turn))])
    roles = {"human": "user", "gpt": "assistant"}

    def record(number: int, row: Row) -> dict[str, Any]:
        turns: list[dict[str, Any]] = list(conversation(row))
        if number % 2:
            turns = [{"role": roles.get(t["from"], t["from"]), "content": t["value"]} for t in turns]
        image = cell(row.pictures[0]) if row.pictures else None
        return {"id": row.key, "image": image, "conversations": turns}

    shards(folder / "data", [record(number, row) for number, row in enumerate(rows)], schema)


def llava_parquet_files(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Rows that carry only the paths of their pictures. These lie in `images/`, unpacked from a zip that holds `#Uxxxx`
    for every character outside ASCII, as Vision-FLAN's does."""
    bare = [replace(row, pictures=tuple(RawFile(file.name, None) for file in row.pictures)) for row in rows]
    _llava_shards(folder, name, bare, ("from", "value"), ("human", "gpt"))
    files = (picture for row in rows for picture in row.pictures)
    save(folder / "images", (RawFile(_escaped(file.name), file.data) for file in files))


def _escaped(name: str) -> str:
    return "".join(letter if letter.isascii() else f"#U{ord(letter):04x}" for letter in name)


def m4_instruct(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`<name>.json`, an array of {sample_id, image[], conversations, metadata}; pictures in `<config>/`."""
    part_of = config_of(name)
    dump(folder / f"{name}.json", [_m4_row(part_of, row) for row in rows])
    save(folder / part_of, (picture for row in rows for picture in row.pictures))


def m4_instruct_zip(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """As `m4_instruct`, the pictures still packed in `<config>.zip` as they are published."""
    part_of = config_of(name)
    dump(folder / f"{name}.json", [_m4_row(part_of, row) for row in rows])
    files = {picture.name: picture.data for row in rows for picture in row.pictures if picture.data is not None}
    with zipfile.ZipFile(folder / f"{part_of}.zip", "w", zipfile.ZIP_STORED) as archive:
        for member, data in files.items():
            # A ZipInfo of its own carries 1980-01-01 instead of the time of writing: equal rows, equal bytes.
            archive.writestr(zipfile.ZipInfo(f"{part_of}/{member}"), data)


def llava_video(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`0_30_s_<name>_oe.json`, an array of {id, video, conversations, data_source}; mp4 files in `videos/`."""
    videos = [row.video for row in rows if row.video is not None]
    records = [
        {
            "id": row.key,
            "conversations": conversation(row),
            "data_source": f"0_30_s_{name}",
            "video": f"videos/{video.name}",
        }
        for row, video in zip(rows, videos, strict=True)
    ]
    dump(folder / f"0_30_s_{name}_oe.json", records)
    save(folder / "videos", videos)


def _array(folder: Path, name: str, rows: Sequence[Row], records: Sequence[Mapping[str, Any]]) -> None:
    dump(folder / f"{name}.json", records)
    save(folder / "images", (picture for row in rows for picture in row.pictures))


def _sourced(name: str, row: Row) -> list[dict[str, str]]:
    return [{**turn, "data_source": name} for turn in conversation(row)]


def _cambrian(folder: Path, name: str, rows: Sequence[Row], talks: Sequence[list[dict[str, str]]]) -> None:
    file = f"{config_of(name)}.json"
    lines = []
    for row, turns in zip(rows, talks, strict=True):
        image = {"image": f"{name}/{row.pictures[0].name}"} if row.pictures else {}
        line = json.dumps({"id": row.key, "source": file, **image, "conversations": turns}, ensure_ascii=False)
        lines.append(line[: len(line) // 2] if row.fault == "bad_json" else line)
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    save(folder / name, (picture for row in rows for picture in row.pictures))


def _m4_row(name: str, row: Row) -> dict[str, Any]:
    return {
        "sample_id": row.key,
        "image": [f"{name}/{picture.name}" for picture in row.pictures],
        "conversations": conversation(row),
        "metadata": {"dataset": name, "split": "train", "question_type": "open-ended"},
    }


def _llava_row(row: Row) -> dict[str, Any]:
    record: dict[str, Any] = {"id": row.key}
    if row.pictures:
        names = [picture.name for picture in row.pictures]
        record["image"] = names[0] if len(names) == 1 else names
    record["conversations"] = conversation(row)
    return record


def _llava_shards(folder: Path, name: str, rows: Sequence[Row], keys: tuple[str, str], roles: tuple[str, str]) -> None:
    turn = pa.struct([(keys[0], pa.string()), (keys[1], pa.string())])
    schema = pa.schema(
        [("id", pa.string()), ("image", BYTES), ("conversations", pa.list_(turn)), ("data_source", pa.string())]
    )
    spoken = {"human": roles[0], "gpt": roles[1]}

    def record(row: Row) -> dict[str, Any]:
        turns = [{keys[0]: spoken.get(t["from"], t["from"]), keys[1]: t["value"]} for t in conversation(row)]
        image = cell(row.pictures[0]) if row.pictures else None
        return {"id": row.key, "image": image, "conversations": turns, "data_source": name}

    shards(folder / "data", [record(row) for row in rows], schema)


LAYOUTS = {
    "llava_json": Layout("llava_json", llava_json),
    "llava_jsonl": Layout("llava_json", llava_jsonl),
    "llava_json_int_ids": Layout("llava_json", llava_json_int_ids),
    "llava_json_more_fields": Layout("llava_json", llava_json_more_fields),
    "llava_json_sourced_turns": Layout("llava_json", llava_json_sourced_turns),
    "cambrian_folder": Layout("cambrian_jsonl", cambrian_folder),
    "cambrian_sourced_turns": Layout("cambrian_jsonl", cambrian_sourced_turns),
    "llava_parquet": Layout("llava_parquet", llava_parquet),
    "llava_parquet_roles": Layout("llava_parquet", llava_parquet_roles),
    "llava_parquet_nulls": Layout("llava_parquet", llava_parquet_nulls),
    "llava_parquet_files": Layout("llava_parquet", llava_parquet_files),
    "m4_instruct": Layout("m4_instruct", m4_instruct),
    "m4_instruct_zip": Layout("m4_instruct", m4_instruct_zip),
    "llava_video": Layout("llava_video", llava_video),
}
