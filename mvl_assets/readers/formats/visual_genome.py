r"""Visual Genome: lists per picture in `question_answers.json`, `region_descriptions.json`, `objects.json` and
`relationships.json`; sizes in `image_data.json`; pictures in `VG_100K/` and `VG_100K_2/` as `<image_id>.jpg`.

    [{"image_id": 1, "url": "https://.../VG_100K_2/1.jpg", "width": 800, "height": 600, "coco_id": null}, ...]
    [{"id": 1, "qas": [{"qa_id": 986768, "question": "What color is the clock?", "answer": "Green."}, ...]}, ...]
    [{"id": 1, "regions": [{"region_id": 1382, "x": 421, "y": 57, "width": 82, "height": 139,
                            "phrase": "the clock is green in colour"}, ...]}, ...]
    [{"image_id": 1, "objects": [{"object_id": 1058498, "x": 421, "y": 91, "w": 79, "h": 339, "names": ["clock"]}]}]
    [{"image_id": 1, "relationships": [{"predicate": "ON", "subject": {"name": "shade", "x": 119, "y": 338, "w": 274,
                            "h": 192}, "object": {"names": ["street"], "x": 77, ...}}, ...]}, ...]

One sample per picture and file: from `question_answers` all questions as turns; from the other files a fixed request,
answered by one line per region or relationship, or per name of objects (boxes as `regions` says). The picture's id is
`id` or `image_id`, and a thing has `name` or `names`, by the version of the release. A picture with one item that
cannot be read is rejected, because its list would be incomplete. The native id is `<file>/<image_id>`.

Sizes are held in memory: about 250 bytes a picture, 27 MB for the release's 108,077. Specification:
homes.cs.washington.edu/~ranjay/visualgenome/api_readme.html; versions checked against
ranjaykrishna/visual_genome_python_driver and huggingface/datasets, datasets/visual_genome/README.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.readers.files import files_below, picture_at, relative
from mvl_assets.readers.json_stream import elements
from mvl_assets.readers.regions import BOX_FORM, Size, about_picture, box_of, box_text, by_name, one_line, size_of
from mvl_assets.readers.rows import Row, RowError, built, rows_of, turns_of, with_markers
from mvl_assets.readers.sample import IMAGE_MARKER, Broken, Sample, Turn

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

REGIONS = f"Describe the regions of the picture one by one, each with its box {BOX_FORM}."
OBJECTS = (
    f"Which objects are in the picture, and where? Name each kind once and give the box of each object {BOX_FORM}."
)
RELATIONSHIPS = f"How are the things in the picture related? Give each thing with its box {BOX_FORM}."

FOLDERS = ("VG_100K", "VG_100K_2", "images", "")
Things = list[dict[str, Any]]
Sizes = dict[str, Size]


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    paths = files_below(source.slug, root, *(f"{kind}.json" for kind in _FIELDS))
    boxed = any(path.stem in _BOXED for path in paths)
    sizes = _sizes(files_below(source.slug, root, "image_data.json")[0]) if boxed else {}
    for path in paths:
        for row in rows_of(relative(root, path), elements(path), "image_id", "id"):
            made = built(row, partial(_sample, root, path.stem, sizes))
            # A picture has a row in every file.
            yield made if made.native_id is None else replace(made, native_id=f"{path.stem}/{made.native_id}")


def _sizes(path: Path) -> Sizes:
    """The sizes that `image_data.json` gives, by the picture's id; rows of other pictures are rejected."""
    found: Sizes = {}
    for row in rows_of(path.name, elements(path), "image_id", "id"):
        if isinstance(row, Row) and row.native_id is not None:
            with suppress(RowError):
                found[row.native_id] = size_of(row.value)
    return found


def _sample(root: Path, kind: str, sizes: Sizes, row: Row) -> Sample:
    field = _FIELDS[kind]
    things = row.value.get(field)
    if not isinstance(things, list) or not all(isinstance(thing, dict) for thing in things):
        raise RowError("not_an_object", f"`{field}` is no list of objects")
    if not things:
        raise RowError(f"no_{field}", f"the list `{field}` of the picture is empty")
    if row.native_id is None:
        raise RowError("unknown_picture", "there is no image_id or id of the right kind")
    if kind not in _BOXED:
        turns = _questions(things)
    elif row.native_id in sizes:
        turns = _BOXED[kind](things, sizes[row.native_id])
    else:
        raise RowError("unknown_picture", f"image_data.json gives no size of picture {row.native_id}")
    picture = picture_at(root, f"{row.native_id}.jpg", FOLDERS)
    return Sample(row.file, row.position, turns, row.native_id, (picture,))


def _questions(things: Things) -> tuple[Turn, ...]:
    turns = [
        turn
        for qa in things
        for turn in ({"from": "human", "value": qa.get("question")}, {"from": "gpt", "value": qa.get("answer")})
    ]
    first = turns[0]["value"]
    if isinstance(first, str) and first.strip():
        turns[0]["value"] = f"{IMAGE_MARKER}\n{first}"
    return with_markers(turns_of(turns), 1)


def _regions(things: Things, size: Size) -> tuple[Turn, ...]:
    lines = []
    for thing in things:
        phrase = one_line(thing.get("phrase"))
        if not phrase:
            raise RowError("no_phrase", "a region has no phrase")
        box = box_of([thing.get(side) for side in ("x", "y", "width", "height")])
        lines.append(f"{phrase}: {box_text(box, size)}")
    return about_picture(REGIONS, "\n".join(lines))


def _objects(things: Things, size: Size) -> tuple[Turn, ...]:
    return about_picture(OBJECTS, by_name(_placed(thing, size) for thing in things))


def _relationships(things: Things, size: Size) -> tuple[Turn, ...]:
    lines = []
    for thing in things:
        ends = [_placed(thing.get(end), size) for end in ("subject", "object")]
        predicate = one_line(thing.get("predicate")).lower()
        if not predicate:
            raise RowError("no_predicate", "a relationship has no predicate")
        lines.append(f"{' '.join(ends[0])} {predicate} {' '.join(ends[1])}")
    return about_picture(RELATIONSHIPS, "\n".join(lines))


def _placed(thing: object, size: Size) -> tuple[str, str]:
    """Name and box of an object."""
    if not isinstance(thing, Mapping):
        raise RowError("not_an_object", "a thing of a relationship is no object")
    names = thing.get("names")
    name = one_line(names[0] if isinstance(names, list) and names else thing.get("name"))
    if not name:
        raise RowError("no_name", "an object has no name")
    return name, box_text(box_of([thing.get(side) for side in "xywh"]), size)


_FIELDS = {
    "question_answers": "qas",
    "region_descriptions": "regions",
    "objects": "objects",
    "relationships": "relationships",
}
_BOXED: dict[str, Callable[[Things, Size], tuple[Turn, ...]]] = {
    "region_descriptions": _regions,
    "objects": _objects,
    "relationships": _relationships,
}
