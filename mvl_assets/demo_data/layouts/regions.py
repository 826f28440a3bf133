"""Region annotations: Visual Genome, COCO instances, RefCOCO, Localized Narratives, ICDAR text."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, cast

from mvl_assets.demo_data.drawings.located import ObjectRegion, describe_relation
from mvl_assets.demo_data.drawings.signboards import TextLine
from mvl_assets.demo_data.layouts.common import SourceLayout, write_files, write_json
from mvl_assets.demo_data.rows import RawFile, RawRow
from mvl_assets.media.drawing import SHAPES

UNKNOWN_ID = 9_999_999
"""An id that nothing has."""


def write_coco_instances(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `annotations/instances_val2017.json` {info, licenses, images, annotations, categories}, and `val2017/`.

    In every fifth image the shapes of one kind are marked together, as a crowd.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        image_id = number + 139
        if row.fault != "unknown_image":
            images.append({"license": 1, "file_name": row.images[0].name, "id": image_id, **_build_image_size(row)})
        if row.fault == "no_objects":
            continue
        row_annotations = (
            _build_crowd(row) if number % 5 == 4 else [_build_instance(region) for region in _read_regions(row)]
        )
        if row.fault == "bad_box":
            row_annotations[0]["bbox"] = row_annotations[0]["bbox"][:2]
        if row.fault == "unknown_category":
            row_annotations[0]["category_id"] = UNKNOWN_ID
        annotations += [
            {**annotation, "image_id": image_id, "id": len(annotations) + n + 1}
            for n, annotation in enumerate(row_annotations)
        ]
    document = {
        "info": {"description": f"{slug}, drawn in small", "version": "1.0", "year": 2017},
        "licenses": [{"id": 1, "name": "Written for this project", "url": ""}],
        "images": images,
        "annotations": annotations,
        "categories": _build_categories(),
    }
    write_json(source_dir / "annotations" / "instances_val2017.json", document)
    write_files(source_dir / "val2017", (image for row in rows for image in row.images))


def write_visual_genome(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write the four lists per image, `image_data.json`, and `<image_id>.jpg` in `VG_100K/` and `VG_100K_2/` in turn.

    `row_in_image` (0 to 3) says which list a row is in; rows that share an image share its id.
    """
    image_ids = {
        image_name: 2_300_000 + n for n, image_name in enumerate(dict.fromkeys(row.images[0].name for row in rows))
    }
    entries_by_file: dict[str, list[dict[str, Any]]] = {}
    image_records: dict[int, dict[str, Any]] = {}
    for row in rows:
        image_id, list_index = image_ids[row.images[0].name], cast(int, row.fields["row_in_image"])
        image_dir = ("VG_100K", "VG_100K_2")[image_id % 2]
        file, id_field, field = _VISUAL_GENOME_LISTS[list_index]
        list_items = None if row.fault == "not_an_object" else _build_visual_genome_items(list_index, row)
        entry = {id_field: image_id, field: list_items}
        if row.fault == "unknown_image":
            del entry[id_field]
        entries_by_file.setdefault(file, []).append(entry)
        url = f"https://example.org/{image_dir}/{image_id}.jpg"
        image_records[image_id] = {
            "image_id": image_id,
            "url": url,
            **_build_image_size(row),
            "coco_id": None,
            "flickr_id": None,
        }
        write_files(source_dir / image_dir, (RawFile(f"{image_id}.jpg", row.images[0].data),))
    for file, entries in entries_by_file.items():
        write_json(source_dir / file, entries)
    write_json(source_dir / "image_data.json", list(image_records.values()))


def write_ref_coco(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `refcoco/refs(unc).p` and `refcoco/instances.json`; images in `images/mscoco/images/train2014/`.

    Rows that follow each other and name the same shape of an image are sentences of one reference.
    """
    image_ids = {image_name: n + 581 for n, image_name in enumerate(dict.fromkeys(row.images[0].name for row in rows))}
    first_rows = {row.images[0].name: row for row in reversed(rows)}
    images, annotations, refs = [], [], list[dict[str, Any]]()
    for image_name, row in first_rows.items():
        images.append({"license": 1, "file_name": image_name, "id": image_ids[image_name], **_build_image_size(row)})
        for n, region in enumerate(_read_regions(row)):
            annotations.append(
                {**_build_instance(region), "image_id": image_ids[image_name], "id": image_ids[image_name] * 10 + n}
            )
    for sent_id, row in enumerate(rows):
        image_name, region = row.images[0].name, cast(ObjectRegion, row.fields["region"])
        annotation_id = (
            image_ids[image_name] * 10 + _read_regions(row).index(region)
            if row.fault != "unknown_annotation"
            else UNKNOWN_ID
        )
        if not refs or refs[-1]["ann_id"] != annotation_id:
            refs.append(
                {
                    "sent_ids": [],
                    "file_name": f"{PurePosixPath(image_name).stem}_{len(refs)}.jpg",
                    "ann_id": annotation_id,
                    "ref_id": len(refs),
                    "image_id": image_ids[image_name],
                    "split": "train",
                    "sentences": [],
                    "category_id": _get_category_id(region),
                }
            )
        sentence = "" if row.fault == "no_expression" else str(row.fields["expression"])
        refs[-1]["sent_ids"].append(sent_id)
        refs[-1]["sentences"].append(
            {"tokens": sentence.split(), "raw": sentence.upper(), "sent_id": sent_id, "sent": sentence}
        )
    annotations_dir = source_dir / "refcoco"
    write_json(
        annotations_dir / "instances.json",
        {"images": images, "annotations": annotations, "categories": _build_categories()},
    )
    # Protocol 2, as in the original: the newest that Python 2 can read.
    (annotations_dir / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    write_files(source_dir / "images" / "mscoco" / "images" / "train2014", (row.images[0] for row in rows))


def write_localized_narratives(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `<collection>_localized_narratives.jsonl` of four collections in turn, and their images."""
    lines: dict[str, list[str]] = {}
    for number, row in enumerate(rows):
        file, dataset, image_dir, image_id, stem = _NARRATIVE_COLLECTIONS[number % len(_NARRATIVE_COLLECTIONS)]
        record = {
            "dataset_id": dataset,
            "image_id": image_id.format(number + 1000),
            "annotator_id": number % 7,
            "caption": "" if row.fault == "no_caption" else row.turns[0][1],
            **_build_narration(row),
            "voice_recording": f"{file}/{file}_{number + 1000}_{number % 7}.ogg",
        }
        line = json.dumps(record)
        lines.setdefault(file, []).append(line[: len(line) // 2] if row.fault == "bad_json" else line)
        write_files(source_dir / image_dir, (RawFile(f"{stem.format(number + 1000)}.jpg", row.images[0].data),))
    for file, file_lines in lines.items():
        path = source_dir / f"{file}_localized_narratives.jsonl"
        path.write_text("\n".join(file_lines) + "\n", encoding="utf-8")


def write_rects(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `img/<name>.jpg`, `gt/<name>.json` with {chars, lines}, and the same with escapes in `gt_unicode/`."""
    for row in rows:
        lines = [
            {
                "ignore": int(not line.is_legible),
                "transcription": line.text if line.is_legible else "###",
                "points": [coordinate for corner in line.corners for coordinate in corner],
            }
            for line in _read_text_lines(row)
        ]
        if row.fault == "bad_polygon":
            lines[0]["points"] = lines[0]["points"][:3]  # type: ignore[index]
        document = {
            "chars": [char for line in _read_text_lines(row) for char in _build_character_records(line)],
            "lines": lines,
        }
        stem = PurePosixPath(row.images[0].name).stem
        for annotations_dir, ascii_only in (("gt", False), ("gt_unicode", True)):
            annotation_text = json.dumps(document, ensure_ascii=ascii_only)
            _write_text(
                source_dir / annotations_dir / f"{stem}.json",
                annotation_text[: len(annotation_text) * 2 // 3] if row.fault == "bad_json" else annotation_text,
            )
    write_files(source_dir / "img", (row.images[0] for row in rows))


def write_rctw(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `train_images/<name>.jpg` and `train_gts/<name>.txt`: corners, difficult, quoted words, with a BOM."""
    _write_icdar_files(source_dir, ("train_gts", "train_images"), rows, '{corners},{difficult},"{words}"', "utf-8-sig")


def write_icdar_lines(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `train/<name>.jpg` and `train/<name>.txt` with corners and words, as SROIE has them."""
    _write_icdar_files(source_dir, ("train", "train"), rows, "{corners},{words}", "utf-8")


def _write_icdar_files(
    folder: Path, dir_names: tuple[str, str], rows: Sequence[RawRow], line_template: str, encoding: str
) -> None:
    for row in rows:
        annotation_lines = [
            line_template.format(
                corners=",".join(str(coordinate) for corner in line.corners for coordinate in corner),
                difficult=int(not line.is_legible),
                words=line.text if line.is_legible else "###",
            )
            for line in _read_text_lines(row)
        ]
        if row.fault == "bad_polygon":
            annotation_lines[0] = annotation_lines[0].split(",", 3)[3]
        stem = PurePosixPath(row.images[0].name).stem
        used_encoding = "gb18030" if row.fault == "bad_utf8" else encoding
        _write_text(folder / dir_names[0] / f"{stem}.txt", "\r\n".join([*annotation_lines, ""]), used_encoding)
    write_files(folder / dir_names[1], (row.images[0] for row in rows))


def _read_text_lines(row: RawRow) -> list[TextLine]:
    lines = cast(list[TextLine], row.fields["text_lines"])
    return [replace(line, is_legible=False) for line in lines] if row.fault == "no_text" else lines


def _build_character_records(line: TextLine) -> list[dict[str, Any]]:
    """Return the characters as ReCTS gives them, evenly spaced from half a square off either end of the board."""
    if not line.is_chinese:
        return []
    upper_left, upper_right, lower_right, lower_left = line.corners
    count, records = len(line.text), []
    for n, character in enumerate(line.text):
        start, end = (n + 0.5) / (count + 1), (n + 1.5) / (count + 1)
        points = [
            round(a + (b - a) * fraction)
            for first_corner, second_corner, fraction in (
                (upper_left, upper_right, start),
                (upper_left, upper_right, end),
                (lower_left, lower_right, end),
                (lower_left, lower_right, start),
            )
            for a, b in zip(first_corner, second_corner, strict=True)
        ]
        transcription = character if line.is_legible else "###"
        records.append({"ignore": int(not line.is_legible), "transcription": transcription, "points": points})
    return records


def _read_regions(row: RawRow) -> tuple[ObjectRegion, ...]:
    return cast(tuple[ObjectRegion, ...], row.fields["regions"])


def _build_image_size(row: RawRow) -> dict[str, int]:
    width, height = cast(tuple[int, int], row.fields["image_size"])
    return {"width": width, "height": height}


def _build_categories() -> list[dict[str, Any]]:
    return [{"supercategory": "shape", "id": n + 1, "name": shape} for n, shape in enumerate(SHAPES)]


def _get_category_id(region: ObjectRegion) -> int:
    return SHAPES.index(region.scene_object.shape) + 1


def _build_instance(region: ObjectRegion) -> dict[str, Any]:
    x, y, width, height = region.box
    polygon = [round(coordinate, 2) for corner in region.polygon for coordinate in corner]
    return {
        "segmentation": [polygon],
        "area": round(width * height / 2, 2),
        "iscrowd": 0,
        "bbox": [round(side, 2) for side in (x, y, width, height)],
        "category_id": _get_category_id(region),
    }


def _build_crowd(row: RawRow) -> list[dict[str, Any]]:
    """Return the first kind of shape as one crowd with a run-length mask of its box, the others one by one."""
    crowd_shape = _read_regions(row)[0].scene_object.shape
    crowd_regions = [region for region in _read_regions(row) if region.scene_object.shape == crowd_shape]
    x, y = (min(region.box[side] for region in crowd_regions) for side in (0, 1))
    right, bottom = (max(region.box[side] + region.box[side + 2] for region in crowd_regions) for side in (0, 1))
    width, height = cast(tuple[int, int], row.fields["image_size"])
    box_width, box_height = int(right) - int(x), int(bottom) - int(y)
    counts = [int(x) * height + int(y), *[box_height, height - box_height] * box_width]
    counts[-1] = width * height - sum(counts[:-1])
    crowd = {
        **_build_instance(crowd_regions[0]),
        "segmentation": {"counts": counts, "size": [height, width]},
        "iscrowd": 1,
        "bbox": [round(side, 2) for side in (x, y, right - x, bottom - y)],
    }
    return [
        crowd,
        *(_build_instance(region) for region in _read_regions(row) if region.scene_object.shape != crowd_shape),
    ]


_VISUAL_GENOME_LISTS = (
    ("question_answers.json", "id", "qas"),
    ("region_descriptions.json", "id", "regions"),
    ("objects.json", "image_id", "objects"),
    ("relationships.json", "image_id", "relationships"),
)


def _build_visual_genome_items(list_index: int, row: RawRow) -> list[dict[str, Any]]:
    regions = _read_regions(row)
    if list_index == 0:
        return [{"qa_id": n, "question": question, "answer": answer} for n, (question, answer) in enumerate(row.turns)]
    if list_index == 1:
        return [
            {
                "region_id": n,
                "phrase": f"a {region.scene_object.colour} {region.scene_object.shape}",
                **_build_integer_box(region, "width", "height"),
            }
            for n, region in enumerate(regions)
        ]
    if list_index == 2:
        return [_build_visual_genome_object(region, n) for n, region in enumerate(regions)]
    return [
        {
            "relationship_id": n,
            "predicate": describe_relation(subject_region.scene_object, object_region.scene_object).upper(),
            "subject": _build_visual_genome_object(subject_region, n),
            "object": _build_visual_genome_object(object_region, n + 1),
            "synsets": [],
        }
        for n, (subject_region, object_region) in enumerate(pairwise(regions))
    ]


def _build_visual_genome_object(region: ObjectRegion, object_id: int) -> dict[str, Any]:
    return {
        "object_id": object_id,
        "names": [region.scene_object.name],
        "synsets": [],
        **_build_integer_box(region, "w", "h"),
    }


def _build_integer_box(region: ObjectRegion, width_field: str, height_field: str) -> dict[str, int]:
    """Return the box in whole pixels, as Visual Genome has it."""
    return dict(zip(("x", "y", width_field, height_field), (round(side) for side in region.box), strict=True))


_NARRATIVE_COLLECTIONS = (
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
"""File, dataset_id, folder of the images, image_id, and the image's name without its suffix."""


def _build_narration(row: RawRow) -> dict[str, Any]:
    """Return a narration with one second per shape, while the pointer moves along the corners of its outline."""
    width, height = cast(tuple[int, int], row.fields["image_size"])
    utterances, traces = [], []
    for second, region in enumerate(_read_regions(row)):
        utterances.append(
            {"utterance": region.scene_object.name, "start_time": float(second), "end_time": second + 0.9}
        )
        step = 0.9 / len(region.polygon)
        traces.append(
            [
                {"x": round(x / width, 4), "y": round(y / height, 4), "t": round(second + n * step, 3)}
                for n, (x, y) in enumerate(region.polygon)
            ]
        )
    return {"timed_caption": utterances, "traces": traces}


def _write_text(path: Path, text: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


LAYOUTS = {
    "coco_instances": SourceLayout("coco_instances", write_coco_instances),
    "visual_genome": SourceLayout("visual_genome", write_visual_genome),
    "ref_coco": SourceLayout("ref_coco", write_ref_coco),
    "localized_narratives": SourceLayout("localized_narratives", write_localized_narratives),
    "rects": SourceLayout("icdar_text", write_rects),
    "rctw": SourceLayout("icdar_text", write_rctw),
    "icdar_lines": SourceLayout("icdar_text", write_icdar_lines),
}
