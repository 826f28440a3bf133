"""Cost of a row in the inference engine, durable commits included, against any OpenAI-compatible URL.

    python benchmarks/engine.py --base-url http://127.0.0.1:8000/v1 --rows 3000 --concurrency 64 --json

Without --base-url the project's fake server is started in processes of its own (`--latency-ms`, default 50). The CPU
time per row is the difference between a run of all rows and one of a third of them, so start-up cancels out. The last
line is one JSON object: rows_per_s, cpu_ms_per_row (this process), peak_rss_mb, bytes_per_row, requests_sent, and the
settings. Two options measure something else and put other figures into it:

    --prefill N   time until a new process sends its first request when N answers are stored: with the stored requests
                  offered first (all must be built and looked up), and with a new one offered first
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

from peak_memory import read_peak_rss_mb

from mvl_assets.common.free_port import find_free_port
from mvl_assets.inference.client.transport import Transport
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.progress import RunOutcome
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import Answer

SEED = 20241206
PACKAGES = ("aiohttp", "pylance", "pyarrow", "numpy")
N_IMAGES = 32
TARGET_IMAGE_BYTES = 83_000
FAULTS = ("429=0.05", "malformed=0.01", "hang=0.01")
FAULT_REPETITIONS = 3
STORE_BATCH_SIZE = 5_000


def iter_requests(first_row: int, n_rows: int, image_ids: Sequence[str]) -> Iterator[Request]:
    model = ModelRef("fake", "1")
    for row in range(first_row, first_row + n_rows):
        text = f"Question {row}: what is {row} times {row + 1}? Answer with one sentence and show your work. " * 3
        content: str | list[dict[str, str]] = text
        if image_ids:
            content = [{"type": "image", "image": image_ids[row % len(image_ids)]}, {"type": "text", "text": text}]
        yield Request(
            messages=({"role": "user", "content": content},),
            model=model,
            sampling={"temperature": 0, "max_tokens": 128},
            prompt_name="benchmark",
            prompt_hash="0" * 32,
        )


def build_images() -> dict[str, bytes]:
    """Return JPEGs of at most 83 kB by id: noise over a gradient, at the highest quality of that size."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(SEED)
    images_by_id = {}
    for i in range(N_IMAGES):
        ramp = np.linspace(0, 200, 640)[None, :, None] * np.ones((480, 1, 3))
        pixels = (ramp + rng.integers(0, 40, (480, 640, 3))).astype(np.uint8)
        for quality in range(95, 20, -3):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
            if buffer.tell() <= TARGET_IMAGE_BYTES:
                break
        images_by_id[f"{i:032x}"] = buffer.getvalue()
    return images_by_id


def run_once(
    requests: Iterator[Request], endpoints: Sequence[Endpoint], images: Mapping[str, bytes], folder: Path
) -> tuple[RunOutcome, float, int]:
    """Return the outcome, CPU seconds of this process, and bytes stored."""
    log = Lake(str(folder)).get_answer_log("benchmark", "rows")
    cpu_start = time.process_time()
    outcome = answer_all(
        requests,
        endpoints=endpoints,
        log=log,
        fetch_images=lambda ids: {i: images[i] for i in ids},
    )
    cpu_s = time.process_time() - cpu_start
    stored_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if outcome.failures or outcome.answered + outcome.cache_hits != outcome.requested:
        raise SystemExit(f"not every row was answered: {outcome.failures[:3]}")
    return outcome, cpu_s, stored_bytes


def measure_throughput(options: argparse.Namespace, endpoints: Sequence[Endpoint], folder: Path) -> dict[str, Any]:
    images = build_images() if options.images else {}
    image_ids = sorted(images)
    n_few = max(1, options.rows // 3)
    # Warms imports, the table's code paths and connections.
    run_once(iter_requests(0, min(64, n_few), image_ids), endpoints, images, folder / "warm")
    _, cpu_few_s, _ = run_once(iter_requests(0, n_few, image_ids), endpoints, images, folder / "few")
    outcome, cpu_all_s, stored_bytes = run_once(
        iter_requests(0, options.rows, image_ids), endpoints, images, folder / "all"
    )
    return {
        "rows_per_s": round(options.rows / outcome.elapsed_s, 1),
        "cpu_ms_per_row": round(1000 * (cpu_all_s - cpu_few_s) / max(1, options.rows - n_few), 4),
        "peak_rss_mb": round(read_peak_rss_mb(), 1),
        "bytes_per_row": round(stored_bytes / options.rows, 1),
        "requests_sent": outcome.attempts_sent,
        "seconds": round(outcome.elapsed_s, 3),
    }


# -- a restart with many stored answers --------------------------------------------------------------------------------


def measure_restart(options: argparse.Namespace, endpoints: Sequence[Endpoint], folder: Path) -> dict[str, Any]:
    """Measure in new processes, as after a kill; times count from the start of a process, imports included."""
    store_answers_for_rows(folder / "restart", options.prefill)
    results: dict[str, Any] = {"prefill": options.prefill}
    for order in ("new_first", "stored_first"):
        command = [sys.executable, __file__, "--restart", order, "--prefill", str(options.prefill)]
        command += ["--folder", str(folder / "restart")]
        command += [argument for endpoint in endpoints for argument in ("--base-url", endpoint.base_url)]
        started_at = time.time()
        process = subprocess.run(command, check=True, capture_output=True, text=True)
        child_report = json.loads(process.stdout.splitlines()[-1])
        results[f"first_request_s_{order}"] = round(child_report["first_request_at"] - started_at, 3)
        results[f"restart_peak_rss_mb_{order}"] = child_report["peak_rss_mb"]
    return results


def run_restart(options: argparse.Namespace, endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Request 64 new rows and all stored ones; runs in a process of `measure_restart`."""
    first_request_times: list[float] = []
    original_send = Transport.send_request

    async def record_first_request(self: Transport, *args: Any) -> Any:
        if not first_request_times:
            first_request_times.append(time.time())
        return await original_send(self, *args)

    Transport.send_request = record_first_request  # type: ignore[method-assign]
    new_first = options.restart == "new_first"
    new_requests = iter_requests(options.prefill * (2 if new_first else 1), 64, [])

    def iter_all_requests() -> Iterator[Request]:
        if not new_first:
            yield from iter_requests(0, options.prefill, [])
        yield from new_requests

    outcome, _, _ = run_once(iter_all_requests(), endpoints, {}, options.folder)
    assert outcome.attempts_sent == 64, outcome
    return {"first_request_at": first_request_times[0], "peak_rss_mb": round(read_peak_rss_mb(), 1)}


def store_answers_for_rows(folder: Path, n_rows: int) -> None:
    """Store answers to the first `n_rows` requests."""
    store_answers(Lake(str(folder)).get_answer_log("benchmark", "rows"), iter_requests(0, n_rows, []))


def store_answers(log: AnswerLog, requests: Iterator[Request]) -> None:
    """Store an answer to each request, as a run of the engine does."""
    created_at = dt.datetime(2024, 12, 6, tzinfo=dt.UTC)
    with log:
        while batch := list(islice(requests, STORE_BATCH_SIZE)):
            log.append(
                [
                    Answer(
                        request_key=request.key,
                        source=log.source,
                        stage=log.stage,
                        model=request.model.name,
                        model_revision=request.model.revision,
                        prompt=request.prompt_name,
                        prompt_hash=request.prompt_hash,
                        text=f"answer {request.key}",
                        finish_reason="stop",
                        prompt_tokens=50,
                        completion_tokens=20,
                        first_token_logprobs=None,
                        latency_s=0.05,
                        attempts=1,
                        run_id="",
                        created_at=created_at,
                    )
                    for request in batch
                ]
            )
        log.maintain()


# -- faults ------------------------------------------------------------------------------------------------------------


def measure_faults(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure the same rows with and without faults, interleaved; no row may be lost."""
    concurrency = options.concurrency
    rates: dict[str, list[float]] = {"clean": [], "faulty": []}
    for repetition in range(FAULT_REPETITIONS):
        for name, faults in (("clean", ()), ("faulty", FAULTS)):
            with start_fake_servers(1, options.latency_ms, faults) as urls:
                endpoints = [
                    Endpoint(urls[0], options.model, start_concurrency=concurrency, max_concurrency=concurrency)
                ]
                run_dir = folder / f"{name}-{repetition}"
                outcome, _, _ = run_once(iter_requests(0, options.rows, []), endpoints, {}, run_dir)
            rates[name].append(options.rows / outcome.elapsed_s)
    clean, faulty = (statistics.median(rates[name]) for name in ("clean", "faulty"))
    return {
        "faults": list(FAULTS),
        "rows_per_s_clean": round(clean, 1),
        "rows_per_s_with_faults": round(faulty, 1),
        "share_of_clean": round(faulty / clean, 3),
        "requests_sent_with_faults": outcome.attempts_sent,
        "repetitions": FAULT_REPETITIONS,
    }


# -- servers and the process -------------------------------------------------------------------------------------------


@contextmanager
def start_fake_servers(count: int, latency_ms: float, faults: Sequence[str] = ()) -> Iterator[list[str]]:
    ports = [find_free_port() for _ in range(count)]
    command = [sys.executable, "-m", "mvl_assets.inference.testing.fake_server", "--latency-ms", str(latency_ms)]
    command += ["--seed", str(SEED), *(argument for fault in faults for argument in ("--fault", fault))]
    servers = [subprocess.Popen([*command, "--port", str(port)]) for port in ports]
    try:
        for port in ports:
            wait_until_reachable(f"http://127.0.0.1:{port}/health")
        yield [f"http://127.0.0.1:{port}/v1" for port in ports]
    finally:
        for server in servers:
            server.kill()
            server.wait()


def wait_until_reachable(url: str) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{url} does not answer")


def run_benchmark(options: argparse.Namespace, base_urls: Sequence[str]) -> dict[str, Any]:
    concurrency = max(1, options.concurrency // len(base_urls))
    endpoints = [
        Endpoint(url, options.model, start_concurrency=concurrency, max_concurrency=concurrency, supports_seed=False)
        for url in base_urls
    ]
    if options.restart:
        return run_restart(options, endpoints)
    folder = Path(tempfile.mkdtemp(prefix="mvl-benchmark-", dir=options.folder))
    try:
        if options.faults:
            figures = measure_faults(options, folder)
        elif options.prefill:
            figures = measure_restart(options, endpoints, folder)
        else:
            figures = measure_throughput(options, endpoints, folder)
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
    parser.add_argument("--endpoints", type=int, default=1, help="fake servers, or connections to one --base-url")
    parser.add_argument("--latency-ms", type=float, default=50.0, help="of the fake server")
    parser.add_argument("--prefill", type=int, default=0, metavar="N", help="time a restart with N stored answers")
    parser.add_argument("--faults", action="store_true", help="compare with a faulty fake server")
    parser.add_argument("--folder", type=Path, help="folder for the benchmark's lake; default: the system's")
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--restart", choices=("new_first", "stored_first"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.base_url:
        urls = options.base_url if len(options.base_url) > 1 else options.base_url * options.endpoints
        result = run_benchmark(options, urls)
    else:
        with start_fake_servers(options.endpoints, options.latency_ms) as urls:
            result = run_benchmark(options, urls)
    if not options.json:
        for name, value in result.items():
            print(f"{name:>32}  {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
