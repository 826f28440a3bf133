"""LLaVA's own formats and their descendants: JSON and JSONL, parquet in two key styles, M4-Instruct, LLaVA-Video."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mvl_assets.miniature.layouts.common import BYTES, Layout, cell, conversation, dump, save, shards
from mvl_assets.miniature.rows import Row


def llava_json(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`<name>.json`, an array of {id, image, conversations}; text-only rows have no `image`. Pictures in `images/`."""
    dump(folder / f"{name}.json", [_llava_row(row) for row in rows])
    save(folder / "images", (picture for row in rows for picture in row.pictures))


def llava_jsonl(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """As `llava_json` with one object per line; fault `bad_json` cuts a line short."""
    lines = []
    for row in rows:
        line = json.dumps(_llava_row(row), ensure_ascii=False)
        lines.append(line[: len(line) // 2] if row.fault == "bad_json" else line)
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    save(folder / "images", (picture for row in rows for picture in row.pictures))


def llava_parquet(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Two shards of {id, image{bytes, path}, conversations[{from, value}], data_source}."""
    _llava_shards(folder, name, rows, ("from", "value"), ("human", "gpt"))


def llava_parquet_roles(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """The other key style in the wild: turns are {role, content} with roles user and assistant."""
    _llava_shards(folder, name, rows, ("role", "content"), ("user", "assistant"))


def m4_instruct(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`<name>.json`, an array of {sample_id, image[], conversations, metadata}; pictures in `<name>/`."""
    dump(folder / f"{name}.json", [_m4_row(name, row) for row in rows])
    save(folder / name, (picture for row in rows for picture in row.pictures))


def m4_instruct_zip(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """As `m4_instruct`, the pictures still packed in `<name>.zip` as they are published."""
    dump(folder / f"{name}.json", [_m4_row(name, row) for row in rows])
    files = {picture.name: picture.data for row in rows for picture in row.pictures if picture.data is not None}
    with zipfile.ZipFile(folder / f"{name}.zip", "w", zipfile.ZIP_STORED) as archive:
        for member, data in files.items():
            # A ZipInfo of its own carries 1980-01-01 instead of the time of writing: equal rows, equal bytes.
            archive.writestr(zipfile.ZipInfo(f"{name}/{member}"), data)


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
    "llava_parquet": Layout("llava_parquet", llava_parquet),
    "llava_parquet_roles": Layout("llava_parquet", llava_parquet_roles),
    "m4_instruct": Layout("m4_instruct", m4_instruct),
    "m4_instruct_zip": Layout("m4_instruct", m4_instruct_zip),
    "llava_video": Layout("llava_video", llava_video),
}
