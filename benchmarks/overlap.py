"""How much of the judging hides behind the rewriting: `mvl run` over eight equal partitions and two fake model servers.

    python benchmarks/overlap.py --rows 200 --json

Each stage has a server of its own, as slow as the other (`--judge-slower` makes the judge so many times slower). The
partitions are rewritten alone, judged alone, and then both in one run. The last line is one JSON object: seconds of
each, and `allowed`, which is 110% of the slower one and one of its partitions.
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

from mvl_assets.config.catalog import load_catalog
from mvl_assets.demo_data.recipes import RECIPES

sys.path.insert(0, str(Path(__file__).parent))
from engine import free_port, wait_for

PARTITIONS = 8
# One request per sample, and by the fake server's answers one rewrite.
FAMILIES = ("general", "chart", "ocr", "domain", "detection")
CRITERIA = 3
COMMAND = (sys.executable, "-c", "from mvl_assets.cli import main; main()")


def sources() -> list[str]:
    fitting = [
        s for s, spec in load_catalog().items() if spec.group == "B" and spec.family in FAMILIES and s in RECIPES
    ]
    return fitting[:PARTITIONS]


class Home:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mvl(self, *words: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MVL_", "DAGSTER_"))}
        environment |= {"MVL_HOME": str(self.folder), "MVL_PROFILE": str(self.folder / "profile.yaml")}
        done = subprocess.run(
            [*COMMAND, *words], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        return done.stdout

    def seconds(self, *words: str) -> dict[str, float]:
        """Of each stage of a run."""
        said = self.mvl("run", *words)
        print(said, file=sys.stderr)
        return {stage: float(s) for stage, s in re.findall(r"^-- (\w+): .*, ([\d.]+) s$", said, re.MULTILINE)}


def profile(urls: dict[str, str], slots: dict[str, int]) -> dict[str, Any]:
    models = {
        name: {"name": name, "revision": "1", "sees_images": False, "base_urls": [url], "concurrency": 2 * slots[name]}
        for name, url in urls.items()
    }
    return {
        "name": "overlap",
        "models": models,
        "roles": {"caption": "rewriter", "rewrite": "rewriter", "judge": "judge"},
        "keep": {"rule": "p_yes >= 0.1"},
        "recipe": "demo",
    }


def run(options: argparse.Namespace, folder: Path, stack: ExitStack) -> dict[str, Any]:
    slots = {"rewriter": options.slots, "judge": options.slots * CRITERIA}
    latency_ms = {"rewriter": options.latency_ms, "judge": options.latency_ms * options.judge_slower}
    urls = {}
    for name in slots:
        port = free_port()
        command = [sys.executable, "-m", "mvl_assets.inference.testing.fake_server", "--port", str(port)]
        command += ["--slots", str(slots[name]), "--latency-ms", str(latency_ms[name])]
        server = subprocess.Popen(command)
        stack.callback(server.kill)
        wait_for(f"http://127.0.0.1:{port}/health")
        urls[name] = f"http://127.0.0.1:{port}/v1"
    home = Home(folder / "apart")
    home.folder.mkdir()
    text = yaml.safe_dump(profile(urls, slots))
    (home.folder / "profile.yaml").write_text(text, encoding="utf-8")
    chosen = [word for slug in sources() for word in ("--source", slug)]
    home.mvl("demo-data", *chosen, "--rows", str(options.rows))
    home.mvl("run", *chosen, "--until", "category")
    together = Home(folder / "together")
    shutil.copytree(home.folder, together.folder, symlinks=True)
    rewriting = home.seconds(*chosen, "--until", "rewritten")["rewritten"]
    judging = home.seconds(*chosen, "--until", "judged")["judged"]
    both = together.seconds(*chosen, "--until", "judged")
    slower = max(rewriting, judging)
    return {
        "partitions": PARTITIONS,
        "rows": options.rows,
        "rewriting_s": rewriting,
        "judging_s": judging,
        "both_s": round(both["rewritten"] + both["judged"], 1),
        "allowed_s": round(slower * (1.1 + 1 / PARTITIONS), 1),
        "one_after_the_other_s": round(rewriting + judging, 1),
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
            found = run(options, folder, stack)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not options.json:
        for name, value in found.items():
            print(f"{name:>24}  {value}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
