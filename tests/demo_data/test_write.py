"""Folders are complete or absent, the same for the same arguments, and never a user's own."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from mvl_assets.config.catalog import load_catalog
from mvl_assets.demo_data.recipes import DEMO_SLUGS, RECIPES
from mvl_assets.demo_data.write import WrittenDemoSource, link_real_tabmwp, write_demo_sources
from mvl_assets.errors import MvlError
from mvl_assets.readers.files import DEMO_MARKER_FILE, is_demo_source
from mvl_assets.readers.registry import get_reader


def digests(folder: Path) -> dict[str, str]:
    """Of the files that were written; hidden folders hold what readers keep about archives."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def test_the_same_seed_gives_the_same_bytes_for_every_source(
    demo_sources: dict[str, WrittenDemoSource], tmp_path: Path
) -> None:
    for written in write_demo_sources(tmp_path):
        assert digests(written.source_dir) == digests(demo_sources[written.slug].source_dir), written.slug


def test_another_seed_gives_other_rows(tmp_path: Path) -> None:
    one = write_demo_sources(tmp_path / "one", ["geo170k"], n_rows=12, seed=0)[0]
    two = write_demo_sources(tmp_path / "two", ["geo170k"], n_rows=12, seed=1)[0]
    assert (one.source_dir / "geo170k.json").read_bytes() != (two.source_dir / "geo170k.json").read_bytes()


def test_demo_data_of_the_demo_is_small(demo_sources: dict[str, WrittenDemoSource]) -> None:
    assert set(demo_sources) == set(DEMO_SLUGS)
    files = [path for written in demo_sources.values() for path in written.source_dir.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40_000_000


def test_marker_counts_add_up(demo_sources: dict[str, WrittenDemoSource]) -> None:
    for slug, written in demo_sources.items():
        marker = json.loads((written.source_dir / DEMO_MARKER_FILE).read_text(encoding="utf-8"))
        assert (marker["seed"], marker["rows"], marker["n_good_rows"]) == (0, 48, written.n_good_rows)
        assert sum(marker["rejects"].values()) == written.n_rejects == len(RECIPES[slug].faults)
        assert written.n_good_rows + written.n_rejects == 48
        assert "scikit-image" in marker["note"]


def test_demo_data_with_the_same_parameters_is_kept_and_with_others_replaced(tmp_path: Path) -> None:
    first = write_demo_sources(tmp_path, ["tabmwp"], n_rows=8)[0]
    before = (first.source_dir / "problems.json").stat().st_mtime_ns
    again = write_demo_sources(tmp_path, ["tabmwp"], n_rows=8)[0]
    assert (first.state, again.state) == ("written", "kept")
    assert (first.source_dir / "problems.json").stat().st_mtime_ns == before
    more = write_demo_sources(tmp_path, ["tabmwp"], n_rows=9)[0]
    assert more.state == "written"
    assert len(json.loads((more.source_dir / "problems.json").read_text(encoding="utf-8"))) == 9


def test_a_folder_of_the_users_own_is_never_touched(tmp_path: Path) -> None:
    own = tmp_path / "geo170k"
    own.mkdir()
    (own / "geo170k.json").write_text("[]", encoding="utf-8")
    before = digests(own)
    assert [written.slug for written in write_demo_sources(tmp_path, ["geo170k", "tabmwp"], n_rows=6)] == ["tabmwp"]
    assert digests(own) == before


def test_an_empty_folder_is_filled_and_nothing_else_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "tabmwp").mkdir()
    write_demo_sources(tmp_path, ["tabmwp"], n_rows=6)
    assert [path.name for path in tmp_path.iterdir()] == ["tabmwp"]
    assert is_demo_source(tmp_path / "tabmwp")


def test_a_write_that_fails_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MvlError, match="No space left"):
        write_demo_sources(tmp_path, ["tabmwp"], n_rows=6)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_slug_says_where_the_known_ones_are(tmp_path: Path) -> None:
    with pytest.raises(MvlError, match=r"nosuch.*mvl sources"):
        write_demo_sources(tmp_path, ["nosuch"])
    with pytest.raises(MvlError, match="at least one row"):
        write_demo_sources(tmp_path, n_rows=0)


def test_few_rows_hold_few_broken_ones(tmp_path: Path) -> None:
    one = write_demo_sources(tmp_path / "one", n_rows=1)
    assert all((written.n_good_rows, written.n_rejects) == (1, 0) for written in one)
    twelve = write_demo_sources(tmp_path / "twelve", ["allava_laion"], n_rows=12)
    assert twelve[0].n_rejects == 2


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project folder with TabMWP's files beside it."""
    real = tmp_path / "shared" / "data"
    written = write_demo_sources(tmp_path / "elsewhere", ["tabmwp"], n_rows=6)[0]
    shutil.copytree(written.source_dir, real / "tabmwp", ignore=shutil.ignore_patterns(DEMO_MARKER_FILE))
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def test_real_files_replace_demo_data_and_stay(project: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_demo_sources(raw, ["tabmwp"], n_rows=6)
    assert link_real_tabmwp(raw, project) == ["tabmwp"]
    assert (raw / "tabmwp").resolve() == tmp_path / "shared" / "data" / "tabmwp"
    assert write_demo_sources(raw, ["tabmwp"], n_rows=6) == []
    assert link_real_tabmwp(raw, project) == ["tabmwp"]
    rows = list(get_reader("records")(load_catalog()["tabmwp"], raw / "tabmwp"))
    assert [type(row).__name__ for row in rows] == ["Sample"] * 6


def test_real_files_never_replace_a_users_own_folder(project: Path, tmp_path: Path) -> None:
    own = tmp_path / "raw" / "tabmwp"
    own.mkdir(parents=True)
    (own / "problems.json").write_text("{}", encoding="utf-8")
    assert link_real_tabmwp(tmp_path / "raw", project) == []
    assert not own.is_symlink()


def test_without_real_files_nothing_is_linked(tmp_path: Path) -> None:
    assert link_real_tabmwp(tmp_path / "raw", tmp_path / "project") == []
    assert not (tmp_path / "raw").exists()
