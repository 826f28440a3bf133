"""`mvl ui` is refused where another one has the project, or the port that Dagster binds only later."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.cli.ui import _hold_port, _hold_project
from mvl_assets.common.free_port import find_free_port
from mvl_assets.errors import MvlError


def test_a_project_has_one_web_interface_and_says_where_it_is(tmp_path: Path) -> None:
    lock = tmp_path / "ui.lock"
    with (
        _hold_project(lock, 3001),
        pytest.raises(MvlError, match=r"runs already: http.*:3001"),
        _hold_project(lock, 3002),
    ):
        pass
    with _hold_project(lock, 3002):
        pass


def test_a_port_is_taken_before_anything_listens_on_it() -> None:
    port = find_free_port()
    with _hold_port(port):
        with pytest.raises(MvlError, match=f"port {port} is in use") as caught, _hold_port(port):
            pass
        assert caught.value.hint == f"mvl ui --port {port + 1}"
    with _hold_port(port):
        pass
