"""Which of several formats the card of a publication names to readers."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mvl_assets.config.profile import load_profile
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_stage import ExportOptions
from mvl_assets.export.formats.registry import get_format
from mvl_assets.publish.prepare import prepare_publication
from tests.export.small_lake import STAGE, fill_judged_lake


@pytest.mark.parametrize(
    ("names", "path"),
    [
        (("webdataset", "lance", "parquet"), f"parquet/{STAGE}/train-*.parquet"),
        (("webdataset", "lance"), f"lance/{STAGE}.lance/**"),
        (("llava_json", "lance"), f"llava_json/{STAGE}.json"),
    ],
)
def test_the_card_names_parquet_or_else_the_first_that_datasets_reads(
    tmp_path: Path, names: tuple[str, ...], path: str
) -> None:
    lake = fill_judged_lake(tmp_path / "lake")
    folder = ExportFolder(str(tmp_path / "publication"))
    formats = [get_format(name) for name in names]
    executor = ProcessExecutor(1)
    prepare_publication(
        lake, load_profile("demo"), folder, formats, [STAGE], ExportOptions(), executor, lambda format_, result: None
    )
    _, front_matter, _ = (tmp_path / "publication" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    (config,) = yaml.safe_load(front_matter)["configs"]
    assert config["data_files"] == [{"split": "train", "path": path}]
    assert (tmp_path / "publication" / "croissant.json").exists() is ("parquet" in names)
