"""The asset of scores that others gave: what its page says."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from mvl_assets.config.score_file import ScoreFile
from mvl_assets.defs.scores import build_scores_asset
from mvl_assets.lake.lake import Lake
from mvl_assets.orchestration.resources import LakeResource
from tests.lake.rows import put_category


def test_the_page_counts_what_has_scores_and_what_is_unknown(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    rows = put_category(lake, "ocr", "a", 3)
    ids = [rows[0]["sample_id"], "f" * 32, None]
    pq.write_table(pa.table({"sample_id": ids, "relevance": [1, 2, 3]}), tmp_path / "ratings.parquet")
    asset = build_scores_asset(
        "ratings", ScoreFile(path=str(tmp_path / "ratings.parquet"), columns={"relevance": "number"})
    )
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([asset], instance=instance, resources={"lake": LakeResource(root=lake.root)})
        (event,) = result.get_asset_materialization_events()
    metadata = {key.removeprefix("mvl/"): entry.value for key, entry in event.materialization.metadata.items()}
    assert (metadata["dagster/row_count"], metadata["unknown_ids"], metadata["missing_ids"]) == (1, 1, 1)
    assert "| a | 1 | 2 |" in metadata["scored_samples"]
    assert all(check.passed for check in result.get_asset_check_evaluations())
