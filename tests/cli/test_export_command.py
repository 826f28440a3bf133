"""`mvl export` as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.home import Home, lines_with, one_error
from tests.export.small_lake import STAGE, fill_judged_lake


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("exported") / "home")
    home.profile()
    fill_judged_lake(home.folder / "lake")
    return home


def test_a_mixture_is_written_below_the_export_folder_or_elsewhere(home: Home, tmp_path: Path) -> None:
    output = home.run("export", "parquet")
    assert lines_with(output, [f"{STAGE}: 12 rows, 14 images (raw), 1 shard"])
    (file,) = (home.folder / "export" / "parquet" / STAGE).iterdir()
    assert pq.read_metadata(file).num_rows == 12
    home.run("export", "ms-swift", "--stage", STAGE, "--images", "standard", "--out", str(tmp_path / "out"))
    assert (tmp_path / "out" / f"{STAGE}.jsonl").is_file() and (tmp_path / "out" / "standard_images").is_dir()


def test_judged_pairs_are_written_as_one_table(home: Home) -> None:
    assert lines_with(home.run("export", "review", "--rows", "3"), ["review: 3 rows, 3 images"])
    (file,) = (home.folder / "export" / "review" / "review").iterdir()
    assert {"image", "original_answer", "answer", "keep", "correct_p_yes"} <= set(pq.read_schema(file).names)


def test_viewers_are_handed_pairs_with_what_opens_them(home: Home, tmp_path: Path) -> None:
    output = home.run("export", "fiftyone", "--category", "chart", "--out", str(tmp_path / "fo"))
    assert lines_with(output, ["fiftyone: 4 rows, 4 images"]) and lines_with(output, ["FiftyOneDataset", "/fo"])
    assert (tmp_path / "fo" / "samples.json").is_file()
    output = home.run("export", "atlas", "--rows", "3", "--out", str(tmp_path / "atlas"))
    (line,) = lines_with(output, ["embedding-atlas"])
    assert len(list(Path(line.split()[1]).parent.glob("*.parquet"))) == 1


def test_mistakes_say_what_to_do(home: Home) -> None:
    one_error(home.mvl("export", "parket"), "no export format 'parket'", "parquet")
    one_error(home.mvl("export", "parquet", "--stage", "alignment"), "no mixture alignment", "--until mixture")
    one_error(home.mvl("export", "review", "--category", "ocr"), "judged in ocr", "--until judged")
    one_error(home.mvl("export", "parquet", "--out", "ftp://host/x"), "unsupported kind of location", "--out")
    assert "of no stage" in home.mvl("export", "review", "--stage", STAGE).stderr
