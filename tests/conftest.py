"""Fixtures that tests of several packages share, and which tests run in one worker."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from mvl_assets.lake.lake import Lake
from tests.cli.home import SOURCES, Home
from tests.servers import FakeProcess

TESTS = Path(__file__).parent

# A shell starts what it puts into the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Drawing examples takes a busy machine long, which says nothing of them.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Children read the project's modules from byte code instead of compiling them, each of them, again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# What takes longest comes first: two workers then end at about the same time.
LONGEST = ("servers", "command_line", "training", "training/evaluation", "training/orchestration", "readers", "defs")

COMMAND_LINE = frozenset({"cli", "runner"})
"""Folders whose tests use the homes that are built below once per session."""


@cache
def get_worker_group(file: str) -> str:
    """Return the group of tests that one worker of `pytest -n 2` runs, because they share what is costly to make: those
    of a package, and those of every file that needs the real server, which is then started once."""
    if re.search(r"mark\.(server|pipeline|browser)\b", (TESTS.parent / file).read_text(encoding="utf-8")):
        return "servers"
    _, package, *parts = Path(file).parts
    if package in COMMAND_LINE:
        return "command_line"
    # These two use no fixture of the training tests that is costly.
    if package == "training" and parts[0] in ("evaluation", "orchestration"):
        return f"{package}/{parts[0]}"
    return package


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def get_order(item: pytest.Item) -> int:
        group = get_worker_group(item.nodeid.partition("::")[0])
        return LONGEST.index(group) if group in LONGEST else len(LONGEST)

    items.sort(key=get_order)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class PackageScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return get_worker_group(nodeid.partition("::")[0])

    return PackageScheduling(config, log)


class FailureReporter:
    """Shows a failure when it happens: two workers may go on for many minutes."""

    def __init__(self, terminal: Any) -> None:
        self.terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.terminal.write_line(f"\nFAILED {report.nodeid} ({report.when})", red=True)
            self.terminal.write_line(report.longreprtext)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    # Only the process that has the workers has a terminal.
    if (terminal := config.pluginmanager.get_plugin("terminalreporter")) is not None and config.getoption(
        "numprocesses", 0
    ):
        config.pluginmanager.register(FailureReporter(terminal))


@pytest.fixture(scope="session", autouse=True)
def scratch_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Temporary files go to a folder of the session, not below the project's own `.mvl`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MVL_SCRATCH", str(tmp_path_factory.mktemp("scratch")))
        yield


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake of the test's own."""
    return Lake(str(tmp_path / "lake"))


@pytest.fixture(scope="session")
def model() -> Iterator[FakeProcess]:
    with FakeProcess("--latency-ms", "5") as server:
        yield server


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory, model: FakeProcess) -> Home:
    """A home with the files of three drawn sources and nothing in the lake. Not to be written to."""
    home = Home(tmp_path_factory.mktemp("raw") / "home")
    home.profile(model_base_urls=[model.base_url])
    home.run("demo-data", *SOURCES, "--rows", "16")
    return home


@pytest.fixture(scope="session")
def sorted_in(raw: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The same after `mvl run --until category`. Not to be written to."""
    home = raw.copy(tmp_path_factory.mktemp("sorted") / "home")
    home.run("run", *SOURCES, "--until", "category")
    return home


@pytest.fixture(scope="session")
def built(sorted_in: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The same after `mvl run --until mixture`. Not to be written to."""
    home = sorted_in.copy(tmp_path_factory.mktemp("built") / "home")
    home.run("run", *SOURCES, "--until", "mixture")
    return home


@pytest.fixture
def fresh(raw: Home, tmp_path: Path) -> Home:
    """Files, a profile, and no lake yet."""
    return raw.copy(tmp_path / "home")


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Home], Home]:
    return lambda home: home.copy(tmp_path / "copy")
