"""`mvl doctor`: what this machine has and lacks, each with the command that mends it."""

from __future__ import annotations

import ctypes.util
import importlib.util
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import settings
from mvl_assets.errors import MvlError
from mvl_assets.inference.local_server.server_spec import vllm_is_installed
from mvl_assets.judging.keep import check_rule

FREE_GB = 12
MEMORY_GB = 8
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `needed` is False for what only some commands want; `mend` says how to get it."""

    name: str
    ok: bool
    found: str
    mend: str
    needed: bool = True


def checks() -> Iterator[Check]:
    """Everything, in the order a person would mend it."""
    for look in LOOKS:
        yield look()


def _system() -> Check:
    found = f"{platform.system()} {platform.machine()}"
    return Check("system", found == "Linux x86_64", found, "use Linux on x86-64, or a container of it")


def _python() -> Check:
    found = platform.python_version()
    return Check("python", sys.version_info[:2] in ((3, 11), (3, 12)), found, "make PYTHON=python3.11 setup")


def _cpu() -> Check:
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text(encoding="utf-8").split()) if cpuinfo.exists() else set()
    widest = next((f for f in ("avx512f", "avx2") if f in flags), "neither AVX2 nor AVX-512")
    return Check("cpu flags", widest.startswith("avx"), widest, "give the profile a base_url instead of a local server")


def _compiler() -> Check:
    found = shutil.which("g++") or shutil.which("clang++")
    return Check("c++ compiler", found is not None, found or "none", "sudo apt-get install g++")


def _numa() -> Check:
    found = ctypes.util.find_library("numa")
    return Check("libnuma", found is not None, found or "none", "sudo apt-get install libnuma1")


def _memory() -> Check:
    import psutil

    total = psutil.virtual_memory().total / 1e9
    return Check("memory", total >= MEMORY_GB, f"{total:.0f} GB", f"{MEMORY_GB} GB or more are needed for the demo")


def _disk() -> Check:
    place = settings().home
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 1e9
    return Check(
        "disk", free >= FREE_GB, f"{free:.0f} GB free at {place}", f"free {FREE_GB} GB, or set MVL_HOME elsewhere"
    )


def _writable() -> Check:
    home = settings().home
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return Check("writable", False, f"{home}: {error.strerror}", "set MVL_HOME to a folder you may write")
    return Check("writable", True, str(home), "")


def _profile() -> Check:
    name = settings().profile
    try:
        profile = load_profile(name)
        check_rule(profile)
    except MvlError as error:
        return Check("profile", False, error.message, error.hint or "")
    words = ", ".join(f"{role}: {profile.models[model].name}" for role, model in profile.roles.items())
    return Check("profile", True, f"{name} ({words})", "")


def _server() -> Check:
    try:
        local = any(model.serve for model in load_profile(settings().profile).models.values())
    except MvlError:  # the check of the profile says so
        local = False
    there = vllm_is_installed()
    return Check(
        "vllm",
        there or not local,
        "installed" if there else "not installed",
        "make setup, or give the profile's models base_urls",
    )


def _training() -> Check:
    missing = [m for m in ("torch", "transformers", "deepspeed") if importlib.util.find_spec(m) is None]
    return Check("training", not missing, "installed" if not missing else f"no {', '.join(missing)}", "make setup")


def _port() -> Check:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 3000))
        except OSError:
            return Check("port 3000", False, "in use", "mvl ui --port 3001", needed=False)
    return Check("port 3000", True, "free", "")


def _chromium() -> Check:
    found = next((p for p in map(shutil.which, CHROMIUM) if p), None)
    return Check("chromium", found is not None, found or "none", "sudo apt-get install chromium", needed=False)


LOOKS: tuple[Callable[[], Check], ...] = (
    _system,
    _python,
    _cpu,
    _compiler,
    _numa,
    _memory,
    _disk,
    _writable,
    _profile,
    _server,
    _training,
    _port,
    _chromium,
)


@click.command(name="doctor")
@click.option("--quiet", is_flag=True, help="Say only what is missing.")
def command(quiet: bool) -> None:
    """Check what this machine has and lacks, with the command that mends it."""
    failed = False
    for check in checks():
        if not check.ok and check.needed:
            failed = True
        if quiet and (check.ok or not check.needed):
            continue
        mark = "ok  " if check.ok else "FAIL" if check.needed else "--  "
        line = f"{mark} {check.name}: {check.found}"
        click.secho(line if check.ok else f"{line}\n       mend: {check.mend}", fg=None if check.ok else "yellow")
    if failed:
        sys.exit(1)
