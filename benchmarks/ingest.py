"""Cost of ingest for three kinds of sources, compared with the floor on this machine and with other libraries.

    python benchmarks/ingest.py [--rows 20000] [--repeats 1] [--peers PYTHON] [--memory] [--large] [--json]

Sources, in layouts of the demo data (`ingest_data`): `jpeg`, LLaVA JSON with an image file per row; `parquet`, LLaVA
Parquet with the same images inside; `text`, LLaVA lines of 1 kB. Each case runs in a process of its own, interleaved:

  ingest         `ingest_source` into an empty lake, with the executor of a profile that does not name one: one
                 process per core, where a source has more rows than a shard
  unchanged      the same again, with nothing new
  floor          the work that no case can avoid: read the same bytes once, sha256, header and full decode with Pillow
                 (text: sha256 and `json.loads`) in as many threads as ingest uses, and append them to a bare Lance
                 table in batches of 64 MB. No ids, no checks, no fsync
  datasets, daft the same reading, decoding and writing by other libraries (`ingest_peers`), where `--peers` names an
                 interpreter that has them. All cores are theirs, too: Daft has a thread per core, and datasets gets as
                 many processes as ingest would use (for text of fewer rows than a shard, one is also its fastest)

`x2` means two concurrent processes with half of the rows each, like two sources of a run. Imports are part of every
case; modules are compiled before, as an installation does. Rows, MB (of the source's files) and images per second are
of wall time; `cpu_ms_per_row` covers all threads and child processes of a case, and `share_of_floor_per_core` is the
floor's divided by the case's, because other work on the machine disturbs CPU time least. `peak_rss_mb` is the largest
of the processes. `speedups` are ingest's rows per second over each peer's, with the same number of processes.

`--memory` instead: peaks of 10,000 and of 200,000 text rows. `--large` instead: peaks of one JSON array, one tar of
images and one Parquet file with images, of 0.2 and of 4 GB each (`--large-gb`; needs twice that on disk). With
`--json` the last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peak_memory import read_peak_rss_mb

SCRIPT_PATH = Path(__file__).resolve()
OWN_CASES = ("ingest", "unchanged", "floor")
PEER_CASES = ("datasets", "daft")
PACKAGES = ("pylance", "pyarrow", "pillow", "numpy", "ImageHash")
BATCH_BYTES = 64 << 20


# -- one case, in its own process


def measure_case(case: str, kind: str, raw: Path, out: Path) -> dict[str, float]:
    """Run one case; return its wall and CPU seconds, peak memory in MB, and rows."""
    started_at = time.perf_counter()
    if case in PEER_CASES:
        import ingest_peers

        rows = ingest_peers.run_peer(case, kind, raw, out)
    elif case in ("ingest", "unchanged"):
        rows = run_ingest(kind, raw, out)
    else:
        rows = run_floor(kind, raw, out)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall": time.perf_counter() - started_at,
        "cpu": time.process_time() + children.ru_utime + children.ru_stime,
        "peak_rss_mb": max(read_peak_rss_mb(), children.ru_maxrss / 1024),
        "rows": rows,
    }


def run_ingest(kind: str, raw: Path, out: Path) -> int:
    from mvl_assets.config.catalog import SourceSpec
    from mvl_assets.config.profile import ExecutorConfig
    from mvl_assets.execution.create import create_executor
    from mvl_assets.ingest.ingest import ingest_source
    from mvl_assets.lake.lake import Lake

    format: Any = "llava_parquet" if kind == "parquet" else "llava_json"
    modality: Any = "text" if kind == "text" else "single_image"
    spec = SourceSpec(slug="bench", title="Bench", category="general", group="A", modality=modality, format=format)
    executor = create_executor(ExecutorConfig())
    report = ingest_source(Lake(str(out / "lake")), spec, raw, run_id="bench", executor=executor)
    assert not report.reject_counts, report
    return report.n_rows


def iter_images(kind: str, raw: Path) -> Iterator[bytes]:
    if kind == "jpeg":
        for path in sorted(raw.glob("images/*/*.jpg")):
            yield path.read_bytes()
        return
    import pyarrow.parquet as pq

    for path in sorted(raw.rglob("*.parquet")):
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            for batch in file.iter_batches(32, columns=["image"], use_threads=False):
                for cell in batch.column("image"):
                    yield cell["bytes"].as_py()


def iter_lines(raw: Path) -> Iterator[bytes]:
    for path in sorted(raw.glob("*.jsonl")):
        with path.open("rb") as file:
            yield from file


def run_floor(kind: str, raw: Path, out: Path) -> int:
    import hashlib
    from concurrent.futures import ThreadPoolExecutor

    import lance
    import pyarrow as pa
    from PIL import Image

    def decode_image(data: bytes) -> bytes:
        hashlib.sha256(data).digest()
        image = Image.open(io.BytesIO(data), formats=("JPEG",))
        assert image.size == (640, 480)
        image.load()
        return data

    def parse_conversations(line: bytes) -> Any:
        hashlib.sha256(line).digest()
        return json.loads(line)["conversations"]

    rows = 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for batch in _iter_byte_batches(iter_lines(raw) if kind == "text" else iter_images(kind, raw)):
            names = pa.array([str(rows + n) for n in range(len(batch))])
            if kind == "text":
                table = pa.table(
                    {"name": names, "conversations": pa.array([parse_conversations(line) for line in batch])}
                )
            else:
                schema = pa.schema([("name", pa.string()), lance.blob_field("bytes")])
                table = pa.table([names, lance.blob_array(list(pool.map(decode_image, batch)))], schema=schema)
            lance.write_dataset(table, str(out / "bare.lance"), mode="append")
            rows += len(batch)
    return rows


def _iter_byte_batches(items: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    batch_bytes = 0
    for data in items:
        batch.append(data)
        batch_bytes += len(data)
        if batch_bytes >= BATCH_BYTES:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch


# -- all cases, interleaved


def run_case(
    case: str, kind: str, folders: list[Path], lakes: list[Path], peer_python: Path | None
) -> dict[str, float]:
    """Run a case on all folders at the same time, each in its own process."""
    started_at = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    processes = []
    python = str(peer_python) if case in PEER_CASES else sys.executable
    for folder, lake in zip(folders, lakes, strict=True):
        lake.mkdir(parents=True, exist_ok=True)
        command = [python, str(SCRIPT_PATH), "--case", case, "--kind", kind, "--raw", str(folder), "--lake", str(lake)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
    outputs = [process.communicate()[0] for process in processes]
    for process in processes:
        if process.returncode:
            raise SystemExit(f"{case} of {kind} ended with {process.returncode}")
    reports = [json.loads(output.splitlines()[-1]) for output in outputs]
    wall = max(report["wall"] for report in reports) if len(reports) == 1 else time.perf_counter() - started_at
    rows = sum(f["rows"] for f in reports)
    return {
        "wall": wall,
        "cpu": sum(f["cpu"] for f in reports),
        "peak_rss_mb": max(f["peak_rss_mb"] for f in reports),
        "rows": rows,
    }


def compare_cases(args: argparse.Namespace) -> dict[str, Any]:
    """Run every case of every kind in one and in two processes, interleaved."""
    import ingest_data

    cases = OWN_CASES if args.peers is None else (*OWN_CASES, *PEER_CASES)
    results: dict[str, Any] = {}
    for kind in args.kinds:
        folders_by_process_count = {
            n: ingest_data.ensure_source(args.cache, kind, args.rows, args.seed, n) for n in (1, 2)
        }
        n_bytes = ingest_data.measure_folder_bytes(folders_by_process_count[1][0])
        runs_by_name: dict[str, list[dict[str, float]]] = {}
        for _ in range(args.repeats):
            for n_processes, folders in folders_by_process_count.items():
                with tempfile.TemporaryDirectory(prefix="mvl-bench-", dir=args.cache) as scratch:
                    for case in cases:
                        lake_case = "ingest" if case == "unchanged" else case
                        lakes = [Path(scratch) / f"{lake_case}-{part}" for part in range(n_processes)]
                        run_figures = run_case(case, kind, folders, lakes, args.peers)
                        runs_by_name.setdefault(f"{case} x{n_processes}", []).append(run_figures)
                        if case != "ingest":
                            for lake in lakes:
                                shutil.rmtree(lake)
        summaries = {
            name: summarize_runs(runs, n_bytes, has_images=kind != "text") for name, runs in runs_by_name.items()
        }
        for name, summary_row in summaries.items():
            floor_cpu_ms = summaries[f"floor x{name[-1]}"]["cpu_ms_per_row"]
            summary_row["share_of_floor_per_core"] = round(floor_cpu_ms / summary_row["cpu_ms_per_row"], 2)
        print_table(kind, summaries)
        speedups = {
            f"{peer} x{n}": round(summaries[f"ingest x{n}"]["rows_per_s"] / summaries[f"{peer} x{n}"]["rows_per_s"], 2)
            for peer in cases[len(OWN_CASES) :]
            for n in folders_by_process_count
        }
        results[kind] = {"cases": summaries, "speedups": speedups}
    return results


def summarize_runs(runs: list[dict[str, float]], n_bytes: int, has_images: bool) -> dict[str, float]:
    wall_times, median_cpu_s = sorted(r["wall"] for r in runs), statistics.median(r["cpu"] for r in runs)
    median_wall_s, rows = statistics.median(wall_times), runs[0]["rows"]
    return {
        "rows": rows,
        "rows_per_s": round(rows / median_wall_s, 1),
        "mb_per_s": round(n_bytes / 1e6 / median_wall_s, 1),
        "images_per_s": round(rows / median_wall_s, 1) if has_images else 0.0,
        "cpu_ms_per_row": round(1000 * median_cpu_s / rows, 3),
        "seconds": round(median_wall_s, 2),
        "seconds_min": round(wall_times[0], 2),
        "seconds_max": round(wall_times[-1], 2),
        "peak_rss_mb": round(max(r["peak_rss_mb"] for r in runs), 1),
    }


def print_table(title: str, summaries: dict[str, Any]) -> None:
    columns = [name for name in next(iter(summaries.values())) if name != "rows"]
    print(f"\n{title:18}" + "".join(f"{name.removesuffix('_per_core'):>16}" for name in columns))
    for name, summary_row in summaries.items():
        print(f"{name:18}" + "".join(f"{summary_row[column]:>16}" for column in columns), flush=True)


def measure_peak(kind: str, folder: Path, cache: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mvl-bench-", dir=cache) as scratch:
        return run_case("ingest", kind, [folder], [Path(scratch) / "lake"], None)


def measure_memory_by_rows(args: argparse.Namespace) -> dict[str, Any]:
    """Measure peak memory of 10,000 and 200,000 text rows."""
    import ingest_data

    summaries = {}
    for rows in (10_000, 200_000):
        (folder,) = ingest_data.ensure_source(args.cache, "text", rows, args.seed, 1)
        n_bytes = ingest_data.measure_folder_bytes(folder)
        summaries[f"text {rows}"] = summarize_runs(
            [measure_peak("text", folder, args.cache)], n_bytes, has_images=False
        )
    print_table("memory by rows", summaries)
    return summaries


def measure_memory_by_file_size(args: argparse.Namespace) -> dict[str, Any]:
    """Measure peak memory of each kind of file at two sizes."""
    import ingest_data

    summaries = {}
    writers = {
        "text": ingest_data.write_large_array,
        "jpeg": ingest_data.write_large_tar,
        "parquet": ingest_data.write_large_parquet,
    }
    for kind, write_source in writers.items():
        for n_bytes in (int(gb * 1e9) for gb in args.large_gb):
            with tempfile.TemporaryDirectory(prefix="mvl-bench-", dir=args.cache) as scratch:
                folder = Path(scratch) / "raw"
                write_source(folder, n_bytes, args.seed)
                name = f"{write_source.__name__.removeprefix('write_large_')} {n_bytes / 1e9:g} GB"
                summaries[name] = summarize_runs(
                    [measure_peak(kind, folder, args.cache)], n_bytes, has_images=kind != "text"
                )
    print_table("memory by file", summaries)
    return summaries


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=["jpeg", "parquet", "text"], choices=["jpeg", "parquet", "text"])
    parser.add_argument("--peers", type=Path, help="an interpreter that has datasets, daft and pillow")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "mvl-bench-ingest")
    parser.add_argument("--memory", action="store_true", help="measure only peak memory at two numbers of rows")
    parser.add_argument("--large", action="store_true", help="measure only peak memory at two file sizes")
    parser.add_argument("--large-gb", type=float, nargs=2, default=[0.2, 4.0], metavar="GB")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--case", choices=(*OWN_CASES, *PEER_CASES), help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--raw", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--lake", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case is not None:
        print(json.dumps(measure_case(args.case, args.kind, args.raw, args.lake)), flush=True)
        os._exit(0)  # Daft's threads now and then abort an orderly exit
    args.cache.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPYCACHEPREFIX"] = str(args.cache / "bytecode")
    from importlib.metadata import version

    result: dict[str, Any] = {
        "benchmark": "ingest",
        **{name: getattr(args, name) for name in ("rows", "seed", "repeats")},
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    print(", ".join(f"{name} {package_version}" for name, package_version in result["versions"].items()))
    if args.memory:
        result["memory"] = measure_memory_by_rows(args)
    if args.large:
        result["large"] = measure_memory_by_file_size(args)
    if not (args.memory or args.large):
        result["sources"] = compare_cases(args)
    if args.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
