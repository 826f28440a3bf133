"""What fuzzing found and no test had, each as the smallest input that shows it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mvl_assets.config.catalog import RecordsMapping
from mvl_assets.config.settings import PROJECT_ROOT
from mvl_assets.media.video import VideoError, sample_frames
from mvl_assets.readers.files import resolve_image, resolve_video
from mvl_assets.readers.parsers.json_stream import BROKEN_FILE
from mvl_assets.readers.registry import get_key_reader
from mvl_assets.readers.sample import RejectedRow
from tests.raw_files import errors, good, make_image, put, put_parquet, read_all, source, talk


def test_a_number_in_place_of_an_image_rejects_its_row(tmp_path: Path) -> None:
    texts = [{"user": "?", "assistant": "!", "source": ""}]
    put_parquet(tmp_path, "a.parquet", [{"images": 1.5, "texts": texts}])
    assert errors(read_all(source("cauldron_parquet"), tmp_path)) == [(0, "bad_field")]


def test_a_column_name_damaged_in_the_footer_rejects_its_file(tmp_path: Path) -> None:
    put_parquet(tmp_path, "a.parquet", [{"conversations": talk("?", "!")}])
    whole = (tmp_path / "a.parquet").read_bytes()
    for at in range(whole.index(b"PAR1", 4) - len(whole) // 2, len(whole)):
        if whole[at : at + 4] == b"list":
            put(tmp_path, "a.parquet", whole[:at] + b"\xff" + whole[at + 1 :])
            rows = read_all(source("llava_parquet"), tmp_path)
            assert len(rows) == 1 and errors(rows) in ([], [(0, BROKEN_FILE)], [(0, "no_turns")])


def test_an_index_of_thousands_of_digits_names_no_choice(tmp_path: Path) -> None:
    records = RecordsMapping(files="a.json", shape="list", question="{q}", answer="{a}", choices="c", answer_is="index")
    put(tmp_path, "a.json", json.dumps([{"q": "?", "a": "7" * 5000, "c": ["x", "y"]}]).encode())
    assert errors(read_all(source("records", records), tmp_path)) == [(0, "bad_answer")]


def test_a_video_with_an_unknown_codec_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height = 32, 32
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    put(tmp_path, "a.mkv", path.read_bytes().replace(b"V_MPEG4/ISO/ASP", b"V_XXXXX/ISO/ASP"))
    with pytest.raises(VideoError) as raised:
        list(sample_frames(path))
    assert raised.value.code == "broken_video"


@pytest.mark.parametrize("column", ["id", "conversations", "image"])
def test_damage_in_one_column_ends_both_passes_over_parquet_at_the_same_row(tmp_path: Path, column: str) -> None:
    """Otherwise rows turn up in the second that the first did not count, as if the file had changed between them."""
    rows = [
        {"id": f"row {n}", "image": {"bytes": make_image(n, (2, 2)), "path": None}, "conversations": talk("?", f"{n}")}
        for n in range(500)
    ]
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.Table.from_pylist(rows),
        path,
        data_page_size=256,
        write_batch_size=8,
        compression="none",
        use_dictionary=False,
    )
    footer = pq.read_metadata(path).row_group(0)
    chunk = next(c for c in map(footer.column, range(footer.num_columns)) if c.path_in_schema.startswith(column))
    data = bytearray(path.read_bytes())
    middle = chunk.data_page_offset + chunk.total_compressed_size // 2
    data[middle : middle + 600] = b"\xff" * 600
    path.write_bytes(data)
    spec = source("llava_parquet")
    named = list(get_key_reader(spec.format)(spec, tmp_path))
    read = read_all(spec, tmp_path)
    if column == "image":  # read with the images, not with the rows
        assert len(good(read)) == len(named) == 500
        return
    assert isinstance(read[-1], RejectedRow) and read[-1].error == BROKEN_FILE and 0 < len(good(read)) < 500
    assert [(row.position, row.native_id) for row in read[:-1]] == [(k.position, k.native_id) for k in named][
        : len(read) - 1
    ]


@pytest.mark.parametrize("name", ["\ud800.png", "a\udc80/b.png"])
@pytest.mark.parametrize("format", ["llava_json", "llava_video"])
def test_a_file_name_with_a_lone_surrogate_is_a_bad_path(tmp_path: Path, name: str, format: str) -> None:
    put(tmp_path, "x.zip", zipped(("b.png", b"x")))
    field = "video" if format == "llava_video" else "image"
    put(tmp_path, "a.json", json.dumps([{"id": 1, field: name, "conversations": talk("?", "!")}]).encode())
    assert errors(read_all(source(format), tmp_path)) == [(0, "bad_path")]


def test_a_damaged_lzma_member_cannot_be_unpacked(tmp_path: Path) -> None:
    data = bytearray(zipped(("a.png", make_image(1) * 9), method=zipfile.ZIP_LZMA))
    at = data.index(b"a.png") + 5
    data[at + 12 : at + 20] = b"\xff" * 8
    put(tmp_path, "x.zip", bytes(data))
    with pytest.raises(OSError, match="cannot be unpacked"):
        resolve_image(tmp_path, "a.png").read()


def test_frames_whose_names_are_thousands_of_digits_are_in_some_order(tmp_path: Path) -> None:
    put(tmp_path, "x.zip", zipped((f"v/{'7' * 5000}.png", b"x"), ("v/1.png", b"y")))
    assert len(resolve_video(tmp_path, "v", ("",)).frames) == 2


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as target:
        for name, data in members:
            target.writestr(name, data)
    return buffer.getvalue()


def test_statistics_damaged_in_the_footer_do_not_end_the_process(tmp_path: Path) -> None:
    """pyarrow ends it when it is asked for a column of such a group, so this reads in a process of its own."""
    put_parquet(tmp_path, "a.parquet", [{"id": "1", "conversations": talk("?", "!"), "image": None}])
    reads = """
import sys
from pathlib import Path
from tests.raw_files import read_all, source

folder = Path(sys.argv[1])
whole = (folder / "a.parquet").read_bytes()
begin = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
marks = [at for at in range(begin, len(whole)) if whole[at] == 0x19]  # a list field
assert marks
for at in marks:
    (folder / "a.parquet").write_bytes(whole[:at] + b"\\x09" + whole[at + 1 :])
    assert read_all(source("llava_parquet"), folder)
"""
    paths = os.pathsep.join([str(PROJECT_ROOT), str(PROJECT_ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", reads, str(tmp_path)], env=os.environ | {"PYTHONPATH": paths}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
