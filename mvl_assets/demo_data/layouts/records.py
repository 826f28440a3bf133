"""Tables that a field map in the catalog reads, with the fields of each release.

Fault `missing_field`: the record has no answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mvl_assets.demo_data.layouts.common import SourceLayout, build_conversation, write_files, write_json
from mvl_assets.demo_data.rows import RawFile, RawRow


def write_tabmwp(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `problems.json`, a dict of id -> problem, and `tables/<id>.png` (the fields of TabMWP's release)."""
    write_json(source_dir / "problems.json", {row.row_id: dict(row.fields) for row in rows})
    write_files(
        source_dir / "tables", (RawFile(f"{row.row_id}.png", image.data) for row in rows for image in row.images)
    )


def write_sherlock(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `sherlock_train_v1_1.json`, [{instance_id, inputs{image{url, ...}, bboxes, clue}, targets{inference}}].

    Images of Visual Genome in `VG_100K/` and of VCR in `vcr1images/<video>/`, in turn.
    """
    records = []
    for number, row in enumerate(rows):
        image_path = f"VG_100K/{number}.jpg" if number % 2 else f"vcr1images/lsmdc_0001_A_Film/{number}.jpg"
        base_url = "https://cs.stanford.edu/people/rak248" if number % 2 else "http://example.org/ai2-rowanz"
        record: dict[str, Any] = {
            "instance_id": row.row_id,
            "inputs": {
                "image": {"url": f"{base_url}/{image_path}", "width": 640, "height": 480},
                "bboxes": [{"left": 10, "top": 12, "width": 60, "height": 48}],
                "clue": row.turns[0][0],
            },
            "targets": {} if row.fault == "missing_field" else {"inference": row.turns[0][1]},
        }
        records.append(record)
        write_files(source_dir, [RawFile(image_path, row.images[0].data)])
    write_json(source_dir / "sherlock_train_v1_1.json", records)


def write_cap2qa(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `instructions/train.json` and `val.json`, lists of {image_id, question, answer}; images as in COCO 2017."""
    half = (len(rows) + 1) // 2
    for split, first_number, split_rows in (("train", 0, rows[:half]), ("val", half, rows[half:])):
        numbered = list(enumerate(split_rows, first_number))
        records = [
            _add_answer(row, {"image_id": number, "question": row.turns[0][0]}, "answer") for number, row in numbered
        ]
        write_json(source_dir / "instructions" / f"{split}.json", records)
        write_files(
            source_dir / f"{split}2017", (RawFile(f"{number:012d}.jpg", row.images[0].data) for number, row in numbered)
        )


def write_macaw_llm(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `generated_examples_coco.json`, {data: [{id, instruction, response}]}; images in `train2014/`.

    A file about videos, which the field map leaves out, is next to it.
    """
    names = [f"COCO_train2014_{number:012d}.jpg" for number in range(len(rows))]
    records = [
        _add_answer(row, {"id": file, "instruction": row.turns[0][0]}, "response")
        for file, row in zip(names, rows, strict=True)
    ]
    write_json(source_dir / "generated_examples_coco.json", {"data": records})
    write_json(
        source_dir / "generated_examples_avsd.json", {"data": [{"id": "YSBN0", "instruction": "?", "response": "!"}]}
    )
    write_files(
        source_dir / "train2014", (RawFile(file, row.images[0].data) for file, row in zip(names, rows, strict=True))
    )


def write_multiui(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `<task>.json`, lists of {id, image, conversations}; screenshots in `images/`."""
    for number, task in enumerate(("web_captioning", "webpage_qa")):
        split_rows = rows[number::2]
        write_json(
            source_dir / f"{task}.json",
            [
                {"id": row.row_id, "image": row.images[0].name, "conversations": build_conversation(row)}
                for row in split_rows
            ],
        )
    write_files(source_dir / "images", (image for row in rows for image in row.images))


def write_plotqa(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write per split a folder with `qa_pairs_V2.json` and `png/<image_index>.png`; indices start at 0 in each.

    The list of the first split is under the key `qa_pairs`, that of the second is bare: both are in circulation.
    """
    half = (len(rows) + 1) // 2
    for split, split_rows in (("train", rows[:half]), ("validation", rows[half:])):
        records = [
            _add_answer(
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
            for number, row in enumerate(split_rows)
        ]
        write_json(source_dir / split / "qa_pairs_V2.json", {"qa_pairs": records} if split == "train" else records)
        images = (RawFile(f"{number}.png", row.images[0].data) for number, row in enumerate(split_rows))
        write_files(source_dir / split / "png", images)


def write_viquae(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `main.jsonl`, `validation.jsonl`, `test.jsonl` of {id, image, input, output{original_answer, ...}}."""
    for number, split in enumerate(("train", "validation", "test")):
        records = []
        for row in rows[number::3]:
            answer = row.turns[0][1]
            output = {"answer": [answer]} if row.fault == "missing_field" else {"original_answer": answer}
            header = {"id": row.row_id, "image": row.images[0].name, "input": row.turns[0][0], "wikidata_id": "Q42"}
            records.append({**header, "output": {**output, "provenance": []}})
        _write_jsonl(source_dir / f"{split}.jsonl", records)
    write_files(source_dir / "images", (image for row in rows for image in row.images))


def write_detgpt(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `coco_task_annotation.json`, {annotations: [{image_id, task, answer}]}, next to `image/<image_id>.jpg`."""
    records = [
        _add_answer(row, {"image_id": f"{number:012d}", "task": row.turns[0][0]}, "answer")
        for number, row in enumerate(rows)
    ]
    write_json(source_dir / "coco_data" / "coco_task_annotation.json", {"annotations": records})
    images = (RawFile(f"{number:012d}.jpg", row.images[0].data) for number, row in enumerate(rows))
    write_files(source_dir / "coco_data" / "image", images)


def write_hand_written_arith(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `<name>.jsonl` of {image, question, answer}; images in `images/`."""
    records = [_add_answer(row, {"image": row.images[0].name, "question": row.turns[0][0]}, "answer") for row in rows]
    _write_jsonl(source_dir / f"{slug}.jsonl", records)
    write_files(source_dir / "images", (image for row in rows for image in row.images))


def _add_answer(row: RawRow, record: dict[str, Any], answer_field: str) -> dict[str, Any]:
    """Return the record with its answer under `answer_field`, unless the fault leaves it out."""
    return record if row.fault == "missing_field" else {**record, answer_field: row.turns[0][1]}


def _write_jsonl(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


_RECORD_WRITERS: tuple[Callable[[Path, str, Sequence[RawRow]], None], ...] = (
    write_tabmwp,
    write_sherlock,
    write_cap2qa,
    write_macaw_llm,
    write_multiui,
    write_plotqa,
    write_viquae,
    write_detgpt,
    write_hand_written_arith,
)
LAYOUTS = {writer.__name__.removeprefix("write_"): SourceLayout("records", writer) for writer in _RECORD_WRITERS}
