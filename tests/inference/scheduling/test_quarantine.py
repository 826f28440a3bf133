"""The search for the request that crashes a server, without a server."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.inference.client.attempt import Attempt, PendingRequest
from mvl_assets.inference.client.endpoint_client import EndpointClient
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.scheduling.quarantine import Quarantine
from tests.inference.helpers import build_requests


def build_client(host: str = "host") -> EndpointClient:
    return EndpointClient(Endpoint(f"http://{host}/v1", "m"), EngineOptions())


@given(st.integers(1, 300), st.data())
def test_bisection_finds_the_culprit_and_clears_all_others(count: int, data: st.DataObject) -> None:
    requests = [PendingRequest(request) for request in build_requests(count)]
    poison = data.draw(st.sampled_from(requests))
    client = build_client()
    quarantine = Quarantine(n_groups=8, max_solo_crashes=2)
    assert quarantine.add_suspects(client, requests) == []
    cleared: list[PendingRequest] = []
    n_crashes = 1
    culprits: list[PendingRequest] = []
    while (turn := quarantine.pop_next_group([client], now=0.0)) is not None:
        _, group = turn
        if poison in group:
            n_crashes += 1
            culprits += quarantine.add_suspects(client, group)
        else:
            cleared += group
    assert culprits == [poison]
    assert {id(request) for request in cleared} == {id(request) for request in requests} - {id(poison)}
    assert n_crashes <= 6
    assert not client.state.is_draining


def test_a_group_waits_until_its_endpoint_is_idle_and_has_it_alone() -> None:
    client = build_client()
    quarantine = Quarantine(n_groups=8, max_solo_crashes=2)
    quarantine.add_suspects(client, [PendingRequest(request) for request in build_requests(2)])
    attempt = Attempt(PendingRequest(build_requests(1)[0]), sent_at=0.0)
    client.on_sent(attempt)
    assert quarantine.pop_next_group([client], now=0.0) is None
    assert not client.is_free(0.0)
    client.on_finished(attempt)
    turn = quarantine.pop_next_group([client], now=0.0)
    assert turn is not None and len(turn[1]) == 1


def test_suspects_move_to_another_endpoint_only_when_theirs_stays_down() -> None:
    crashed, other = build_client("a"), build_client("b")
    quarantine = Quarantine(n_groups=8, max_solo_crashes=2)
    quarantine.add_suspects(crashed, [PendingRequest(request) for request in build_requests(1)])
    crashed.state.begin_diagnosis()
    crashed.state.mark_down(100.0)
    assert quarantine.pop_next_group([crashed, other], now=110.0) is None
    turn = quarantine.pop_next_group([crashed, other], now=140.0)
    assert turn is not None and turn[0] is other
