"""Files and folders that are replaced as a whole or stay as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.common import atomic_write
from mvl_assets.common.atomic_write import replace_dir, replace_file, write_bytes_atomic, write_text_atomic

BOTH = pytest.mark.parametrize("unique", [True, False])
SYNCED = pytest.mark.parametrize("fsync", [True, False])


def read_tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@SYNCED
@BOTH
def test_a_file_is_created_and_then_replaced(tmp_path: Path, unique: bool, fsync: bool) -> None:
    path = tmp_path / "state.json"
    write_text_atomic(path, "ü", fsync=fsync, unique=unique)
    write_bytes_atomic(path, b"second", fsync=fsync, unique=unique)
    assert read_tree(tmp_path) == {"state.json": b"second"}


@BOTH
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, unique: bool) -> None:
    path = tmp_path / "state.json"
    write_text_atomic(path, "old")
    with pytest.raises(ValueError, match="wrong"), replace_file(path, unique=unique) as temp_path:
        temp_path.write_text("half")
        raise ValueError("wrong")
    assert read_tree(tmp_path) == {"state.json": b"old"}


def test_an_interrupted_write_removes_its_temporary_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), replace_file(tmp_path / "state.json") as temp_path:
        temp_path.write_text("half")
        raise KeyboardInterrupt
    assert read_tree(tmp_path) == {}


def test_a_lone_writer_overwrites_what_a_killed_run_has_left(tmp_path: Path) -> None:
    (tmp_path / ".rows.json.tmp").write_text("left behind")
    write_text_atomic(tmp_path / "rows.json", "whole", unique=False)
    assert read_tree(tmp_path) == {"rows.json": b"whole"}


def test_the_content_is_synced_before_the_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    original_fsync, original_replace = atomic_write.fsync_path, Path.replace

    def record_fsync(path: Path) -> None:
        steps.append(f"fsync {'folder' if path == tmp_path else 'file'}")
        original_fsync(path)

    def record_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return original_replace(self, target)

    monkeypatch.setattr(atomic_write, "fsync_path", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    write_text_atomic(tmp_path / "state.json", "whole", fsync=True)
    assert steps == ["fsync file", "rename", "fsync folder"]


@SYNCED
@BOTH
def test_a_folder_is_created_and_then_replaced_as_a_whole(tmp_path: Path, unique: bool, fsync: bool) -> None:
    target = tmp_path / "export"
    for name in ("first", "second"):
        with replace_dir(target, fsync=fsync, unique=unique) as temp_dir:
            (temp_dir / "below").mkdir()
            (temp_dir / "below" / name).write_text(name)
    assert read_tree(tmp_path) == {"export/below/second": b"second"}
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


@BOTH
def test_a_failed_folder_leaves_the_old_one_and_nothing_else(tmp_path: Path, unique: bool) -> None:
    target = tmp_path / "export"
    with replace_dir(target) as temp_dir:
        (temp_dir / "old").write_text("old")
    with pytest.raises(ValueError, match="wrong"), replace_dir(target, unique=unique) as temp_dir:
        (temp_dir / "half").write_text("half")
        raise ValueError("wrong")
    assert read_tree(tmp_path) == {"export/old": b"old"} and [p.name for p in tmp_path.iterdir()] == ["export"]


def test_a_lone_builder_starts_from_an_empty_folder_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / ".export.tmp").mkdir()
    (tmp_path / ".export.tmp" / "left").write_text("behind")
    with replace_dir(tmp_path / "export", unique=False) as temp_dir:
        (temp_dir / "new").write_text("new")
    assert read_tree(tmp_path) == {"export/new": b"new"}
