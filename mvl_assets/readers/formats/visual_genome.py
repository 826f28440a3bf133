r"""Visual Genome: questions, regions, objects and relationships in four files, with lists per image.

`image_data.json`, `question_answers.json`, `region_descriptions.json`, `objects.json` and `relationships.json` in turn;
images are `VG_100K/<image_id>.jpg` or in `VG_100K_2/`:

    [{"image_id": 1, "url": "https://.../VG_100K_2/1.jpg", "width": 800, "height": 600, "coco_id": null}, ...]
    [{"id": 1, "qas": [{"qa_id": 986768, "question": "What color is the clock?", "answer": "Green."}, ...]}, ...]
    [{"id": 1, "regions": [{"region_id": 1382, "x": 421, "y": 57, "width": 82, "height": 139,
                            "phrase": "the clock is green in colour"}, ...]}, ...]
    [{"image_id": 1, "objects": [{"object_id": 1058498, "x": 421, "y": 91, "w": 79, "h": 339, "names": ["clock"]}]}]
    [{"image_id": 1, "relationships": [{"predicate": "ON", "subject": {"name": "shade", "x": 119, "y": 338, "w": 274,
                            "h": 192}, "object": {"names": ["street"], "x": 77, ...}}, ...]}, ...]

One sample per image and file: from `question_answers` all questions as turns; from the other files a fixed request,
answered by one line per region or relationship, or per name of objects (boxes as `regions` says). The image's id is
`id` or `image_id`, and an object has `name` or `names`, by the version of the release. An image with one item that
cannot be read is rejected, because its list would be incomplete. The native id is `<file>/<image_id>`.

Sizes are held in memory: about 250 bytes an image, 27 MB for the release's 108,077. Specification:
homes.cs.washington.edu/~ranjay/visualgenome/api_readme.html; versions checked against
ranjaykrishna/visual_genome_python_driver and huggingface/datasets, datasets/visual_genome/README.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from mvl_assets.common.markers import IMAGE_MARKER
from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.conversations.regions import (
    BOX_FORMAT,
    ImageSize,
    build_image_qa_turns,
    collapse_whitespace,
    format_box,
    format_boxes_by_name,
    parse_box,
    parse_size,
)
from mvl_assets.readers.files import format_relative_path, list_data_files, resolve_image
from mvl_assets.readers.format import ARCHIVE_FILES, Format
from mvl_assets.readers.parsers.json_stream import iter_elements
from mvl_assets.readers.rows import Row, add_image_markers, build_sample, parse_turns, to_rows
from mvl_assets.readers.sample import RejectedRow, Sample, Turn

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

REGIONS_QUESTION = f"Describe the regions of the picture one by one, each with its box {BOX_FORMAT}."
OBJECTS_QUESTION = (
    f"Which objects are in the picture, and where? Name each kind once and give the box of each object {BOX_FORMAT}."
)
RELATIONSHIPS_QUESTION = f"How are the things in the picture related? Give each thing with its box {BOX_FORMAT}."

IMAGE_FOLDERS = ("VG_100K", "VG_100K_2", "images", "")
EntryList = list[dict[str, Any]]
SizesByImage = dict[str, ImageSize]


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    paths = list_data_files(source.slug, root, *(f"{kind}.json" for kind in _LIST_FIELDS))
    needs_sizes = any(path.stem in _BOX_TURN_BUILDERS for path in paths)
    sizes = _load_sizes(list_data_files(source.slug, root, "image_data.json")[0]) if needs_sizes else {}
    for path in paths:
        for row in to_rows(format_relative_path(root, path), iter_elements(path), "image_id", "id"):
            result = build_sample(row, partial(_to_sample, root, path.stem, sizes))
            # An image has a row in every file.
            yield result if result.native_id is None else replace(result, native_id=f"{path.stem}/{result.native_id}")


def _load_sizes(path: Path) -> SizesByImage:
    """Load the sizes in `image_data.json` by image id; rows of other images are rejected."""
    sizes: SizesByImage = {}
    for row in to_rows(path.name, iter_elements(path), "image_id", "id"):
        if isinstance(row, Row) and row.native_id is not None:
            with suppress(RejectError):
                sizes[row.native_id] = parse_size(row.value)
    return sizes


def _to_sample(root: Path, kind: str, sizes: SizesByImage, row: Row) -> Sample:
    field = _LIST_FIELDS[kind]
    entries = row.value.get(field)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise RejectError("not_an_object", f"`{field}` is not a list of objects")
    if not entries:
        raise RejectError(f"no_{field}", f"the list `{field}` of the image is empty")
    if row.native_id is None:
        raise RejectError("unknown_image", "there is neither image_id nor id of the right kind")
    if kind not in _BOX_TURN_BUILDERS:
        turns = _build_question_turns(entries)
    elif row.native_id in sizes:
        turns = _BOX_TURN_BUILDERS[kind](entries, sizes[row.native_id])
    else:
        raise RejectError("unknown_image", f"image_data.json gives no size of image {row.native_id}")
    image = resolve_image(root, f"{row.native_id}.jpg", IMAGE_FOLDERS)
    return Sample(row.file, row.position, turns, row.native_id, (image,))


def _build_question_turns(entries: EntryList) -> tuple[Turn, ...]:
    turns = [
        turn
        for qa in entries
        for turn in ({"from": "human", "value": qa.get("question")}, {"from": "gpt", "value": qa.get("answer")})
    ]
    first_question = turns[0]["value"]
    if isinstance(first_question, str) and first_question.strip():
        turns[0]["value"] = f"{IMAGE_MARKER}\n{first_question}"
    return add_image_markers(parse_turns(turns), 1)


def _build_region_turns(entries: EntryList, size: ImageSize) -> tuple[Turn, ...]:
    lines = []
    for entry in entries:
        phrase = collapse_whitespace(entry.get("phrase"))
        if not phrase:
            raise RejectError("no_phrase", "a region has no phrase")
        box = parse_box([entry.get(side) for side in ("x", "y", "width", "height")])
        lines.append(f"{phrase}: {format_box(box, size)}")
    return build_image_qa_turns(REGIONS_QUESTION, "\n".join(lines))


def _build_object_turns(entries: EntryList, size: ImageSize) -> tuple[Turn, ...]:
    return build_image_qa_turns(
        OBJECTS_QUESTION, format_boxes_by_name(_parse_name_and_box(entry, size) for entry in entries)
    )


def _build_relationship_turns(entries: EntryList, size: ImageSize) -> tuple[Turn, ...]:
    lines = []
    for entry in entries:
        subject_and_object = [_parse_name_and_box(entry.get(role), size) for role in ("subject", "object")]
        predicate = collapse_whitespace(entry.get("predicate")).lower()
        if not predicate:
            raise RejectError("no_predicate", "a relationship has no predicate")
        lines.append(f"{' '.join(subject_and_object[0])} {predicate} {' '.join(subject_and_object[1])}")
    return build_image_qa_turns(RELATIONSHIPS_QUESTION, "\n".join(lines))


def _parse_name_and_box(entry: object, size: ImageSize) -> tuple[str, str]:
    """Return name and box of an object."""
    if not isinstance(entry, Mapping):
        raise RejectError("not_an_object", "a thing of a relationship is not an object")
    names = entry.get("names")
    name = collapse_whitespace(names[0] if isinstance(names, list) and names else entry.get("name"))
    if not name:
        raise RejectError("no_name", "an object has no name")
    return name, format_box(parse_box([entry.get(side) for side in "xywh"]), size)


_LIST_FIELDS = {
    "question_answers": "qas",
    "region_descriptions": "regions",
    "objects": "objects",
    "relationships": "relationships",
}
_BOX_TURN_BUILDERS: dict[str, Callable[[EntryList, ImageSize], tuple[Turn, ...]]] = {
    "region_descriptions": _build_region_turns,
    "objects": _build_object_turns,
    "relationships": _build_relationship_turns,
}

FORMAT = Format(
    row_files=("*.json", "*.json.zip"),
    media_files=ARCHIVE_FILES,
    description="the *.json files and the folders of images",
    read=read,
)
