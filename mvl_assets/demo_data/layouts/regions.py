"""What is where in a picture: Visual Genome, COCO instances, RefCOCO, Localized Narratives, ICDAR text."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, cast

from mvl_assets.demo_data.drawings.located import Place, relation
from mvl_assets.demo_data.drawings.shapes import SHAPES
from mvl_assets.demo_data.drawings.signboards import Line
from mvl_assets.demo_data.layouts.common import Layout, dump, save
from mvl_assets.demo_data.rows import RawFile, Row

NO_SUCH = 9_999_999
"""An id that nothing has."""


def coco_instances(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`annotations/instances_val2017.json` {info, licenses, images, annotations, categories}; pictures in `val2017/`.

    In every fifth picture the shapes of one kind are marked together, as a crowd.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        image_id = number + 139
        if row.fault != "unknown_picture":
            images.append({"license": 1, "file_name": row.pictures[0].name, "id": image_id, **_sides(row)})
        if row.fault == "no_objects":
            continue
        made = _crowd(row) if number % 5 == 4 else [_instance(place) for place in _places(row)]
        if row.fault == "bad_box":
            made[0]["bbox"] = made[0]["bbox"][:2]
        if row.fault == "unknown_category":
            made[0]["category_id"] = NO_SUCH
        annotations += [{**one, "image_id": image_id, "id": len(annotations) + n + 1} for n, one in enumerate(made)]
    whole = {
        "info": {"description": f"{name}, drawn in small", "version": "1.0", "year": 2017},
        "licenses": [{"id": 1, "name": "Written for this project", "url": ""}],
        "images": images,
        "annotations": annotations,
        "categories": _categories(),
    }
    dump(folder / "annotations" / "instances_val2017.json", whole)
    save(folder / "val2017", (picture for row in rows for picture in row.pictures))


def visual_genome(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """The four lists per picture, `image_data.json`, and `<image_id>.jpg` in `VG_100K/` and `VG_100K_2/` in turn.

    The part of a row (0 to 3) says in which list it stands; rows that share a picture share its id.
    """
    ids = {picture: 2_300_000 + n for n, picture in enumerate(dict.fromkeys(row.pictures[0].name for row in rows))}
    lists: dict[str, list[dict[str, Any]]] = {}
    data: dict[int, dict[str, Any]] = {}
    for row in rows:
        image_id, part = ids[row.pictures[0].name], cast(int, row.fields["part"])
        home = ("VG_100K", "VG_100K_2")[image_id % 2]
        file, own, field = _LISTS[part]
        things = None if row.fault == "not_an_object" else _things(part, row)
        entry = {own: image_id, field: things}
        if row.fault == "unknown_picture":
            del entry[own]
        lists.setdefault(file, []).append(entry)
        url = f"https://example.org/{home}/{image_id}.jpg"
        data[image_id] = {"image_id": image_id, "url": url, **_sides(row), "coco_id": None, "flickr_id": None}
        save(folder / home, (RawFile(f"{image_id}.jpg", row.pictures[0].data),))
    for file, entries in lists.items():
        dump(folder / file, entries)
    dump(folder / "image_data.json", list(data.values()))


def ref_coco(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`refcoco/refs(unc).p` and `refcoco/instances.json`; pictures in `images/mscoco/images/train2014/`.

    Rows that follow each other and name the same shape of a picture are sentences of one reference.
    """
    ids = {picture: n + 581 for n, picture in enumerate(dict.fromkeys(row.pictures[0].name for row in rows))}
    first = {row.pictures[0].name: row for row in reversed(rows)}
    images, annotations, refs = [], [], list[dict[str, Any]]()
    for picture, row in first.items():
        images.append({"license": 1, "file_name": picture, "id": ids[picture], **_sides(row)})
        for n, place in enumerate(_places(row)):
            annotations.append({**_instance(place), "image_id": ids[picture], "id": ids[picture] * 10 + n})
    for sent_id, row in enumerate(rows):
        picture, place = row.pictures[0].name, cast(Place, row.fields["place"])
        own = ids[picture] * 10 + _places(row).index(place) if row.fault != "unknown_annotation" else NO_SUCH
        if not refs or refs[-1]["ann_id"] != own:
            refs.append(
                {
                    "sent_ids": [],
                    "file_name": f"{PurePosixPath(picture).stem}_{len(refs)}.jpg",
                    "ann_id": own,
                    "ref_id": len(refs),
                    "image_id": ids[picture],
                    "split": "train",
                    "sentences": [],
                    "category_id": _category(place),
                }
            )
        sent = "" if row.fault == "no_expression" else str(row.fields["expression"])
        refs[-1]["sent_ids"].append(sent_id)
        refs[-1]["sentences"].append({"tokens": sent.split(), "raw": sent.upper(), "sent_id": sent_id, "sent": sent})
    home = folder / "refcoco"
    dump(home / "instances.json", {"images": images, "annotations": annotations, "categories": _categories()})
    # Protocol 2 is the newest that Python 2 can read, and the original is of its time.
    (home / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    save(folder / "images" / "mscoco" / "images" / "train2014", (row.pictures[0] for row in rows))


def localized_narratives(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`<collection>_localized_narratives.jsonl` of four collections in turn, and their pictures as they name them."""
    lines: dict[str, list[str]] = {}
    for number, row in enumerate(rows):
        file, dataset, home, image_id, stem = _COLLECTIONS[number % len(_COLLECTIONS)]
        told = {
            "dataset_id": dataset,
            "image_id": image_id.format(number + 1000),
            "annotator_id": number % 7,
            "caption": "" if row.fault == "no_caption" else row.turns[0][1],
            **_spoken(row),
            "voice_recording": f"{file}/{file}_{number + 1000}_{number % 7}.ogg",
        }
        line = json.dumps(told)
        lines.setdefault(file, []).append(line[: len(line) // 2] if row.fault == "bad_json" else line)
        save(folder / home, (RawFile(f"{stem.format(number + 1000)}.jpg", row.pictures[0].data),))
    for file, told_lines in lines.items():
        path = folder / f"{file}_localized_narratives.jsonl"
        path.write_text("\n".join(told_lines) + "\n", encoding="utf-8")


def rects(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`img/<name>.jpg`, `gt/<name>.json` with {chars, lines}, and the same with escapes in `gt_unicode/`."""
    for row in rows:
        lines = [
            {
                "ignore": int(not line.legible),
                "transcription": line.words if line.legible else "###",
                "points": [part for corner in line.corners for part in corner],
            }
            for line in _lines(row)
        ]
        if row.fault == "bad_polygon":
            lines[0]["points"] = lines[0]["points"][:3]  # type: ignore[index]
        whole = {"chars": [char for line in _lines(row) for char in _characters(line)], "lines": lines}
        stem = PurePosixPath(row.pictures[0].name).stem
        for home, ascii_only in (("gt", False), ("gt_unicode", True)):
            told = json.dumps(whole, ensure_ascii=ascii_only)
            _text(folder / home / f"{stem}.json", told[: len(told) * 2 // 3] if row.fault == "bad_json" else told)
    save(folder / "img", (row.pictures[0] for row in rows))


def rctw(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`train_images/<name>.jpg` and `train_gts/<name>.txt`: corners, difficult, quoted words; a byte order mark."""
    _text_files(folder, ("train_gts", "train_images"), rows, '{corners},{difficult},"{words}"', "utf-8-sig")


def icdar_lines(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`train/<name>.jpg` and beside it `train/<name>.txt`: corners and words, as SROIE has them."""
    _text_files(folder, ("train", "train"), rows, "{corners},{words}", "utf-8")


def _text_files(folder: Path, homes: tuple[str, str], rows: Sequence[Row], form: str, encoding: str) -> None:
    for row in rows:
        told = [
            form.format(
                corners=",".join(str(part) for corner in line.corners for part in corner),
                difficult=int(not line.legible),
                words=line.words if line.legible else "###",
            )
            for line in _lines(row)
        ]
        if row.fault == "bad_polygon":
            told[0] = told[0].split(",", 3)[3]
        stem = PurePosixPath(row.pictures[0].name).stem
        wrong = "gb18030" if row.fault == "bad_utf8" else encoding
        _text(folder / homes[0] / f"{stem}.txt", "\r\n".join([*told, ""]), wrong)
    save(folder / homes[1], (row.pictures[0] for row in rows))


def _lines(row: Row) -> list[Line]:
    lines = cast(list[Line], row.fields["lines"])
    return [replace(line, legible=False) for line in lines] if row.fault == "no_text" else lines


def _characters(line: Line) -> list[dict[str, Any]]:
    """ReCTS also gives every character; drawn ones stand evenly between half a square at either end of the board."""
    if not line.chinese:
        return []
    upper_left, upper_right, lower_right, lower_left = line.corners
    count, made = len(line.words), []
    for n, character in enumerate(line.words):
        start, end = (n + 0.5) / (count + 1), (n + 1.5) / (count + 1)
        points = [
            round(a + (b - a) * share)
            for one, other, share in (
                (upper_left, upper_right, start),
                (upper_left, upper_right, end),
                (lower_left, lower_right, end),
                (lower_left, lower_right, start),
            )
            for a, b in zip(one, other, strict=True)
        ]
        shown = character if line.legible else "###"
        made.append({"ignore": int(not line.legible), "transcription": shown, "points": points})
    return made


def _places(row: Row) -> tuple[Place, ...]:
    return cast(tuple[Place, ...], row.fields["places"])


def _sides(row: Row) -> dict[str, int]:
    width, height = cast(tuple[int, int], row.fields["size"])
    return {"width": width, "height": height}


def _categories() -> list[dict[str, Any]]:
    return [{"supercategory": "shape", "id": n + 1, "name": shape} for n, shape in enumerate(SHAPES)]


def _category(place: Place) -> int:
    return SHAPES.index(place.thing.shape) + 1


def _instance(place: Place) -> dict[str, Any]:
    x, y, width, height = place.box
    outline = [round(part, 2) for corner in place.corners for part in corner]
    return {
        "segmentation": [outline],
        "area": round(width * height / 2, 2),
        "iscrowd": 0,
        "bbox": [round(side, 2) for side in (x, y, width, height)],
        "category_id": _category(place),
    }


def _crowd(row: Row) -> list[dict[str, Any]]:
    """The first kind of shape as one crowd with a run-length mask of its box, the others one by one."""
    kind = _places(row)[0].thing.shape
    together = [place for place in _places(row) if place.thing.shape == kind]
    x, y = (min(place.box[side] for place in together) for side in (0, 1))
    right, foot = (max(place.box[side] + place.box[side + 2] for place in together) for side in (0, 1))
    width, height = cast(tuple[int, int], row.fields["size"])
    columns, high = int(right) - int(x), int(foot) - int(y)
    counts = [int(x) * height + int(y), *[high, height - high] * columns]
    counts[-1] = width * height - sum(counts[:-1])
    crowd = {
        **_instance(together[0]),
        "segmentation": {"counts": counts, "size": [height, width]},
        "iscrowd": 1,
        "bbox": [round(side, 2) for side in (x, y, right - x, foot - y)],
    }
    return [crowd, *(_instance(place) for place in _places(row) if place.thing.shape != kind)]


_LISTS = (
    ("question_answers.json", "id", "qas"),
    ("region_descriptions.json", "id", "regions"),
    ("objects.json", "image_id", "objects"),
    ("relationships.json", "image_id", "relationships"),
)


def _things(part: int, row: Row) -> list[dict[str, Any]]:
    places = _places(row)
    if part == 0:
        return [{"qa_id": n, "question": asked, "answer": answer} for n, (asked, answer) in enumerate(row.turns)]
    if part == 1:
        return [
            {
                "region_id": n,
                "phrase": f"a {place.thing.colour} {place.thing.shape}",
                **_whole(place, "width", "height"),
            }
            for n, place in enumerate(places)
        ]
    if part == 2:
        return [_object(place, n) for n, place in enumerate(places)]
    return [
        {
            "relationship_id": n,
            "predicate": relation(one.thing, other.thing).upper(),
            "subject": _object(one, n),
            "object": _object(other, n + 1),
            "synsets": [],
        }
        for n, (one, other) in enumerate(pairwise(places))
    ]


def _object(place: Place, number: int) -> dict[str, Any]:
    return {"object_id": number, "names": [place.thing.name], "synsets": [], **_whole(place, "w", "h")}


def _whole(place: Place, width: str, height: str) -> dict[str, int]:
    """The box in whole pixels, as Visual Genome has it."""
    return dict(zip(("x", "y", width, height), (round(side) for side in place.box), strict=True))


_COLLECTIONS = (
    ("coco_val", "mscoco_val2017", "val2017", "{}", "{:012d}"),
    ("flickr30k_test", "Flick30k_test", "flickr30k-images", "{}", "{}"),
    (
        "ade20k_validation",
        "ADE20k_validation",
        "ADEChallengeData2016/images/validation",
        "ADE_val_{:08d}",
        "ADE_val_{:08d}",
    ),
    ("open_images_validation", "open_images_validation", "validation", "{:016x}", "{:016x}"),
)
"""File, dataset_id, folder of the pictures, image_id, and the picture's name without its ending."""


def _spoken(row: Row) -> dict[str, Any]:
    """A second for every shape, while the pointer goes from corner to corner of its outline."""
    width, height = cast(tuple[int, int], row.fields["size"])
    utterances, traces = [], []
    for second, place in enumerate(_places(row)):
        utterances.append({"utterance": place.thing.name, "start_time": float(second), "end_time": second + 0.9})
        step = 0.9 / len(place.corners)
        traces.append(
            [
                {"x": round(x / width, 4), "y": round(y / height, 4), "t": round(second + n * step, 3)}
                for n, (x, y) in enumerate(place.corners)
            ]
        )
    return {"timed_caption": utterances, "traces": traces}


def _text(path: Path, text: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


LAYOUTS = {
    "coco_instances": Layout("coco", coco_instances),
    "visual_genome": Layout("visual_genome", visual_genome),
    "ref_coco": Layout("ref_coco", ref_coco),
    "localized_narratives": Layout("localized_narratives", localized_narratives),
    "rects": Layout("icdar_text", rects),
    "rctw": Layout("icdar_text", rctw),
    "icdar_lines": Layout("icdar_text", icdar_lines),
}
