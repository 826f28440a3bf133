"""Equality of formulas by `math-verify` (sympy), in a process of its own.

An answer may hold a formula that takes sympy forever, or all memory: `9^{9^{9^9}}`. The process has a limit of memory,
and is killed and started anew where it takes longer than `TIMEOUT_S`; then nothing is said about the two.
"""

from __future__ import annotations

import atexit
import json
import selectors
import subprocess
import sys
import threading
from contextlib import suppress
from functools import lru_cache

TIMEOUT_S = 3.0
# sympy is imported first, on a machine that may be busy.
START_TIMEOUT_S = 120.0
MAX_FORMULA_CHARS = 200


def compare_formulas(formula: str, reference: str) -> bool | None:
    """Return whether two results in LaTeX or plain notation are equal; None where that cannot be decided in time."""
    if max(len(formula), len(reference)) > MAX_FORMULA_CHARS:
        return None
    return _compare(formula, reference)


@lru_cache(maxsize=4096)
def _compare(formula: str, reference: str) -> bool | None:
    return _WORKER.compare(formula, reference)


class _Worker:
    """The process, started with the first question. Threads take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def compare(self, formula: str, reference: str) -> bool | None:
        question = json.dumps([formula, reference]).encode("ascii") + b"\n"
        with self._lock:
            try:
                process = self._process or self._start()
                assert process.stdin is not None
                process.stdin.write(question)
                process.stdin.flush()
                answer = _read_line(process, TIMEOUT_S)
            except OSError:
                answer = None
            if answer is None:
                self.stop()
                return None
        return json.loads(answer)

    def stop(self) -> None:
        """Kill the process; the next question starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with suppress(OSError):  # what was not sent yet
                    stream.close()

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mvl_assets.answer_matching.math_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if _read_line(self._process, START_TIMEOUT_S) is None:
            raise OSError("the process for formulas does not start")
        return self._process


def _read_line(process: subprocess.Popen[bytes], timeout_s: float) -> bytes | None:
    """Return the next line, a short one, that the process writes; None where it takes too long or has ended."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline() or None if selector.select(timeout_s) else None


_WORKER = _Worker()
atexit.register(_WORKER.stop)
