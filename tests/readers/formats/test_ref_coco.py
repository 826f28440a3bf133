"""RefCOCO: expressions and boxes come together from a pickle of either Python and its instances.json."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from mvl_assets.readers.format import RowKey
from mvl_assets.readers.formats import ref_coco
from mvl_assets.readers.registry import get_key_reader
from mvl_assets.readers.sample import RejectedRow, Sample
from tests.raw_files import errors, good, list_turns, make_image, put, put_json, read_all, source

REFS = source("ref_coco")


def read(root: Path) -> list[Sample | RejectedRow]:
    """All rows, after checking that they are named beforehand as they come."""
    rows = read_all(REFS, root)
    assert list(get_key_reader(REFS.format)(REFS, root)) == [RowKey(r.file, r.position, r.native_id) for r in rows]
    return rows


def image(number: int, name: str | None = "a.jpg") -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": 640, "height": 480}


def thing(number: int, image_id: int, category: int, box: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image_id, "category_id": category, "bbox": box}


# As Python 2's cPickle writes it: protocol 0, keys memoized once, text as bytes.
PYTHON_2 = (
    b"(lp1\n(dp2\nS'sent_ids'\np3\n(lp4\nI0\naI1\nasS'file_name'\np5\nS'COCO_train2014_000000581857_16.jpg'\np6\n"
    b"sS'ann_id'\np7\nI1719310\nsS'sentences'\np8\n(lp9\n(dp10\nS'tokens'\np11\n(lp12\nS'the'\np13\naS'caf\\xc3\\xa9'\np14\na"
    b"sS'raw'\np15\nS'THE CAF\\xc3\\xa9'\np16\nsS'sent_id'\np17\nI0\nsS'sent'\np18\nS'the caf\\xc3\\xa9'\np19\nsa"
    b"(dp20\ng11\n(lp21\nsg15\nVna\\u00efve\np22\nsg17\nI1\nsg18\nVna\\u00efve  sign\np23\nsas"
    b"S'split'\np24\nS'train'\np25\nsS'ref_id'\np26\nL0L\nsS'image_id'\np27\nI581857\nsS'category_id'\np28\nI1\nsa."
)


def instances(root: Path, folder: str, images: list[Any], annotations: list[Any]) -> None:
    whole = {"info": {}, "images": images, "annotations": annotations, "licenses": [], "categories": []}
    put_json(root, f"{folder}/instances.json", whole)


def ref(number: int, ann_id: Any, *sentences: Any, **fields: Any) -> dict[str, Any]:
    told = [{"sent_id": number * 10 + n, "sent": sent, "raw": sent, "tokens": []} for n, sent in enumerate(sentences)]
    return {"ref_id": number, "ann_id": ann_id, "image_id": 5, "split": "train", "sentences": told, **fields}


def test_refcoco_of_python_2_gives_one_sample_an_expression(tmp_path: Path) -> None:
    name = "COCO_train2014_000000581857.jpg"
    put(tmp_path, f"images/mscoco/images/train2014/{name}", make_image(3))
    put(tmp_path, "refcoco/refs(unc).p", PYTHON_2)
    image_row = {"id": 581857, "file_name": name, "width": 640, "height": 427}
    box = {"id": 1719310, "image_id": 581857, "bbox": [103.93, 299.99, 134.22, 177.42], "category_id": 1}
    instances(tmp_path, "refcoco", [image_row], [box, thing(7, 581857, 1, [0, 0, 1, 1])])
    first, second = good(read(tmp_path))
    assert list_turns(first) == [
        ("human", f"<image>\n{ref_coco.QUESTION.format(expression='the café')}"),
        ("gpt", "[0.162, 0.703, 0.372, 1.000]"),
    ]
    assert list_turns(second)[0][1].endswith(": naïve sign")
    assert [(s.native_id, s.position) for s in (first, second)] == [("refcoco/unc/0", 0), ("refcoco/unc/1", 1)]
    assert first.images[0].read() == make_image(3)


def test_refcoco_reads_one_division_of_a_set_and_only_its_training_split(tmp_path: Path) -> None:
    put(tmp_path, "train2014/a.jpg", make_image())
    for folder, division in [("refcocog", "google"), ("refcocog", "umd"), ("refcoco", "google"), ("refcoco", "unc")]:
        refs = [ref(1, 7, f"{division} one"), ref(2, 7, "held out", split="testA"), ref(3, 7, "two", "three")]
        put(tmp_path, f"{folder}/refs({division}).p", pickle.dumps(refs, 2))
        instances(tmp_path, folder, [image(5)], [thing(7, 5, 1, [0, 0, 64, 48])])
    rows = good(read(tmp_path))
    assert [row.native_id for row in rows] == [
        *(f"refcoco/unc/{n}" for n in (10, 30, 31)),
        *(f"refcocog/umd/{n}" for n in (10, 30, 31)),
    ]


def test_refcoco_names_what_does_not_fit_together(tmp_path: Path) -> None:
    put(tmp_path, "train2014/a.jpg", make_image())
    refs = [
        ref(1, 7, "good"),
        ref(2, 99, "no such box"),
        ref(3, 8, "picture not listed"),
        ref(4, 9, "file not there"),
        ref(5, 10, "no box"),
        ref(6, 7, " "),
        ref(7, None, "no id"),
        {"ref_id": 8, "ann_id": 7},
        "nothing",
        ref(9, 11, "no name"),
        ref(10, 7, "an <image> inside"),
    ]
    put(tmp_path, "refcoco/refs(unc).p", pickle.dumps(refs, 2))
    instances(
        tmp_path,
        "refcoco",
        [image(5), image(6, "gone.jpg"), image(7, None)],
        [
            *(thing(own, shown, 1, [0, 0, 9, 9]) for own, shown in ((7, 5), (8, 404), (9, 6), (11, 7))),
            thing(10, 5, 1, None),
        ],
    )
    rows = read(tmp_path)
    assert [row.native_id for row in good(rows)] == ["refcoco/unc/10"]
    assert [error for _, error in errors(rows)] == [
        *("unknown_annotation", "unknown_image", "missing_image", "bad_box", "no_expression", "unknown_annotation"),
        *("bad_reference", "bad_reference", "bad_path", "marker_mismatch"),
    ]


@pytest.mark.parametrize("beside", ["nothing", "pipe", "half"])
def test_refcoco_without_its_instances_is_broken_and_says_so(tmp_path: Path, beside: str) -> None:
    put(tmp_path, "refcoco/refs(unc).p", pickle.dumps([ref(1, 7, "one")], 2))
    if beside == "pipe":
        os.mkfifo(tmp_path / "refcoco" / "instances.json")
    if beside == "half":
        put(tmp_path, "refcoco/instances.json", b'{"images": [{"id": 5')
    *_, last = read(tmp_path)
    assert isinstance(last, RejectedRow) and last.error == "broken_file" and "instances.json" in last.message
