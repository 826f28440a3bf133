"""Shards that worker processes write into an object store: the lake that one process makes on a disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.config.catalog import get_source
from mvl_assets.config.profile import ExecutorConfig
from mvl_assets.demo_data.write import write_demo_sources
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.ingest import ingest
from mvl_assets.ingest.categorise import categorise_source
from mvl_assets.lake.lake import Lake
from mvl_training.data import pack_materializer
from mvl_training.data.pack_materializer import materialize_packs
from mvl_training.data.packed_rows import PackedRows, open_packs
from mvl_training.data.planning import build_pack_plan
from mvl_training.data.raw_packs import FrameLimits
from tests.object_store import road
from tests.servers import serving
from tests.training import tiny_model

SLUG = "geo170k"
ROWS = 8


def test_a_source_in_shards_is_that_of_one_process_on_a_disk(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_demo_sources(tmp_path, [SLUG], n_rows=ROWS, seed=0)
    on_disk, on_store = Lake(str(tmp_path / "lake")), Lake(root)
    road.ingest(on_disk, SLUG, tmp_path)
    monkeypatch.setattr(ingest, "SHARD_ROWS", 3)
    source = get_source(SLUG)
    report = ingest.ingest_source(on_store, source, tmp_path / SLUG, run_id="run", executor=ProcessExecutor(2))
    categorise_source(on_store, source, run_id="run")
    assert report.n_rows == ROWS
    with serving() as (server, endpoint):
        profile = road.build_profile(endpoint.base_url)
        road.ask(on_disk, SLUG, profile)
        n_requests = len(server.answer_counts)
        in_shards = profile.model_copy(update={"executor": ExecutorConfig(processes=1, shard_rows=4)})
        road.ask(on_store, SLUG, in_shards)
        assert set(server.answer_counts.values()) == {2} and len(server.answer_counts) == n_requests
    expected, made = road.describe(on_disk), road.describe(on_store)
    for tables in (expected, made):
        answers = {name: tables.pop(name) for name in list(tables) if name.startswith("answers/")}
        tables["answers"] = sorted(key for keys in answers.values() for key in keys)
    assert made == expected


def test_packed_rows_are_those_of_a_disk(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_materializer, "SHARD_ROWS", 6)
    recipe = tiny_model.build_recipe(tiny_model.write_tokenizer(tmp_path / "tokenizer"))
    samples = tiny_model.draw_shape_samples(20)
    packed_rows = []
    for lake_root in (str(tmp_path / "lake"), root):
        lake = tiny_model.fill_lake(lake_root, samples, frames=5)
        build_pack_plan(lake, "single_image", recipe, run_id="run")
        for _ in range(2):  # the second finds everything there
            materialize_packs(lake, "single_image", ProcessExecutor(1), frame_limits=FrameLimits(3), run_id="run")
        packs = open_packs(lake, "single_image")
        assert isinstance(packs, PackedRows)
        packed_rows.append(list(packs.iter_raw_packs([[position] for position in range(len(packs))])))
    assert packed_rows[0] == packed_rows[1]
    assert len(packed_rows[0]) > 6
