"""The tables are plain Lance: the README's query for other readers works as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import JUDGED
from tests.lake.rows import judgement, put, put_samples, rewrite, sample

README = Path(__file__).parents[2] / "README.md"


def read_readme_query() -> str:
    (code,) = (
        block for block in re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.S) if "lancedb" in block
    )
    return code


def test_the_query_of_the_readme_returns_the_kept_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(str(tmp_path / ".mvl" / "lake"))
    samples = [sample("drawn", n) for n in range(8)]
    put_samples(lake, "drawn", samples)
    verdicts = [
        judgement(rewrite(row, "chart"), keep=n % 2 == 0) | {"p_yes": n / 10, "matches_reference": n % 3 == 0}
        for n, row in enumerate(samples)
    ]
    put(lake, "judged/chart", JUDGED, verdicts, "drawn")
    monkeypatch.chdir(tmp_path)
    *setup, query = read_readme_query().strip().splitlines()
    namespace: dict[str, object] = {}
    exec("\n".join(setup), namespace)
    rows = eval(query, namespace)
    expected = {(v["sample_id"], v["p_yes"], v["matches_reference"]) for v in verdicts if v["keep"]}
    assert {(row["sample_id"], row["p_yes"], row["matches_reference"]) for row in rows} == expected
