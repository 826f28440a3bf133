"""`mvl doctor` compares PyTorch's build with the GPU it finds, and the profile with what is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.cli import doctor
from mvl_assets.config.profile import PROFILES_DIR


@pytest.mark.parametrize(
    ("cuda_version", "gpu", "ok", "detail"),
    [
        (None, None, True, "CPU only"),
        ("13.0", None, True, "CPU only"),
        ("13.0", "nvidia-smi lists 8 GPU(s)", True, "with CUDA 13.0"),
        (None, "/dev/nvidia0 exists", False, "has no CUDA, but /dev/nvidia0 exists"),
    ],
)
def test_cpu_build_of_torch_fails_only_where_a_gpu_is_visible(
    monkeypatch: pytest.MonkeyPatch, cuda_version: str | None, gpu: str | None, ok: bool, detail: str
) -> None:
    monkeypatch.setattr(doctor, "_read_torch_build", lambda: ("2.13.0", cuda_version))
    monkeypatch.setattr(doctor, "_describe_gpu", lambda: gpu)
    check = doctor._check_torch_build()
    assert (check.ok, check.required) == (ok, True)
    assert detail in check.detail
    assert ok or "make setup ACCELERATOR=cuda" in check.fix


def test_torch_build_is_read_without_importing_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (package / "version.py").write_text("__version__ = '2.13.0+cu130'\ncuda = '13.0'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(doctor.sys.modules, "torch", raising=False)
    assert doctor._read_torch_build() == ("2.13.0+cu130", "13.0")


def test_gpu_counts_as_hidden_where_cuda_visible_devices_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert doctor._describe_gpu() is None


def test_gpu_is_counted_by_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200'\necho 'GPU 1: NVIDIA H200'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert doctor._describe_gpu() == "nvidia-smi lists 2 GPU(s)"


def test_temporary_files_in_memory_are_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MVL_SCRATCH", "/dev/shm/mvl-scratch")
    check = doctor._check_scratch()
    assert (check.ok, check.required) == (False, False) and "tmpfs" in check.detail and "MVL_SCRATCH" in check.fix
    monkeypatch.setattr(doctor, "find_filesystem_type", lambda folder: "ext4")
    monkeypatch.setenv("MVL_SCRATCH", str(tmp_path / "not" / "there"))
    check = doctor._check_scratch()
    assert check.ok and str(tmp_path) in check.detail


@pytest.mark.parametrize(("executor", "ok"), [("", True), ("executor: {kind: ray}\n", False)])
def test_missing_ray_fails_only_where_the_profile_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str, ok: bool
) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text((PROFILES_DIR / "demo.yaml").read_text(encoding="utf-8") + executor)
    monkeypatch.setenv("MVL_PROFILE", str(profile))
    monkeypatch.setattr(doctor, "is_ray_installed", lambda: False)
    check = doctor._check_ray()
    assert (check.ok, check.detail) == (ok, "not installed")
    assert "pip install 'mvl[ray]'" in check.fix


def test_nothing_is_made_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MVL_HOME", "MVL_PROJECT", "MVL_SCRATCH"):
        monkeypatch.delenv(name, raising=False)
    assert doctor._check_writable().ok and doctor._check_project().ok
    assert list(tmp_path.iterdir()) == []
