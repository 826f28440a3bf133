"""Freed memory stays with the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.training import tiny_model as small

SCRIPT = """
import resource, sys
from mvl_assets.common.malloc import retain_freed_blocks
if sys.argv[1] == "kept":
    retain_freed_blocks()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    bytearray(b"x") * (64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_a_freed_block_that_is_allocated_again_is_not_faulted_in_again() -> None:
    def faults(what: str) -> int:
        command = [sys.executable, "-c", SCRIPT, what]
        done = subprocess.run(command, env=small.build_environment(), capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("kept") < faults("given back") / 4
