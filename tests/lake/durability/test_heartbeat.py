"""A lease is renewed in time, or its holder stops before others may take it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from mvl_assets.lake.durability import heartbeat as module
from mvl_assets.lake.durability.heartbeat import Heartbeat, read_clock, require_held_leases
from mvl_assets.lake.errors import LeaseHeld
from tests.patience import PATIENCE_S


@pytest.fixture
def started() -> Iterator[list[Heartbeat]]:
    heartbeats: list[Heartbeat] = []
    yield heartbeats
    for heartbeat in heartbeats:
        heartbeat.stop()


def test_a_thread_renews_until_the_end(started: list[Heartbeat], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEWALS_PER_LIFETIME", 10_000)
    renewed = threading.Semaphore(0)
    heartbeat = Heartbeat(renewed.release, "the lake", 1000.0)
    started.append(heartbeat)
    heartbeat.start(read_clock())
    assert renewed.acquire(timeout=PATIENCE_S) and renewed.acquire(timeout=PATIENCE_S)
    require_held_leases()
    heartbeat.stop()
    assert not any(thread.name == "mvl-lease" for thread in threading.enumerate())


def test_a_holder_that_was_paused_stops_and_never_renews_again(
    started: list[Heartbeat], monkeypatch: pytest.MonkeyPatch
) -> None:
    renewals: list[int] = []
    heartbeat = Heartbeat(lambda: renewals.append(1), "the lake", 1000.0)
    started.append(heartbeat)
    heartbeat.start(read_clock())
    now = read_clock()
    monkeypatch.setattr(module, "read_clock", lambda: now + 501)
    for _ in range(2):
        with pytest.raises(LeaseHeld, match="the lake"):
            require_held_leases()
        with pytest.raises(LeaseHeld):
            heartbeat.renew()
        monkeypatch.setattr(module, "read_clock", lambda: now)
    assert renewals == []
    heartbeat.stop()
    require_held_leases()


def test_a_pause_before_the_renewal_arrives_counts(started: list[Heartbeat], monkeypatch: pytest.MonkeyPatch) -> None:
    now = read_clock()
    clock = [now]
    monkeypatch.setattr(module, "read_clock", lambda: clock[0])

    def renew_late() -> None:
        clock[0] += 600

    heartbeat = Heartbeat(renew_late, "the lake", 1000.0)
    started.append(heartbeat)
    heartbeat.start(now)
    with pytest.raises(LeaseHeld):
        heartbeat.renew()


def test_a_store_that_fails_for_a_while_costs_nothing(
    started: list[Heartbeat], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEWALS_PER_LIFETIME", 10_000)
    calls = threading.Semaphore(0)

    def fail_at_first() -> None:
        calls.release()
        if len(failures) < 2:
            failures.append(1)
            raise OSError("the store is busy")

    failures: list[int] = []
    heartbeat = Heartbeat(fail_at_first, "the lake", 1000.0)
    started.append(heartbeat)
    heartbeat.start(read_clock())
    for _ in range(3):
        assert calls.acquire(timeout=PATIENCE_S)
    require_held_leases()


def test_a_lease_that_another_process_has_is_lost_at_once(started: list[Heartbeat]) -> None:
    def refuse() -> None:
        raise LeaseHeld("taken")

    heartbeat = Heartbeat(refuse, "the lake", 1000.0)
    started.append(heartbeat)
    heartbeat.start(read_clock())
    with pytest.raises(LeaseHeld, match="taken"):
        heartbeat.renew()
    with pytest.raises(LeaseHeld, match="the lake"):
        require_held_leases()
