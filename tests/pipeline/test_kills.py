"""kill -9 of a run that rewrites and judges, at seeded points, with a logging proxy between it and the model server.

The points count forwarded requests, so they do not depend on the machine's speed. The proxy's journal is the oracle:
what was asked twice must have been in flight at a kill, or finished within the last second before it.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from mvl_assets.common.free_port import find_free_port
from mvl_assets.config.catalog import get_source
from mvl_assets.config.profile import load_profile
from mvl_assets.config.prompts import PROMPTS_DIR, load_prompts
from mvl_assets.config.settings import PROJECT_ROOT
from mvl_assets.demo_data.write import write_demo_sources
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.testing.proxy import JournalEntry, count_requests, read_journal
from mvl_assets.ingest.categorise import categorise_source
from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.judging.judge import JudgeStage
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.plan import plan_stage
from mvl_assets.rewriting.rewrite import RewriteStage
from tests.kills import PIPELINE_KILLS
from tests.patience import PATIENCE_S
from tests.servers import FakeProcess, vllm_server, wait_for

__all__ = ["vllm_server"]

SLUG, CATEGORY = "chartqa_cauldron_llava_format", "chart"
SAMPLES, CRITERIA = 8, 3
REQUESTS = SAMPLES + SAMPLES * CRITERIA
KILLS = 5
AT_ONCE = 2
# A flush every second, and the commit itself, on a machine that may do much else.
UNSTORED_S = 30.0


@dataclass(frozen=True)
class Kill:
    """When a client was killed, and when the last words it had spoken were certainly in the journal."""

    at: float
    over: float


@dataclass
class Stage:
    """A lake with one drawn source that is ready to be rewritten, and what a client process of it needs."""

    folder: Path
    model: dict[str, Any]
    kills: list[Kill] = field(default_factory=list)
    proxy_health: str = ""

    @property
    def lake(self) -> Lake:
        return Lake(str(self.folder / "lake"))

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    @property
    def environment(self) -> dict[str, str]:
        names = {"MVL_HOME": ".", "MVL_LAKE": "lake", "MVL_PROFILE": "profile.yaml", "MVL_PROMPTS": "prompts"}
        return os.environ | {name: str(self.folder / place) for name, place in names.items()}

    def prepare(self, patch: pytest.MonkeyPatch) -> None:
        for name, value in self.environment.items():
            if name.startswith("MVL_"):
                patch.setenv(name, value)
        self.folder.mkdir()
        write_demo_sources(self.folder / "raw", [SLUG], n_rows=SAMPLES + 1, seed=0)
        ingest_source(self.lake, get_source(SLUG), self.folder / "raw" / SLUG, run_id="run")
        assert categorise_source(self.lake, get_source(SLUG), run_id="run").n_rows == SAMPLES
        short_prompts(self.folder / "prompts" / "small")

    @contextmanager
    def proxied(self, upstream: str) -> Iterator[None]:
        """The proxy between, and a profile that names it."""
        port = find_free_port()
        words = ["--upstream", upstream.removesuffix("/v1"), "--port", str(port), "--journal", str(self.journal)]
        proxy = subprocess.Popen([sys.executable, "-m", "mvl_assets.inference.testing.proxy", *words], cwd=PROJECT_ROOT)
        model = self.model | {"revision": "1", "base_urls": [f"http://127.0.0.1:{port}/v1"], "concurrency": AT_ONCE}
        roles = dict.fromkeys(("caption", "rewrite", "judge"), "one")
        profile = {"name": "test", "models": {"one": model}, "roles": roles, "prompts": "small", "score_rows": 0}
        profile["keep"] = {"rule": "p_yes >= 0"}
        (self.folder / "profile.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
        self.proxy_health = f"http://127.0.0.1:{port}/health"
        try:
            wait_for(self.proxy_health)
            yield
        finally:
            proxy.kill()
            proxy.wait()

    def run(self) -> None:
        """A client that is never killed."""
        done = subprocess.run(
            self.command, cwd=PROJECT_ROOT, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert done.returncode == 0, done.stderr

    def run_and_kill(self, after: int, server: FakeProcess | None = None) -> None:
        """A client that is killed when so many requests have been forwarded in all, but at least one of its own.

        With `server`, that dies first and is started again for the next client.
        """
        after = max(after, self.forwarded() + 1)
        client = subprocess.Popen(
            self.command, cwd=PROJECT_ROOT, env=self.environment, stderr=subprocess.PIPE, text=True
        )
        try:
            deadline = time.monotonic() + PATIENCE_S
            while self.forwarded() < after:
                assert client.poll() is None, client.communicate()[1]
                assert time.monotonic() < deadline
                time.sleep(0.002)
        finally:
            killed_at = time.time()
            if server is not None:
                server.kill()
            client.kill()
            client.communicate()
            if server is not None:
                server.start()
            # What it had sent may still lie between it and the proxy, which answers in turn.
            wait_for(self.proxy_health)
            self.kills.append(Kill(killed_at, time.time()))

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "tests.pipeline.client", SLUG]

    def forwarded(self) -> int:
        return sum(count_requests(self.journal).values())

    def rows(self, stage: str) -> list[dict[str, Any]]:
        return list(self.lake.get_table(f"{stage}/{CATEGORY}").iter_rows())

    def keys(self) -> set[str]:
        """The requests whose answers the final rows are made of."""
        judged = {verdict["request_key"] for row in self.rows("judged") for verdict in row["verdicts"]}
        return judged | {row["request_key"] for row in self.rows("rewritten")}


def short_prompts(folder: Path) -> None:
    """The chart prompts for small models, with answers of a few tokens: one short pair, always the likeliest."""
    folder.mkdir(parents=True)
    for name in ("rewrite_chart.md", "judge_general.md"):
        _, front, template = (PROMPTS_DIR / "small" / name).read_text(encoding="utf-8").split("---\n", 2)
        data = yaml.safe_load(front)
        data["sampling"]["temperature"] = 0.0
        if data["output"] == "json":
            pairs = data["schema"]["properties"]["pairs"]
            pairs["minItems"] = pairs["maxItems"] = 1
            pairs["items"]["properties"]["question"]["maxLength"] = 24
            pairs["items"]["properties"]["answer"]["maxLength"] = 16
        (folder / name).write_text(f"---\n{yaml.safe_dump(data)}---\n{template}", encoding="utf-8")


def asked_again_for_no_reason(entries: Sequence[JournalEntry], kills: Sequence[Kill]) -> list[str]:
    """Requests that were asked again although their answer had come back long enough before the kill between."""
    history: dict[str, list[JournalEntry]] = defaultdict(list)
    for entry in entries:
        history[entry.digest].append(entry)
    wrong = []
    for digest, seen in history.items():
        questions = [entry.timestamp for entry in seen if entry.event == "received"]
        for before, after in pairwise(questions):
            between = [kill for kill in kills if before <= kill.over and kill.at <= after]
            answered = [
                entry.timestamp for entry in seen if entry.event == "answered" and before <= entry.timestamp <= after
            ]
            if not between or any(at < between[0].at - UNSTORED_S for at in answered):
                wrong.append(digest)
    return wrong


def kill_and_go_on(stage: Stage, seed: int, server: FakeProcess | None = None) -> None:
    """Every third kill takes the server with it, where it can be started again."""
    points = sorted(random.Random(seed).sample(range(1, REQUESTS), KILLS))
    for number, point in enumerate(points):
        stage.run_and_kill(point, server if number % 3 == seed % 3 else None)
    stage.run()
    entries = list(read_journal(stage.journal))
    assert asked_again_for_no_reason(entries, stage.kills) == [], points
    again = sum(count - 1 for count in count_requests(stage.journal).values())
    # In flight at each kill, and what a second of a model this fast has finished: never everything.
    assert again < len(entries) / 2


def assert_complete(stage: Stage, patch: pytest.MonkeyPatch) -> None:
    """Every sample is rewritten, every rewrite judged, every answer stored once, and nothing is left to send."""
    rewritten, judged = stage.rows("rewritten"), stage.rows("judged")
    assert len({row["sample_id"] for row in rewritten}) == len(rewritten) == SAMPLES
    assert {row["rewrite_id"] for row in judged} == {row["rewrite_id"] for row in rewritten}
    assert stage.lake.get_table("rejects").count("stage <> 'raw'") == 0
    for name, value in stage.environment.items():
        if name.startswith("MVL_"):
            patch.setenv(name, value)
    profile = load_profile(str(stage.folder / "profile.yaml"))
    prompts = load_prompts(profile=profile)
    stages = [kind(stage.lake, get_source(SLUG), profile, prompts=prompts) for kind in (RewriteStage, JudgeStage)]
    plans = [plan for one in stages for plan in plan_stage(stage.lake, one)]
    assert [(plan.requested, plan.to_send) for plan in plans] == [(SAMPLES, 0), (SAMPLES * CRITERIA, 0)]
    stored = [
        row["request_key"]
        for s in ("rewritten", "judged")
        for b in stage.lake.get_answer_log(s, SLUG).scan()
        for row in b.to_pylist()
    ]
    assert len(stored) == len(set(stored)) == REQUESTS
    assert set(stored) == stage.keys()


@pytest.mark.parametrize("seed", [20241206 + number for number in range(-(-PIPELINE_KILLS // KILLS))])
def test_kills_against_a_fake_server_repeat_only_requests_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    with FakeProcess("--latency-ms", "120") as server:
        undisturbed = Stage(tmp_path / "undisturbed", {"name": "fake", "supports_images": True})
        undisturbed.prepare(monkeypatch)
        with undisturbed.proxied(server.base_url):
            undisturbed.run()
        assert_complete(undisturbed, monkeypatch)
        assert set(count_requests(undisturbed.journal).values()) == {1} and undisturbed.forwarded() == REQUESTS
        killed = Stage(tmp_path / "killed", undisturbed.model)
        killed.prepare(monkeypatch)
        with killed.proxied(server.base_url):
            kill_and_go_on(killed, seed, server)
        assert_complete(killed, monkeypatch)
        assert count_requests(killed.journal).keys() == count_requests(undisturbed.journal).keys()
        assert killed.keys() == undisturbed.keys()


@pytest.mark.server
def test_kills_against_the_real_server_repeat_only_requests_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vllm_server: Endpoint
) -> None:
    stages = []
    for name in ("undisturbed", "killed"):
        stage = Stage(tmp_path / name, {"name": vllm_server.model, "supports_images": False})
        stage.prepare(monkeypatch)
        with stage.proxied(vllm_server.base_url):
            if name == "killed":
                kill_and_go_on(stage, seed=20241206)
            else:
                stage.run()
        assert_complete(stage, monkeypatch)
        stages.append(stage)
    undisturbed, killed = stages
    # What the judge is asked holds the rewriter's words, which a real server may choose differently in other company.
    assert {r["request_key"] for r in killed.rows("rewritten")} == {
        r["request_key"] for r in undisturbed.rows("rewritten")
    }


def test_only_requests_in_flight_at_a_kill_may_be_repeated() -> None:
    def journal(*lines: tuple[str, float]) -> list[JournalEntry]:
        return [JournalEntry(event, "a", at, None) for event, at in lines]

    in_flight = journal(("received", 1.0), ("received", 60.0), ("answered", 70.0))
    just_finished = journal(("received", 1.0), ("answered", 45.0), ("received", 60.0), ("answered", 70.0))
    long_finished = journal(("received", 1.0), ("answered", 2.0), ("received", 60.0), ("answered", 70.0))
    kill = Kill(50.0, 50.1)
    assert asked_again_for_no_reason(in_flight, [kill]) == []
    assert asked_again_for_no_reason(just_finished, [kill]) == []
    assert asked_again_for_no_reason(long_finished, [kill]) == ["a"]
    assert asked_again_for_no_reason(in_flight, []) == ["a"]
    assert asked_again_for_no_reason(in_flight, [Kill(80.0, 80.1)]) == ["a"]
