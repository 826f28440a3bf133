"""The lease inside a table, for object stores; here on a local table, where it works the same."""

from __future__ import annotations

import threading
import time

import pytest

from mvl_assets.lake.durability import heartbeat
from mvl_assets.lake.durability import lease as leases
from mvl_assets.lake.durability.lease import ConfigLease
from mvl_assets.lake.errors import LakeError, LeaseHeld
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.table import Table
from tests.lake.rows import answer, pages
from tests.patience import PATIENCE_S


@pytest.fixture
def uri(lake: Lake) -> str:
    lake.get_table("category/ocr").create()
    return lake.root


def table(root: str) -> Table:
    """As another process would see it."""
    return Lake(root).get_table("category/ocr")


def test_a_lease_is_refused_until_its_holder_releases_it(uri: str) -> None:
    with ConfigLease(table(uri)):
        with pytest.raises(LeaseHeld) as refused, ConfigLease(table(uri)):
            pass
        assert refused.value.hint is not None
    with ConfigLease(table(uri)):
        pass


def test_one_of_several_concurrent_holders_gets_the_lease(uri: str) -> None:
    rounds, people = 10, 4
    barrier = threading.Barrier(people)
    winners: list[int] = []

    def reach() -> None:
        lease = ConfigLease(table(uri))
        for turn in range(rounds):
            barrier.wait(PATIENCE_S)
            try:
                lease.__enter__()
                winners.append(turn)
                held = True
            except LeaseHeld:
                held = False
            barrier.wait(PATIENCE_S)
            if held:
                lease.__exit__(None, None, None)

    threads = [threading.Thread(target=reach) for _ in range(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert winners == list(range(rounds))


def test_a_lease_that_was_not_renewed_is_taken_over(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    paused = ConfigLease(table(uri))
    paused.__enter__()
    heir = ConfigLease(table(uri))
    with monkeypatch.context() as later:
        later.setattr(leases, "LEASE_TTL_S", 0.0)
        heir.__enter__()
    with pytest.raises(LeaseHeld):
        paused._heartbeat.renew()
    with pytest.raises(LeaseHeld):
        paused.renew()
    paused.__exit__(None, None, None)
    with pytest.raises(LeaseHeld):
        ConfigLease(table(uri)).__enter__()
    heir.__exit__(None, None, None)
    with ConfigLease(table(uri)):
        pass


def test_a_lease_is_renewed_while_its_holder_does_something_else(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "RENEWALS_PER_LIFETIME", 1200)
    with ConfigLease(table(uri)) as lease:
        lease.renew()
        for _ in range(2):
            before = table(uri).version
            while table(uri).version == before:
                time.sleep(0.01)
        with pytest.raises(LeaseHeld), ConfigLease(table(uri)):
            pass
        lease.renew()


def test_rows_can_be_added_while_a_lease_is_held(uri: str) -> None:
    with ConfigLease(table(uri)):
        assert table(uri).insert(pages("a", "x", range(5))) == 5
    assert table(uri).count() == 5


def test_appending_answers_without_a_lease_is_refused(lake: Lake) -> None:
    log = lake.get_answer_log("rewritten", "drawn")
    with pytest.raises(LakeError, match="lease"):
        log.append([answer(1)])
    with log:
        log.append([answer(1)])
    with pytest.raises(LakeError, match="lease"):
        log.append([answer(2)])
