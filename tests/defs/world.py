"""A small lake for the tests of the graph: two sources of one category, its own prompts, a fake model server.

Everything up to the mixtures is materialised through Dagster.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from mvl_assets.config.prompts import PROMPTS_DIR
from mvl_assets.definitions import build_defs
from mvl_assets.defs.prompts import report_edited_prompts
from mvl_assets.demo_data.write import write_demo_sources
from mvl_assets.lake.lake import Lake
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.asset_status import AssetStatus, AssetStatusResolver
from tests.raw_files import make_image, put_parquet, talk

# Of one category, rewritten by different prompts.
MATH, GENERAL = "geo170k", "vizwiz_mathv360k"
PARTITIONS = [
    (asset, source)
    for source in (MATH, GENERAL)
    for asset in (f"raw/{source}", "category/code_math", "rewritten/code_math", "judged/code_math")
]
TABLES = ["curation/duplicates", "curation/contamination", "mixture/single_image", "export/dataset_card"]
FORGETFUL = (
    asset_keys.load_active_profile,
    asset_keys.list_graph_sources,
    asset_keys.list_graph_benchmarks,
    asset_keys.list_partition_sources,
    asset_keys.list_categories,
    asset_keys.list_rewritten_sources,
    asset_keys.list_rewritten_categories,
)


@dataclass
class World:
    """`home` is MVL_HOME. Definitions are loaded once; `reload` loads them again after a change of the profile."""

    home: Path
    definitions: dg.Definitions

    @property
    def lake(self) -> Lake:
        return Lake(str(self.home / "lake"))

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        folder = self.home / "dagster"
        folder.mkdir(exist_ok=True)
        (folder / "dagster.yaml").touch()
        with dg.DagsterInstance.local_temp(str(folder)) as instance:
            yield instance

    def make(self, asset: str, partition: str | None = None) -> dg.ExecuteInProcessResult:
        job = self.definitions.resolve_implicit_global_asset_job_def()
        with self.instance() as instance:
            return job.execute_in_process(
                instance=instance, asset_selection=[dg.AssetKey(asset.split("/"))], partition_key=partition
            )

    def standing(self) -> list[AssetStatus]:
        """Of every partition of what was made. (The tables behind them ask about all partitions of all categories.)"""
        made = sorted({dg.AssetKey(asset.split("/")) for asset, _ in PARTITIONS})
        with self.instance() as instance:
            standings = AssetStatusResolver(self.definitions.resolve_asset_graph(), instance)
            return [standing for key in made for standing in standings.iter_asset_statuses(key)]

    def stale(self) -> list[tuple[str, str | None]]:
        return [(s.key.to_user_string(), s.partition_key) for s in self.standing() if s.state == "stale"]

    def report_prompts(self) -> list[str]:
        with self.instance() as instance:
            return report_edited_prompts(instance)

    def tick(self, cursor: str | None) -> dg.SensorResult:
        """One evaluation of the prompt sensor; what it returns is reported as the daemon would."""
        (sensor,) = self.definitions.sensors or ()
        with self.instance() as instance:
            context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=self.definitions)
            result = sensor(context)
            for event in result.asset_events:
                instance.report_runless_asset_event(event)
        return result

    def edit(self, prompt: str, old: str, new: str) -> None:
        path = self.home / "prompts" / "small" / prompt
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    def profile(self, **changed: Any) -> None:
        data = yaml.safe_load((self.home / "profile.yaml").read_text(encoding="utf-8")) | changed
        (self.home / "profile.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")

    def reload(self) -> None:
        for remembered in FORGETFUL:
            remembered.cache_clear()
        self.definitions = build_defs()


def point_at(home: Path, patch: pytest.MonkeyPatch) -> None:
    """Settings of this process: everything below `home`."""
    patch.setenv("MVL_HOME", str(home))
    patch.setenv("MVL_PROMPTS", str(home / "prompts"))
    patch.setenv("MVL_PROFILE", str(home / "profile.yaml"))
    patch.delenv("MVL_LAKE", raising=False)
    patch.setenv("DAGSTER_HOME", str(home / "dagster"))


def prepare(home: Path, base_url: str) -> None:
    """Files, prompts and a profile; nothing in the lake."""
    shutil.copytree(PROMPTS_DIR / "small", home / "prompts" / "small")
    write_demo_sources(home / "raw", [MATH], n_rows=10)
    put_general(home, range(6))
    model = {"name": "fake", "revision": "1", "supports_images": True, "base_urls": [base_url]}
    profile = {
        "name": "test",
        "limit": 6,
        "rewrite_limit": 3,
        "models": {"one": model},
        "roles": dict.fromkeys(("caption", "rewrite", "judge"), "one"),
        "score_rows": 0,
        "prompts": "small",
        "keep": {"rule": "p_yes >= 0.1"},
        "mixture": {"alignment": 2, "single_image": 10, "one_vision": 2},
        "recipe": "demo",
    }
    (home / "profile.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")


def put_general(home: Path, numbers: range) -> None:
    """The files of the source `GENERAL`, with these rows."""
    put_parquet(
        home / "raw" / GENERAL,
        "train.parquet",
        [
            {
                "id": str(n),
                "image": {"bytes": make_image(n), "path": None},
                "conversations": talk(f"<image>\nWhat is {n} plus 1?", str(n + 1)),
            }
            for n in numbers
        ],
    )
