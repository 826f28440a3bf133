"""Videos in their own formats: multiple choice, VideoInstruct, folders of frames."""

from __future__ import annotations

import io
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from mvl_assets.demo_data.layouts.archives import build_tar, build_zip, gzip_bytes
from mvl_assets.demo_data.layouts.common import SourceLayout, build_conversation, write_files, write_json
from mvl_assets.demo_data.rows import RawFile, RawRow
from mvl_assets.media.video import sample_frames

FRAMES_PER_SECOND = 2.0


def write_egoschema(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `questions.json`, `subset_answers.json` and `videos/<q_uid>.mp4`; fault `no_answer`: not published."""
    questions, answers = [], {}
    for row in rows:
        options, index = _read_options(row)
        option_fields = {f"option {n}": option for n, option in enumerate(options)}
        questions.append(
            {"q_uid": row.row_id, "google_drive_id": "", "question": row.fields["question"], **option_fields}
        )
        if row.fault != "no_answer":
            answers[row.row_id] = index
    write_json(source_dir / "questions.json", questions)
    write_json(source_dir / "subset_answers.json", answers)
    write_files(
        source_dir / "videos",
        [RawFile(f"{row.row_id}.mp4", video.data) for row in rows if (video := row.video) is not None],
    )


def write_video_mme(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `videomme/test-00000-of-00001.parquet`, and `videos_chunked_01.zip` with `data/<videoID>.mp4`."""
    records = []
    for number, row in enumerate(rows):
        options, index = _read_options(row)
        lettered_options = [
            f"{letter}. {option}" for letter, option in zip(string.ascii_uppercase, options, strict=False)
        ]
        records.append(
            {
                "video_id": f"{number // 3 + 1:03d}",
                "duration": "short",
                "domain": "Drawn",
                "sub_category": "Shapes",
                "url": "",
                "videoID": _get_video_stem(row),
                "question_id": row.row_id,
                "task_type": "Object Recognition",
                "question": row.fields["question"],
                "options": lettered_options,
                "answer": "" if row.fault == "no_answer" else string.ascii_uppercase[index],
            }
        )
    (source_dir / "videomme").mkdir()
    pq.write_table(pa.Table.from_pylist(records), source_dir / "videomme" / "test-00000-of-00001.parquet")
    videos = [row.video for row in rows if row.video is not None]
    files = {f"data/{video.name}": video.data for video in videos if video.data is not None}
    (source_dir / "videos_chunked_01.zip").write_bytes(build_zip(files))


def write_video_instruct(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `VideoInstruct100K.json`, [{q, a, video_id}], and `videos/v_<id>.mp4`; fault `bad_turn` has no `a`."""
    records = []
    for row in rows:
        (question, answer), *_ = row.turns
        answer_field: Mapping[str, Any] = {} if row.fault == "bad_turn" else {"a": answer}
        records.append({"q": question, **answer_field, "video_id": f"v_{_get_video_stem(row)}"})
    write_json(source_dir / "VideoInstruct100K.json", records)
    write_files(
        source_dir / "videos",
        [RawFile(f"v_{video.name}", video.data) for row in rows if (video := row.video) is not None],
    )


def write_frame_folders(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `sharegptvideo_qa_255k_processed.json`: `video` names a folder, frames in `train_300k/chunk_<n>.tar.gz`."""
    records = [
        {
            "id": row.row_id,
            "video": f"shareVideoGPTV/frames/{_get_video_stem(row)}",
            "conversations": build_conversation(row),
        }
        for row in rows
    ]
    write_json(source_dir / "sharegptvideo_qa_255k_processed.json", records)
    videos = {
        _get_video_stem(row): row.video.data for row in rows if row.video is not None and row.video.data is not None
    }
    (source_dir / "train_300k").mkdir()
    for number in range(2):
        frames = {
            f"{stem}/c01_{count:04d}.jpeg": data
            for stem, video_bytes in list(videos.items())[number::2]
            for count, (_, data) in enumerate(sample_frames(io.BytesIO(video_bytes), FRAMES_PER_SECOND, 40), 1)
        }
        (source_dir / "train_300k" / f"chunk_{number}.tar.gz").write_bytes(gzip_bytes(build_tar(frames)))


def _read_options(row: RawRow) -> tuple[list[str], int]:
    return cast(list[str], row.fields["options"]), cast(int, row.fields["answer"])


def _get_video_stem(row: RawRow) -> str:
    assert row.video is not None
    return row.video.name.removesuffix(".mp4")


LAYOUTS: dict[str, SourceLayout] = {
    "egoschema": SourceLayout("video_mcq", write_egoschema),
    "video_mme": SourceLayout("video_mcq", write_video_mme),
    "video_instruct": SourceLayout("video_instruct", write_video_instruct),
    "frame_folders": SourceLayout("frame_folders", write_frame_folders),
}
