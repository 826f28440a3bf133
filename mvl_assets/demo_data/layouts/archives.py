"""Archives with the rows next to them: Cambrian-10M, M4-Instruct in parts, LLaVA-Video, the MAmmoTH-VL release.

Archives store neither times nor owners, so equal rows give equal bytes.
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

from mvl_assets.demo_data.layouts.common import SourceLayout, build_conversation, resolve_config_name, write_json
from mvl_assets.demo_data.rows import RawFile, RawRow

N_PARTS = 3


def write_cambrian_tars(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `jsons/Cambrian10M.jsonl`, among rows of another sub-dataset, and `<name>.tar.gz` with the images."""
    _write_cambrian_jsonl(source_dir / "jsons" / "Cambrian10M.jsonl", slug, rows, with_other_sources=True)
    (source_dir / f"{slug}.tar.gz").write_bytes(
        gzip_bytes(build_tar(_collect_archive_files(slug, rows), _list_unsafe_links(slug, rows)))
    )


def write_cambrian_tar_parts(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `jsons/<config>.jsonl`, and the images' tar cut into `<name>.tar.gz_part1`, ..., as large ones are."""
    _write_cambrian_jsonl(
        source_dir / "jsons" / f"{resolve_config_name(slug)}.jsonl", slug, rows, with_other_sources=False
    )
    archive_bytes = gzip_bytes(build_tar(_collect_archive_files(slug, rows), _list_unsafe_links(slug, rows)))
    size = -(-len(archive_bytes) // N_PARTS)
    for number in range(N_PARTS):
        part_bytes = archive_bytes[number * size : (number + 1) * size]
        (source_dir / f"{slug}.tar.gz_part{number + 1}").write_bytes(part_bytes)


def write_m4_instruct_parts(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `m4_instruct_annotations.json`, and the images in `<config>_split.z01`, ..., `<config>_split.zip`."""
    config_name = resolve_config_name(slug)
    records = [
        {
            "sample_id": row.row_id,
            "image": [f"{config_name}/{image.name}" for image in row.images],
            "conversations": build_conversation(row),
            "metadata": {"dataset": config_name, "split": "train", "question_type": "open-ended"},
        }
        for row in rows
    ]
    write_json(source_dir / "m4_instruct_annotations.json", records)
    part_list = build_split_zip(_collect_archive_files(config_name, rows), N_PARTS)
    for number, part_bytes in enumerate(part_list, 1):
        suffix = "zip" if number == len(part_list) else f"z{number:02d}"
        (source_dir / f"{config_name}_split.{suffix}").write_bytes(part_bytes)


def write_llava_video_tars(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `0_30_s_<name>/` with the JSON of open questions, and the videos in two numbered archives in it."""
    split = f"0_30_s_{slug}"
    videos = [row.video for row in rows if row.video is not None]
    records = [
        {
            "id": row.row_id,
            "conversations": build_conversation(row),
            "data_source": split,
            "video": f"academic_source/{video.name}",
        }
        for row, video in zip(rows, videos, strict=True)
    ]
    write_json(source_dir / split / f"{split}_oe_v0_1_qa_processed.json", records)
    files = _drop_missing_files({f"academic_source/{video.name}": video.data for video in videos})
    for number in range(2):
        half = dict(list(files.items())[number::2])
        (source_dir / split / f"{split}_videos_{number + 1}.tar.gz").write_bytes(gzip_bytes(build_tar(half)))


def write_mammoth_release(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write the two files and the archives of the MAmmoTH-VL release.

    `mammoth_ov_2M.json` has the first half of the rows, `mammoth_si_10M.json` the rest; `shard_1.tar.gz` is in a
    folder for rows of one image, one for rows of several, and one for videos.
    """
    half = (len(rows) + 1) // 2
    write_json(source_dir / "mammoth_ov_2M.json", [_build_released_record(row) for row in rows[:half]])
    write_json(source_dir / "mammoth_si_10M.json", [_build_released_record(row) for row in rows[half:]])
    shards: dict[str, dict[str, bytes | None]] = {"single_image_data": {}, "multi_image_data": {}, "video_data": {}}
    for row in rows:
        kind = "video_data" if row.video else "single_image_data" if len(row.images) == 1 else "multi_image_data"
        for file in (*row.images, *([row.video] if row.video else ())):
            shards[kind][_build_released_path(row, file)] = file.data
    for kind, files in shards.items():
        (source_dir / kind).mkdir()
        (source_dir / kind / "shard_1.tar.gz").write_bytes(gzip_bytes(build_tar(_drop_missing_files(files))))


def gzip_bytes(data: bytes) -> bytes:
    """Return the data compressed with gzip, without a time stamp."""
    return gzip.compress(data, mtime=0)


def build_tar(files: Mapping[str, bytes], links: Iterable[str] = ()) -> bytes:
    """Return a tar archive of the files."""
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


def build_zip(files: Mapping[str, bytes]) -> bytes:
    """Return a zip archive of the files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            # A ZipInfo of its own carries 1980-01-01 instead of the time of writing.
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def build_split_zip(files: Mapping[str, bytes], n_parts: int) -> list[bytes]:
    """Return a zip in the parts that `zip -s` writes (PKWARE APPNOTE.TXT 6.3, 8.5).

    There is a mark before the first entry, offsets count from the beginning of a part, the directory is in the last.
    """
    zip_bytes = build_zip(files)
    with zipfile.ZipFile(io.BytesIO(zip_bytes)) as archive:
        members, directory = archive.infolist(), archive.start_dir
    archive_bytes = b"PK\x07\x08" + zip_bytes
    # Parts begin with a member: the header of one must not be cut.
    member_offsets = [member.header_offset + 4 for member in members]
    part_offsets = [0, *(member_offsets[len(member_offsets) * n // n_parts] for n in range(1, n_parts))]
    central_directory = bytearray(archive_bytes[directory + 4 :])
    entry_offset = 0
    for begin in member_offsets:
        disk = sum(begin >= start for start in part_offsets) - 1
        struct.pack_into("<H", central_directory, entry_offset + 34, disk)
        struct.pack_into("<L", central_directory, entry_offset + 42, begin - part_offsets[disk])
        entry_offset += 46 + sum(struct.unpack_from("<3H", central_directory, entry_offset + 28))
    last_part = n_parts - 1
    struct.pack_into("<2H", central_directory, entry_offset + 4, last_part, last_part)
    struct.pack_into("<L", central_directory, entry_offset + 16, directory + 4 - part_offsets[last_part])
    full_archive = archive_bytes[: directory + 4] + bytes(central_directory)
    return [
        full_archive[start:stop]
        for start, stop in zip(part_offsets, [*part_offsets[1:], len(full_archive)], strict=True)
    ]


def _write_cambrian_jsonl(path: Path, slug: str, rows: Sequence[RawRow], with_other_sources: bool) -> None:
    """Write the rows as JSON lines; fault `bad_json` cuts a line short, text-only rows have no `image`."""
    lines = []
    for number, row in enumerate(rows):
        image = {"image": f"{slug}/{row.images[0].name}"} if row.images else {}
        record = {
            "id": row.row_id,
            "source": f"{resolve_config_name(slug)}.json",
            **image,
            "conversations": build_conversation(row),
        }
        line = json.dumps(record, ensure_ascii=False)
        lines.append(line[: len(line) // 2] if row.fault == "bad_json" else line)
        if with_other_sources and number % 3 == 0:
            lines.append(json.dumps({**record, "id": number, "source": "wizardlm_143k.json"}, ensure_ascii=False))
    path.parent.mkdir()
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _collect_archive_files(archive_dir: str, rows: Iterable[RawRow]) -> dict[str, bytes]:
    """Return the files in an archive's folder `<name>/`; those of `unsafe_member` rows come as links."""
    safe_rows = (row for row in rows if row.fault != "unsafe_member")
    return _drop_missing_files({f"{archive_dir}/{image.name}": image.data for row in safe_rows for image in row.images})


def _list_unsafe_links(archive_dir: str, rows: Iterable[RawRow]) -> list[str]:
    return [f"{archive_dir}/{image.name}" for row in rows if row.fault == "unsafe_member" for image in row.images]


def _drop_missing_files(files: Mapping[str, bytes | None]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if data is not None}


def _build_released_record(row: RawRow) -> dict[str, Any]:
    record: dict[str, Any] = {"id": row.row_id, "source": row.fields["source"]}
    if row.video is not None:
        record["video"] = _build_released_path(row, row.video)
    elif row.images:
        names = [_build_released_path(row, image) for image in row.images]
        record["image"] = names[0] if len(names) == 1 else names
    return {**record, "conversations": build_conversation(row)}


def _build_released_path(row: RawRow, file: RawFile) -> str:
    return f"{row.fields['folder']}/{file.name}"


LAYOUTS: dict[str, SourceLayout] = {
    "cambrian_tars": SourceLayout("cambrian_jsonl", write_cambrian_tars),
    "cambrian_tar_parts": SourceLayout("cambrian_jsonl", write_cambrian_tar_parts),
    "m4_instruct_parts": SourceLayout("m4_instruct", write_m4_instruct_parts),
    "llava_video_tars": SourceLayout("llava_video", write_llava_video_tars),
    "mammoth_release": SourceLayout("mammoth_release", write_mammoth_release),
}
