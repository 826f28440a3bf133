"""Overlap of rewriting and judging in `mvl run` over eight equal partitions, with two fake model servers.

    python benchmarks/overlap.py --rows 200 --json

Each stage has its own server; both are equally slow, or the judge is `--judge-slower` times slower. The partitions are
rewritten and judged in two runs, and again in one run. The last line is one JSON object: seconds of each, and
`allowed_s`, which is 110% of the slower stage plus one of its partitions.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from mvl_assets.common.free_port import find_free_port
from mvl_assets.config.catalog import load_catalog
from mvl_assets.demo_data.recipes import RECIPES

sys.path.insert(0, str(Path(__file__).parent))
from engine import wait_until_reachable

N_PARTITIONS = 8
# Families with one request per sample, for which the fake server's answer gives one rewrite.
FAMILIES = ("general", "chart", "ocr", "domain", "detection")
N_CRITERIA = 3
COMMAND = (sys.executable, "-c", "from mvl_assets.cli import main; main()")


def select_sources() -> list[str]:
    matching_sources = [
        slug
        for slug, spec in load_catalog().items()
        if spec.group == "B" and spec.family in FAMILIES and slug in RECIPES
    ]
    return matching_sources[:N_PARTITIONS]


class MvlHome:
    """A folder with a profile, in which `mvl` commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run_mvl(self, *arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MVL_", "DAGSTER_"))}
        environment |= {"MVL_HOME": str(self.folder), "MVL_PROFILE": str(self.folder / "profile.yaml")}
        process = subprocess.run(
            [*COMMAND, *arguments], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if process.returncode:
            raise SystemExit(process.stdout + process.stderr)
        return process.stdout

    def measure_stages(self, *arguments: str) -> dict[str, float]:
        """Return the seconds of each stage of a run."""
        output = self.run_mvl("run", *arguments)
        print(output, file=sys.stderr)
        return {stage: float(s) for stage, s in re.findall(r"^-- (\w+): .*, ([\d.]+) s$", output, re.MULTILINE)}


def build_profile(urls: dict[str, str], slots_by_model: dict[str, int]) -> dict[str, Any]:
    models = {
        name: {
            "name": name,
            "revision": "1",
            "supports_images": False,
            "base_urls": [url],
            "concurrency": 2 * slots_by_model[name],
        }
        for name, url in urls.items()
    }
    return {
        "name": "overlap",
        "models": models,
        "roles": {"caption": "rewriter", "rewrite": "rewriter", "judge": "judge"},
        "keep": {"rule": "p_yes >= 0.1"},
        "recipe": "demo",
    }


def run_benchmark(options: argparse.Namespace, folder: Path, stack: ExitStack) -> dict[str, Any]:
    slots_by_model = {"rewriter": options.slots, "judge": options.slots * N_CRITERIA}
    latency_ms = {"rewriter": options.latency_ms, "judge": options.latency_ms * options.judge_slower}
    urls_by_model = {}
    for name in slots_by_model:
        port = find_free_port()
        command = [sys.executable, "-m", "mvl_assets.inference.testing.fake_server", "--port", str(port)]
        command += ["--slots", str(slots_by_model[name]), "--latency-ms", str(latency_ms[name])]
        server = subprocess.Popen(command)
        stack.callback(server.kill)
        wait_until_reachable(f"http://127.0.0.1:{port}/health")
        urls_by_model[name] = f"http://127.0.0.1:{port}/v1"
    sequential_home = MvlHome(folder / "apart")
    sequential_home.folder.mkdir()
    text = yaml.safe_dump(build_profile(urls_by_model, slots_by_model))
    (sequential_home.folder / "profile.yaml").write_text(text, encoding="utf-8")
    source_arguments = [argument for slug in select_sources() for argument in ("--source", slug)]
    sequential_home.run_mvl("demo-data", *source_arguments, "--rows", str(options.rows))
    sequential_home.run_mvl("run", *source_arguments, "--until", "category")
    pipelined_home = MvlHome(folder / "together")
    shutil.copytree(sequential_home.folder, pipelined_home.folder, symlinks=True)
    rewriting_s = sequential_home.measure_stages(*source_arguments, "--until", "rewritten")["rewritten"]
    judging_s = sequential_home.measure_stages(*source_arguments, "--until", "judged")["judged"]
    stage_seconds = pipelined_home.measure_stages(*source_arguments, "--until", "judged")
    slower_s = max(rewriting_s, judging_s)
    return {
        "partitions": N_PARTITIONS,
        "rows": options.rows,
        "rewriting_s": rewriting_s,
        "judging_s": judging_s,
        "both_s": round(stage_seconds["rewritten"] + stage_seconds["judged"], 1),
        "allowed_s": round(slower_s * (1.1 + 1 / N_PARTITIONS), 1),
        "sequential_s": round(rewriting_s + judging_s, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="overlap of rewriting and judging")
    parser.add_argument("--rows", type=int, default=200, help="rows per partition")
    parser.add_argument("--slots", type=int, default=8, help="requests the rewriter works on at a time")
    parser.add_argument("--latency-ms", type=float, default=500.0)
    parser.add_argument("--judge-slower", type=float, default=1.0)
    parser.add_argument("--json", action="store_true", help="only the last line")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mvl-overlap-"))
    try:
        with ExitStack() as stack:
            results = run_benchmark(options, folder, stack)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not options.json:
        for name, value in results.items():
            print(f"{name:>24}  {value}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
