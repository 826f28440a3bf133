"""The first damaged inputs of every target, which the long runs of `make fuzz` go on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.run import Bench
from tests.fuzz.targets import TARGETS

INPUTS = 100


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_gives_results_rejects_or_the_errors_that_are_meant(name: str, tmp_path: Path) -> None:
    bench = Bench(name, tmp_path)
    for n in range(INPUTS):
        bench.run(n)


def test_an_input_is_the_same_every_time_and_no_seed_is_left_damaged(tmp_path: Path) -> None:
    first, second = Bench("yaml", tmp_path / "1"), Bench("yaml", tmp_path / "2")
    before = {p.name: p.read_bytes() for p in (tmp_path / "1").rglob("*.yaml")}
    assert [first.input(n) for n in range(50)] == [second.input(n) for n in range(50)]
    for n in range(50):
        first.run(n)
    assert {p.name: p.read_bytes() for p in (tmp_path / "1").rglob("*.yaml")} == before
