"""`mvl demo-data --all`: a line for every source while it works, and sums by category at the end."""

from __future__ import annotations

from pathlib import Path

from mvl_assets.config.catalog import load_catalog
from tests.cli.home import Home


def test_all_sources_are_written_with_a_line_each_and_sums_by_category(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.profile()
    own = home.folder / "raw" / "geo3k"
    own.mkdir(parents=True)
    (own / "mine.parquet").write_bytes(b"")
    output = home.run("demo-data", "--all", "--rows", "1")
    lines = output.splitlines()
    for slug in set(load_catalog()) - {"geo3k", "tabmwp"}:  # TabMWP's real files may lie beside the project
        (line,) = (line for line in lines if f" {slug}: " in line)
        assert line.endswith("1 valid, 0 invalid, written")
        assert (home.folder / "raw" / slug / "DEMO_DATA.json").is_file()
    written = sum(line.endswith(", written") for line in lines)
    total = next(line.split() for line in lines if line.startswith("all "))
    assert total == ["all", str(written), str(written), "0"]
    assert lines[-1] == "skipped, the files there are not demo data: geo3k"
    assert [path.name for path in own.iterdir()] == ["mine.parquet"]
    again = home.run("demo-data", "--all", "--rows", "1").splitlines()
    assert sum(line.endswith("1 valid, 0 invalid, kept") for line in again) == written


def test_all_and_one_source_cannot_both_be_asked_for(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.profile()
    done = home.mvl("demo-data", "--all", "--source", "geo3k")
    assert done.returncode == 2 and "--all or --source, not both" in done.stderr
