"""Requests that may be sent now, and the choice of the next one: a queue per endpoint, and stealing between them.

Each request waits for the endpoint that it prefers (`affinity`). An endpoint with nothing of its own takes from the
longest other queue, so none is idle while another has a backlog: consistent hashing with bounded loads (Mirrokni,
Thorup and Zadimoghaddam, SODA 2018), applied to queues.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from mvl_assets.inference.client.attempt import PendingRequest
from mvl_assets.inference.client.endpoint_client import EndpointClient
from mvl_assets.inference.scheduling.affinity import pick_preferred

# An endpoint that has room keeps its requests unless its load, a share of its limit, is this much above the lowest.
LOAD_MARGIN = 0.25
# Requests of one affinity that are taken from another endpoint together, such as the criteria of one rewrite.
MAX_STOLEN = 8


class ReadyQueue:
    """The requests of one run that may be sent now. `clients` is the run's list, which may change."""

    def __init__(self, clients: Sequence[EndpointClient]) -> None:
        self._clients = clients
        # Requests for any endpoint, which come first: sent before, and older than all others.
        self._unassigned: deque[PendingRequest] = deque()
        self._assigned: dict[EndpointClient, deque[PendingRequest]] = {}
        self._n_assigned = 0

    def __len__(self) -> int:
        return len(self._unassigned) + self._n_assigned

    def append(self, pending: PendingRequest) -> None:
        """Queue a request for the endpoint that it prefers."""
        clients = [client for client in self._clients if client.state.is_up]
        if not clients:
            self._unassigned.append(pending)
            return
        self._assigned.setdefault(pick_preferred(clients, pending.affinity), deque()).append(pending)
        self._n_assigned += 1

    def append_unassigned(self, pending: PendingRequest) -> None:
        """Queue a request for any endpoint: it has failed at the one that it prefers."""
        self._unassigned.append(pending)

    def push_front(self, pending_requests: Sequence[PendingRequest]) -> None:
        """Send these requests next, in their order, to any endpoint."""
        self._unassigned.extendleft(reversed(pending_requests))

    def admit(self, client: EndpointClient) -> None:
        """Give an endpoint that has joined the requests that prefer it."""
        waiting = list(self._unassigned)
        self._unassigned.clear()
        taken: deque[PendingRequest] = deque()
        for owner, queue in self._assigned.items():
            kept: deque[PendingRequest] = deque()
            for pending in queue:
                preferred = pick_preferred((owner, client), pending.affinity)
                (taken if preferred is client else kept).append(pending)
            self._assigned[owner] = kept
        self._assigned[client] = taken
        for pending in waiting:
            self.append(pending)

    def release(self, client: EndpointClient) -> None:
        """Give the requests that wait for an endpoint to the others: it has left."""
        released = self._assigned.pop(client, ())
        self._n_assigned -= len(released)
        for pending in released:
            self.append(pending)

    def pop_next(self, free_clients: Sequence[EndpointClient]) -> tuple[EndpointClient, PendingRequest]:
        """Return the next request, and the endpoint that it goes to unless another has its image.

        Call it only when there is a request. `free_clients` are those that may take one, at least one.
        """
        idlest = min(free_clients, key=_get_load)
        if self._unassigned:
            return idlest, self._unassigned.popleft()
        queue = self._assigned.get(idlest)
        if queue:
            self._n_assigned -= 1
            return idlest, queue.popleft()
        owner, queue = max(self._assigned.items(), key=lambda item: len(item[1]))
        if owner in free_clients and owner.load <= idlest.load + LOAD_MARGIN:
            self._n_assigned -= 1
            return owner, queue.popleft()
        stolen = _pop_group(queue)
        self._assigned.setdefault(idlest, deque()).extend(stolen[1:])
        self._n_assigned -= 1
        return idlest, stolen[0]


def _get_load(client: EndpointClient) -> float:
    return client.load


def _pop_group(queue: deque[PendingRequest]) -> list[PendingRequest]:
    """Take the first request and those directly behind it that belong with it."""
    group = [queue.popleft()]
    while queue and len(group) < MAX_STOLEN and queue[0].affinity == group[0].affinity:
        group.append(queue.popleft())
    return group
