"""Time of `mvl view`'s pages over 10,000 to a million judged pairs, and its memory.

    python benchmarks/view.py --rows 10000 100000 1000000

A lake of synthetic pairs is made for each size: seven categories, a question and an answer of 600 characters with some
Markdown and LaTeX, three criteria; one of 21 sources is rewritten and not judged. The server is a process of its own on
loopback; a page is everything between sending a request and having read the answer, medians of `--repeats` requests,
each of a filter that was never asked before. `index` is made once for each state of the lake and read by every later
start (`start`, up to the first page). `_cpu` is what the server computed for it, per request. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mvl_assets.common.free_port import find_free_port
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CATEGORY, JUDGED, REWRITTEN, SAMPLES

SEED = 20241206
CATEGORIES = ("caption", "chart", "code_math", "detection", "domain", "general", "ocr")
SOURCES_PER_CATEGORY = 3
BATCH_ROWS = 20_000
WORDS = [f"word{number}" for number in range(2000)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--fill", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        fill_lake(Lake(str(options.fill)), options.rows[0])
        return
    results = []
    for n_rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="mvl-view-") as folder:
            home = Path(folder)
            arguments = [sys.executable, __file__, "--rows", str(n_rows), "--fill", str(home / "lake")]
            subprocess.run(arguments, check=True)
            results.append({"rows": n_rows, **measure(home, options.repeats)})
        print(json.dumps(results[-1]), flush=True)
    packages = {name: version(name) for name in ("pylance", "duckdb", "starlette", "uvicorn")}
    print(json.dumps({"sizes": results, "packages": packages, "load": os.getloadavg()[0], "cpus": os.cpu_count()}))


def measure(home: Path, repeats: int) -> dict[str, float]:
    """Start the server twice, with and without an index, and ask it for pages. Times are seconds."""
    with serving(home) as (ask, _, started_at):
        while ask("/")[0] == 503:
            time.sleep(0.05)
        times = {"index": time.monotonic() - started_at}
    with serving(home) as (ask, process, started_at):
        status = ask("/")[0]
        while status == 503:
            status = ask("/")[0]
        times["start"] = time.monotonic() - started_at
        requests = {
            "first_page": [f"/?seed={n}" for n in range(repeats)],
            "filter": [f"/?category=chart&category=ocr&p_yes_min={0.3 + n / 100}" for n in range(repeats)],
            "sorted": [f"/?sort=p_yes&p_yes_max={0.9 - n / 100}" for n in range(repeats)],
            "condition": [f"/?where=p_yes%20%3C%200.{n + 2}%20AND%20NOT%20keep" for n in range(repeats)],
            "facets": [f"/facets?keep=true&p_yes_min={0.4 + n / 100}" for n in range(repeats)],
            "words": [f"/?category=chart&q=word{n}%20word{n + 1}" for n in range(2)],
            "rendered": [f"/?rendered=1&seed={n}" for n in range(repeats)],
            "overview": ["/overview"],
        }
        for name, paths in requests.items():
            cpu_before = read_cpu_seconds(process)
            answers = [ask(path) for path in paths]
            assert all(status == 200 for status, _, _ in answers), name
            times[name] = statistics.median(seconds for _, _, seconds in answers)
            times[f"{name}_cpu"] = (read_cpu_seconds(process) - cpu_before) / len(paths)
        next_pages = iter_next_pages(ask, 4 * repeats)
        next(next_pages)
        cpu_before = read_cpu_seconds(process)
        next_times = [seconds for _, _, seconds in next_pages]
        times["next_page"] = statistics.median(next_times)
        times["next_page_cpu"] = (read_cpu_seconds(process) - cpu_before) / len(next_times)
        judged_id = re.findall(r'data-id="([0-9a-f]{32})"', ask("/")[1])[3]
        times["pair"] = ask(f"/pair/{judged_id}")[2]
        times["lineage"] = ask(f"/pair/{judged_id}/lineage")[2]
        status_text = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        peak_mb = int(status_text.split("VmHWM:")[1].split()[0]) / 1024
    size_mb = sum(file.stat().st_size for file in (home / "view").glob("*.duckdb")) / 1e6
    return {name: round(value, 4) for name, value in times.items()} | {
        "peak_mb": round(peak_mb),
        "index_mb": round(size_mb, 1),
    }


def read_cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """Seconds that the server has computed, which another load of the machine does not change."""
    fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def iter_next_pages(ask: Any, count: int) -> Iterator[tuple[int, str, float]]:
    """Yield the answers of one page after the other, as scrolling asks for them."""
    _, html, _ = ask("/?category=chart&sort=p_yes&desc=1")
    for _ in range(count):
        more = re.search(r'data-rows="([^"]+)"', html)
        assert more
        answer = ask(more.group(1).replace("&amp;", "&"))
        html = answer[1]
        yield answer


class serving:
    """`mvl view` on a free port: a function that asks it, its process, and when that was started."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, find_free_port()

    def __enter__(self) -> tuple[Any, subprocess.Popen[bytes], float]:
        started_at = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mvl_assets.cli", "view", "--port", str(self.port)],
            env=os.environ | {"MVL_HOME": str(self.home), "MVL_LAKE": str(self.home / "lake")},
            stdout=subprocess.DEVNULL,
        )
        while self.process.poll() is None:
            try:
                self.ask("/status")
                return self.ask, self.process, started_at
            except OSError:
                time.sleep(0.02)
        raise SystemExit("the server does not start")

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait()

    def ask(self, path: str) -> tuple[int, str, float]:
        begun_at = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", path)
        response = connection.getresponse()
        html = response.read().decode()
        connection.close()
        return response.status, html, time.perf_counter() - begun_at


def fill_lake(lake: Lake, n_rows: int) -> None:
    for number, category in enumerate(CATEGORIES):
        for nth in range(SOURCES_PER_CATEGORY):
            n_parts = len(CATEGORIES) * SOURCES_PER_CATEGORY
            part = number * SOURCES_PER_CATEGORY + nth
            count = n_rows * (part + 1) // n_parts - n_rows * part // n_parts
            source = f"source_{part}"
            for name, spec in (
                ("samples", SAMPLES),
                (f"category/{category}", CATEGORY),
                (f"rewritten/{category}", REWRITTEN),
                (f"judged/{category}", JUDGED),
            ):
                if name == "judged/ocr" and nth == 0:
                    continue
                batches = (
                    build_batch(spec.columns, category, source, range(start, min(start + BATCH_ROWS, count)))
                    for start in range(0, count, BATCH_ROWS)
                )
                lake.get_table(name).publish(batches, source)


def build_batch(schema: pa.Schema, category: str, source: str, numbers: range) -> pa.Table:
    """Rows of one of the four tables; columns that no page looks at are null."""
    n_rows = len(numbers)
    rng = np.random.default_rng([SEED, zlib.crc32(source.encode()), numbers.start])
    p_yes = rng.random(n_rows).round(4)
    texts = [f"{' '.join(rng.choice(WORDS, 70))} **so** $x^{{2}} + \\frac{{1}}{{2}}$" for _ in range(50)]
    licenses = rng.choice(["cc-by-4.0", "apache-2.0", "unknown"], n_rows)
    references = [(True, False, None)[choice] for choice in rng.integers(0, 3, n_rows)]

    def repeat(value: Any) -> list[Any]:
        return [value] * n_rows

    def draw_ids(kind: str) -> list[str]:
        digits = (
            np.random.default_rng([zlib.crc32(f"{source} {kind}".encode()), numbers.start]).bytes(16 * n_rows).hex()
        )
        return [digits[start : start + 32] for start in range(0, len(digits), 32)]

    def build_turns() -> pa.Array:
        texts_of_turns = [
            text for number in numbers for text in (f"What is {number}?", f"{texts[number % 50]} {number}")
        ]
        fields = [pa.array(["human", "gpt"] * n_rows), pa.array(texts_of_turns)]
        return pa.ListArray.from_arrays(
            np.arange(0, 2 * n_rows + 1, 2, dtype=np.int32), pa.StructArray.from_arrays(fields, ["from", "value"])
        )

    def build_verdicts() -> pa.Array:
        values = np.repeat(p_yes, 3)
        fields = {
            "criterion": pa.array(["relevance", "consistency", "accuracy"] * n_rows),
            "request_key": pa.array(["0" * 32] * (3 * n_rows)),
            "verdict": pa.array(values >= 0.5),
            "p_yes": pa.array(values),
            "p_yes_from": pa.array(["logprobs"] * (3 * n_rows)),
            "vote_keys": pa.nulls(3 * n_rows, pa.list_(pa.string())),
        }
        return pa.ListArray.from_arrays(
            np.arange(0, 3 * n_rows + 1, 3, dtype=np.int32),
            pa.StructArray.from_arrays(list(fields.values()), list(fields)),
        )

    columns: dict[str, Callable[[], Any]] = {
        "sample_id": lambda: draw_ids("sample"),
        "version_id": lambda: draw_ids("version"),
        "rewrite_id": lambda: draw_ids("rewrite"),
        "judged_id": lambda: draw_ids("judged"),
        "source": lambda: repeat(source),
        "category": lambda: repeat(category),
        "family": lambda: repeat(category),
        "revision": lambda: repeat(1),
        "withdrawn": lambda: repeat(False),
        "file": lambda: repeat("rows.parquet"),
        "position": lambda: list(numbers),
        "conversations": build_turns,
        "modality": lambda: repeat("single_image"),
        "license": lambda: licenses,
        "n_chars": lambda: repeat(600),
        "n_images": lambda: repeat(1),
        "holdout_hash": lambda: [number * 7919 for number in numbers],
        "prompt": lambda: repeat(f"rewrite_{category}"),
        "prompt_hash": lambda: repeat(f"{zlib.crc32(category.encode()):032x}"),
        "request_key": lambda: draw_ids("request"),
        "ordinal": lambda: repeat(0),
        "model": lambda: repeat("a model of 72B"),
        "blind": lambda: repeat(False),
        "p_yes": lambda: p_yes,
        "all_yes": lambda: p_yes >= 0.5,
        "matches_reference": lambda: references,
        "keep": lambda: p_yes >= 0.6,
        "drop_reason": lambda: [None if p >= 0.6 else "low_p_yes" if p >= 0.5 else "no_accuracy" for p in p_yes],
        "keep_rule": lambda: repeat("all_yes and p_yes >= 0.6"),
        "verdicts": build_verdicts,
        # Digests of rows take longer than all else here, and no page reads them.
        "row_hash": lambda: draw_ids("hash"),
    }
    return pa.table(
        {
            field.name: pa.array(columns[field.name](), field.type)
            if field.name in columns and not pa.types.is_list(field.type)
            else columns[field.name]()
            if field.name in columns
            else pa.nulls(n_rows, field.type)
            for field in [*schema, pa.field("row_hash", pa.string())]
        }
    )


if __name__ == "__main__":
    main()
