"""Bars on a terminal, lines without one, and errors alone when quiet."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from mvl_assets.common.verbosity import Verbosity, set_verbosity
from mvl_assets.inference.progress import Progress
from mvl_assets.runner import display
from mvl_assets.runner.display import RunDisplay


def progress(n_finished: int) -> Progress:
    numbers = {"requests_per_s": 2.0, "prompt_tokens": 1, "completion_tokens": 1, "tokens_per_s": 7.0, "in_flight": 3}
    up = {"concurrency_limit": 4, "n_endpoints_up": 1, "n_endpoints": 1, "error_counts": {}, "n_failed": 0}
    rest = {"elapsed_s": 1.0, "eta_s": 5.0, "cost": None, "currency": ""}
    return Progress(name="rewritten gqa", n_finished=n_finished, total=10, **numbers, **up, **rest)  # type: ignore[arg-type]


@pytest.fixture
def verbosity() -> Iterator[None]:
    yield
    set_verbosity(Verbosity.NORMAL)


def run(shown: RunDisplay) -> None:
    shown.begin_stage("rewritten", 1)
    for n_finished in range(3):
        shown.report_progress("rewritten/general[gqa]", progress(n_finished))
    shown.add_steps(1)
    shown.finish_step("rewritten/general[gqa]")
    shown.log("rewritten/general[gqa]  row_count 5")
    shown.log("judged/general[gqa]  FAILED: [no] server", is_error=True)
    shown.remove_bars()


def test_without_a_terminal_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(RunDisplay())
    output = capsys.readouterr().out
    assert "requests/s" not in output and output.count("row_count 5") == output.count("FAILED: [no] server") == 1
    monkeypatch.setattr(display, "PROGRESS_INTERVAL_S", 0.0)
    run(RunDisplay())
    assert (
        capsys.readouterr().out.count("2/10 requests · 2.0 requests/s · 7 tokens/s · 3 in flight of 4 · 0:00:05") == 1
    )


def test_quiet_leaves_errors_alone(capsys: pytest.CaptureFixture[str], verbosity: None) -> None:
    set_verbosity(Verbosity.QUIET)
    run(RunDisplay())
    (line,) = capsys.readouterr().out.splitlines()
    assert "FAILED" in line


def test_on_a_terminal_there_are_bars_and_lines_above_them(monkeypatch: pytest.MonkeyPatch) -> None:
    reading_end, terminal_end = os.openpty()
    with os.fdopen(terminal_end, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("COLUMNS", "120")
        run(RunDisplay())
        os.set_blocking(reading_end, False)
        output = ""
        with suppress(BlockingIOError):
            while True:
                output += os.read(reading_end, 1 << 16).decode()
    os.close(reading_end)
    assert " 0/10" in output and output.count("FAILED: [no] server") == 1
    assert output.index("rewritten") < output.index("row_count 5")
