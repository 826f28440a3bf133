"""A table whose newest version was torn by a power cut is repaired when it is opened, or reported."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import lance
import pytest

from mvl_assets.lake.errors import LakeError
from mvl_assets.lake.lake import Lake
from tests.lake.rows import answer, newest_manifest, pages

TORN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "zeroed": lambda whole: bytes(len(whole)),
    "half": lambda whole: whole[: len(whole) // 2],
    "half zeroed": lambda whole: whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2),
    "one byte short": lambda whole: whole[:-1],
}


def built(root: Path) -> Path:
    """Five answers in five commits; returns the table's folder."""
    log = Lake(str(root)).get_answer_log("rewritten", "drawn")
    with log:
        for number in range(5):
            log.append([answer(number)])
    return Path(log.table.uri)


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def acked(root: Path) -> set[str]:
    return Lake(str(root)).get_answer_log("rewritten", "drawn").find_answered(answer(n).request_key for n in range(10))


@pytest.mark.parametrize("how", TORN)
def test_a_torn_manifest_costs_only_its_own_commit(tmp_path: Path, how: str) -> None:
    folder = built(tmp_path)
    manifest = newest_manifest(Lake(str(tmp_path)).get_answer_log("rewritten", "drawn").table)
    manifest.write_bytes(TORN[how](manifest.read_bytes()))
    with Lake(str(tmp_path)).get_answer_log("rewritten", "drawn") as log:
        assert log.count() == 4
        assert log.append([answer(4), answer(5)]) == 2
        log.maintain()
        assert log.append([answer(6)]) == 1
    assert len(acked(tmp_path)) == 7
    assert len(list(folder.glob("_versions/torn-*.aside"))) == 1


def test_all_torn_versions_are_set_aside(tmp_path: Path) -> None:
    folder = built(tmp_path)
    newest = lance.dataset(str(folder)).latest_version
    kept = lance.dataset(str(folder), version=newest - 2).count_rows()
    for manifest in sorted(folder.glob("_versions/*.manifest"))[:2]:
        manifest.write_bytes(b"")
    with Lake(str(tmp_path)).get_answer_log("rewritten", "drawn") as log:
        assert log.count() == kept < 5


def test_a_table_torn_in_its_first_version_is_created_again(tmp_path: Path) -> None:
    folder = built(tmp_path)
    for manifest in folder.glob("_versions/*.manifest"):
        manifest.write_bytes(b"")
    with Lake(str(tmp_path)).get_answer_log("rewritten", "drawn") as log:
        assert log.append([answer(1)]) == 1
    assert len(acked(tmp_path)) == 1


@pytest.mark.parametrize("how", ["empty", "zeroed", "gone"])
def test_an_intact_manifest_over_a_torn_data_file_is_set_aside(tmp_path: Path, how: str) -> None:
    folder = built(tmp_path)
    newest = max((folder / "data").iterdir(), key=lambda p: p.stat().st_mtime_ns)
    if how == "gone":
        newest.unlink()
    else:
        newest.write_bytes(TORN[how](newest.read_bytes()))
    with Lake(str(tmp_path)).get_answer_log("rewritten", "drawn") as log:
        assert [r["text"] for r in log.table.iter_rows()] == [answer(n).text for n in range(4)]
        assert log.append([answer(4)]) == 1


def test_damage_to_the_only_version_is_an_error_and_not_an_empty_table(tmp_path: Path) -> None:
    folder = built(tmp_path)
    for manifest in sorted(folder.glob("_versions/*.manifest"))[1:]:
        manifest.unlink()
    next((folder / "data").iterdir()).write_bytes(b"")
    with pytest.raises(LakeError, match="damaged"), Lake(str(tmp_path)).get_answer_log("rewritten", "drawn"):
        pass


def test_a_reader_of_a_torn_table_sees_the_version_before(tmp_path: Path) -> None:
    folder = built(tmp_path)
    newest_manifest(Lake(str(tmp_path)).get_answer_log("rewritten", "drawn").table).write_bytes(b"")
    assert len(acked(tmp_path)) == 4
    assert len(list(folder.glob("_versions/torn-*.aside"))) == 1


def test_a_torn_table_on_a_read_only_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = built(tmp_path)
    manifest = newest_manifest(Lake(str(tmp_path)).get_answer_log("rewritten", "drawn").table)
    real = os.open

    def read_only(path: str, flags: int, *rest: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", read_only)
    assert len(acked(tmp_path)) == 5
    manifest.write_bytes(b"")
    before = listing(folder)
    with pytest.raises(LakeError, match="power cut") as output:
        Lake(str(tmp_path)).get_answer_log("rewritten", "drawn").count()
    assert output.value.hint is not None and "put aside" in output.value.hint
    assert listing(folder) == before


def test_a_torn_table_is_not_repaired_while_another_process_holds_the_lease(tmp_path: Path) -> None:
    folder = built(tmp_path)
    with Lake(str(tmp_path)).get_answer_log("rewritten", "drawn"):
        manifest = newest_manifest(Lake(str(tmp_path)).get_answer_log("rewritten", "drawn").table)
        manifest.write_bytes(b"")
        before = listing(folder)
        with pytest.raises(LakeError), Lake(str(tmp_path)).get_answer_log("rewritten", "drawn"):
            pass
        assert listing(folder) == before


def test_the_next_publish_repairs_a_derived_table(lake: Lake) -> None:
    table = lake.get_table("category/ocr")
    table.publish([pages("a", "x", range(5))], "a")
    kept = table.compute_data_version("a")
    table.publish([pages("b", "x", range(5))], "b")
    newest_manifest(table).write_bytes(b"")
    table = Lake(lake.root).get_table("category/ocr")
    assert table.compute_data_version("a") == kept  # a stage reads before it writes
    table.publish([pages("c", "x", range(5))], "c")
    assert table.compute_data_version("a") == kept
    assert {r["source"] for r in table.iter_rows()} == {"a", "c"}


def test_a_healthy_table_is_not_touched(tmp_path: Path) -> None:
    folder = built(tmp_path)
    before = listing(folder)
    with Lake(str(tmp_path)).get_answer_log("rewritten", "drawn") as log:
        assert log.count() == 5
    assert listing(folder) == before


def test_every_new_file_of_a_commit_is_fsynced_and_the_data_folder_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(Lake(str(tmp_path)).get_answer_log("rewritten", "drawn").table.uri)
    synced: set[str] = set()
    listed: list[str] = []
    fsync, scandir = os.fsync, os.scandir

    def note_fsync(fd: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{fd}").readlink()))
        fsync(fd)

    def note_listing(path: str | Path) -> object:
        listed.append(str(path))
        return scandir(path)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "scandir", note_listing)
    with Lake(str(tmp_path)).get_answer_log("rewritten", "drawn") as log:
        for number in range(4):
            log.append([answer(number)])
            files = {str(p) for name in ("data", "_versions", "_transactions") for p in (folder / name).iterdir()}
            assert files <= synced
        n_listed = listed.count(str(folder / "data"))
        log.append([answer(4)])
        assert listed.count(str(folder / "data")) == n_listed and str(folder / "_versions") in listed
