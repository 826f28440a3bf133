"""`mvl doctor` and other commands on an object store."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.cli import doctor
from tests.cli.home import Home, one_error
from tests.object_store.server import FORGETFUL


def test_doctor_refuses_a_bucket_that_loses_commits(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MVL_LAKE", root)
    assert doctor._check_lake_store().ok
    monkeypatch.setenv("MVL_LAKE", f"s3://{FORGETFUL}/lake")
    check = doctor._check_lake_store()
    assert (check.ok, check.required) == (False, True)
    assert "lost" in check.detail and "conditional writes" in check.fix


def test_a_command_says_in_one_line_why_the_store_cannot_be_used(root: str, tmp_path: Path) -> None:
    home = Home(tmp_path / "home", {"MVL_LAKE": "s3://no-such-bucket/lake"})
    home.profile()
    one_error(home.mvl("status"), "the bucket of s3://no-such-bucket/lake does not exist", "MVL_LAKE")
