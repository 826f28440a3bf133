"""A server that does everything wrong that servers do: every sample is a rewrite or a reject, and never both."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mvl_assets.config.catalog import get_source
from mvl_assets.config.profile import Profile
from mvl_assets.demo_data.write import write_demo_sources
from mvl_assets.inference.testing.fake_server import FakeServerConfig
from mvl_assets.ingest.categorise import categorise_source
from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.lake.lake import Lake
from mvl_assets.rewriting.rewrite import rewrite_source
from tests.servers import serving

SLUG, CATEGORY, SAMPLES = "chartqa_cauldron_llava_format", "chart", 40
PASSING = ("429", "429_bare", "429_date", "500", "502", "503", "reset", "html", "malformed")
UNREADABLE = ("schema", "white_space", "length", "lone_surrogate", "400")
FAULTS = dict.fromkeys(PASSING, 0.03) | dict.fromkeys(UNREADABLE, 0.06)


def test_every_sample_ends_as_a_rewrite_or_as_a_reject(lake: Lake, tmp_path: Path) -> None:
    source = get_source(SLUG)
    write_demo_sources(tmp_path / "raw", [SLUG], n_rows=SAMPLES + 1, seed=0)
    ingest_source(lake, source, tmp_path / "raw" / SLUG, run_id="run")
    categorise_source(lake, source, run_id="run")
    samples = {row["sample_id"] for row in lake.get_table(f"category/{CATEGORY}").iter_rows(["sample_id"])}
    with serving(FakeServerConfig(latency_s=0.01, fault_rates=FAULTS, retry_after_s=0.1)) as (server, endpoint):
        model = {"name": "fake", "revision": "1", "supports_images": True, "base_urls": [endpoint.base_url]}
        roles = dict.fromkeys(("caption", "rewrite", "judge"), "one")
        profile = Profile.model_validate({"name": "test", "models": {"one": model}, "roles": roles, "prompts": "small"})
        report = rewrite_source(lake, source, profile, run_id="run", endpoints=[endpoint])
    assert len([fault for fault, count in server.fault_counts.items() if count]) > len(FAULTS) // 2
    rewritten = {row["sample_id"] for row in lake.get_table(f"rewritten/{CATEGORY}").iter_rows(["sample_id"])}
    rejects = [row for row in lake.get_table("rejects").iter_rows() if row["stage"] == "rewritten"]
    rejected = Counter(row["row_key"] for row in rejects)
    assert rewritten | rejected.keys() == samples
    assert not rewritten & rejected.keys()
    assert set(rejected.values()) <= {1}
    assert rejected.keys(), "some samples met an answer that cannot be read twice, or a refusal"
    assert sum(report.rejects_by_error.values()) == len(rejects)
    stored = lake.get_answer_log("rewritten", SLUG)
    keys = [row["request_key"] for batch in stored.scan(["request_key"]) for row in batch.to_pylist()]
    assert len(keys) == len(set(keys))
