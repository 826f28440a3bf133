"""When an export counts: what it is compared with, what makes it be made anew, and who may make it."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mvl_assets.errors import MvlError
from mvl_training.trainer import main as trainer_main
from mvl_training.trainer import output_lock
from mvl_training.trainer.export_main import export_stage, main
from mvl_training.trainer.export_report import ExportReport, read_export_report
from mvl_training.trainer.output_lock import OutputBusy, hold_output_dir
from tests.training import tiny_model as small

REPORT = ExportReport("r1", "checkpoints/step-00000002", "1", 0.0, 1e-3, "cpu", "cpu")


@pytest.fixture
def trained(seeing: tuple[Path, list[small.DrawnSample]], tmp_path: Path) -> Path:
    """The folder of a trained and exported stage, to be damaged."""
    return Path(shutil.copytree(seeing[0], tmp_path / "out"))


def change_probe(folder: Path, **changed: Any) -> None:
    probe = torch.load(folder / "probe.pt", weights_only=False)
    torch.save(probe | {name: change(probe[name]) for name, change in changed.items()}, folder / "probe.pt")


def test_a_good_export_is_kept(trained: Path) -> None:
    before = (trained / "export" / "model.safetensors").stat().st_ino
    report = export_stage(trained)
    assert report.is_within_tolerance and report.is_usable and report == read_export_report(trained)
    assert (trained / "export" / "model.safetensors").stat().st_ino == before
    assert main(["--out", str(trained)]) == 0


def test_other_logits_are_refused_and_compared_again_the_next_time(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (trained / "export.json").unlink()
    change_probe(trained, logits_KV=lambda logits: logits * 1.1)
    assert main(["--out", str(trained)]) == 4
    assert "logits differ from the trained model's by 0.091 of the largest; 0.001 is allowed" in capsys.readouterr().out
    report = read_export_report(trained)
    assert report is not None and not report.is_within_tolerance and not report.is_usable
    change_probe(trained, logits_KV=lambda logits: logits / 1.1)
    assert export_stage(trained).is_within_tolerance


def test_other_logits_on_another_device_are_no_reason_to_stop(trained: Path) -> None:
    (trained / "export.json").unlink()
    change_probe(trained, logits_KV=lambda logits: logits * 1.1, device=lambda name: "NVIDIA H200")
    report = export_stage(trained)
    assert not report.is_within_tolerance and not report.is_conclusive and report.is_usable


def test_nothing_to_compare_is_no_proof() -> None:
    assert not replace(REPORT, max_difference=math.nan).is_usable
    assert replace(REPORT, max_difference=math.nan, measured_on="NVIDIA H200").is_usable


@pytest.mark.parametrize("changed", [{"run_hash": "other"}, {"checkpoint_dir": "other"}])
def test_an_export_of_another_result_does_not_count(trained: Path, changed: dict[str, str]) -> None:
    assert read_export_report(trained) is not None
    result = json.loads((trained / "result.json").read_text(encoding="utf-8"))
    (trained / "result.json").write_text(json.dumps(result | changed), encoding="utf-8")
    assert read_export_report(trained) is None


def test_an_export_of_earlier_code_does_not_count(trained: Path) -> None:
    report = json.loads((trained / "export.json").read_text(encoding="utf-8"))
    (trained / "export.json").write_text(json.dumps(report | {"code_version": "0"}), encoding="utf-8")
    assert read_export_report(trained) is None


def test_a_damaged_or_missing_probe_is_one_clear_error(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (trained / "export.json").unlink()
    for damage in (lambda file: file.write_bytes(file.read_bytes()[:100]), Path.unlink):
        damage(trained / "probe.pt")
        assert main(["--out", str(trained)]) == 2
        assert f"{trained / 'probe.pt'} cannot be read" in capsys.readouterr().err


def test_a_stage_that_is_not_trained_has_no_export(tmp_path: Path) -> None:
    with pytest.raises(MvlError, match="holds no trained stage"):
        export_stage(tmp_path)


def test_two_processes_do_not_export_one_stage(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_lock, "LOCK_TIMEOUT_S", 0.0)
    with hold_output_dir(trained), pytest.raises(OutputBusy, match="another process works in"):
        export_stage(trained)
    assert export_stage(trained).is_within_tolerance


def test_a_kill_while_earlier_runs_are_removed_leaves_no_stage_that_counts_as_trained(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(path: Path, **_: Any) -> None:
        raise Killed

    monkeypatch.setattr(trainer_main.shutil, "rmtree", kill)
    with pytest.raises(Killed):
        trainer_main._find_resume_point(SimpleNamespace(resume="never", output_dir=trained), trained / "checkpoints")  # type: ignore[arg-type]
    assert not (trained / "result.json").exists() and not (trained / "probe.pt").exists()
    assert (trained / "checkpoints").is_dir() and read_export_report(trained) is None
