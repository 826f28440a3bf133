"""Rows to folders: one writer per native format, in the layout in which the format is published.

Each writer is `(folder, name, rows) -> None`; `name` is the source's slug. Rows keep their order and broken rows are
written among the good ones. Not here: what the rows say (`contents`), which of them are broken (`recipes`).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mvl_assets.miniature.rows import RawFile, Row

Writer = Callable[[Path, str, Sequence[Row]], None]

BYTES = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


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


def cauldron_parquet(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Two shards of {images[{bytes, path}], texts[{user, assistant, source}]}; no markers, no ids."""
    turn = pa.struct([("user", pa.string()), ("assistant", pa.string()), ("source", pa.string())])
    schema = pa.schema([("images", pa.list_(BYTES)), ("texts", pa.list_(turn))])

    def record(row: Row) -> dict[str, Any]:
        turns = [] if row.fault == "no_turns" else row.turns
        return {
            "images": [_cell(picture) for picture in row.pictures],
            "texts": [{"user": asked, "assistant": answer, "source": name} for asked, answer in turns],
        }

    shards(folder / "data", [record(row) for row in rows], schema)


def coco_captions(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`annotations/captions_val2017.json` {info, licenses, images, annotations} and the pictures in `val2017/`.

    The answers of a row are its captions; ids of captions go round the pictures, as in the original.
    """
    images: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        images.append({"license": 1, "file_name": row.pictures[0].name, "id": number + 139})
    most = max(len(row.turns) for row in rows)
    for turn in range(most):
        for number, row in enumerate(rows):
            if turn < len(row.turns):
                captions.append({"image_id": number + 139, "id": len(captions) + 1, "caption": row.turns[turn][1]})
    whole = {
        "info": {"description": f"{name}, drawn in small", "version": "1.0", "year": 2017},
        "licenses": [{"id": 1, "name": "Written for this project", "url": ""}],
        "images": images,
        "annotations": captions,
    }
    dump(folder / "annotations" / "captions_val2017.json", whole)
    save(folder / "val2017", (picture for row in rows for picture in row.pictures))


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
            "conversations": _conversation(row),
            "data_source": f"0_30_s_{name}",
            "video": f"videos/{video.name}",
        }
        for row, video in zip(rows, videos, strict=True)
    ]
    dump(folder / f"0_30_s_{name}_oe.json", records)
    save(folder / "videos", videos)


def tabmwp(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`problems.json`, a dict of id -> problem, and `tables/<id>.png` (the fields of TabMWP's release)."""
    dump(folder / "problems.json", {row.key: dict(row.fields) for row in rows})
    save(folder / "tables", (RawFile(f"{row.key}.png", picture.data) for row in rows for picture in row.pictures))


WRITERS: MappingProxyType[str, Writer] = MappingProxyType(
    {
        "llava_json": llava_json,
        "llava_jsonl": llava_jsonl,
        "llava_parquet": llava_parquet,
        "llava_parquet_roles": llava_parquet_roles,
        "cauldron_parquet": cauldron_parquet,
        "coco_captions": coco_captions,
        "m4_instruct": m4_instruct,
        "m4_instruct_zip": m4_instruct_zip,
        "llava_video": llava_video,
        "tabmwp": tabmwp,
    }
)


def dump(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def save(folder: Path, files: Iterable[RawFile]) -> None:
    """Write the files that exist; rows may share one."""
    for file in files:
        path = folder / file.name
        if file.data is not None and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.data)


def shards(folder: Path, records: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Two parquet files named as the hub names them."""
    folder.mkdir(parents=True)
    half = (len(records) + 1) // 2
    for number, part in enumerate((records[:half], records[half:])):
        pq.write_table(pa.Table.from_pylist(list(part), schema=schema), folder / f"train-{number:05d}-of-00002.parquet")


def _m4_row(name: str, row: Row) -> dict[str, Any]:
    return {
        "sample_id": row.key,
        "image": [f"{name}/{picture.name}" for picture in row.pictures],
        "conversations": _conversation(row),
        "metadata": {"dataset": name, "split": "train", "question_type": "open-ended"},
    }


def _llava_row(row: Row) -> dict[str, Any]:
    record: dict[str, Any] = {"id": row.key}
    if row.pictures:
        names = [picture.name for picture in row.pictures]
        record["image"] = names[0] if len(names) == 1 else names
    record["conversations"] = _conversation(row)
    return record


def _conversation(row: Row) -> list[dict[str, str]]:
    """Turns {from, value}, the markers in the first question; faults of the text are made here."""
    markers = "<image>\n" * len(row.pictures) if row.video is None else "<image>\n"
    if row.fault == "marker_mismatch":
        markers += "<image>\n"
    turns: list[dict[str, str]] = []
    for number, (asked, answer) in enumerate(row.turns):
        turns.append({"from": "human", "value": (markers if number == 0 else "") + asked})
        turns.append({"from": "gpt", "value": answer})
    if row.fault == "swapped_roles":
        other = {"human": "gpt", "gpt": "human"}
        turns = [{"from": other[turn["from"]], "value": turn["value"]} for turn in turns]
    if row.fault == "no_answer":
        turns = turns[:1]
    if row.fault == "unknown_role":
        turns[-1]["from"] = "narrator"
    return turns


def _llava_shards(folder: Path, name: str, rows: Sequence[Row], keys: tuple[str, str], roles: tuple[str, str]) -> None:
    turn = pa.struct([(keys[0], pa.string()), (keys[1], pa.string())])
    schema = pa.schema(
        [("id", pa.string()), ("image", BYTES), ("conversations", pa.list_(turn)), ("data_source", pa.string())]
    )
    spoken = {"human": roles[0], "gpt": roles[1]}

    def record(row: Row) -> dict[str, Any]:
        turns = [{keys[0]: spoken.get(t["from"], t["from"]), keys[1]: t["value"]} for t in _conversation(row)]
        image = _cell(row.pictures[0]) if row.pictures else None
        return {"id": row.key, "image": image, "conversations": turns, "data_source": name}

    shards(folder / "data", [record(row) for row in rows], schema)


def _cell(picture: RawFile) -> dict[str, Any]:
    """A missing picture is a path without bytes, as rows have it that were exported without their files."""
    return {"bytes": picture.data, "path": picture.name}
