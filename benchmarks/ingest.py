"""Ingest of three sources of many rows, beside the floor on this machine and beside other libraries.

    python benchmarks/ingest.py [--rows 20000] [--repeats 1] [--peers PYTHON] [--memory] [--large] [--json]

Sources, in the layouts of the miniatures (`ingest_data`): `jpeg`, LLaVA JSON with a file a row; `parquet`, LLaVA
Parquet with the same pictures inside; `text`, LLaVA lines of 1 kB. Each case runs in a process of its own, by turns:

  ingest         `ingest_source` into an empty lake
  again          the same once more: nothing is new
  floor          what any of it has to do: read the same bytes once, sha256, header and full decode with Pillow (text:
                 sha256 and `json.loads`) in as many threads as ingest uses, and append them to a bare Lance table in
                 batches of 64 MB. No ids, no checks, no fsync
  datasets, daft the same reading, decoding and writing by other libraries (`ingest_peers`), where `--peers` names an
                 interpreter that has them

`x2` is two processes at the same time with half of the rows each, as two sources of a run are. Imports are part of
every case. Rows, MB (of the source's files) and pictures a second are of wall time; `cpu_ms_per_row` covers all threads
of a case, and `share_of_floor_per_core` is the floor's of these to the case's own, because other work on a machine
disturbs processor time least. `peak_rss_mb` is the largest of the processes'. `times` compares ingest's rows a second
with each peer's, in as many processes.

`--memory` instead: peaks of 10,000 and of 200,000 text rows. `--large` instead: peaks of one JSON array, one tar of
pictures and one Parquet file with pictures, of 0.2 and of 4 GB each (`--large-gb`; needs twice that on disk). With
`--json` the last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
OURS = ("ingest", "again", "floor")
PEERS = ("datasets", "daft")
PACKAGES = ("pylance", "pyarrow", "pillow", "numpy", "ImageHash")
BATCH = 64 << 20


# One case, in a process of its own


def measure(case: str, kind: str, raw: Path, out: Path) -> dict[str, float]:
    """Wall and processor seconds, peak memory (MB) and rows of one case."""
    begun = time.perf_counter()
    if case in PEERS:
        import ingest_peers

        rows = ingest_peers.run(case, kind, raw, out)
    elif case in ("ingest", "again"):
        rows = ingest(kind, raw, out)
    else:
        rows = floor(kind, raw, out)
    return {
        "wall": time.perf_counter() - begun,
        "cpu": time.process_time(),
        "peak_rss_mb": peak(),
        "rows": rows,
    }


def peak() -> float:
    """MB. Not `ru_maxrss`, which begins with what the parent held when it forked."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) / 1024


def ingest(kind: str, raw: Path, out: Path) -> int:
    from mvl_assets.config.catalog import SourceSpec
    from mvl_assets.ingest.ingest import ingest_source
    from mvl_assets.lake.lake import Lake

    format: Any = "llava_parquet" if kind == "parquet" else "llava_json"
    spec = SourceSpec(
        slug="bench", title="Bench", category="general", group="A", modality="single_image", format=format
    )
    report = ingest_source(Lake(str(out / "lake")), spec, raw, run_id="bench")
    assert not report.rejects, report
    return report.rows


def pictures(kind: str, raw: Path) -> Iterator[bytes]:
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


def lines(raw: Path) -> Iterator[bytes]:
    for path in sorted(raw.glob("*.jsonl")):
        with path.open("rb") as file:
            yield from file


def floor(kind: str, raw: Path, out: Path) -> int:
    import hashlib
    from concurrent.futures import ThreadPoolExecutor

    import lance
    import pyarrow as pa
    from PIL import Image

    def look(data: bytes) -> bytes:
        hashlib.sha256(data).digest()
        image = Image.open(io.BytesIO(data), formats=("JPEG",))
        assert image.size == (640, 480)
        image.load()
        return data

    def talk(line: bytes) -> Any:
        hashlib.sha256(line).digest()
        return json.loads(line)["conversations"]

    rows = 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for held in _held(lines(raw) if kind == "text" else pictures(kind, raw)):
            names = pa.array([str(rows + n) for n in range(len(held))])
            if kind == "text":
                table = pa.table({"name": names, "talk": pa.array([talk(line) for line in held])})
            else:
                schema = pa.schema([("name", pa.string()), lance.blob_field("bytes")])
                table = pa.table([names, lance.blob_array(list(pool.map(look, held)))], schema=schema)
            lance.write_dataset(table, str(out / "bare.lance"), mode="append")
            rows += len(held)
    return rows


def _held(found: Iterator[bytes]) -> Iterator[list[bytes]]:
    held: list[bytes] = []
    size = 0
    for data in found:
        held.append(data)
        size += len(data)
        if size >= BATCH:
            yield held
            held, size = [], 0
    if held:
        yield held


# Many cases by turns


def once(case: str, kind: str, folders: list[Path], lakes: list[Path], peers: Path | None) -> dict[str, float]:
    """A case over the folders, one process each at the same time."""
    begun = time.perf_counter()
    running = []
    python = str(peers) if case in PEERS else sys.executable
    for folder, lake in zip(folders, lakes, strict=True):
        lake.mkdir(parents=True, exist_ok=True)
        command = [python, str(HERE), "--case", case, "--kind", kind, "--raw", str(folder), "--lake", str(lake)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    said = [process.communicate()[0] for process in running]
    for process in running:
        if process.returncode:
            raise SystemExit(f"{case} of {kind} ended with {process.returncode}")
    found = [json.loads(text.splitlines()[-1]) for text in said]
    wall = max(f["wall"] for f in found) if len(found) == 1 else time.perf_counter() - begun
    rows = sum(f["rows"] for f in found)
    return {
        "wall": wall,
        "cpu": sum(f["cpu"] for f in found),
        "peak_rss_mb": max(f["peak_rss_mb"] for f in found),
        "rows": rows,
    }


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Every case of every kind, in one and in two processes, by turns."""
    import ingest_data

    cases = OURS if args.peers is None else (*OURS, *PEERS)
    results: dict[str, Any] = {}
    for kind in args.kinds:
        split = {n: ingest_data.source_at(args.cache, kind, args.rows, args.seed, n) for n in (1, 2)}
        size = ingest_data.size_of(split[1][0])
        found: dict[str, list[dict[str, float]]] = {}
        for _ in range(args.repeats):
            for processes, folders in split.items():
                with tempfile.TemporaryDirectory(prefix="mvl-bench-", dir=args.cache) as scratch:
                    for case in cases:
                        shared = "ingest" if case == "again" else case
                        lakes = [Path(scratch) / f"{shared}-{part}" for part in range(processes)]
                        took = once(case, kind, folders, lakes, args.peers)
                        found.setdefault(f"{case} x{processes}", []).append(took)
                        if case != "ingest":
                            for lake in lakes:
                                shutil.rmtree(lake)
        lines = {name: summary(runs, size, pictures=kind != "text") for name, runs in found.items()}
        for name, line in lines.items():
            least = lines[f"floor x{name[-1]}"]["cpu_ms_per_row"]
            line["share_of_floor_per_core"] = round(least / line["cpu_ms_per_row"], 2)
        show(kind, lines)
        times = {
            f"{peer} x{n}": round(lines[f"ingest x{n}"]["rows_per_s"] / lines[f"{peer} x{n}"]["rows_per_s"], 2)
            for peer in cases[len(OURS) :]
            for n in split
        }
        results[kind] = {"cases": lines, "times": times}
    return results


def summary(runs: list[dict[str, float]], size: int, pictures: bool) -> dict[str, float]:
    wall, cpu = sorted(r["wall"] for r in runs), statistics.median(r["cpu"] for r in runs)
    middle, rows = statistics.median(wall), runs[0]["rows"]
    return {
        "rows": rows,
        "rows_per_s": round(rows / middle, 1),
        "mb_per_s": round(size / 1e6 / middle, 1),
        "pictures_per_s": round(rows / middle, 1) if pictures else 0.0,
        "cpu_ms_per_row": round(1000 * cpu / rows, 3),
        "seconds": round(middle, 2),
        "seconds_min": round(wall[0], 2),
        "seconds_max": round(wall[-1], 2),
        "peak_rss_mb": round(max(r["peak_rss_mb"] for r in runs), 1),
    }


def show(title: str, lines: dict[str, Any]) -> None:
    columns = [name for name in next(iter(lines.values())) if name != "rows"]
    print(f"\n{title:18}" + "".join(f"{name.removesuffix('_per_core'):>16}" for name in columns))
    for name, line in lines.items():
        print(f"{name:18}" + "".join(f"{line[column]:>16}" for column in columns), flush=True)


def peak_of(kind: str, folder: Path, cache: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mvl-bench-", dir=cache) as scratch:
        return once("ingest", kind, [folder], [Path(scratch) / "lake"], None)


def memory(args: argparse.Namespace) -> dict[str, Any]:
    """Peaks of 10,000 and 200,000 text rows, of which all but what the format asks for should be the same."""
    import ingest_data

    found = {}
    for rows in (10_000, 200_000):
        (folder,) = ingest_data.source_at(args.cache, "text", rows, args.seed, 1)
        size = ingest_data.size_of(folder)
        found[f"text {rows}"] = summary([peak_of("text", folder, args.cache)], size, pictures=False)
    show("memory by rows", found)
    return found


def large(args: argparse.Namespace) -> dict[str, Any]:
    """Peaks of the same kind of file at two sizes."""
    import ingest_data

    found = {}
    makers = {"text": ingest_data.large_array, "jpeg": ingest_data.large_tar, "parquet": ingest_data.large_parquet}
    for kind, make in makers.items():
        for size in (int(gb * 1e9) for gb in args.large_gb):
            with tempfile.TemporaryDirectory(prefix="mvl-bench-", dir=args.cache) as scratch:
                folder = Path(scratch) / "raw"
                make(folder, size, args.seed)
                name = f"{make.__name__.removeprefix('large_')} {size / 1e9:g} GB"
                found[name] = summary([peak_of(kind, folder, args.cache)], size, pictures=kind != "text")
    show("memory by file", found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=["jpeg", "parquet", "text"], choices=["jpeg", "parquet", "text"])
    parser.add_argument("--peers", type=Path, help="an interpreter that has datasets, daft and pillow")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "mvl-bench-ingest")
    parser.add_argument("--memory", action="store_true", help="only the peaks at two numbers of rows")
    parser.add_argument("--large", action="store_true", help="only the peaks at two sizes of file")
    parser.add_argument("--large-gb", type=float, nargs=2, default=[0.2, 4.0], metavar="GB")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--case", choices=(*OURS, *PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--raw", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--lake", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case is not None:
        print(json.dumps(measure(args.case, args.kind, args.raw, args.lake)))
        return
    args.cache.mkdir(parents=True, exist_ok=True)
    from importlib.metadata import version

    result: dict[str, Any] = {
        "benchmark": "ingest",
        **{name: getattr(args, name) for name in ("rows", "seed", "repeats")},
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    print(", ".join(f"{name} {number}" for name, number in result["versions"].items()))
    if args.memory:
        result["memory"] = memory(args)
    if args.large:
        result["large"] = large(args)
    if not (args.memory or args.large):
        result["sources"] = compare(args)
    if args.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
