"""Drives the real engine, durable commits included, against any OpenAI-compatible URL and prints its cost per row.

    python benchmarks/engine.py --base-url http://127.0.0.1:8000/v1 --rows 2000 --concurrency 64 --json

Without --base-url it starts the project's fake server (in processes of their own, `--latency-ms`, default 50). The CPU
time per row is the difference between a run of `rows` and one of a third of them, so start-up cancels out. The last
line is one JSON object: rows_per_s, cpu_ms_per_row (this process), peak_rss_mb, bytes_per_row, requests_sent, and what
it was run with.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.progress import Outcome
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.lake.lake import Lake

PICTURES = 32
PICTURE_BYTES = 83_000


def requests_of(rows: int, images: Sequence[str], run: str) -> Iterator[Request]:
    model = ModelRef("fake", run)
    for row in range(rows):
        text = f"Question {row}: what is {row} times {row + 1}? Answer with one sentence and show your work. " * 3
        content: str | list[dict[str, str]] = text
        if images:
            content = [{"type": "image", "image": images[row % len(images)]}, {"type": "text", "text": text}]
        yield Request(
            messages=({"role": "user", "content": content},),
            model=model,
            sampling={"temperature": 0, "max_tokens": 128},
            prompt="benchmark",
            prompt_hash="0" * 32,
        )


def make_pictures() -> dict[str, bytes]:
    """JPEGs of about 83 kB: noise over a gradient, cut to size by the quality setting."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    made = {}
    for i in range(PICTURES):
        ramp = np.linspace(0, 200, 640)[None, :, None] * np.ones((480, 1, 3))
        pixels = (ramp + rng.integers(0, 40, (480, 640, 3))).astype(np.uint8)
        for quality in range(95, 20, -3):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
            if buffer.tell() <= PICTURE_BYTES:
                break
        made[f"{i:032x}"] = buffer.getvalue()
    return made


def run_once(
    rows: int, endpoints: Sequence[Endpoint], pictures: Mapping[str, bytes], folder: Path
) -> tuple[Outcome, float, float]:
    """(outcome, CPU seconds of this process, bytes stored)."""
    log = Lake(str(folder)).answers("benchmark", "rows")
    before = time.process_time()
    outcome = answer_all(
        requests_of(rows, sorted(pictures), folder.name),
        endpoints=endpoints,
        log=log,
        pictures=lambda ids: {i: pictures[i] for i in ids},
    )
    cpu = time.process_time() - before
    stored = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if outcome.failures or outcome.answered != rows:
        raise SystemExit(f"not every row was answered: {outcome.failures[:3]}")
    return outcome, cpu, stored


def measure(options: argparse.Namespace, base_urls: Sequence[str]) -> dict[str, object]:
    pictures = make_pictures() if options.images else {}
    share = max(1, options.concurrency // len(base_urls))
    endpoints = [
        Endpoint(url, options.model, start_concurrency=share, max_concurrency=share, seeds_sampling=False)
        for url in base_urls
    ]
    folder = Path(tempfile.mkdtemp(prefix="mvl-benchmark-", dir=options.folder))
    few = max(1, options.rows // 3)
    try:
        # Imports, the table's code paths and the connections are warm after this.
        run_once(min(64, few), endpoints, pictures, folder / "warm")
        _, cpu_few, _ = run_once(few, endpoints, pictures, folder / "few")
        outcome, cpu_all, stored = run_once(options.rows, endpoints, pictures, folder / "all")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "rows_per_s": round(options.rows / outcome.seconds, 1),
        "cpu_ms_per_row": round(1000 * (cpu_all - cpu_few) / max(1, options.rows - few), 4),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "bytes_per_row": round(stored / options.rows, 1),
        "requests_sent": outcome.sent,
        "rows": options.rows,
        "concurrency": options.concurrency,
        "endpoints": len(base_urls),
        "images": options.images,
        "seconds": round(outcome.seconds, 3),
        "load_average": round(os.getloadavg()[0], 2),
    }


@contextmanager
def fake_servers(count: int, latency_ms: float) -> Iterator[list[str]]:
    ports = [free_port() for _ in range(count)]
    command = [sys.executable, "-m", "mvl_assets.inference.fake_server", "--latency-ms", str(latency_ms), "--port"]
    servers = [subprocess.Popen([*command, str(port)]) for port in ports]
    try:
        for port in ports:
            wait_for(f"http://127.0.0.1:{port}/health")
        yield [f"http://127.0.0.1:{port}/v1" for port in ports]
    finally:
        for server in servers:
            server.kill()
            server.wait()


def wait_for(url: str) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{url} does not answer")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base-url", action="append", default=[], help="repeat for several endpoints of one model")
    parser.add_argument("--model", default="fake")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=64, help="over all endpoints")
    parser.add_argument("--images", action="store_true", help="one 83 kB JPEG per row")
    parser.add_argument("--endpoints", type=int, default=1, help="fake servers to start, or lanes to one --base-url")
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--folder", type=Path, help="where the benchmark's lake lies; default: the system's")
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    options = parser.parse_args()
    if options.base_url:
        urls = options.base_url if len(options.base_url) > 1 else options.base_url * options.endpoints
        result = measure(options, urls)
    else:
        with fake_servers(options.endpoints, options.latency_ms) as urls:
            result = measure(options, urls)
    if not options.json:
        for name, value in result.items():
            print(f"{name:>16}  {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
