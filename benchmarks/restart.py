"""How soon a restarted rewriting sends its first new request beside many stored answers.

    python benchmarks/restart.py --stored 1000000 --json

A lake gets one text source of `--stored` samples with an answer each, and 64 samples more. A process of its own then
rewrites the source against a fake server, as `mvl run` does: everything from its start counts, imports and the index
of the stored answers included. The floor is the imports. The last line is one JSON object; times are seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from mvl_assets.common.digest import digest_hex
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import load_prompts
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.transport import Transport
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import CATEGORY, SAMPLES
from mvl_assets.model_stage.client import model_ref
from mvl_assets.rewriting.requests import asks_for
from mvl_assets.rewriting.rewrite import STAGE, rewrite_source

sys.path.insert(0, str(Path(__file__).parent))
from engine import fake_servers, peak_mb, store

NEW = 64
BATCH = 20_000
SOURCE = SourceSpec.model_validate(
    {
        "slug": "stored",
        "title": "Stored",
        "group": "B",
        "modality": "text",
        "format": "llava_json",
        "category": "code_math",
        "family": "math",
    }
)
PROFILE = Profile.model_validate(
    {
        "name": "benchmark",
        "models": {
            "fake": {"name": "fake", "revision": "1", "sees_images": False, "base_urls": ["http://127.0.0.1:9/v1"]}
        },
        "roles": dict.fromkeys(("caption", "rewrite", "judge"), "fake"),
        "keep": {"rule": "all_yes"},
    }
)


def samples(first: int, count: int) -> pa.Table:
    rows = []
    for number in range(first, first + count):
        turns = [
            {"from": "human", "value": f"What is {number} times {number + 1}?"},
            {"from": "gpt", "value": str(number * (number + 1))},
        ]
        sample_id = digest_hex(SOURCE.slug, number)
        rows.append(
            {
                "version_id": digest_hex(sample_id, 1),
                "sample_id": sample_id,
                "source": SOURCE.slug,
                "revision": 1,
                "withdrawn": False,
                "conversations": turns,
                "image_ids": [],
            }
        )
    return pa.Table.from_pylist(rows, schema=SAMPLES.columns)


def put(lake: Lake, count: int) -> None:
    """Makes `count` samples all there is of the source, in the samples and in its category."""

    def pages() -> Iterator[pa.Table]:
        for first in range(0, count, BATCH):
            yield samples(first, min(BATCH, count - first))

    def placed() -> Iterator[pa.Table]:
        for page in pages():
            rows = page.select(["sample_id", "version_id", "source"]).to_pylist()
            more = {"category": SOURCE.category, "group": "B", "family": SOURCE.family, "n_turns": 2}
            yield pa.Table.from_pylist([row | more for row in rows], schema=CATEGORY.columns)

    lake.table("samples").publish(pages(), SOURCE.slug)
    lake.table(f"category/{SOURCE.category}").publish(placed(), SOURCE.slug)


def answer(lake: Lake) -> None:
    """Stores an answer to each request the source makes."""
    prompt, model = load_prompts()["rewrite_math"], model_ref(PROFILE.model_for("rewrite"))
    asked = asks_for(lake, SOURCE, prompt, model, None)
    store(lake.answers(STAGE, SOURCE.slug), (ask.request for _, asks in asked for ask in asks))


def restart(folder: Path, base_url: str) -> None:
    """The measured process: prints when it sends its first request, and ends there."""
    ask = Transport.ask

    async def noted(self: Transport, *given: Any) -> Any:
        print(json.dumps({"at": time.time(), "peak_rss_mb": round(peak_mb(), 1)}), flush=True)
        os._exit(0)
        return await ask(self, *given)

    Transport.ask = noted  # type: ignore[method-assign, assignment]
    endpoints = [Endpoint(base_url, "fake", start_concurrency=64)]
    rewrite_source(Lake(str(folder)), SOURCE, PROFILE, run_id="benchmark", endpoints=endpoints)


def measure(stored: int, turns: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mvl-restart-") as folder, fake_servers(1, 50.0) as (base_url,):
        lake = Lake(folder)
        put(lake, stored)
        answer(lake)
        put(lake, stored + NEW)
        command = [sys.executable, __file__, "--lake", folder, "--base-url", base_url]
        times, peaks = [], []
        for _ in range(turns):
            started = time.time()
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            said = json.loads(done.stdout.splitlines()[-1])
            times.append(said["at"] - started)
            peaks.append(said["peak_rss_mb"])
    return {
        "stored": stored,
        "first_request_s": round(statistics.median(times), 3),
        "peak_rss_mb": statistics.median(peaks),
        "turns": turns,
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stored", type=int, default=3000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--lake", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--base-url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lake:
        restart(options.lake, options.base_url)
        return
    result = measure(options.stored, options.turns)
    if not options.json:
        for name, value in result.items():
            print(f"{name:>32}  {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
