"""Which request is sent next, and where: where its image was seen before, unless that endpoint has a backlog."""

from __future__ import annotations

from collections import Counter

from mvl_assets.inference.client.attempt import Attempt, PendingRequest
from mvl_assets.inference.client.endpoint_client import EndpointClient
from mvl_assets.inference.client.stable_hash import compute_stable_hash
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.scheduling.affinity import MAX_TEXT_GROUP_SIZE, AffinityGrouper, pick_preferred
from mvl_assets.inference.scheduling.ready_queue import ReadyQueue
from tests.inference.helpers import build_request, build_requests

OPTIONS = EngineOptions()


def build_clients(count: int) -> list[EndpointClient]:
    return [EndpointClient(Endpoint(f"http://host-{i}:8000/v1", "m"), OPTIONS) for i in range(count)]


def build_pending(affinity: int) -> PendingRequest:
    return PendingRequest(build_request(f"question {affinity}"), affinity)


def occupy(client: EndpointClient, count: int) -> None:
    for _ in range(count):
        client.on_sent(Attempt(build_pending(0), sent_at=0.0))


def find_affinity(clients: list[EndpointClient], preferred: EndpointClient) -> int:
    return next(i for i in range(1000) if pick_preferred(clients, i) is preferred)


def test_the_choice_is_even_and_changes_only_for_an_endpoint_that_comes_or_goes() -> None:
    clients = build_clients(5)
    chosen = {i: pick_preferred(clients, i) for i in map(compute_stable_hash, map(str, range(5000)))}
    assert all(800 < count < 1200 for count in Counter(chosen.values()).values())
    for i, preferred in chosen.items():
        if preferred is not clients[4]:
            assert pick_preferred(clients[:4], i) is preferred
    # Every process chooses alike, whatever order it knows the endpoints in.
    again = list(reversed(build_clients(5)))
    assert all(pick_preferred(again, i).endpoint.key == preferred.endpoint.key for i, preferred in chosen.items())


def test_every_request_is_popped_once_and_goes_where_it_prefers() -> None:
    clients = build_clients(3)
    ready = ReadyQueue(clients)
    requests = [build_pending(i % 20) for i in range(60)]
    for pending in requests:
        ready.append(pending)
    popped = [ready.pop_next(clients) for _ in range(len(ready))]
    assert len(ready) == 0
    assert {id(pending) for _, pending in popped} == {id(pending) for pending in requests}
    assert all(client is pick_preferred(clients, pending.affinity) for client, pending in popped)


def test_an_idle_endpoint_takes_a_group_from_one_that_has_a_backlog() -> None:
    busy, idle = clients = build_clients(2)
    ready = ReadyQueue(clients)
    affinity = find_affinity(clients, busy)
    group = [build_pending(affinity) for _ in range(3)]
    other = build_pending(next(i for i in range(affinity + 1, 1000) if pick_preferred(clients, i) is busy))
    for pending in (*group, other):
        ready.append(pending)
    # The endpoint has room and is hardly busier: it keeps its requests.
    assert ready.pop_next(clients) == (busy, group[0])
    occupy(busy, busy.limit.value // 2)
    assert ready.pop_next(clients) == (idle, group[1])
    # What belongs with it has moved too.
    assert ready.pop_next([idle, busy]) == (idle, group[2])
    assert ready.pop_next([busy]) == (busy, other)


def test_a_request_that_was_sent_before_goes_first_and_anywhere() -> None:
    clients = build_clients(2)
    ready = ReadyQueue(clients)
    first, second, third, last = (build_pending(find_affinity(clients, clients[0])) for _ in range(4))
    ready.append(last)
    ready.append_unassigned(third)
    ready.push_front([first, second])
    assert [ready.pop_next([clients[1]])[1] for _ in range(4)] == [first, second, third, last]


def test_requests_follow_endpoints_that_come_and_go() -> None:
    clients = build_clients(1)
    ready = ReadyQueue(clients)
    requests = [build_pending(i) for i in range(40)]
    first = clients.pop()
    for pending in requests[:20]:
        ready.append(pending)
    for client in (first, *build_clients(3)[1:]):
        clients.append(client)
        ready.admit(client)
    for pending in requests[20:]:
        ready.append(pending)
    clients.remove(first)
    ready.release(first)
    popped = [ready.pop_next(clients) for _ in range(len(ready))]
    assert {id(pending) for _, pending in popped} == {id(pending) for pending in requests}
    assert all(client is pick_preferred(clients, pending.affinity) for client, pending in popped)


def test_requests_with_one_beginning_belong_together_up_to_a_bound() -> None:
    grouper = AffinityGrouper()
    conversation = "a long conversation " * 10
    criteria = [build_request(conversation + ask) for ask in ("is it right?", "is it clear?", "is it long?")]
    affinities = [grouper.compute_affinity(request) for request in criteria]
    assert len(set(affinities)) == 1
    others = [grouper.compute_affinity(request) for request in build_requests(3, prefix="")]
    assert len({*others, *affinities}) == 4
    # Instructions that all requests share say nothing about what belongs together.
    shared = AffinityGrouper()
    groups = Counter(shared.compute_affinity(request) for request in build_requests(40, prefix=conversation))
    assert max(groups.values()) == MAX_TEXT_GROUP_SIZE and len(groups) == 5
