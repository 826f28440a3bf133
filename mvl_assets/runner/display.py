"""What `mvl run` shows while it runs: a line per step, and bars at the bottom of a terminal.

Without a terminal there are no bars; a line of progress comes every `PROGRESS_INTERVAL_S` instead.
"""

from __future__ import annotations

import os
import sys
import time

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column

from mvl_assets.common.verbosity import Verbosity, get_verbosity
from mvl_assets.inference.progress import Progress

PROGRESS_INTERVAL_S = 10.0


class RunDisplay:
    """The output of one run."""

    def __init__(self) -> None:
        self._started_at = time.monotonic()
        self._is_quiet = get_verbosity() == Verbosity.QUIET
        self._bars = _build_bars() if sys.stdout.isatty() and not self._is_quiet else None
        self._n_steps = 0
        self._stage_bar: TaskID | None = None
        self._step_bars: dict[str, TaskID] = {}
        self._last_logged_at: dict[str, float] = {}

    def log(self, line: str, *, is_error: bool = False) -> None:
        """Print a line with the seconds since the start, above the bars; when quiet, errors only."""
        if self._is_quiet and not is_error:
            return
        text = click.style(f"{time.monotonic() - self._started_at:7.1f} s  {line}", fg="red" if is_error else None)
        if self._bars is None or not self._bars.live.is_started:
            click.echo(text)
        else:
            # The bars' console moves them down; as plain text, a line is neither folded nor read as markup.
            self._bars.console.out(text, highlight=False)

    def begin_stage(self, stage: str, n_steps: int) -> None:
        """Show a bar for a stage's steps, until `remove_bars`."""
        if self._bars is None or not n_steps:
            return
        self._n_steps = n_steps
        self._bars.start()
        self._stage_bar = self._bars.add_task(stage, total=n_steps, figures="")

    def add_steps(self, n_steps: int) -> None:
        """Add steps to the stage."""
        if self._bars is not None and self._stage_bar is not None:
            self._n_steps += n_steps
            self._bars.update(self._stage_bar, total=self._n_steps)

    def finish_step(self, name: str) -> None:
        """Advance the bar of the stage, and remove that of the step."""
        if self._bars is None or self._stage_bar is None:
            return
        self._bars.advance(self._stage_bar)
        if name in self._step_bars:
            self._bars.remove_task(self._step_bars.pop(name))

    def report_progress(self, name: str, progress: Progress) -> None:
        """Show how far a step is that asks a model."""
        if self._bars is not None and self._stage_bar is not None:
            if name not in self._step_bars:
                self._step_bars[name] = self._bars.add_task(name, total=progress.total, figures="")
            self._bars.update(
                self._step_bars[name],
                completed=progress.n_finished,
                total=progress.total,
                figures=progress.format_figures(),
            )
        elif time.monotonic() - self._last_logged_at.get(name, self._started_at) >= PROGRESS_INTERVAL_S:
            self._last_logged_at[name] = time.monotonic()
            self.log(progress.format_line())

    def remove_bars(self) -> None:
        """Remove all bars."""
        if self._bars is None:
            return
        for task_id in self._bars.task_ids:
            self._bars.remove_task(task_id)
        self._bars.stop()
        self._stage_bar, self._step_bars = None, {}


def _build_bars() -> Bars:
    # Dagster redirects the process's output during a step, into a log file where bars would be noise.
    terminal = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[figures]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
        console=Console(file=terminal, force_terminal=True),
        transient=True,
        expand=True,
    )
