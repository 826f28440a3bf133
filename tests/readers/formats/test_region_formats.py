"""Boxes, COCO instances, Visual Genome and Localized Narratives, each from samples of its description."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_assets.common.rejects import RejectError
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.errors import SourceError
from mvl_assets.readers.conversations.regions import ImageSize, format_box, parse_box
from mvl_assets.readers.format import RowKey
from mvl_assets.readers.formats import coco_instances, localized_narratives, visual_genome
from mvl_assets.readers.registry import get_key_reader
from mvl_assets.readers.sample import RejectedRow, Sample
from tests.raw_files import errors, good, list_turns, make_image, put, put_json, read_all, source

COCO, GENOME = source("coco_instances"), source("visual_genome")
NARRATIVES = source("localized_narratives")


def read(spec: SourceSpec, root: Path) -> list[Sample | RejectedRow]:
    """All rows, after checking that they are named beforehand as they come."""
    rows = read_all(spec, root)
    assert list(get_key_reader(spec.format)(spec, root)) == [RowKey(r.file, r.position, r.native_id) for r in rows]
    return rows


def answer(row: Sample | RejectedRow) -> str:
    assert isinstance(row, Sample)
    return row.turns[-1].value


# Boxes


@settings(max_examples=100)
@given(
    x=st.floats(-50, 600),
    y=st.floats(-50, 400),
    wide=st.floats(0, 700),
    high=st.floats(0, 500),
    size=st.builds(ImageSize, st.integers(1, 5000), st.integers(1, 5000)),
)
def test_boxes_are_corners_within_the_image_to_a_thousandth(
    x: float, y: float, wide: float, high: float, size: ImageSize
) -> None:
    box = parse_box([x, y, wide, high])
    if x > size.width or y > size.height or x + wide < 0 or y + high < 0:
        with pytest.raises(RejectError, match="bad_box"):
            format_box(box, size)
        return
    told = json.loads(format_box(box, size))
    exact = (x / size.width, y / size.height, (x + wide) / size.width, (y + high) / size.height)
    assert told == pytest.approx([min(max(share, 0), 1) for share in exact], abs=0.00051)
    assert told[0] <= told[2] and told[1] <= told[3]


@pytest.mark.parametrize(
    "values",
    [None, [], [1, 2, 3], [1, 2, 3, "4"], [1, 2, True, 4], [0, 0, -1, 5], [1e400, 0, 1, 1], [0, 0, 10**400, 1], "1234"],
)
def test_an_invalid_box_is_refused(values: Any) -> None:
    with pytest.raises(RejectError, match="bad_box"):
        parse_box(values)


# COCO


def image(number: int, name: str = "a.jpg", **fields: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": 640, "height": 480, **fields}


def thing(number: int, image_id: Any, category: Any, box: Any, crowd: int = 0) -> dict[str, Any]:
    outline: Any = {"counts": [1, 2], "size": [480, 640]} if crowd else [[1.5, 2.5, 3, 4, 5, 6]]
    fields = {"id": number, "image_id": image_id, "category_id": category, "bbox": box}
    return {**fields, "iscrowd": crowd, "segmentation": outline, "area": 9.5}


def coco(root: Path, images: list[Any], annotations: list[Any], categories: list[Any] | None = None) -> None:
    named = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog", "supercategory": "animal"}]
    whole: dict[str, Any] = {
        "info": {},
        "images": images,
        "annotations": annotations,
        "categories": categories or named,
    }
    put_json(root, "annotations/instances_val2017.json", whole)


def test_coco_lists_the_boxes_of_each_category_in_order_of_the_annotations_ids(tmp_path: Path) -> None:
    put(tmp_path, "val2017/a.jpg", make_image(1))
    put(tmp_path, "images/val2017/b.jpg", make_image(2))
    coco(
        tmp_path,
        [image(9), image(4, "b.jpg")],
        [
            thing(30, 9, 1, [0, 0, 640, 480]),
            thing(8, 4, 18, [-3.5, 470, 10, 20]),
            thing(2, 9, 18, [64, 48, 320, 240]),
            thing(900100000009, 9, 1, [320, 0, 320, 48.5], crowd=1),
            thing(31, 9, 18, [0.4, 0.5, 0, 1]),
        ],
    )
    first, second = good(read(COCO, tmp_path))
    assert (first.native_id, second.native_id) == ("9", "4")
    assert list_turns(first)[0] == ("human", f"<image>\n{coco_instances.QUESTION}")
    assert answer(first).splitlines() == [
        "dog: [0.100, 0.100, 0.600, 0.600], [0.001, 0.001, 0.001, 0.003]",
        "person: [0.000, 0.000, 1.000, 1.000]",
        "person (group): [0.500, 0.000, 1.000, 0.101]",
    ]
    assert answer(second) == "dog: [0.000, 0.979, 0.010, 1.000]"
    assert [p.read() for p in (*first.images, *second.images)] == [make_image(1), make_image(2)]


def test_coco_names_what_does_not_fit_together(tmp_path: Path) -> None:
    put(tmp_path, "val2017/a.jpg", make_image())
    whole: list[Any] = [0, 0, 9, 9]
    coco(
        tmp_path,
        [
            image(0),
            image(1, "gone.jpg"),
            image(2),
            image(3, "../a.jpg"),
            image(4),
            image(5),
            image(6, width=0),
            image(7),
            image(8, file_name=[["a.jpg"]]),
            image(9),
        ],
        [
            *(thing(n, n, 1, whole) for n in (0, 1, 3, 6, 8, 99)),
            thing(40, 4, 77, whole),
            thing(50, 5, 1, [0, 0, 9]),
            thing(51, 5, 1, whole),
            thing(70, 7, 1, [700, 0, 9, 9]),
            thing(90, 9, "1", whole),
            thing(91, "9", 1, whole),
            7,
        ],
    )
    rows = read(COCO, tmp_path)
    assert [sample.native_id for sample in good(rows)] == ["0"]
    assert errors(rows) == [
        (1, "missing_image"),
        (2, "no_objects"),
        (3, "outside_root"),
        (4, "unknown_category"),
        (5, "bad_box"),
        (6, "bad_size"),
        (7, "bad_box"),
        (8, "bad_path"),
        (9, "bad_annotation"),
        (10, "unknown_image"),
        (11, "bad_annotation"),
        (12, "bad_annotation"),
    ]
    assert isinstance(rows[5], RejectedRow) and rows[5].message.startswith("annotation 7:") and rows[5].native_id == "5"


@pytest.mark.parametrize(
    ("end", "error"),
    [
        ('"annotations": [{"id"', "incomplete_file"),
        ('"annotations": [], "categories": [{"id": 1', "no_objects"),
        ('"info": {}}', "incomplete_file"),
    ],
)
def test_a_coco_file_that_ends_early_says_so(tmp_path: Path, end: str, error: str) -> None:
    put(tmp_path, "annotations/instances_val2017.json", f'{{"images": [{json.dumps(image(1))}], {end}'.encode())
    result = [error for _, error in errors(read(COCO, tmp_path))]
    assert result[0] == error and "broken_file" in result[1:]


def test_coco_holds_no_outlines_in_memory(tmp_path: Path) -> None:
    put(tmp_path, "val2017/a.jpg", make_image())
    mask = json.dumps({"counts": "x" * 4000, "size": [480, 640]})
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.parent.mkdir()
    with path.open("w") as stream:
        stream.write('{"images": [')
        stream.write(",".join(json.dumps(image(n)) for n in range(500)))
        stream.write('], "annotations": [')
        for n in range(6000):
            told = f'"id": {n}, "image_id": {n % 500}, "category_id": 1, "bbox": [1, 1, 9, 9], "segmentation": {mask}'
            stream.write(f"{',' if n else ''}{{{told}}}")
        stream.write('], "categories": [{"id": 1, "name": "person"}]}')
    tracemalloc.start()
    count = sum(1 for _ in coco_instances.read(COCO, tmp_path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 500
    assert peak < 8 << 20 < 20 << 20 < path.stat().st_size


# Visual Genome

SIZES = [{"image_id": n, "url": f"https://example.org/{n}.jpg", "width": 800, "height": 600} for n in (1, 2, 3)]


def genome(root: Path, **files: list[Any]) -> None:
    put_json(root, "image_data.json", SIZES)
    put(root, "VG_100K/1.jpg", make_image(1))
    put(root, "VG_100K_2/2.jpg", make_image(2))
    for name, entries in files.items():
        put_json(root, f"{name}.json", entries)


def test_visual_genome_gives_all_questions_about_an_image_as_turns(tmp_path: Path) -> None:
    qas = [
        {"qa_id": 1, "question": "What color?", "answer": "Green."},
        {"qa_id": 2, "question": "Where?", "answer": "Up."},
    ]
    genome(tmp_path, question_answers=[{"id": 1, "qas": qas}])
    (tmp_path / "image_data.json").unlink()
    (sample,) = good(read(GENOME, tmp_path))
    assert list_turns(sample) == [
        ("human", "<image>\nWhat color?"),
        ("gpt", "Green."),
        ("human", "Where?"),
        ("gpt", "Up."),
    ]
    assert (sample.native_id, sample.images[0].read()) == ("question_answers/1", make_image(1))


def test_visual_genome_writes_regions_objects_and_relationships_with_their_boxes(tmp_path: Path) -> None:
    clock = {"object_id": 1058498, "x": 400, "y": 60, "w": 80, "h": 300, "names": ["clock", "watch"], "synsets": []}
    street = {"object_id": 5046, "x": 80, "y": 330, "w": 720, "h": 300, "name": "street"}
    region = {"region_id": 1382, "x": 200, "y": 150, "width": 80, "height": 60, "phrase": " the clock\nis green "}
    relation = {"predicate": "STANDS ON", "subject": clock, "object": street, "synsets": "['along.r.01']"}
    genome(
        tmp_path,
        region_descriptions=[{"id": 2, "regions": [region, {**region, "phrase": "a sign: red"}]}],
        objects=[{"image_id": 1, "objects": [clock, street, {**clock, "x": 0}]}],
        relationships=[{"image_id": 1, "relationships": [relation]}],
    )
    objects, regions, relationships = read(GENOME, tmp_path)
    assert list_turns(objects)[0][1] == f"<image>\n{visual_genome.OBJECTS_QUESTION}"  # type: ignore[arg-type]
    assert answer(objects).splitlines() == [
        "clock: [0.500, 0.100, 0.600, 0.600], [0.000, 0.100, 0.100, 0.600]",
        "street: [0.100, 0.550, 1.000, 1.000]",
    ]
    assert answer(regions).splitlines() == [
        "the clock is green: [0.250, 0.250, 0.350, 0.350]",
        "a sign: red: [0.250, 0.250, 0.350, 0.350]",
    ]
    assert answer(relationships) == "clock [0.500, 0.100, 0.600, 0.600] stands on street [0.100, 0.550, 1.000, 1.000]"
    assert [row.native_id for row in (objects, regions, relationships)] == [
        "objects/1",
        "region_descriptions/2",
        "relationships/1",
    ]


def test_visual_genome_rejects_an_image_with_its_error(tmp_path: Path) -> None:
    box = {"x": 0, "y": 0, "w": 9, "h": 9}
    named = {**box, "names": ["clock"]}
    genome(
        tmp_path,
        objects=[
            {"image_id": 1, "objects": []},
            {"image_id": 1, "objects": None},
            {"image_id": 1, "objects": [7]},
            {"image_id": 1, "objects": [box]},
            {"image_id": 1, "objects": [{**named, "x": "0"}]},
            {"image_id": 1, "objects": [{**named, "x": 900}]},
            {"image_id": 3, "objects": [named]},
            {"image_id": 4, "objects": [named]},
            {"image_id": "../1", "objects": [named]},
            {"objects": [named]},
            7,
            {"image_id": 1, "objects": [named]},
        ],
        question_answers=[
            {"id": 1, "qas": [{"question": "Why?", "answer": " "}]},
            {"id": 1, "qas": [{"question": "Why?", "answer": "<image>"}]},
            {"id": 1, "qas": [{"question": None, "answer": "So."}]},
        ],
        relationships=[
            {"image_id": 1, "relationships": [{"predicate": "", "subject": named, "object": named}]},
            {"image_id": 1, "relationships": [{"predicate": "on", "subject": named, "object": None}]},
        ],
        region_descriptions=[{"id": 1, "regions": [{**box, "width": 9, "height": 9, "phrase": None}]}],
    )
    rows = read(GENOME, tmp_path)
    assert [sample.native_id for sample in good(rows)] == ["objects/1"]
    result: dict[str, list[str]] = {}
    for row in rows:
        if isinstance(row, RejectedRow):
            result.setdefault(row.file, []).append(row.error)
    assert result == {
        "objects.json": [
            *("no_objects", "not_an_object", "not_an_object", "no_name", "bad_box", "bad_box", "missing_image"),
            *("unknown_image", "unknown_image", "unknown_image", "not_an_object"),
        ],
        "question_answers.json": ["empty_answer", "marker_mismatch", "bad_turn"],
        "relationships.json": ["no_predicate", "not_an_object"],
        "region_descriptions.json": ["no_phrase"],
    }


def test_an_image_of_visual_genome_never_leaves_the_folder(tmp_path: Path) -> None:
    put(tmp_path, "1.jpg", make_image())
    put_json(tmp_path, "root/question_answers.json", [{"id": "../1", "qas": [{"question": "?", "answer": "!"}]}])
    assert errors(read(GENOME, tmp_path / "root")) == [(0, "outside_root")]


def test_visual_genome_says_when_the_sizes_are_missing(tmp_path: Path) -> None:
    put_json(tmp_path, "objects.json", [])
    with pytest.raises(SourceError, match=r"image_data\.json"):
        read_all(GENOME, tmp_path)


# Localized Narratives


def narrative(
    dataset: Any, image_id: Any, caption: Any = "In this image there are cows.", **fields: Any
) -> dict[str, Any]:
    return {
        "dataset_id": dataset,
        "image_id": image_id,
        "annotator_id": 93,
        "caption": caption,
        "timed_caption": [{"utterance": "In this", "start_time": 0.0, "end_time": 0.4}],
        "traces": [[{"x": 0.2086, "y": -0.0533, "t": 0.022}]],
        "voice_recording": "coco_val/coco_val_137576_93.ogg",
        **fields,
    }


def test_narratives_find_their_images_in_four_collections(tmp_path: Path) -> None:
    places = {
        "val2017/000000137576.jpg": ("mscoco_val2017", "137576"),
        "flickr30k-images/3880616163.jpg": ("Flick30k_test", "3880616163"),
        "ADEChallengeData2016/images/training/ADE_train_00000001.jpg": ("ADE20k_train", "ADE_train_00000001"),
        "train/000026e7ee790996.jpg": ("open_images_train_v6", "000026e7ee790996"),
    }
    for number, place in enumerate(places):
        put(tmp_path, place, make_image(number))
    lines = [json.dumps(narrative(*named)) for named in places.values()]
    put(tmp_path, "all_localized_narratives.jsonl", "\n".join(lines).encode())
    rows = good(read(NARRATIVES, tmp_path))
    assert [row.images[0].read() for row in rows] == [make_image(n) for n in range(4)]
    assert list_turns(rows[0]) == [
        ("human", f"<image>\n{localized_narratives.QUESTION}"),
        ("gpt", "In this image there are cows."),
    ]
    assert rows[0].native_id == "mscoco_val2017/137576/93"


def test_narratives_name_what_is_wrong_with_a_line(tmp_path: Path) -> None:
    put(tmp_path, "root/val2017/000000000007.jpg", make_image())
    put(tmp_path, "secret.jpg", make_image())
    lines = [
        json.dumps(narrative("mscoco_val2017", "7")),
        json.dumps(narrative("mscoco_val2017", "8")),
        json.dumps(narrative("mscoco_val2017", "7", " ")),
        json.dumps(narrative("mscoco_val2017", "7", None)),
        json.dumps(narrative("imagenet", "7")),
        json.dumps(narrative("\ud800", "7")),
        json.dumps(narrative(None, "7")),
        json.dumps(narrative("mscoco_val2017", 7)),
        json.dumps(narrative("Flick30k_test", "../../secret")),
        json.dumps(narrative("mscoco_val2017", "7", "lone \udc80")),
        '{"dataset_id": "mscoco_val2017", "image_id"',
        "[]",
    ]
    put(tmp_path / "root", "annotations/coco_val_localized_narratives.jsonl", "\n".join(lines).encode())
    rows = read(NARRATIVES, tmp_path / "root")
    assert [row.position for row in good(rows)] == [0]
    assert [error for _, error in errors(rows)] == [
        *("missing_image", "no_caption", "no_caption", "unknown_dataset", "unknown_dataset", "bad_path", "bad_path"),
        *("outside_root", "bad_utf8", "bad_json", "not_an_object"),
    ]
    assert all(row.message.encode() for row in rows if isinstance(row, RejectedRow))


@pytest.mark.parametrize("spec", [COCO, GENOME, NARRATIVES, source("ref_coco"), source("icdar_text")])
def test_a_folder_without_the_files_says_which_are_looked_for(tmp_path: Path, spec: SourceSpec) -> None:
    with pytest.raises(SourceError, match=r"no .* in "):
        read_all(spec, tmp_path)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["a.jpg", "1", "", "x"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "image_id", "bbox", "category_id", "name", "names", "file_name", "width", "height"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=40, deadline=None)
@given(images=st.lists(JUNK, max_size=3), annotations=st.lists(JUNK, max_size=3), categories=st.lists(JUNK, max_size=2))
def test_any_coco_file_gives_only_samples_and_rejects(
    tmp_path_factory: pytest.TempPathFactory, images: list[Any], annotations: list[Any], categories: list[Any]
) -> None:
    root = tmp_path_factory.mktemp("coco")
    put(root, "val2017/a.jpg", make_image())
    coco(root, images, [*annotations, thing(1, 1, 1, [0, 0, 1, 1])], categories)
    rows = read(COCO, root)
    assert [row.position for row in rows] == list(range(len(rows)))
