r"""RefCOCO, RefCOCO+, RefCOCOg and RefCLEF: `<set>/refs(<division>).p`, a pickle, next to `<set>/instances.json`.

    [{"ref_id": 0, "ann_id": 1719310, "image_id": 581857, "category_id": 1, "split": "train", "sent_ids": [0, 1, 2],
      "file_name": "COCO_train2014_000000581857_16.jpg",
      "sentences": [{"sent_id": 0, "sent": "the lady with the blue shirt", "raw": "THE LADY ...", "tokens": [...]}]}]
    {"images": [{"id": 581857, "file_name": "COCO_train2014_000000581857.jpg", "width": 640, "height": 427}, ...],
     "annotations": [{"id": 1719310, "image_id": 581857, "bbox": [103.93, 299.99, 134.22, 177.42], ...}, ...]}

One sample per expression (`sent`) of the training split, because the others are benchmarks: a fixed request with the
expression, answered by the box of its annotation (`regions` says in which form). The native id is
`<set>/<division>/<sent_id>`. Where a set has several divisions of the same expressions, the first of unc, umd, google
is read. Images are those of COCO (RefCLEF: SAIAPR TC-12), looked for below `images/` as the REFER tools have them, or
in `train2014/`.

The pickle is read as plain data and never run (`plain_pickle`). It is held in memory, which its format asks for: about
1 kB per expression, 150 MB for the 142,210 of RefCOCO. Of instances.json only the boxes that are referred to and the
images are held, 250 bytes each. Specification: lichengunc/refer, README.md and refer.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.conversations.regions import (
    BOX_FORMAT,
    build_image_qa_turns,
    collapse_whitespace,
    format_box,
    parse_box,
    parse_size,
)
from mvl_assets.readers.files import format_relative_path, list_data_files, resolve_image
from mvl_assets.readers.format import ARCHIVE_FILES, Format
from mvl_assets.readers.parsers.json_stream import BROKEN_FILE, Item, RejectedItem, iter_elements
from mvl_assets.readers.parsers.plain_pickle import UnsafePickle, load
from mvl_assets.readers.rows import Row, build_sample, parse_native_id
from mvl_assets.readers.sample import RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

QUESTION = f"Give the box of the region of the picture that this describes, {BOX_FORMAT}: {{expression}}"

DIVISIONS = ("unc", "umd", "google")
IMAGE_FOLDERS = (
    "images/mscoco/images/train2014",
    "images/train2014",
    "train2014",
    "images/saiapr_tc-12",
    "images",
    "",
)


@dataclass(frozen=True, slots=True)
class _Instances:
    """Content of instances.json: image id and box by annotation id, and the images' fields by id."""

    boxes: Mapping[int, tuple[object, object]]
    images: Mapping[int, Mapping[str, Any]]


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    for path in _iter_preferred_divisions(list_data_files(source.slug, root, "*/refs(*).p", "refs(*).p")):
        name, position = format_relative_path(root, path), 0
        instances_path = path.with_name("instances.json")
        if not instances_path.is_file():
            yield RejectedRow(name, 0, BROKEN_FILE, "there is no instances.json next to it")
            continue
        try:
            refs = _load_refs(path)
        except UnsafePickle as error:
            yield RejectedRow(name, 0, BROKEN_FILE, str(error))
            continue
        instances, file_reject = _load_instances(instances_path, refs)
        id_prefix = f"{path.parent.name if path.parent != root else source.slug}/{_parse_division(path)}"
        for row in _iter_rows(name, id_prefix, refs):
            yield build_sample(row, partial(_to_sample, root, instances))
            position = row.position + 1
        if file_reject is not None:
            yield RejectedRow(name, position, BROKEN_FILE, f"instances.json: {file_reject.message}")


def _iter_preferred_divisions(paths: list[Path]) -> Iterator[Path]:
    """Yield one division of each folder."""
    for folder in dict.fromkeys(path.parent for path in paths):
        path_by_division = {_parse_division(path): path for path in paths if path.parent == folder}
        yield path_by_division[
            min(
                path_by_division,
                key=lambda name: (DIVISIONS.index(name) if name in DIVISIONS else len(DIVISIONS), name),
            )
        ]


def _parse_division(path: Path) -> str:
    return path.name.removeprefix("refs(").removesuffix(").p")


def _load_refs(path: Path) -> list[Any]:
    refs = load(path)
    if not isinstance(refs, list):
        raise UnsafePickle("the pickle holds no list of references")
    return refs


def _load_instances(path: Path, refs: list[Any]) -> tuple[_Instances, RejectedItem | None]:
    """Load the boxes that `refs` name and all images, and the reject of a file that cannot be read to its end."""
    annotation_ids = {_to_int(ref.get("ann_id")) for ref in refs if isinstance(ref, dict)}
    boxes: dict[int, tuple[object, object]] = {}
    images: dict[int, Mapping[str, Any]] = {}
    file_reject = None
    for item in iter_elements(path, ("annotations",)):
        object_id, value = _parse_object(item)
        if object_id is not None and object_id in annotation_ids:
            boxes[object_id] = value.get("image_id"), value.get("bbox")
        file_reject = item if isinstance(item, RejectedItem) and item.error == BROKEN_FILE else file_reject
    for item in iter_elements(path, ("images",)):
        object_id, value = _parse_object(item)
        if object_id is not None:
            images[object_id] = {field: value.get(field) for field in ("file_name", "width", "height")}
        file_reject = item if isinstance(item, RejectedItem) and item.error == BROKEN_FILE else file_reject
    return _Instances(boxes, images), file_reject


def _parse_object(item: Item | RejectedItem) -> tuple[int | None, Mapping[str, Any]]:
    value = item.value if isinstance(item, Item) and isinstance(item.value, dict) else {}
    return _to_int(value.get("id")), value


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)


def _to_int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _iter_rows(file: str, id_prefix: str, refs: list[Any]) -> Iterator[Row | RejectedRow]:
    """Yield a row per expression of the training split: its reference, with the expression as `sentence`."""
    position = 0
    seen_list_ids: set[int] = set()
    for ref in refs:
        if isinstance(ref, dict) and ref.get("split", "train") != "train":
            continue
        sentences = ref.get("sentences") if isinstance(ref, dict) else None
        # In a small pickle a million references can share a list of a million sentences.
        if not isinstance(sentences, list) or not all(map(_is_dict, sentences)) or id(sentences) in seen_list_ids:
            yield RejectedRow(file, position, "bad_reference", "a reference without a list of `sentences` of its own")
            position += 1
            continue
        seen_list_ids.add(id(sentences))
        for sentence in sentences:
            sentence_id = parse_native_id(sentence.get("sent_id"))
            row_id = None if sentence_id is None else parse_native_id(f"{id_prefix}/{sentence_id}")
            yield Row(file, position, row_id, {**ref, "sentence": sentence.get("sent")})
            position += 1


def _to_sample(root: Path, instances: _Instances, row: Row) -> Sample:
    expression = collapse_whitespace(row.value["sentence"])
    if not expression:
        raise RejectError("no_expression", "the sentence is empty")
    ann_id = _to_int(row.value.get("ann_id"))
    if ann_id is None or ann_id not in instances.boxes:
        raise RejectError("unknown_annotation", f"instances.json has no annotation {ann_id}")
    image_id, box = instances.boxes[ann_id]
    image_id = _to_int(image_id)
    if image_id is None or image_id not in instances.images:
        raise RejectError("unknown_image", f"instances.json lists no image {image_id}")
    image_fields = instances.images[image_id]
    name = image_fields["file_name"]
    if not isinstance(name, str):
        raise RejectError("bad_path", f"image {image_id} has no file name")
    turns = build_image_qa_turns(
        QUESTION.format(expression=expression), format_box(parse_box(box), parse_size(image_fields))
    )
    return Sample(row.file, row.position, turns, row.native_id, (resolve_image(root, name, IMAGE_FOLDERS),))


FORMAT = Format(
    row_files=("*.p", "*.json", "*.zip"),
    media_files=ARCHIVE_FILES,
    description="<set>/refs(*).p, <set>/instances.json and the images, train2014/",
    read=read,
)
