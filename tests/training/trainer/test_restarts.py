"""What would fail again is not tried again, and how long a cancelled run may save."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.trainer.run_files import FAILURE_FILE, SAVE_GRACE_ENV, read_save_grace_s


def test_what_would_fail_again_is_not_tried_again(
    tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mvl_training.trainer.main import main

    arguments = ["--recipe", "nowhere", "--stage", "single_image", "--lake", lake.root, "--out", str(tmp_path)]
    assert main(arguments) == 2
    first = json.loads((tmp_path / FAILURE_FILE).read_text("utf-8"))
    assert first["exit_code"] == 2 and "no recipe 'nowhere'" in first["message"]
    (tmp_path / FAILURE_FILE).write_text(json.dumps({"message": "loss rose", "exit_code": 3}), encoding="utf-8")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    capsys.readouterr()
    assert main(arguments) == 3 and capsys.readouterr().err == "loss rose\n"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert main(arguments) == 2, "a person who starts it again may have mended it"


def test_one_variable_says_how_long_a_cancelled_run_may_save(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SAVE_GRACE_ENV, raising=False)
    assert read_save_grace_s() == 270
    monkeypatch.setenv(SAVE_GRACE_ENV, "900")
    assert read_save_grace_s() == 900
    for text in ("0", "-1", "soon", ""):
        monkeypatch.setenv(SAVE_GRACE_ENV, text)
        with pytest.raises(MvlError, match=SAVE_GRACE_ENV):
            read_save_grace_s()
