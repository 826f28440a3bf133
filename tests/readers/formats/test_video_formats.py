"""Cambrian-10M, LLaVA-Video in archives, frame folders, multiple choice, VideoInstruct, the released rows."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest

from mvl_assets.common.rejects import RejectError
from mvl_assets.config.catalog import HubDataset
from mvl_assets.ingest.images import read_frames
from mvl_assets.readers.sample import FrameFolder
from tests.raw_files import errors, good, list_turns, make_image, put, put_json, put_parquet, read_all, source, talk

CHOICE = source("video_mcq")


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as target:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            target.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue())


def film(seconds: int) -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for n in range(4 * seconds):
            grey = np.full((64, 64, 3), 20 + 30 * (n // 4), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return target.getvalue()


# Cambrian-10M


def cambrian(row: str, **fields: object) -> str:
    return json.dumps({"id": row, "conversations": talk("Which?", "This."), **fields})


def test_cambrian_takes_its_own_rows_of_the_whole_file_and_the_two_malformed_ones_as_rejects(tmp_path: Path) -> None:
    put(tmp_path, "arxivqa.tar.gz", packed({"arxivqa/images/1.png": make_image(1)}))
    put(tmp_path, "hfdata.tar.gz_part1", b"")
    lines = [
        cambrian("a", source="dvqa_2325k.json", image="dvqa/1.png"),
        cambrian("b", source="arxivqa_100k.json", image="arxivqa/images/1.png"),
        cambrian("c", source="arxivqa_100k.json"),
        cambrian("d", source="arxivqa_100k.json", conversations=[{"from": "human", "value": "?"}, "!"]),
        cambrian("e", source="arxivqa_100k.json", image="arxivqa/images/2.png"),
        cambrian("f", source="orca_994k.json"),
        '{"id": "g", "source": "arxivqa_100k.json", "conversa',
    ]
    put(tmp_path, "jsons/Cambrian10M.jsonl", "\n".join(lines).encode())
    hub = HubDataset(repo="nyu-visionx/Cambrian-10M", config="arxivqa_100k")
    rows = read_all(source("cambrian_jsonl", hub=hub), tmp_path)
    assert [row.position for row in rows] == [0, 1, 2, 3, 4]
    assert [s.native_id for s in good(rows)] == ["b", "c"]
    assert good(rows)[0].images[0].read() == make_image(1)
    assert errors(rows) == [(2, "bad_turn"), (3, "missing_image"), (4, "bad_json")]


def test_cambrian_without_a_config_takes_every_row(tmp_path: Path) -> None:
    put(tmp_path, "robut_wtq.tar", gzip.decompress(packed({"robut_wtq/2.png": make_image(2)})))
    lines = [cambrian("a", source="x.json"), cambrian("b", source="y.json", image="hfdata/robut_wtq/2.png")]
    put(tmp_path, "mine.jsonl", "\n".join(lines).encode())
    result = good(read_all(source("cambrian_jsonl"), tmp_path))
    assert [s.native_id for s in result] == ["a", "b"] and result[1].images[0].read() == make_image(2)


# Videos in archives and as folders of frames


def test_videos_in_numbered_archives_are_sampled_where_they_lie(tmp_path: Path) -> None:
    split = "0_30_s_academic_v0_1"
    put(tmp_path, f"{split}/{split}_videos_1.tar.gz", packed({"academic_source/a.mp4": film(3)}))
    put(tmp_path, f"{split}/{split}_videos_2.tar.gz", packed({"academic_source/b.mp4": film(2)[:100]}))
    names = ["academic_source/a.mp4", "academic_source/b.mp4", "academic_source/c.mp4"]
    put_json(tmp_path, f"{split}/oe.json", [{"id": n, "video": n, "conversations": talk("?", "!")} for n in names])
    rows = read_all(source("llava_video"), tmp_path)
    whole, cut = (s.video for s in good(rows))
    assert whole is not None and cut is not None
    assert [seconds for seconds, _ in read_frames(whole)] == [0.0, 1.0, 2.0]
    with pytest.raises(RejectError, match=r"truncated_video: academic_source/b\.mp4"):
        read_frames(cut)
    assert errors(rows) == [(2, "missing_video")]
    put(tmp_path, "a.mp4", film(3))
    put_json(tmp_path, "plain.json", [{"id": 1, "video": "a.mp4", "conversations": talk("?", "!")}])
    plain = good(read_all(source("llava_video"), tmp_path))[-1].video
    assert plain is not None and read_frames(plain) == read_frames(whole)


@pytest.mark.parametrize("place", ["folder", "archive"])
def test_a_folder_of_frames_gives_32_of_them_in_natural_order(tmp_path: Path, place: str) -> None:
    frames = {f"v_a/c01_{n}.jpeg": make_image(n) for n in range(1, 101)} | {"v_a/notes.txt": b"?", "v_b/x.txt": b"?"}
    if place == "archive":
        put(tmp_path, "train_300k/chunk_0.tar.gz", packed(frames))
    else:
        for name, data in frames.items():
            put(tmp_path, f"train_300k/{name}", data)
    names = ["v_a", "shareVideoGPTV/frames/v_a", "v_b", "v_c", "../v_a"]
    put_json(tmp_path, "qa.json", [{"id": n, "video": n, "conversations": talk("<image>\n?", "!")} for n in names])
    rows = read_all(source("frame_folders"), tmp_path)
    first, second = good(rows)
    assert list_turns(first) == [("human", "<video>\n?"), ("gpt", "!")]
    assert isinstance(first.video, FrameFolder) and isinstance(second.video, FrameFolder)
    taken = read_frames(first.video)
    assert len(taken) == 32 and taken == read_frames(second.video)
    assert (taken[0], taken[-1]) == ((0.0, make_image(1)), (49.5, make_image(100)))
    assert [seconds for seconds, _ in taken] == sorted(seconds for seconds, _ in taken)
    assert errors(rows) == [(2, "missing_video"), (3, "missing_video"), (4, "outside_root")]


# Multiple choice


def test_egoschema_joins_questions_with_the_published_answers(tmp_path: Path) -> None:
    def asked(uid: str, **fields: object) -> dict[str, object]:
        return {"q_uid": uid, "google_drive_id": "1", "question": "Why?", **fields}

    options = {f"option {n}": f"Because of {n}." for n in range(5)}
    put_json(
        tmp_path,
        "questions.json",
        [
            asked("u1", **options),
            asked("u2", **options),
            asked("u3", **options),
            {"q_uid": "u4", **options},
            asked("u5"),
            asked("u6", **options),
        ],
    )
    put_json(tmp_path, "subset_answers.json", {"u1": 3, "u3": 7, "u4": 0, "u5": 0, "u6": 1})
    for uid in ("u1", "u2", "u3"):
        put(tmp_path, f"videos/{uid}.mp4", b"film")
    rows = read_all(CHOICE, tmp_path)
    (sample,) = good(rows)
    assert sample.native_id == "u1" and sample.video is not None and sample.video.name == "u1.mp4"
    listed = "\n".join(f"{letter}. Because of {n}." for n, letter in enumerate("ABCDE"))
    assert list_turns(sample) == [("human", f"<video>\nWhy?\n{listed}"), ("gpt", "Because of 3.")]
    assert errors(rows) == [
        (1, "no_answer"),
        (2, "bad_answer"),
        (3, "no_question"),
        (4, "bad_choices"),
        (5, "missing_video"),
    ]


def test_tables_of_choices_from_the_hub_are_read_with_their_letters_and_videos_in_zips(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("data/fFjv93ACGo8.mp4", film(1))
    put(tmp_path, "videos_chunked_01.zip", buffer.getvalue())
    row = {"video_id": "001", "videoID": "fFjv93ACGo8", "question": "Which?", "options": ["A. Apples.", "B. Pears."]}
    answers = {"001-1": "B", "001-2": "(a)", "001-3": "C", "001-4": None, "001-5": "1"}
    put_parquet(tmp_path, "videomme/test.parquet", [{**row, "question_id": i, "answer": a} for i, a in answers.items()])
    rows = read_all(CHOICE, tmp_path)
    assert [(s.native_id, s.turns[1].value) for s in good(rows)] == [
        ("001-1", "Pears."),
        ("001-2", "Apples."),
        ("001-5", "Pears."),
    ]
    assert good(rows)[0].turns[0].value == "<video>\nWhich?\nA. Apples.\nB. Pears."
    video = good(rows)[0].video
    assert video is not None and len(read_frames(video)) == 1
    assert errors(rows) == [(2, "bad_answer"), (3, "no_answer")]


def test_of_egoschemas_tables_only_the_one_with_answers_is_read(tmp_path: Path) -> None:
    row = {"question_idx": "0", "video_idx": "u1", "question": "Why?", "option": ["A. X", "B. Y"]}
    put_parquet(tmp_path, "MC/test.parquet", [{**row, "answer": None}])
    put_parquet(tmp_path, "Subset/test.parquet", [{**row, "answer": "1"}])
    put(tmp_path, "videos/u1.mp4", b"film")
    (sample,) = read_all(CHOICE, tmp_path)
    assert sample.file == "Subset/test.parquet" and good([sample])[0].turns[1].value == "Y"


def test_options_keep_what_only_looks_like_a_letter(tmp_path: Path) -> None:
    row = {"id": 1, "video": "a", "question": "?", "options": ["A: one", "Two"], "answer": 0}
    put(tmp_path, "a.mkv", b"film")
    put_json(tmp_path, "q.json", [row])
    assert good(read_all(CHOICE, tmp_path))[0].turns[1].value == "A: one"


def test_video_instruct_asks_about_videos_by_their_id(tmp_path: Path) -> None:
    put(tmp_path, "videos/v_a.mkv", b"film")
    put(tmp_path, "activitynet_videos/v_b.mp4", b"film")
    rows = [
        {"q": "What?", "a": "Snow.", "video_id": "v_a"},
        {"q": "And?", "a": "Rain.", "video_id": "v_b"},
        {"q": "?", "a": "!", "video_id": "v_c"},
        {"q": "?", "a": "!", "video_id": "../v_a"},
        {"q": "?", "a": "!", "video_id": 7},
        {"q": "?", "video_id": "v_a"},
    ]
    put_json(tmp_path, "VideoInstruct100K.json", rows)
    result = read_all(source("video_instruct"), tmp_path)
    assert [s.video.name for s in good(result) if s.video] == ["v_a.mkv", "v_b.mp4"]
    assert list_turns(good(result)[0]) == [("human", "<video>\nWhat?"), ("gpt", "Snow.")]
    assert errors(result) == [(2, "missing_video"), (3, "outside_root"), (4, "bad_path"), (5, "bad_turn")]


# The released rows


def test_released_rows_of_every_kind_are_read_from_their_shards(tmp_path: Path) -> None:
    put(tmp_path, "single_image_data/shard_1.tar.gz", packed({"Cambrian-10M/a/1.png": make_image(1)}))
    put(tmp_path, "single_image_data/shard_10.tar.gz", packed({"Cambrian-10M/a/2.png": make_image(2)}))
    multi = {f"M4-Instruct-Data/HQ-Edit/images/{n}.png": make_image(n) for n in (3, 4)}
    put(tmp_path, "multi_image_data/shard_1.tar.gz", packed(multi))
    put(tmp_path, "video_data/shard_1.tar.gz", packed({"LLaVA-Video-178K/x/a.mp4": film(2)}))
    put_json(
        tmp_path,
        "mammoth_si_10M.json",
        [
            {"id": "1", "source": "s", "image": "Cambrian-10M/a/2.png", "conversations": talk("<image>\n?", "!")},
            {"id": "2", "source": "s", "conversations": talk("?", "!")},
            {"id": "3", "source": "s", "image": "Cambrian-10M/a/9.png", "conversations": talk("?", "!")},
        ],
    )
    put_json(
        tmp_path,
        "mammoth_ov_2M.json",
        [
            {"id": "4", "source": "m", "image": list(multi), "conversations": talk("<image><image>?", "!")},
            {"id": "5", "source": "v", "video": "LLaVA-Video-178K/x/a.mp4", "conversations": talk("<image>\n?", "!")},
        ],
    )
    rows = read_all(source("mammoth_release"), tmp_path)
    result = good(rows)
    assert [(s.native_id, s.upstream_dataset) for s in result] == [("4", "m"), ("5", "v"), ("1", "s"), ("2", "s")]
    assert [p.read() for s in result for p in s.images] == [make_image(3), make_image(4), make_image(2)]
    assert result[1].video is not None and len(read_frames(result[1].video)) == 2
    assert errors(rows) == [(2, "missing_image")]
