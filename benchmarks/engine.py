"""Drives the real engine, durable commits included, against any OpenAI-compatible URL and prints what a row costs.

    python benchmarks/engine.py --base-url http://127.0.0.1:8000/v1 --rows 3000 --concurrency 64 --json

Without --base-url it starts the project's fake server (in processes of its own, `--latency-ms`, default 50). The CPU
time per row is the difference between a run of `rows` and one of a third of them, so start-up cancels out. The last
line is one JSON object: rows_per_s, cpu_ms_per_row (this process), peak_rss_mb, bytes_per_row, requests_sent, and what
it was run with. Two more things it measures, each with figures of its own in that object:

    --prefill N   how soon a new process sends its first request when N answers are stored already: with the stored
                  requests offered first (all must be built and looked up), and with a new one offered first
    --faults      the same rows from a server without faults and from one with 5% 429, 1% malformed and 1% hanging
"""

from __future__ import annotations

import argparse
import datetime as dt
import io
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.progress import Outcome
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.inference.transport import Transport
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import Answer

SEED = 20241206
PACKAGES = ("aiohttp", "pylance", "pyarrow", "numpy")
PICTURES = 32
PICTURE_BYTES = 83_000
FAULTS = ("429=0.05", "malformed=0.01", "hang=0.01")
FAULT_TURNS = 3
FILL_BATCH = 5_000


def requests_of(first: int, rows: int, images: Sequence[str]) -> Iterator[Request]:
    model = ModelRef("fake", "1")
    for row in range(first, first + rows):
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

    rng = np.random.default_rng(SEED)
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
    requests: Iterator[Request], endpoints: Sequence[Endpoint], pictures: Mapping[str, bytes], folder: Path
) -> tuple[Outcome, float, int]:
    """(outcome, CPU seconds of this process, bytes stored)."""
    log = Lake(str(folder)).answers("benchmark", "rows")
    before = time.process_time()
    outcome = answer_all(
        requests,
        endpoints=endpoints,
        log=log,
        pictures=lambda ids: {i: pictures[i] for i in ids},
    )
    cpu = time.process_time() - before
    stored = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if outcome.failures or outcome.answered + outcome.reused != outcome.wanted:
        raise SystemExit(f"not every row was answered: {outcome.failures[:3]}")
    return outcome, cpu, stored


def measure(options: argparse.Namespace, endpoints: Sequence[Endpoint], folder: Path) -> dict[str, Any]:
    pictures = make_pictures() if options.images else {}
    names = sorted(pictures)
    few = max(1, options.rows // 3)
    # Imports, the table's code paths and the connections are warm after this.
    run_once(requests_of(0, min(64, few), names), endpoints, pictures, folder / "warm")
    _, cpu_few, _ = run_once(requests_of(0, few, names), endpoints, pictures, folder / "few")
    outcome, cpu_all, stored = run_once(requests_of(0, options.rows, names), endpoints, pictures, folder / "all")
    return {
        "rows_per_s": round(options.rows / outcome.seconds, 1),
        "cpu_ms_per_row": round(1000 * (cpu_all - cpu_few) / max(1, options.rows - few), 4),
        "peak_rss_mb": round(peak_mb(), 1),
        "bytes_per_row": round(stored / options.rows, 1),
        "requests_sent": outcome.sent,
        "seconds": round(outcome.seconds, 3),
    }


# -- a restart beside many stored answers ------------------------------------------------------------------------------


def measure_restart(options: argparse.Namespace, endpoints: Sequence[Endpoint], folder: Path) -> dict[str, Any]:
    """Each run is a process of its own, as after a kill; times count from its start, imports included."""
    fill(folder / "restart", options.prefill)
    found: dict[str, Any] = {"prefill": options.prefill}
    for name in ("new_first", "stored_first"):
        command = [sys.executable, __file__, "--restart", name, "--prefill", str(options.prefill)]
        command += ["--folder", str(folder / "restart")]
        command += [word for endpoint in endpoints for word in ("--base-url", endpoint.base_url)]
        started = time.time()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        said = json.loads(done.stdout.splitlines()[-1])
        found[f"first_request_s_{name}"] = round(said["first_request_at"] - started, 3)
        found[f"restart_peak_rss_mb_{name}"] = said["peak_rss_mb"]
    return found


def restart(options: argparse.Namespace, endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The measured process: asks for 64 new rows, and for all that are stored."""
    asked: list[float] = []
    ask = Transport.ask

    async def noted(self: Transport, *given: Any) -> Any:
        if not asked:
            asked.append(time.time())
        return await ask(self, *given)

    Transport.ask = noted  # type: ignore[method-assign]
    new_first = options.restart == "new_first"
    new = requests_of(options.prefill * (2 if new_first else 1), 64, [])

    def both() -> Iterator[Request]:
        if not new_first:
            yield from requests_of(0, options.prefill, [])
        yield from new

    outcome, _, _ = run_once(both(), endpoints, {}, options.folder)
    assert outcome.sent == 64, outcome
    return {"first_request_at": asked[0], "peak_rss_mb": round(peak_mb(), 1)}


def fill(folder: Path, rows: int) -> None:
    """Stores answers to the first `rows` requests."""
    store(Lake(str(folder)).answers("benchmark", "rows"), requests_of(0, rows, []))


def store(log: AnswerLog, requests: Iterator[Request]) -> None:
    """Stores an answer to each request, as a run of the engine would have left them."""
    made = dt.datetime(2024, 12, 6, tzinfo=dt.UTC)
    with log:
        while batch := list(islice(requests, FILL_BATCH)):
            log.append(
                [
                    Answer(
                        request_key=request.key,
                        source=log.source,
                        stage=log.stage,
                        model=request.model.name,
                        model_revision=request.model.revision,
                        prompt=request.prompt,
                        prompt_hash=request.prompt_hash,
                        text=f"answer {request.key}",
                        finish_reason="stop",
                        prompt_tokens=50,
                        completion_tokens=20,
                        first_logprobs=None,
                        latency_s=0.05,
                        attempts=1,
                        run_id="",
                        created_at=made,
                    )
                    for request in batch
                ]
            )
        log.maintain()


# -- faults ------------------------------------------------------------------------------------------------------------


def measure_faults(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The same rows without and with faults, by turns; no row may be lost to them."""
    share = options.concurrency
    rates: dict[str, list[float]] = {"clean": [], "faulty": []}
    for turn in range(FAULT_TURNS):
        for name, faults in (("clean", ()), ("faulty", FAULTS)):
            with fake_servers(1, options.latency_ms, faults) as urls:
                endpoints = [Endpoint(urls[0], options.model, start_concurrency=share, max_concurrency=share)]
                where = folder / f"{name}-{turn}"
                outcome, _, _ = run_once(requests_of(0, options.rows, []), endpoints, {}, where)
            rates[name].append(options.rows / outcome.seconds)
    clean, faulty = (statistics.median(rates[name]) for name in ("clean", "faulty"))
    return {
        "faults": list(FAULTS),
        "rows_per_s_clean": round(clean, 1),
        "rows_per_s_with_faults": round(faulty, 1),
        "share_of_clean": round(faulty / clean, 3),
        "requests_sent_with_faults": outcome.sent,
        "turns": FAULT_TURNS,
    }


# -- servers and the process -------------------------------------------------------------------------------------------


def peak_mb() -> float:
    """Of this process alone; `getrusage` would begin with the size of the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


@contextmanager
def fake_servers(count: int, latency_ms: float, faults: Sequence[str] = ()) -> Iterator[list[str]]:
    ports = [free_port() for _ in range(count)]
    command = [sys.executable, "-m", "mvl_assets.inference.testing.fake_server", "--latency-ms", str(latency_ms)]
    command += ["--seed", str(SEED), *(word for fault in faults for word in ("--fault", fault))]
    servers = [subprocess.Popen([*command, "--port", str(port)]) for port in ports]
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


def run(options: argparse.Namespace, base_urls: Sequence[str]) -> dict[str, Any]:
    share = max(1, options.concurrency // len(base_urls))
    endpoints = [
        Endpoint(url, options.model, start_concurrency=share, max_concurrency=share, seeds_sampling=False)
        for url in base_urls
    ]
    if options.restart:
        return restart(options, endpoints)
    folder = Path(tempfile.mkdtemp(prefix="mvl-benchmark-", dir=options.folder))
    try:
        if options.faults:
            figures = measure_faults(options, folder)
        elif options.prefill:
            figures = measure_restart(options, endpoints, folder)
        else:
            figures = measure(options, endpoints, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return figures | {
        "rows": options.rows,
        "concurrency": options.concurrency,
        "endpoints": len(base_urls),
        "images": options.images,
        "seed": SEED,
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", action="append", default=[], help="repeat for several endpoints of one model")
    parser.add_argument("--model", default="fake", help="the name the server knows")
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--concurrency", type=int, default=64, help="over all endpoints")
    parser.add_argument("--images", action="store_true", help="one 83 kB JPEG per row")
    parser.add_argument("--endpoints", type=int, default=1, help="fake servers to start, or lanes to one --base-url")
    parser.add_argument("--latency-ms", type=float, default=50.0, help="of the fake server")
    parser.add_argument("--prefill", type=int, default=0, metavar="N", help="time a restart beside N stored answers")
    parser.add_argument("--faults", action="store_true", help="compare with a faulty fake server")
    parser.add_argument("--folder", type=Path, help="where the benchmark's lake lies; default: the system's")
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--restart", choices=("new_first", "stored_first"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.base_url:
        urls = options.base_url if len(options.base_url) > 1 else options.base_url * options.endpoints
        result = run(options, urls)
    else:
        with fake_servers(options.endpoints, options.latency_ms) as urls:
            result = run(options, urls)
    if not options.json:
        for name, value in result.items():
            print(f"{name:>32}  {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
