"""Fields of a profile that are checked against each other."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mvl_assets.config.profile import ExecutorConfig


def test_address_of_an_executor_without_ray_is_refused() -> None:
    with pytest.raises(ValidationError, match="belongs to kind: ray"):
        ExecutorConfig(address="auto")


def test_executor_of_fewer_than_one_process_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        ExecutorConfig(processes=0)
