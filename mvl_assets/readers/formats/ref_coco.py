r"""RefCOCO, RefCOCO+, RefCOCOg and RefCLEF: `<set>/refs(<division>).p`, a pickle, beside `<set>/instances.json`.

    [{"ref_id": 0, "ann_id": 1719310, "image_id": 581857, "category_id": 1, "split": "train", "sent_ids": [0, 1, 2],
      "file_name": "COCO_train2014_000000581857_16.jpg",
      "sentences": [{"sent_id": 0, "sent": "the lady with the blue shirt", "raw": "THE LADY ...", "tokens": [...]}]}]
    {"images": [{"id": 581857, "file_name": "COCO_train2014_000000581857.jpg", "width": 640, "height": 427}, ...],
     "annotations": [{"id": 1719310, "image_id": 581857, "bbox": [103.93, 299.99, 134.22, 177.42], ...}, ...]}

One sample per expression (`sent`) of the training split, because the others are benchmarks: a fixed request with the
expression, answered by the box of its annotation (`regions` says in which form). The native id is
`<set>/<division>/<sent_id>`. Where a set has several divisions of the same expressions, the first of unc, umd, google
is read. Pictures are those of COCO (RefCLEF: SAIAPR TC-12), looked for below `images/` as the REFER tools have them, or
in `train2014/`.

The pickle is read as plain data and never run (`plain_pickle`). It is held in memory, which its format asks for: about
1 kB an expression, 150 MB for the 142,210 of RefCOCO. Of instances.json only the boxes that are referred to and the
pictures are held, 250 bytes each. Specification: lichengunc/refer, README.md and refer.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.readers.files import files_below, picture_at, relative
from mvl_assets.readers.json_stream import BROKEN_FILE, BadItem, Item, elements
from mvl_assets.readers.plain_pickle import PickleRefused, load
from mvl_assets.readers.regions import BOX_FORM, about_picture, box_of, box_text, one_line, size_of
from mvl_assets.readers.rows import Row, RowError, built, native_id
from mvl_assets.readers.sample import Broken, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

REQUEST = f"Give the box of the region of the picture that this describes, {BOX_FORM}: {{expression}}"

DIVISIONS = ("unc", "umd", "google")
FOLDERS = (
    "images/mscoco/images/train2014",
    "images/train2014",
    "train2014",
    "images/saiapr_tc-12",
    "images",
    "",
)


@dataclass(frozen=True, slots=True)
class _Instances:
    """What instances.json says: picture id and box by annotation id, and the pictures' fields by id."""

    boxes: Mapping[int, tuple[object, object]]
    pictures: Mapping[int, Mapping[str, Any]]


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    for path in _chosen(files_below(source.slug, root, "*/refs(*).p", "refs(*).p")):
        name, position = relative(root, path), 0
        beside = path.with_name("instances.json")
        if not beside.is_file():
            yield Broken(name, 0, BROKEN_FILE, "there is no instances.json beside it")
            continue
        try:
            refs = _refs(path)
        except PickleRefused as error:
            yield Broken(name, 0, BROKEN_FILE, str(error))
            continue
        instances, lost = _instances(beside, refs)
        named = f"{path.parent.name if path.parent != root else source.slug}/{_division(path)}"
        for row in _rows(name, named, refs):
            yield built(row, partial(_sample, root, instances))
            position = row.position + 1
        if lost is not None:
            yield Broken(name, position, BROKEN_FILE, f"instances.json: {lost.message}")


def _chosen(paths: list[Path]) -> Iterator[Path]:
    """One division of each folder."""
    for folder in dict.fromkeys(path.parent for path in paths):
        here = {_division(path): path for path in paths if path.parent == folder}
        yield here[min(here, key=lambda name: (DIVISIONS.index(name) if name in DIVISIONS else len(DIVISIONS), name))]


def _division(path: Path) -> str:
    return path.name.removeprefix("refs(").removesuffix(").p")


def _refs(path: Path) -> list[Any]:
    refs = load(path)
    if not isinstance(refs, list):
        raise PickleRefused("the pickle holds no list of references")
    return refs


def _instances(path: Path, refs: list[Any]) -> tuple[_Instances, BadItem | None]:
    """The boxes that `refs` name, all pictures, and the end of the file where it cannot be read to it."""
    wanted = {_whole(ref.get("ann_id")) for ref in refs if isinstance(ref, dict)}
    boxes: dict[int, tuple[object, object]] = {}
    pictures: dict[int, Mapping[str, Any]] = {}
    lost = None
    for item in elements(path, ("annotations",)):
        own, value = _own(item)
        if own is not None and own in wanted:
            boxes[own] = value.get("image_id"), value.get("bbox")
        lost = item if isinstance(item, BadItem) and item.error == BROKEN_FILE else lost
    for item in elements(path, ("images",)):
        own, value = _own(item)
        if own is not None:
            pictures[own] = {field: value.get(field) for field in ("file_name", "width", "height")}
        lost = item if isinstance(item, BadItem) and item.error == BROKEN_FILE else lost
    return _Instances(boxes, pictures), lost


def _own(item: Item | BadItem) -> tuple[int | None, Mapping[str, Any]]:
    value = item.value if isinstance(item, Item) and isinstance(item.value, dict) else {}
    return _whole(value.get("id")), value


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _rows(file: str, named: str, refs: list[Any]) -> Iterator[Row | Broken]:
    """One row per expression of the training split: its reference, with the expression as `sentence`."""
    position = 0
    seen: set[int] = set()
    for ref in refs:
        if isinstance(ref, dict) and ref.get("split", "train") != "train":
            continue
        sentences = ref.get("sentences") if isinstance(ref, dict) else None
        # In a small pickle a million references can share a list of a million sentences.
        if not isinstance(sentences, list) or not all(map(_is_dict, sentences)) or id(sentences) in seen:
            yield Broken(file, position, "bad_reference", "a reference without a list of `sentences` of its own")
            position += 1
            continue
        seen.add(id(sentences))
        for sentence in sentences:
            own = native_id(sentence.get("sent_id"))
            full = None if own is None else native_id(f"{named}/{own}")
            yield Row(file, position, full, {**ref, "sentence": sentence.get("sent")})
            position += 1


def _sample(root: Path, instances: _Instances, row: Row) -> Sample:
    expression = one_line(row.value["sentence"])
    if not expression:
        raise RowError("no_expression", "the sentence is empty")
    ann_id = _whole(row.value.get("ann_id"))
    if ann_id is None or ann_id not in instances.boxes:
        raise RowError("unknown_annotation", f"instances.json has no annotation {ann_id}")
    image_id, box = instances.boxes[ann_id]
    image_id = _whole(image_id)
    if image_id is None or image_id not in instances.pictures:
        raise RowError("unknown_picture", f"instances.json lists no picture {image_id}")
    picture = instances.pictures[image_id]
    name = picture["file_name"]
    if not isinstance(name, str):
        raise RowError("bad_path", f"picture {image_id} has no file name")
    turns = about_picture(REQUEST.format(expression=expression), box_text(box_of(box), size_of(picture)))
    return Sample(row.file, row.position, turns, row.native_id, (picture_at(root, name, FOLDERS),))
