"""Starting workers in processes of their own, talking to them and killing them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


class Worker:
    """One `tests.lake.workers` process."""

    def __init__(self, name: str, *words: str, before: Sequence[str] = ()) -> None:
        # A killed process leaves its temporary files behind: on a disk of the test's own.
        scratch = {} if before else {"MVL_SCRATCH": str(Path(words[0]).parent)}
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "tests.lake.workers", name, *words],
            cwd=PROJECT,
            env=os.environ | scratch,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """Its next line. Raises `EOFError` when it has ended."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        if not text:
            raise EOFError(f"worker ended with {self.process.wait()}")
        return text.strip()

    def rest(self) -> list[str]:
        """What it still says until it ends."""
        assert self.process.stdout is not None
        return [line.strip() for line in self.process.stdout]

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> list[str]:
        """Kill with SIGKILL and return the lines that were not read yet."""
        self.process.kill()
        output = self.rest()
        self.process.wait()
        return output


@contextmanager
def workers(*commands: Sequence[str]) -> Iterator[list[Worker]]:
    """Several workers, ended however the test ends."""
    started = [Worker(*command) for command in commands]
    try:
        yield started
    finally:
        for worker in started:
            worker.kill()
