"""A field map is proposed from files alone, and reads them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest
from PIL import Image

from mvl_assets.config.catalog import RecordsMapping
from mvl_assets.demo_data.write import write_demo_sources
from mvl_assets.errors import MvlError
from mvl_assets.readers.sniffing.propose import Proposal, sniff_folder
from tests.raw_files import list_turns, make_image, put, put_json, put_parquet


def sniff(root: Path, **attributes: str) -> Proposal:
    return sniff_folder(root, attributes)


def get_map(proposal: Proposal) -> dict[str, Any]:
    assert proposal.attributes is not None, proposal.notes
    return dict(proposal.attributes["records"])


def put_images(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        put(root, name, make_image(number))


def encode(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def lay_out_csv(root: Path) -> None:
    put(root, "rows.csv", "file;question;answer\na;Wo?;Hier\nb;Wann?;Jetzt\n".encode("utf-16"))
    put_images(root, "photos/a.png", "photos/b.png")


def lay_out_csv_without_header(root: Path) -> None:
    put(root, "rows.txt", b"a.png|who is it?|Ann\nb.png|where is it?|here\na.png|is it old?|no\n")
    put_images(root, "x/a.png", "x/b.png")


def lay_out_one_object_a_file(root: Path) -> None:
    for split, name in (("train", "7"), ("train", "8"), ("val", "9")):
        put_json(root, f"{split}/labels/{name}.json", {"question": f"Which {name}?", "answer": name})
        put_images(root, f"{split}/images/{name}.png")


def lay_out_key_values(root: Path) -> None:
    for name in "abc":
        put_json(root, f"key/{name}.json", {"company": f"{name} Ltd", "total": 7})
        put_images(root, f"img/{name}.png")


def lay_out_texts_beside_images(root: Path) -> None:
    for name in "abc":
        put(root, f"set/{name}.txt", f"a picture of {name}".encode())
        put_images(root, f"set/{name}.png")


def lay_out_classes(root: Path) -> None:
    put_images(root, "train/hen/1.png", "train/owl/2.png", "test/owl/3.png")


def lay_out_chat_parts(root: Path) -> None:
    parts = [{"type": "image", "path": "a.png"}, {"type": "text", "text": "Who?"}]
    talk = [{"role": "user", "content": parts}, {"role": "assistant", "content": "Ann"}]
    put(root, "chat.jsonl", encode([{"messages": talk}] * 3))
    put_images(root, "a.png")


def lay_out_numbered_columns(root: Path) -> None:
    rows = [
        {
            "id": f"q{n}",
            "question": "What is in <image 1>?",
            "options": "['x']".replace("'", '"').replace("x", 'tea", "oil'),
            "answer": "B",
            "image_1": {"bytes": make_image(n), "path": None},
            "image_2": None if n else {"bytes": make_image(9), "path": None},
        }
        for n in range(3)
    ]
    put_parquet(root, "data/test-00000-of-00001.parquet", rows)


def lay_out_label_names(root: Path) -> None:
    info = {"info": {"features": {"label": {"names": ["hen", "owl"], "_type": "ClassLabel"}}}}
    image = pa.array([{"bytes": make_image(n), "path": None} for n in range(3)])
    table = pa.table({"image": image, "label": pa.array([1, 0, 1], pa.int64())})
    table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    (root / "train").mkdir()
    with pa.ipc.new_stream(root / "train/data-00000-of-00001.arrow", table.schema) as writer:
        writer.write_table(table)


def lay_out_webdataset(root: Path) -> None:
    with tarfile.open(root / "shard-000.tar", "w") as tar:
        for n in range(3):
            for ending, data in (("png", make_image(n)), ("json", json.dumps({"caption": f"number {n}"}).encode())):
                info = tarfile.TarInfo(f"{n:06d}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def lay_out_lance(root: Path) -> None:
    table = pa.table({"image": [make_image(n) for n in range(3)], "caption": ["one", "two", "three"]})
    lance.write_dataset(table, root / "photos.lance")


def lay_out_padded_numbers(root: Path) -> None:
    rows = [{"image_id": n, "question": "Who?", "answers": ["Ann", "Ann", "Bob"], "question_id": n} for n in (7, 12)]
    put_json(root, "v1.json", {"info": {"year": 2020}, "questions": rows})
    put_images(root, "val/COCO_000007.png", "val/COCO_000012.png")


def lay_out_captions_by_name(root: Path) -> None:
    put_json(root, "captions.json", {f"{n}.png": f"number {n}" for n in range(3)})
    put_images(root, *(f"images/{n}.png" for n in range(3)))


def lay_out_preferences(root: Path) -> None:
    rows = [{"prompt": f"Which {n}?", "chosen": f"{n}", "rejected": "none", "image": f"{n}.png"} for n in range(3)]
    put(root, "dpo.jsonl", encode(rows))
    put_images(root, *(f"images/{n}.png" for n in range(3)))


LAYOUTS: dict[Callable[[Path], None], tuple[dict[str, Any], list[tuple[str, str]], int]] = {
    lay_out_csv: (
        {"shape": "csv", "delimiter": ";", "images": ["photos/{file}.png"]},
        [("human", "<image>\nWo?"), ("gpt", "Hier")],
        2,
    ),
    lay_out_csv_without_header: (
        {"shape": "csv", "delimiter": "|", "columns": ["image", "question", "answer"], "image_folders": ["x"]},
        [("human", "<image>\nwho is it?"), ("gpt", "Ann")],
        3,
    ),
    lay_out_one_object_a_file: (
        {"files": "{split}/labels/{name}.json", "shape": "json", "images": ["{split}/images/{name}.png"]},
        [("human", "<image>\nWhich 7?"), ("gpt", "7")],
        3,
    ),
    lay_out_key_values: (
        {"files": "key/{name}.json", "shape": "json", "images": ["img/{name}.png"]},
        [("human", "<image>\nRead in the image: company, total."), ("gpt", "company: a Ltd\ntotal: 7")],
        3,
    ),
    lay_out_texts_beside_images: (
        {"files": "set/{name}.txt", "shape": "text", "answer": "{text}", "images": ["set/{name}.png"]},
        [("human", "<image>\nDescribe the image."), ("gpt", "a picture of a")],
        3,
    ),
    lay_out_classes: (
        {"files": "{split}/{label}/{name}.png", "shape": "image"},
        [("human", "<image>\nWhat is in the image?"), ("gpt", "owl")],
        3,
    ),
    lay_out_chat_parts: (
        {"shape": "jsonl", "turns": "messages"},
        [("human", "<image>\nWho?"), ("gpt", "Ann")],
        3,
    ),
    lay_out_numbered_columns: (
        {"id": "id", "choices": "options", "answer_is": "letter", "image_field": ["image_1", "image_2"]},
        [("human", "<image>\nWhat is in <image>?\nA. tea\nB. oil"), ("gpt", "oil")],
        3,
    ),
    lay_out_label_names: (
        {"files": "train/data-00000-of-00001.arrow", "shape": "arrow", "names": {"label": ["hen", "owl"]}},
        [("human", "<image>\nWhat is in the image?"), ("gpt", "owl")],
        3,
    ),
    lay_out_webdataset: (
        {"files": "shard-000.tar", "shape": "webdataset", "answer": "{json.caption}", "image_field": "png"},
        [("human", "<image>\nDescribe the image."), ("gpt", "number 0")],
        3,
    ),
    lay_out_lance: (
        {"files": "photos.lance", "shape": "lance", "image_field": "image"},
        [("human", "<image>\nDescribe the image."), ("gpt", "one")],
        3,
    ),
    lay_out_captions_by_name: (
        {"shape": "dict_of_id", "answer": "{value}", "image_field": "id"},
        [("human", "<image>\nDescribe the image."), ("gpt", "number 0")],
        3,
    ),
    lay_out_preferences: (
        {"shape": "jsonl", "question": "{prompt}", "answer": "{chosen}", "image_field": "image"},
        [("human", "<image>\nWhich 0?"), ("gpt", "0")],
        3,
    ),
    lay_out_padded_numbers: (
        {"key": "questions", "id": "question_id", "images": ["val/COCO_{image_id:06d}.png"], "answer_is": "votes"},
        [("human", "<image>\nWho?"), ("gpt", "Ann")],
        2,
    ),
}


@pytest.mark.parametrize("lay_out", LAYOUTS, ids=lambda function: function.__name__)
def test_what_is_proposed_reads_the_files(tmp_path: Path, lay_out: Callable[[Path], None]) -> None:
    lay_out(tmp_path)
    expected, turns, n_rows = LAYOUTS[lay_out]
    proposal = sniff(tmp_path)
    assert get_map(proposal) | expected == get_map(proposal)
    assert list_turns(proposal.samples[0]) == turns
    assert (proposal.n_rows, len(proposal.samples), dict(proposal.reject_counts)) == (n_rows, n_rows, {})
    assert all(Image.open(io.BytesIO(image.read())) for sample in proposal.samples for image in sample.images)
    assert "path: " in proposal.format_yaml()
    RecordsMapping.model_validate(get_map(proposal))


@pytest.mark.parametrize(
    ("slug", "format"),
    [
        ("gqa", "gqa"),
        ("vqav2", "vqa_v2"),
        ("coco_caption_val", "coco_captions"),
        ("mscoco", "coco_instances"),
        ("refcoco", "ref_coco"),
        ("visualgenome", "visual_genome"),
        ("rects", "icdar_text"),
        ("visual7w_cauldron_llava_format", "cauldron_parquet"),
        ("allava_vflan", "llava_json"),
        ("egoschema", "video_mcq"),
    ],
)
def test_files_in_a_native_format_are_declared_by_its_name(tmp_path: Path, slug: str, format: str) -> None:
    (written,) = write_demo_sources(tmp_path, [slug], 12)
    proposal = sniff(written.source_dir)
    assert proposal.attributes is not None and "records" not in proposal.attributes
    modality = "video" if format == "video_mcq" else "single_image"
    assert (proposal.attributes["format"], proposal.attributes["modality"]) == (format, modality)
    assert len(proposal.samples) >= written.n_good_rows and proposal.n_rows >= 12
    assert any(note.startswith(f"read as {format}: ") for note in proposal.notes)


def test_a_format_that_is_given_is_not_guessed(tmp_path: Path) -> None:
    (written,) = write_demo_sources(tmp_path, ["allava_vflan"], 12)
    assert get_map(sniff(written.source_dir, format="records"))["turns"] == "conversations"
    proposal = sniff(written.source_dir, format="llava_video")
    assert proposal.attributes is not None and proposal.attributes["format"] == "llava_video"
    with pytest.raises(MvlError, match="format"):
        sniff(written.source_dir, format="nothing")


def test_a_field_that_names_videos_is_found(tmp_path: Path) -> None:
    for n in range(3):
        put(tmp_path, f"clips/day/{n}.mp4", b"not looked into")
    put(tmp_path, "qa.csv", b"clip,question,answer\nday/0,Who?,Ann\nday/1,Where?,Here\nday/7,Gone?,yes\n")
    proposal = sniff(tmp_path)
    expected = {"video": "{clip}", "image_folders": ["clips"], "question": "{question}", "answer": "{answer}"}
    assert get_map(proposal) | expected == get_map(proposal)
    assert proposal.attributes is not None and proposal.attributes["modality"] == "video"
    assert list_turns(proposal.samples[0]) == [("human", "<video>\nWho?"), ("gpt", "Ann")]
    assert (len(proposal.samples), dict(proposal.reject_counts)) == (2, {"missing_video": 1})


def test_files_of_another_form_are_named_and_left_out(tmp_path: Path) -> None:
    put_json(tmp_path, "train.json", [{"question": "Who?", "answer": "Ann", "image": "a.png"}] * 2)
    put_json(tmp_path, "config.json", {"batch_size": 4, "model": {"depth": 2}})
    put_json(tmp_path, "prices.json", [{"output": 3, "input": "x"}] * 2)
    put_images(tmp_path, "a.png")
    proposal = sniff(tmp_path)
    assert get_map(proposal)["files"] == "train.json"
    assert any("prices.json" in note for note in proposal.notes)


def test_files_that_a_glob_would_mix_with_others_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        put(tmp_path, f"{name}.jsonl", encode([{"question": "Who?", "answer": "Ann"}] * 2))
    put(tmp_path, "c.jsonl", encode([{"chosen": "x", "rejected": "y"}] * 2))
    assert get_map(sniff(tmp_path))["files"] == ["a.jsonl", "b.jsonl"]


def test_an_image_that_is_not_there_is_said(tmp_path: Path) -> None:
    put_json(tmp_path, "rows.json", [{"question": "Who?", "answer": "Ann", "image_id": n} for n in range(3)])
    proposal = sniff(tmp_path)
    assert proposal.attributes is not None and proposal.attributes["modality"] == "single_image"
    assert (proposal.samples, dict(proposal.reject_counts)) == ([], {"no_image": 3})
    assert any("image_id seems to name images" in note for note in proposal.notes)
    put_json(tmp_path, "rows.json", [{"question": "Who?", "answer": "Ann", "image": f"{n}.png"} for n in range(3)])
    proposal = sniff(tmp_path)
    assert dict(proposal.reject_counts) == {"missing_image": 3}
    assert not any("another file meant" in note for note in proposal.notes)


def test_a_folder_without_records_says_what_it_holds(tmp_path: Path) -> None:
    put(tmp_path, "a.bin", b"x")
    proposal = sniff(tmp_path)
    assert proposal.attributes is None
    assert proposal.notes == ["no file of records: 1 .bin"]
    with pytest.raises(MvlError, match="there is no"):
        sniff(tmp_path / "nothing")


def test_images_that_are_named_from_a_folder_above_say_so(tmp_path: Path) -> None:
    put_images(tmp_path, "data/images/a.png")
    put_json(tmp_path, "data/rows.json", [{"question": "Who?", "answer": "Ann", "image": "data/images/a.png"}] * 2)
    talk = [{"role": "user", "content": [{"image": "data/images/a.png"}]}, {"role": "assistant", "content": "Ann"}]
    put(tmp_path, "data/chat.jsonl", encode([{"messages": talk}] * 2))
    for name in ("rows.json", "chat.jsonl"):
        notes = sniff(tmp_path / "data" / name).notes
        assert any(note.startswith(f"images are named from {tmp_path} ") for note in notes)
        assert sniff(tmp_path).reject_counts == {}


def test_the_path_in_the_entry_has_no_dots(tmp_path: Path) -> None:
    lay_out_csv(tmp_path)
    proposal = sniff(tmp_path / "photos" / "..")
    assert proposal.attributes is not None and proposal.attributes["path"] == str(tmp_path)


FOREIGN = """Bild,Frage,Antwort,Teil
a.png,"Wie heißt der ""Turm"", genau?","Eiffel, in Paris",train
b.png,Welche Farbe?,grün,val
"""


@pytest.mark.parametrize(
    ("header", "given"),
    [
        ("Bild,Frage,Antwort,Teil", {}),
        ("Datei,Was,Wert,Teil", {}),  # the question by its marks, the answer because nothing else is left
        ("c1,c2,c3,c4", {"question": "c2", "answer": "{c3}", "image": "c1"}),
    ],
)
def test_fields_are_known_by_names_of_other_languages_by_values_or_by_hand(
    tmp_path: Path, header: str, given: dict[str, str]
) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(make_image(3))
    (tmp_path / "rows.csv").write_text(FOREIGN.replace("Bild,Frage,Antwort,Teil", header), encoding="utf-8")
    proposal = sniff_folder(tmp_path, {}, given)
    assert [[turn.value for turn in sample.turns] for sample in proposal.samples] == [
        ['<image>\nWie heißt der "Turm", genau?', "Eiffel, in Paris"],
        ["<image>\nWelche Farbe?", "grün"],
    ]


def test_a_kind_of_image_inside_metadata_is_no_passage(tmp_path: Path) -> None:
    records = {
        str(n): {
            "question": f"What is the number {n}?",
            "image": f"images/{n}.png",
            "choices": None,
            "answer": str(n),
            "metadata": {"context": "natural image", "split": "test", "source": "drawn", "skills": ["counting"]},
        }
        for n in range(1, 6)
    }
    for n in records:
        put(tmp_path, f"images/{n}.png", make_image(int(n)))
    put_json(tmp_path, "test.json", records)
    proposal = sniff(tmp_path)
    assert get_map(proposal) == {
        "files": "test.json",
        "shape": "dict_of_id",
        "question": "{question}",
        "answer": "{answer}",
        "image_field": "image",
    }
    assert (len(proposal.samples), proposal.n_rows) == (5, 5)


def test_a_given_field_that_no_record_has_is_said(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(FOREIGN, encoding="utf-8")
    proposal = sniff_folder(tmp_path, {}, {"answer": "nothing"})
    assert proposal.attributes is None and any("nothing" in note and "Antwort" in note for note in proposal.notes)


def test_pascal_voc_is_read_with_one_object_and_with_several(tmp_path: Path) -> None:
    for n, names in enumerate((["cat"], ["cat", "dog"], ["dog"])):
        objects = "".join(f"<object><name>{name}</name></object>" for name in names)
        text = f"<annotation><filename>{n}.png</filename><size><width>8</width></size>{objects}</annotation>"
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{n}.xml").write_text(text, encoding="utf-8")
        (tmp_path / "JPEGImages").mkdir(exist_ok=True)
        (tmp_path / "JPEGImages" / f"{n}.png").write_bytes(make_image(n))
    proposal = sniff_folder(tmp_path, {})
    assert proposal.attributes is not None and proposal.attributes["modality"] == "single_image"
    assert [sample.turns[1].value for sample in proposal.samples] == ["cat", "cat, dog", "dog"]


def test_broken_images_of_the_first_rows_are_counted(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("image,question,answer\na.png,Why?,So.\nb.png,Who?,I.\n", encoding="utf-8")
    (tmp_path / "a.png").write_bytes(make_image(1))
    (tmp_path / "b.png").write_bytes(make_image(2)[:-30])
    proposal = sniff_folder(tmp_path, {})
    assert len(proposal.samples) == 1 and sum(proposal.reject_counts.values()) == 1
    assert proposal.rejects[0].message.startswith("b.png: ")


def test_flags_and_sizes_of_an_image_are_not_taken_for_what_is_printed_in_it(tmp_path: Path) -> None:
    for name in "abc":
        put_images(tmp_path, f"{name}.png")
        flags = {"flags": {"cat": name == "a", "dog": name == "b"}, "shapes": []}
        put_json(tmp_path, f"{name}.json", {"version": "4", "imagePath": f"{name}.png", "imageHeight": 9, **flags})
    proposal = sniff(tmp_path)
    assert proposal.attributes is None and "no field looks like an answer" in " ".join(proposal.notes)


def test_captions_without_images_are_not_taken_for_a_source(tmp_path: Path) -> None:
    rows = [json.dumps({"id": n, "text": f"A cat {n}."}) for n in range(3)]
    (tmp_path / "answers.jsonl").write_text("\n".join(rows), encoding="utf-8")
    assert sniff_folder(tmp_path, {}).attributes is None
