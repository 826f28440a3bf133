"""The cases of `ingest.py` for other libraries, run by an interpreter that has them (`--peers PYTHON`).

They read the rows, decode every image in full, and write rows and original bytes to one table. Imports nothing of
this project.

datasets   `load_dataset`, `map` over `Image()`, `to_parquet` (which stores the files' bytes); one process per core,
           but for text of fewer than `ROWS_PER_PROCESS` rows one, which is faster then
daft       `download` or the bytes of the Parquet, `decode_image`, `write_parquet`; on its local runner
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

ROWS_PER_PROCESS = 65_536


def run_peer(library: str, kind: str, raw: Path, out: Path) -> int:
    """Return the number of rows written. `raw` is a source that `ingest_data` wrote."""
    return {"datasets": run_datasets, "daft": run_daft}[library](kind, raw, out)


def _write_jsonl(raw: Path, out: Path) -> Path:
    """Write the LLaVA JSON as lines with absolute paths: neither library resolves images relative to a folder."""
    path = out / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for json_file in sorted(raw.glob("*.json")):
            for row in json.loads(json_file.read_text(encoding="utf-8")):
                file.write(json.dumps({**row, "image": str(raw / "images" / row["image"])}) + "\n")
    return path


def run_datasets(kind: str, raw: Path, out: Path) -> int:
    import datasets

    datasets.disable_progress_bars()
    n_processes: int | None = len(os.sched_getaffinity(0))
    if kind == "text" and _count_lines(raw) < ROWS_PER_PROCESS:
        n_processes = None
    cache: dict[str, Any] = {"cache_dir": str(out / "cache"), "split": "train", "num_proc": n_processes}
    if kind == "jpeg":
        rows = datasets.load_dataset("json", data_files=str(_write_jsonl(raw, out)), **cache)
    elif kind == "parquet":
        rows = datasets.load_dataset("parquet", data_files=[str(p) for p in sorted(raw.rglob("*.parquet"))], **cache)
    else:
        rows = datasets.load_dataset("json", data_files=[str(p) for p in sorted(raw.glob("*.jsonl"))], **cache)
    if kind != "text":
        # `Image()` decodes an image in full before `map` gets it.
        rows = rows.cast_column("image", datasets.Image())
        rows = rows.map(_add_image_size, num_proc=n_processes)
    rows.to_parquet(str(out / "out.parquet"))
    return len(rows)


def _count_lines(raw: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in raw.glob("*.jsonl"))


def _add_image_size(row: dict[str, Any]) -> dict[str, Any]:
    return {"width": row["image"].width, "height": row["image"].height}


def run_daft(kind: str, raw: Path, out: Path) -> int:
    import daft
    from daft import col
    from daft.functions import decode_image, download, image_height, image_width

    daft.set_execution_config(default_morsel_size=1024)
    if kind == "text":
        rows = daft.read_json(f"{raw}/*.jsonl")
    elif kind == "parquet":
        rows = daft.read_parquet(f"{raw}/**/*.parquet").with_column("data", col("image")["bytes"])
    else:
        rows = daft.read_json(str(_write_jsonl(raw, out))).with_column("data", download(col("image")))
    if kind != "text":
        rows = rows.with_column("decoded", decode_image(col("data"), on_error="null"))
        rows = rows.with_column("width", image_width(col("decoded"))).with_column(
            "height", image_height(col("decoded"))
        )
        rows = rows.exclude("decoded")
    rows.write_parquet(str(out / "out"))
    return int(daft.read_parquet(f"{out}/out/*.parquet").count_rows())
