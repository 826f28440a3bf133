"""Tables that a field map in the catalog reads, with the fields of each release.

Fault `missing_field`: the record has no answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mvl_assets.demo_data.layouts.common import Layout, conversation, dump, save
from mvl_assets.demo_data.rows import RawFile, Row


def tabmwp(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`problems.json`, a dict of id -> problem, and `tables/<id>.png` (the fields of TabMWP's release)."""
    dump(folder / "problems.json", {row.key: dict(row.fields) for row in rows})
    save(folder / "tables", (RawFile(f"{row.key}.png", picture.data) for row in rows for picture in row.pictures))


def sherlock(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`sherlock_train_v1_1.json`, a list of {instance_id, inputs{image{url, ...}, bboxes, clue}, targets{inference}}.

    Pictures of Visual Genome in `VG_100K/` and of VCR in `vcr1images/<film>/`, in turn.
    """
    records = []
    for number, row in enumerate(rows):
        place = f"VG_100K/{number}.jpg" if number % 2 else f"vcr1images/lsmdc_0001_A_Film/{number}.jpg"
        host = "https://cs.stanford.edu/people/rak248" if number % 2 else "http://example.org/ai2-rowanz"
        record: dict[str, Any] = {
            "instance_id": row.key,
            "inputs": {
                "image": {"url": f"{host}/{place}", "width": 640, "height": 480},
                "bboxes": [{"left": 10, "top": 12, "width": 60, "height": 48}],
                "clue": row.turns[0][0],
            },
            "targets": {} if row.fault == "missing_field" else {"inference": row.turns[0][1]},
        }
        records.append(record)
        save(folder, [RawFile(place, row.pictures[0].data)])
    dump(folder / "sherlock_train_v1_1.json", records)


def cap2qa(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`instructions/train.json` and `val.json`, lists of {image_id, question, answer}; pictures as in COCO 2017."""
    half = (len(rows) + 1) // 2
    for split, first, part in (("train", 0, rows[:half]), ("val", half, rows[half:])):
        numbered = list(enumerate(part, first))
        records = [
            _answered(row, {"image_id": number, "question": row.turns[0][0]}, "answer") for number, row in numbered
        ]
        dump(folder / "instructions" / f"{split}.json", records)
        save(folder / f"{split}2017", (RawFile(f"{number:012d}.jpg", row.pictures[0].data) for number, row in numbered))


def macaw_llm(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`generated_examples_coco.json`, {data: [{id, instruction, response}]}; pictures in `train2014/`.

    The file over videos, which the field map leaves out, lies beside it.
    """
    names = [f"COCO_train2014_{number:012d}.jpg" for number in range(len(rows))]
    records = [
        _answered(row, {"id": file, "instruction": row.turns[0][0]}, "response")
        for file, row in zip(names, rows, strict=True)
    ]
    dump(folder / "generated_examples_coco.json", {"data": records})
    dump(folder / "generated_examples_avsd.json", {"data": [{"id": "YSBN0", "instruction": "?", "response": "!"}]})
    save(folder / "train2014", (RawFile(file, row.pictures[0].data) for file, row in zip(names, rows, strict=True)))


def multiui(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`<task>.json`, lists of {id, image, conversations}; screenshots in `images/`."""
    for number, task in enumerate(("web_captioning", "webpage_qa")):
        part = rows[number::2]
        dump(
            folder / f"{task}.json",
            [{"id": row.key, "image": row.pictures[0].name, "conversations": conversation(row)} for row in part],
        )
    save(folder / "images", (picture for row in rows for picture in row.pictures))


def plotqa(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Per split a folder with `qa_pairs_V2.json` and `png/<image_index>.png`; the indices begin at 0 in each.

    The list of the first split lies under the key `qa_pairs`, that of the second is bare: both are in circulation.
    """
    half = (len(rows) + 1) // 2
    for split, part in (("train", rows[:half]), ("validation", rows[half:])):
        records = [
            _answered(
                row,
                {
                    "image_index": number,
                    "qid": number,
                    "question_string": row.turns[0][0],
                    "template": "data_retrieval",
                    "type": "vbar_categorical",
                    "answer_bbox": [],
                },
                "answer",
            )
            for number, row in enumerate(part)
        ]
        dump(folder / split / "qa_pairs_V2.json", {"qa_pairs": records} if split == "train" else records)
        pictures = (RawFile(f"{number}.png", row.pictures[0].data) for number, row in enumerate(part))
        save(folder / split / "png", pictures)


def viquae(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`train.jsonl`, `validation.jsonl`, `test.jsonl` of {id, image, input, output{original_answer, answer}, ...}."""
    for number, split in enumerate(("train", "validation", "test")):
        records = []
        for row in rows[number::3]:
            answer = row.turns[0][1]
            output = {"answer": [answer]} if row.fault == "missing_field" else {"original_answer": answer}
            about = {"id": row.key, "image": row.pictures[0].name, "input": row.turns[0][0], "wikidata_id": "Q42"}
            records.append({**about, "output": {**output, "provenance": []}})
        _lines(folder / f"{split}.jsonl", records)
    save(folder / "images", (picture for row in rows for picture in row.pictures))


def detgpt(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`coco_task_annotation.json`, {annotations: [{image_id, task, answer}]}, beside `image/<image_id>.jpg`."""
    records = [
        _answered(row, {"image_id": f"{number:012d}", "task": row.turns[0][0]}, "answer")
        for number, row in enumerate(rows)
    ]
    dump(folder / "coco_data" / "coco_task_annotation.json", {"annotations": records})
    pictures = (RawFile(f"{number:012d}.jpg", row.pictures[0].data) for number, row in enumerate(rows))
    save(folder / "coco_data" / "image", pictures)


def hand_written_arith(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`<name>.jsonl` of {image, question, answer}; pictures in `images/`."""
    records = [_answered(row, {"image": row.pictures[0].name, "question": row.turns[0][0]}, "answer") for row in rows]
    _lines(folder / f"{name}.jsonl", records)
    save(folder / "images", (picture for row in rows for picture in row.pictures))


def _answered(row: Row, record: dict[str, Any], key: str) -> dict[str, Any]:
    """The record with its answer under `key`, unless the row is to lack it."""
    return record if row.fault == "missing_field" else {**record, key: row.turns[0][1]}


def _lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


_WRITERS: tuple[Callable[[Path, str, Sequence[Row]], None], ...] = (
    tabmwp,
    sherlock,
    cap2qa,
    macaw_llm,
    multiui,
    plotqa,
    viquae,
    detgpt,
    hand_written_arith,
)
LAYOUTS = {writer.__name__: Layout("records", writer) for writer in _WRITERS}
