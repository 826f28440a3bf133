"""Videos in their own formats: multiple choice, VideoInstruct, folders of frames."""

from __future__ import annotations

import io
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from mvl_assets.demo_data.layouts.archives import packed, tar_of, zip_of
from mvl_assets.demo_data.layouts.common import Layout, conversation, dump, save
from mvl_assets.demo_data.rows import RawFile, Row
from mvl_assets.media.video import sample_frames

FRAMES_A_SECOND = 2.0


def egoschema(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`questions.json`, `subset_answers.json` and `videos/<q_uid>.mp4`; fault `no_answer` is an unpublished answer."""
    asked, published = [], {}
    for row in rows:
        options, index = _options(row)
        listed = {f"option {n}": option for n, option in enumerate(options)}
        asked.append({"q_uid": row.key, "google_drive_id": "", "question": row.fields["question"], **listed})
        if row.fault != "no_answer":
            published[row.key] = index
    dump(folder / "questions.json", asked)
    dump(folder / "subset_answers.json", published)
    save(folder / "videos", [RawFile(f"{row.key}.mp4", video.data) for row in rows if (video := row.video) is not None])


def video_mme(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`videomme/test-00000-of-00001.parquet`, and the videos in `videos_chunked_01.zip` as `data/<videoID>.mp4`."""
    records = []
    for number, row in enumerate(rows):
        options, index = _options(row)
        lettered = [f"{letter}. {option}" for letter, option in zip(string.ascii_uppercase, options, strict=False)]
        records.append(
            {
                "video_id": f"{number // 3 + 1:03d}",
                "duration": "short",
                "domain": "Drawn",
                "sub_category": "Shapes",
                "url": "",
                "videoID": _stem(row),
                "question_id": row.key,
                "task_type": "Object Recognition",
                "question": row.fields["question"],
                "options": lettered,
                "answer": "" if row.fault == "no_answer" else string.ascii_uppercase[index],
            }
        )
    (folder / "videomme").mkdir()
    pq.write_table(pa.Table.from_pylist(records), folder / "videomme" / "test-00000-of-00001.parquet")
    videos = [row.video for row in rows if row.video is not None]
    files = {f"data/{video.name}": video.data for video in videos if video.data is not None}
    (folder / "videos_chunked_01.zip").write_bytes(zip_of(files))


def video_instruct(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`VideoInstruct100K.json`, an array of {q, a, video_id}, and `videos/v_<id>.mp4`; fault `bad_turn` has no `a`."""
    records = []
    for row in rows:
        (question, answer), *_ = row.turns
        told: Mapping[str, Any] = {} if row.fault == "bad_turn" else {"a": answer}
        records.append({"q": question, **told, "video_id": f"v_{_stem(row)}"})
    dump(folder / "VideoInstruct100K.json", records)
    save(
        folder / "videos", [RawFile(f"v_{video.name}", video.data) for row in rows if (video := row.video) is not None]
    )


def frame_folders(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`sharegptvideo_qa_255k_processed.json`; `video` is a folder, with its frames in `train_300k/chunk_<n>.tar.gz`."""
    records = [
        {"id": row.key, "video": f"shareVideoGPTV/frames/{_stem(row)}", "conversations": conversation(row)}
        for row in rows
    ]
    dump(folder / "sharegptvideo_qa_255k_processed.json", records)
    films = {_stem(row): row.video.data for row in rows if row.video is not None and row.video.data is not None}
    (folder / "train_300k").mkdir()
    for number in range(2):
        frames = {
            f"{stem}/c01_{count:04d}.jpeg": data
            for stem, film in list(films.items())[number::2]
            for count, (_, data) in enumerate(sample_frames(io.BytesIO(film), FRAMES_A_SECOND, 40), 1)
        }
        (folder / "train_300k" / f"chunk_{number}.tar.gz").write_bytes(packed(tar_of(frames)))


def _options(row: Row) -> tuple[list[str], int]:
    return cast(list[str], row.fields["options"]), cast(int, row.fields["answer"])


def _stem(row: Row) -> str:
    assert row.video is not None
    return row.video.name.removesuffix(".mp4")


LAYOUTS: dict[str, Layout] = {
    "egoschema": Layout("video_choice", egoschema),
    "video_mme": Layout("video_choice", video_mme),
    "video_instruct": Layout("video_instruct", video_instruct),
    "frame_folders": Layout("frame_folders", frame_folders),
}
