"""`mvl batches`: what servers have in batches, and giving it up."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

from click.testing import CliRunner

from mvl_assets.cli import cli
from mvl_assets.lake.batch_journal import BatchedRequest, StoredBatch
from mvl_assets.lake.lake import Lake


def batches(home: Path, *words: str) -> str:
    result = CliRunner().invoke(cli, ["batches", *words], env={"MVL_HOME": str(home), "MVL_LAKE": None})
    assert result.exit_code == 0, result.output
    return result.output


def test_batches_are_listed_until_they_are_forgotten(tmp_path: Path) -> None:
    for number, source in enumerate(("gqa", "vqav2")):
        requests = [BatchedRequest(f"{n:032x}", "m", "1", "p", "h", None) for n in range(3)]
        batch = StoredBatch(f"{number:032x}", 1, "http://a/v1", dt.datetime.now(dt.UTC), "file-1", f"batch_{number}")
        Lake(str(tmp_path / "lake")).get_answer_log("rewritten", source).batches.save(batch, requests)
    assert [(b["source"], b["batch"], b["requests"]) for b in json.loads(batches(tmp_path, "--json"))] == [
        ("gqa", "batch_0", 3),
        ("vqav2", "batch_1", 3),
    ]
    assert "forgotten" in batches(tmp_path, "--forget", "--source", "gqa")
    assert [b["source"] for b in json.loads(batches(tmp_path, "--json"))] == ["vqav2"]
