"""All demo data opens with a plain parser of its format, and exactly the good rows are whole."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import pyarrow.parquet as pq
import pytest
from PIL import Image, UnidentifiedImageError

from mvl_assets.demo_data.recipes import DEMO_SLUGS
from mvl_assets.demo_data.write import WrittenDemoSource
from mvl_assets.readers.files import DEMO_MARKER_FILE, DEMO_TRUTH_FILE


def shows(data: bytes | Path) -> bool:
    """Whether Pillow decodes the whole picture."""
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            image.load()
    except (OSError, UnidentifiedImageError):
        return False
    return True


def plays(path: Path) -> bool:
    """Whether PyAV decodes at least one second of the video."""
    try:
        with av.open(str(path)) as container:
            return sum(1 for _ in container.decode(video=0)) >= 8
    except (av.error.FFmpegError, OSError):
        return False


def talks(conversation: list[dict[str, str]], pictures: int) -> bool:
    """Whether people and the model speak in turn and the markers match the pictures."""
    turns = [tuple(turn.values()) for turn in conversation]
    roles = {"human": "h", "user": "h", "gpt": "g", "assistant": "g"}
    spoken = "".join(roles.get(role, "?") for role, _ in turns)
    markers = sum(value.count("<image>") for _, value in turns)
    return spoken == "hg" * (len(turns) // 2) and bool(turns) and len(turns) % 2 == 0 and markers == pictures


def llava_json(folder: Path) -> Iterator[bool]:
    for path in [*folder.glob("*.json"), *folder.glob("*.jsonl")]:
        if path.name in (DEMO_MARKER_FILE, DEMO_TRUTH_FILE):
            continue
        text = path.read_text(encoding="utf-8")
        for line in text.splitlines() if path.suffix == ".jsonl" else [text]:
            try:
                parsed: Any = json.loads(line)
            except ValueError:
                yield False
                continue
            for row in parsed if isinstance(parsed, list) else [parsed]:
                names = [row["image"]] if "image" in row else []
                yield all(shows(folder / "images" / n) for n in names) and talks(row["conversations"], len(names))


def llava_parquet(folder: Path) -> Iterator[bool]:
    for path in sorted(folder.rglob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            image = row["image"]
            yield image["bytes"] is not None and shows(image["bytes"]) and talks(row["conversations"], 1)


def cauldron_parquet(folder: Path) -> Iterator[bool]:
    for path in sorted(folder.rglob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            whole = all(turn["user"] and turn["assistant"] for turn in row["texts"])
            yield bool(row["texts"]) and whole and all(shows(image["bytes"]) for image in row["images"])


def coco_captions(folder: Path) -> Iterator[bool]:
    whole = json.loads((folder / "annotations" / "captions_val2017.json").read_text(encoding="utf-8"))
    captions: dict[int, list[str]] = {}
    for annotation in whole["annotations"]:
        captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    for image in whole["images"]:
        yield len(captions[image["id"]]) >= 2 and shows(folder / "val2017" / image["file_name"])


def m4_instruct(folder: Path) -> Iterator[bool]:
    packed: dict[str, bytes] = {}
    for archive in folder.glob("*.zip"):
        with zipfile.ZipFile(archive) as members:
            packed = {name: members.read(name) for name in members.namelist()}
    for row in json.loads((folder / f"{folder.name}.json").read_text(encoding="utf-8")):
        assert len(row["image"]) == 2 and row["metadata"]["dataset"] == row["image"][0].partition("/")[0]
        seen = all(shows(packed.get(name, folder / name)) for name in row["image"])
        yield seen and talks(row["conversations"], 2)


def llava_video(folder: Path) -> Iterator[bool]:
    for row in json.loads(next(folder.glob("0_30_s_*.json")).read_text(encoding="utf-8")):
        yield plays(folder / row["video"]) and talks(row["conversations"], 1)


def records(folder: Path) -> Iterator[bool]:
    for key, row in json.loads((folder / "problems.json").read_text(encoding="utf-8")).items():
        assert {"question", "choices", "answer", "unit", "table_title", "table", "solution", "split"} <= row.keys()
        assert row["choices"] is None or row["answer"] in row["choices"]
        yield shows(folder / "tables" / f"{key}.png")


PARSERS: dict[str, Callable[[Path], Iterator[bool]]] = {
    parser.__name__: parser
    for parser in (llava_json, llava_parquet, cauldron_parquet, coco_captions, m4_instruct, llava_video, records)
}


@pytest.mark.parametrize("slug", DEMO_SLUGS)
def test_valid_and_invalid_rows_are_counted_as_written(slug: str, demo_sources: dict[str, WrittenDemoSource]) -> None:
    written = demo_sources[slug]
    verdicts = list(PARSERS[written.format](written.source_dir))
    assert (verdicts.count(True), verdicts.count(False)) == (written.n_good_rows, written.n_rejects)


def test_every_format_has_demo_data(demo_sources: dict[str, WrittenDemoSource]) -> None:
    assert {written.format for written in demo_sources.values()} == set(PARSERS)


def test_unusual_image_encodings_are_among_the_files(demo_sources: dict[str, WrittenDemoSource]) -> None:
    modes, turned, ratios = set(), 0, []
    for written in demo_sources.values():
        for path in written.source_dir.rglob("*"):
            if path.suffix not in (".png", ".jpg") or not shows(path):
                continue
            with Image.open(path) as image:
                modes.add(image.mode)
                turned += image.getexif().get(0x0112, 1) == 6
                ratios.append(max(image.size) / min(image.size))
    assert {"RGB", "CMYK", "P", "I;16"} <= modes
    assert turned > 0 and max(ratios) > 7


def test_rows_of_one_source_share_images(demo_sources: dict[str, WrittenDemoSource]) -> None:
    rows = json.loads((demo_sources["geo170k"].source_dir / "geo170k.json").read_text(encoding="utf-8"))
    assert len({row["image"] for row in rows}) < len(rows)


def test_two_caption_sources_hold_the_same_rows_for_the_duplicate_search_to_find(
    demo_sources: dict[str, WrittenDemoSource],
) -> None:
    one, two = demo_sources["sharegpt4v"].source_dir, demo_sources["sharegpt_4o"].source_dir
    rows = json.loads((one / "sharegpt4v.json").read_text(encoding="utf-8"))
    result = {
        (hashlib.sha256((one / "images" / row["image"]).read_bytes()).digest(), row["conversations"][-1]["value"])
        for row in rows
        if (one / "images" / row["image"]).is_file()
    }
    others = {
        (hashlib.sha256(row["image"]["bytes"]).digest(), row["conversations"][-1]["content"])
        for path in two.rglob("*.parquet")
        for row in pq.read_table(path).to_pylist()
        if row["image"]["bytes"]
    }
    assert len(result & others) >= 3
