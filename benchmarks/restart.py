"""Time until a restarted rewriting sends its first new request, with many stored answers.

    python benchmarks/restart.py --stored 1000000 --json

A lake gets one text source of `--stored` samples with an answer each, and 64 more samples. A new process then rewrites
the source against a fake server, as `mvl run` does; the time counts from the start of the process and includes imports
and the index of stored answers. The floor is the imports. The last line is one JSON object; times are in seconds.
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

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import Profile
from mvl_assets.inference.client.transport import Transport
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CATEGORY, SAMPLES
from mvl_assets.rewriting.rewrite import RewriteStage, rewrite_source

sys.path.insert(0, str(Path(__file__).parent))
from engine import start_fake_servers, store_answers
from peak_memory import read_peak_rss_mb

N_NEW_SAMPLES = 64
ROWS_PER_TABLE = 20_000
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
            "fake": {"name": "fake", "revision": "1", "supports_images": False, "base_urls": ["http://127.0.0.1:9/v1"]}
        },
        "roles": dict.fromkeys(("caption", "rewrite", "judge"), "fake"),
        "keep": {"rule": "all_yes"},
    }
)


def build_samples_table(first_number: int, n_samples: int) -> pa.Table:
    rows = []
    for number in range(first_number, first_number + n_samples):
        turns = [
            {"from": "human", "value": f"What is {number} times {number + 1}?"},
            {"from": "gpt", "value": str(number * (number + 1))},
        ]
        sample_id = compute_digest(SOURCE.slug, number)
        rows.append(
            {
                "version_id": compute_digest(sample_id, 1),
                "sample_id": sample_id,
                "source": SOURCE.slug,
                "revision": 1,
                "withdrawn": False,
                "conversations": turns,
                "image_ids": [],
            }
        )
    return pa.Table.from_pylist(rows, schema=SAMPLES.columns)


def publish_samples(lake: Lake, n_samples: int) -> None:
    """Publish the source with `n_samples` samples, in the samples and in its category."""

    def iter_sample_tables() -> Iterator[pa.Table]:
        for first in range(0, n_samples, ROWS_PER_TABLE):
            yield build_samples_table(first, min(ROWS_PER_TABLE, n_samples - first))

    def iter_category_tables() -> Iterator[pa.Table]:
        for sample_table in iter_sample_tables():
            rows = sample_table.select(["sample_id", "version_id", "source"]).to_pylist()
            category_fields = {"category": SOURCE.category, "group": "B", "family": SOURCE.family, "n_turns": 2}
            yield pa.Table.from_pylist([row | category_fields for row in rows], schema=CATEGORY.columns)

    lake.get_table("samples").publish(iter_sample_tables(), SOURCE.slug)
    lake.get_table(f"category/{SOURCE.category}").publish(iter_category_tables(), SOURCE.slug)


def store_answers_for_source(lake: Lake) -> None:
    """Store an answer to each request of the source."""
    stage = RewriteStage(lake, SOURCE, PROFILE)
    store_answers(
        lake.get_answer_log(stage.name, stage.source),
        (chain.request for row in stage.iter_requests(stage.models[0]) for chain in row.chains),
    )


def run_restart(folder: Path, base_url: str) -> None:
    """Print when the first request is sent, and exit; runs in a process of `measure_restart`."""
    original_send = Transport.send_request

    async def report_first_request(self: Transport, *args: Any) -> Any:
        print(json.dumps({"at": time.time(), "peak_rss_mb": round(read_peak_rss_mb(), 1)}), flush=True)
        os._exit(0)
        return await original_send(self, *args)

    Transport.send_request = report_first_request  # type: ignore[method-assign, assignment]
    endpoints = [Endpoint(base_url, "fake", start_concurrency=64)]
    rewrite_source(Lake(str(folder)), SOURCE, PROFILE, run_id="benchmark", endpoints=endpoints)


def measure_restart(n_stored: int, repetitions: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mvl-restart-") as folder, start_fake_servers(1, 50.0) as (base_url,):
        lake = Lake(folder)
        publish_samples(lake, n_stored)
        store_answers_for_source(lake)
        publish_samples(lake, n_stored + N_NEW_SAMPLES)
        command = [sys.executable, __file__, "--lake", folder, "--base-url", base_url]
        times, peaks = [], []
        for _ in range(repetitions):
            started_at = time.time()
            process = subprocess.run(command, check=True, capture_output=True, text=True)
            child_report = json.loads(process.stdout.splitlines()[-1])
            times.append(child_report["at"] - started_at)
            peaks.append(child_report["peak_rss_mb"])
    return {
        "stored": n_stored,
        "first_request_s": round(statistics.median(times), 3),
        "peak_rss_mb": statistics.median(peaks),
        "repetitions": repetitions,
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stored", type=int, default=3000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--lake", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--base-url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lake:
        run_restart(options.lake, options.base_url)
        return
    result = measure_restart(options.stored, options.repetitions)
    if not options.json:
        for name, value in result.items():
            print(f"{name:>32}  {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
