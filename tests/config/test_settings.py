"""Every place has a variable; only the lake and the exports may be in an object store."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.config.settings import UNPACKED_DIR, load_settings, resolve_unpacked_dir, validate_settings
from mvl_assets.errors import MvlError

PLACES = {
    "MVL_RAW": "raw_dir",
    "MVL_SCRATCH": "scratch_dir",
    "MVL_CHECKPOINTS": "checkpoints_dir",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in PLACES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MVL_HOME", str(tmp_path))
    return tmp_path


def test_every_place_is_below_the_home_unless_it_has_a_folder_of_its_own(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {variable: name.removesuffix("_dir") for variable, name in PLACES.items()}
    assert {v: getattr(load_settings(), PLACES[v]) for v in PLACES} == {v: home / name for v, name in names.items()}
    for variable in PLACES:
        monkeypatch.setenv(variable, str(home / "elsewhere" / variable))
        assert getattr(load_settings(), PLACES[variable]) == home / "elsewhere" / variable


@pytest.mark.parametrize("variable", [*PLACES, "MVL_HOME"])
def test_a_place_that_has_to_be_a_folder_is_refused_in_an_object_store(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "s3://bucket/place")
    with pytest.raises(MvlError, match=f"{variable}=s3://bucket/place is not a folder") as refused:
        validate_settings()
    assert "only MVL_LAKE" in (refused.value.hint or "")


def test_unpacked_archives_may_have_a_folder_of_their_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = home / "a" / "ocr", home / "b" / "ocr"
    monkeypatch.delenv("MVL_UNPACKED", raising=False)
    assert resolve_unpacked_dir(first) == first / UNPACKED_DIR
    monkeypatch.setenv("MVL_UNPACKED", str(home / "unpacked"))
    folders = [resolve_unpacked_dir(folder) for folder in (first, second)]
    assert {folder.parent for folder in folders} == {home / "unpacked"} and folders[0] != folders[1]
    monkeypatch.setenv("MVL_UNPACKED", "s3://bucket/unpacked")
    with pytest.raises(MvlError, match="MVL_UNPACKED=s3://bucket/unpacked is not a folder"):
        resolve_unpacked_dir(first)


@pytest.mark.parametrize("variable", ["MVL_LAKE", "MVL_EXPORT"])
def test_an_address_with_credentials_is_refused_and_not_repeated(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "s3://AKIA:hidden@bucket/place")
    with pytest.raises(MvlError, match=f"{variable} holds credentials") as refused:
        validate_settings()
    assert "hidden" not in str(refused.value)
    monkeypatch.setenv(variable, "ftp://host/place")
    with pytest.raises(MvlError, match=f"{variable}=ftp://host/place: unsupported"):
        validate_settings()


def test_exports_are_below_the_home_or_where_their_variable_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().export_root == str(home / "export")
    monkeypatch.setenv("MVL_EXPORT", "s3://bucket/export")
    validate_settings()
    assert load_settings().export_root == "s3://bucket/export"
