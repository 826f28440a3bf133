"""Which exported files go when data is removed from the lake."""

from __future__ import annotations

from pathlib import Path

from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.stale_exports import iter_stale_exports
from mvl_assets.lake.id_set import IdSet

REMOVED, KEPT = "a" * 32, "b" * 32


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def list_stale(folder: Path, stages: set[str], *image_ids: str) -> set[str]:
    return set(iter_stale_exports(ExportFolder(str(folder)), stages, IdSet([image_ids])))


def test_stale_exports_are_the_files_of_the_given_stages(tmp_path: Path) -> None:
    put(tmp_path / "llava", "alignment.json", "single_image.json", f"images/bb/{KEPT}.png", "README.md")
    assert list_stale(tmp_path, {"alignment"}) == {"llava/alignment.json"}


def test_removed_image_makes_all_stages_of_its_format_stale(tmp_path: Path) -> None:
    put(tmp_path / "llava", "alignment.json", "one_vision.json", f"images/aa/{REMOVED}.png", f"images/bb/{KEPT}.png")
    put(tmp_path / "other", "alignment.json", f"images/bb/{KEPT}.png")
    stale = {"llava/alignment.json", "llava/one_vision.json", f"llava/images/aa/{REMOVED}.png"}
    assert list_stale(tmp_path, set(), REMOVED) == stale


def test_temporary_files_of_a_killed_export_are_stale_too(tmp_path: Path) -> None:
    put(tmp_path / "llava", ".alignment.json.tmp", f"images/aa/.{REMOVED}.png.tmp")
    assert list_stale(tmp_path, {"alignment"}) == {"llava/.alignment.json.tmp"}
    assert f"llava/images/aa/.{REMOVED}.png.tmp" in list_stale(tmp_path, set(), REMOVED)
