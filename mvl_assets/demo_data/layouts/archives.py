"""Rows beside archives of pictures: Cambrian-10M, M4-Instruct in parts, LLaVA-Video, the released MAmmoTH-VL files.

Archives carry no time and no owner: equal rows give equal bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mvl_assets.demo_data.layouts.common import Layout, config_of, conversation, dump
from mvl_assets.demo_data.rows import RawFile, Row

PARTS = 3


def cambrian_tars(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`jsons/Cambrian10M.jsonl`, the rows among those of another sub-dataset, and `<name>.tar.gz` with the pictures."""
    _cambrian_rows(folder / "jsons" / "Cambrian10M.jsonl", name, rows, among_others=True)
    (folder / f"{name}.tar.gz").write_bytes(packed(tar_of(_pictures(name, rows), _links(name, rows))))


def cambrian_tar_parts(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`jsons/<config>.jsonl`, and the pictures' tar cut into `<name>.tar.gz_part1`, ..., as large ones are."""
    _cambrian_rows(folder / "jsons" / f"{config_of(name)}.jsonl", name, rows, among_others=False)
    whole = packed(tar_of(_pictures(name, rows), _links(name, rows)))
    size = -(-len(whole) // PARTS)
    for number in range(PARTS):
        part = whole[number * size : (number + 1) * size]
        (folder / f"{name}.tar.gz_part{number + 1}").write_bytes(part)


def m4_instruct_parts(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`m4_instruct_annotations.json`, and the pictures in `<config>_split.z01`, ..., `<config>_split.zip`."""
    part_of = config_of(name)
    records = [
        {
            "sample_id": row.key,
            "image": [f"{part_of}/{picture.name}" for picture in row.pictures],
            "conversations": conversation(row),
            "metadata": {"dataset": part_of, "split": "train", "question_type": "open-ended"},
        }
        for row in rows
    ]
    dump(folder / "m4_instruct_annotations.json", records)
    parts = split_zip(_pictures(part_of, rows), PARTS)
    for number, part in enumerate(parts, 1):
        ending = "zip" if number == len(parts) else f"z{number:02d}"
        (folder / f"{part_of}_split.{ending}").write_bytes(part)


def llava_video_tars(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`0_30_s_<name>/` with the JSON of open questions and the videos in two numbered archives beside it."""
    split = f"0_30_s_{name}"
    videos = [row.video for row in rows if row.video is not None]
    records = [
        {
            "id": row.key,
            "conversations": conversation(row),
            "data_source": split,
            "video": f"academic_source/{video.name}",
        }
        for row, video in zip(rows, videos, strict=True)
    ]
    dump(folder / split / f"{split}_oe_v0_1_qa_processed.json", records)
    files = _named({f"academic_source/{video.name}": video.data for video in videos})
    for number in range(2):
        half = dict(list(files.items())[number::2])
        (folder / split / f"{split}_videos_{number + 1}.tar.gz").write_bytes(packed(tar_of(half)))


def mammoth_release(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`mammoth_ov_2M.json` with the first half of the rows, `mammoth_si_10M.json` with the rest; `shard_1.tar.gz` in a
    folder for rows of one picture, one for rows of several, and one for videos."""
    half = (len(rows) + 1) // 2
    dump(folder / "mammoth_ov_2M.json", [_released_row(row) for row in rows[:half]])
    dump(folder / "mammoth_si_10M.json", [_released_row(row) for row in rows[half:]])
    shards: dict[str, dict[str, bytes | None]] = {"single_image_data": {}, "multi_image_data": {}, "video_data": {}}
    for row in rows:
        kind = "video_data" if row.video else "single_image_data" if len(row.pictures) == 1 else "multi_image_data"
        for file in (*row.pictures, *([row.video] if row.video else ())):
            shards[kind][_released_path(row, file)] = file.data
    for kind, files in shards.items():
        (folder / kind).mkdir()
        (folder / kind / "shard_1.tar.gz").write_bytes(packed(tar_of(_named(files))))


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def tar_of(files: Mapping[str, bytes], links: Iterable[str] = ()) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "../../../secret.png"
            archive.addfile(info)
    return buffer.getvalue()


def zip_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            # A ZipInfo of its own carries 1980-01-01 instead of the time of writing.
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def split_zip(files: Mapping[str, bytes], parts: int) -> list[bytes]:
    """A zip in the parts that `zip -s` writes (PKWARE APPNOTE.TXT 6.3, 8.5): a mark before the first, offsets counted
    from the begin of a part, the directory in the last."""
    plain = zip_of(files)
    with zipfile.ZipFile(io.BytesIO(plain)) as archive:
        members, directory = archive.infolist(), archive.start_dir
    whole = b"PK\x07\x08" + plain
    # Parts begin with a member: the header of one must not be cut.
    begins = [member.header_offset + 4 for member in members]
    starts = [0, *(begins[len(begins) * n // parts] for n in range(1, parts))]
    end = bytearray(whole[directory + 4 :])
    at = 0
    for begin in begins:
        disk = sum(begin >= start for start in starts) - 1
        struct.pack_into("<H", end, at + 34, disk)
        struct.pack_into("<L", end, at + 42, begin - starts[disk])
        at += 46 + sum(struct.unpack_from("<3H", end, at + 28))
    last = parts - 1
    struct.pack_into("<2H", end, at + 4, last, last)
    struct.pack_into("<L", end, at + 16, directory + 4 - starts[last])
    joined = whole[: directory + 4] + bytes(end)
    return [joined[start:stop] for start, stop in zip(starts, [*starts[1:], len(joined)], strict=True)]


def _cambrian_rows(path: Path, name: str, rows: Sequence[Row], among_others: bool) -> None:
    """Fault `bad_json` cuts a line short; text-only rows have no `image`."""
    lines = []
    for number, row in enumerate(rows):
        image = {"image": f"{name}/{row.pictures[0].name}"} if row.pictures else {}
        record = {"id": row.key, "source": f"{config_of(name)}.json", **image, "conversations": conversation(row)}
        line = json.dumps(record, ensure_ascii=False)
        lines.append(line[: len(line) // 2] if row.fault == "bad_json" else line)
        if among_others and number % 3 == 0:
            lines.append(json.dumps({**record, "id": number, "source": "wizardlm_143k.json"}, ensure_ascii=False))
    path.parent.mkdir()
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _pictures(name: str, rows: Iterable[Row]) -> dict[str, bytes]:
    """The files in an archive's folder `<name>/`; those of `unsafe_member` rows come as links."""
    kept = (row for row in rows if row.fault != "unsafe_member")
    return _named({f"{name}/{picture.name}": picture.data for row in kept for picture in row.pictures})


def _links(name: str, rows: Iterable[Row]) -> list[str]:
    return [f"{name}/{picture.name}" for row in rows if row.fault == "unsafe_member" for picture in row.pictures]


def _named(files: Mapping[str, bytes | None]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if data is not None}


def _released_row(row: Row) -> dict[str, Any]:
    record: dict[str, Any] = {"id": row.key, "source": row.fields["source"]}
    if row.video is not None:
        record["video"] = _released_path(row, row.video)
    elif row.pictures:
        names = [_released_path(row, picture) for picture in row.pictures]
        record["image"] = names[0] if len(names) == 1 else names
    return {**record, "conversations": conversation(row)}


def _released_path(row: Row, file: RawFile) -> str:
    return f"{row.fields['folder']}/{file.name}"


LAYOUTS: dict[str, Layout] = {
    "cambrian_tars": Layout("cambrian_jsonl", cambrian_tars),
    "cambrian_tar_parts": Layout("cambrian_jsonl", cambrian_tar_parts),
    "m4_instruct_parts": Layout("m4_instruct", m4_instruct_parts),
    "llava_video_tars": Layout("llava_video", llava_video_tars),
    "mammoth_release": Layout("mammoth_release", mammoth_release),
}
