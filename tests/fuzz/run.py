"""Fuzzing: damaged input into every parser of bytes that strangers wrote, for a given time.

    python -m tests.fuzz.run [TARGET ...] [--seconds 600] [--out .mvl/fuzz]

Each target runs in a process of its own, with a bound on its memory and on the processor time of one input, so that a
crash or a hang costs one input and names it. Input n of a target is always the same. What is found is written below
`--out` with the reason; a finding belongs into `tests/hostile` or a test of its package once it is understood.
"""

from __future__ import annotations

import argparse
import json
import mmap
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.fuzz.mutate import damaged
from tests.fuzz.targets import TARGETS, Tree

MEMORY = 3 << 30
"""Bytes of address space that reading may add to what a process has when it begins."""
CPU_S, WALL_S = 20, 180
"""Seconds one input may take before the process is ended."""


class Bench:
    """The folders of one target's seeds on disk, one of them damaged at a time."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.target, self._folder = name, TARGETS[name], folder
        self._trees = self.target.seeds()
        for number, tree in enumerate(self._trees):
            _write(folder / str(number), tree)

    def input(self, n: int) -> tuple[int, Tree]:
        """The n-th input: which tree it changes, and the files that differ."""
        rng = random.Random(f"{self.name}/{n}")
        number = rng.randrange(len(self._trees))
        tree = self._trees[number]
        name = rng.choice([name for name, data in tree.items() if len(data) != 64] or list(tree))
        others = [other.get(name, b"") for other in self._trees]
        return number, {name: damaged(tree[name], name, rng, self.target.tokens, others)}

    def run(self, n: int) -> None:
        """Reads the n-th input. Raises what is a finding."""
        number, changed = self.input(n)
        _write(self._folder / str(number), changed)
        try:
            self.target.run(self._folder / str(number))
        except self.target.allowed:
            pass
        finally:
            _write(self._folder / str(number), {name: self._trees[number][name] for name in changed})


def _write(folder: Path, tree: Tree) -> None:
    for name, data in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def child(name: str, begin: int, seconds: float, note: Path, scratch: Path) -> None:
    """Runs inputs until the processor time is used up; says on standard output what was found."""
    bench = Bench(name, scratch)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with note.open("r+b") as file, mmap.mmap(file.fileno(), 8) as place:
        n, begun = begin, time.process_time()
        while time.process_time() - begun < seconds:
            place[:] = n.to_bytes(8, "little")
            # Not caught here: a parser that hangs in C would never come back to Python.
            signal.setitimer(signal.ITIMER_PROF, CPU_S)
            signal.setitimer(signal.ITIMER_REAL, WALL_S)
            try:
                bench.run(n)
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                output = {"n": n, "why": f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"}
                print(json.dumps({**output, "text": traceback.format_exc()[-3000:]}), flush=True)
            n += 1
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    print(json.dumps({"done": n, "cpu": time.process_time() - begun}), flush=True)


def fuzz(name: str, seconds: float, out: Path) -> tuple[int, float, Counter[str]]:
    """(inputs, seconds of processor time, findings by reason) of one target."""
    result: Counter[str] = Counter()
    n, used = 0, 0.0
    while used < seconds:
        with tempfile.TemporaryDirectory(prefix="mvl-fuzz-", dir=_memory_disk()) as scratch:
            note = Path(scratch) / "n"
            note.write_bytes(bytes(8))
            command = [sys.executable, "-m", "tests.fuzz.run", "--child", name, "--begin", str(n)]
            command += ["--seconds", str(seconds - used), "--note", str(note), "--scratch", f"{scratch}/trees"]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, errors="replace")
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            ended = None
            for line in done.stdout.splitlines():
                output = json.loads(line)
                if "done" in output:
                    ended = output
                    continue
                result[output["why"]] += 1
                if result[output["why"]] == 1:
                    _keep(out, name, output["n"], output["why"], output["text"])
            if ended is not None:
                return ended["done"], used + ended["cpu"], result
            used += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            at = int.from_bytes(note.read_bytes(), "little")
            if done.returncode > 0:
                raise RuntimeError(f"the target {name} cannot run (it ended with {done.returncode})")
            why = f"ended by {signal.Signals(-done.returncode).name}"
            result[why] += 1
            _keep(out, name, at, why, "")
            n = at + 1
    return n, used, result


def _keep(out: Path, name: str, n: int, why: str, text: str) -> None:
    """Writes the damaged files of an input beside the reason."""
    folder = out / name / str(n)
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        number, changed = Bench(name, Path(scratch)).input(n)
    _write(folder, {**changed, "WHY": f"{name} input {n} (tree {number}): {why}\n{text}".encode()})


def _memory_disk() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], help="default: all")
    parser.add_argument("--seconds", type=float, default=600, help="of processor time for each target")
    parser.add_argument("--out", type=Path, default=Path(".mvl/fuzz"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--begin", type=int, default=0, help="number of the first input")
    parser.add_argument("--note", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.begin, args.seconds, args.note, args.scratch)
        return 0
    total = 0
    print(f"{'target':34}{'inputs':>9}{'cpu s':>8}{'findings':>10}")
    for name in args.targets or TARGETS:
        inputs, used, result = fuzz(name, args.seconds, args.out)
        total += result.total()
        print(f"{name:34}{inputs:>9}{used:>8.0f}{len(result):>10}", flush=True)
        for why, count in result.most_common():
            print(f"    {count:>6} x {why}", flush=True)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
