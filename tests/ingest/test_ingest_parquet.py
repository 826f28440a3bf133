"""Sources with their images in Parquet: what a shard carries, how large it gets, and what damage costs."""

from __future__ import annotations

import pickle
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.ingest import images as image_module
from mvl_assets.ingest import ingest as module
from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.views import iter_current_samples
from tests.raw_files import make_image, put, source, talk

SPEC = source("llava_parquet")
N_ROWS = 48
SIZES = (64, 64)


def write_source(root: Path, *, has_files: bool = True) -> None:
    """Two files of three row groups; of eight rows one has its image in a file and one has none; one image is bad."""
    put(root, "a file.png", make_image(999, SIZES))
    rows: list[dict[str, Any]] = []
    for n in range(N_ROWS):
        image: dict[str, Any] | None = {"bytes": make_image(n, SIZES), "path": f"{n}.png"}
        if n % 8 == 3 and has_files:
            image = {"bytes": None, "path": "a file.png"}
        elif n % 8 == 5:
            image = None
        elif n == 7:
            image = {"bytes": b"no picture", "path": None}
        rows.append({"id": f"r{n}", "image": image, "conversations": talk(f"Q{n}?", "A.")})
    for n, file_rows in enumerate((rows[:24], rows[24:])):
        pq.write_table(pa.Table.from_pylist(file_rows), root / f"{n}.parquet", row_group_size=8)


def read_state(lake: Lake) -> tuple[object, ...]:
    samples = sorted((s["sample_id"], s["revision"], s["content_hash"]) for s in iter_current_samples(lake, SPEC.slug))
    images = lake.images.read_images([r["image_id"] for r in lake.images.table.iter_rows(["image_id"])])
    columns = ["row_key", "error", "message", "file", "position"]
    rejects = sorted(tuple(r[name] for name in columns) for r in lake.get_table("rejects").iter_rows(columns))
    return samples, sorted(images.items()), rejects


class RecordingExecutor(ProcessExecutor):
    """Two processes; keeps what is sent to them."""

    def __init__(self) -> None:
        super().__init__(2)
        self.tasks: list[bytes] = []

    def run(self, function: Any, tasks: Iterable[Any]) -> Generator[Any, None, None]:
        def record() -> Generator[Any, None, None]:
            for task in tasks:
                self.tasks.append(pickle.dumps(task))
                yield task

        return super().run(function, record())


def test_shards_carry_no_images_and_give_the_rows_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_source(tmp_path)
    one, many = Lake(str(tmp_path / "one")), Lake(str(tmp_path / "many"))
    alone = ingest_source(one, SPEC, tmp_path, run_id="r")
    monkeypatch.setattr(module, "SHARD_ROWS", 10)
    executor = RecordingExecutor()
    together = ingest_source(many, SPEC, tmp_path, run_id="r", executor=executor)
    assert len(executor.tasks) == 5
    assert not any(make_image(n, SIZES) in task for task in executor.tasks for n in range(N_ROWS))
    assert b"PNG" not in b"".join(executor.tasks)
    assert read_state(many) == read_state(one)
    assert alone.reject_counts == together.reject_counts == {"not_an_image": 1}
    assert alone.n_new == together.n_new == N_ROWS - 1
    assert alone.n_new_images == together.n_new_images == N_ROWS - 2 * 6 - 1 + 1
    assert ingest_source(many, SPEC, tmp_path, run_id="r", executor=ProcessExecutor(2)).n_changed == 0


def test_embedded_images_fill_a_fragment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_source(tmp_path)
    monkeypatch.setattr(module, "SHARD_BYTES", 2000)  # less than the images have, more than the texts
    lake = Lake(str(tmp_path / "lake"))
    ingest_source(lake, SPEC, tmp_path, run_id="r", executor=RecordingExecutor())
    assert len(lake.images.table.open().get_fragments()) == 1


def test_shards_end_at_the_bytes_of_their_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_source(tmp_path)
    monkeypatch.setattr(module, "SHARD_IMAGE_BYTES", 8 * len(make_image(1, SIZES)))
    executor = RecordingExecutor()
    ingest_source(Lake(str(tmp_path / "lake")), SPEC, tmp_path, run_id="r", executor=executor)
    assert 3 <= len(executor.tasks) <= 12


@pytest.mark.parametrize("n_processes", [None, 2])
def test_a_damaged_row_group_rejects_its_rows_by_file_and_row(tmp_path: Path, n_processes: int | None) -> None:
    write_source(tmp_path, has_files=False)
    path = tmp_path / "1.parquet"
    footer = pq.read_metadata(path).row_group(1)
    chunk = next(c for c in map(footer.column, range(footer.num_columns)) if c.path_in_schema == "image.bytes")
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset
    data[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    lake = Lake(str(tmp_path / "lake"))
    executor = None if n_processes is None else ProcessExecutor(n_processes)
    before = ingest_source(lake, SPEC, tmp_path, run_id="r", executor=executor)
    path.write_bytes(data)
    report = ingest_source(lake, SPEC, tmp_path, run_id="r", executor=executor)
    # The row without an image is read; the others keep the revision that they had.
    assert report.n_rows == N_ROWS and report.reject_counts == {"unreadable_image": 7, "not_an_image": 1}
    assert (report.n_changed, report.n_withdrawn, report.data_version) == (0, 0, before.data_version)
    rejects = lake.get_table("rejects").iter_rows(["error", "message", "file", "position"])
    damaged = {r["position"]: r for r in rejects if r["error"] == "unreadable_image"}
    assert set(damaged) == set(range(8, 16)) - {13} and {r["file"] for r in damaged.values()} == {"1.parquet"}
    assert all("row group 1 of 1.parquet cannot be read" in r["message"] for r in damaged.values())


def test_too_large_images_are_rejected_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_source(tmp_path)
    monkeypatch.setattr(image_module, "MAX_IMAGE_BYTES", len(make_image(1, SIZES)) - 1)
    lake = Lake(str(tmp_path / "lake"))
    report = ingest_source(lake, SPEC, tmp_path, run_id="r")
    assert report.reject_counts["image_too_large"] > 20
    message = next(r["message"] for r in lake.get_table("rejects").iter_rows(["message"], "position = 1"))
    assert message.endswith("bytes") and ".png is larger than" in message
