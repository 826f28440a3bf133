"""Waiting for a rank that works alone takes another time limit than a step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from mvl_assets.errors import MvlError
from mvl_training.trainer import collective


@pytest.fixture(scope="module", autouse=True)
def single_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    store: Path = tmp_path_factory.mktemp("store") / "file"
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=0, world_size=1, timeout=collective.STEP_TIMEOUT
    )
    collective.open_control_group()
    yield
    dist.destroy_process_group()


def _read_timeout(group: Any) -> Any:
    return group._get_backend(torch.device("cpu")).options._timeout


def test_ranks_wait_longer_for_one_that_works_alone_than_for_a_step() -> None:
    assert _read_timeout(dist.group.WORLD) == collective.STEP_TIMEOUT
    assert _read_timeout(collective._control_group) == collective.CONTROL_TIMEOUT
    assert collective.CONTROL_TIMEOUT > 10 * collective.STEP_TIMEOUT


def test_the_result_or_the_error_of_rank_0_reaches_all() -> None:
    def refuse() -> None:
        raise MvlError("refused")

    assert collective.run_on_rank_0(lambda: "checkpoint") == "checkpoint"
    with pytest.raises(MvlError, match="refused"):
        collective.run_on_rank_0(refuse)
    collective.wait_for_all_ranks()
