"""Finding the request that takes a server down, among all that were in flight when it died.

The suspects are asked again in a few groups, each alone on the server. A group that brings it down once more is split
further; a request that does so with nothing beside it, more than once, is the culprit. Everybody else gets an answer.
With at most `n_groups` suspects every group is a single request; with 256 the culprit costs five deaths, not 256 turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from mvl_assets.inference.endpoint_client import EndpointClient, PendingRequest

# How long a group waits for the endpoint that died, before another one is put at risk.
CRASHED_ENDPOINT_WAIT_S = 30.0


class Quarantine:
    def __init__(self, n_groups: int, max_solo_crashes: int) -> None:
        self._n_groups = n_groups
        self._max_solo_crashes = max_solo_crashes
        self._groups: deque[tuple[list[PendingRequest], EndpointClient]] = deque()

    def __len__(self) -> int:
        return sum(len(group) for group, _ in self._groups)

    def add_suspects(self, client: EndpointClient, suspects: list[PendingRequest]) -> list[PendingRequest]:
        """Takes the requests that `client` held when it died. Returns those that are found guilty."""
        if client.isolated_group_size == 1 and len(suspects) == 1:
            suspects[0].solo_crashes += 1
            if suspects[0].solo_crashes >= self._max_solo_crashes:
                return suspects
        group_size = -(-len(suspects) // self._n_groups)
        groups = [suspects[i : i + group_size] for i in range(0, len(suspects), group_size)] if suspects else []
        # In front: what is known to be dangerous is settled before other groups run beside a fresh server.
        self._groups.extendleft((group, client) for group in reversed(groups))
        return []

    def pop_next_group(
        self, clients: Sequence[EndpointClient], now: float
    ) -> tuple[EndpointClient, list[PendingRequest]] | None:
        """A group and the lane that is empty for it. Reserves a lane and lets it run empty first."""
        for client in clients:
            if (
                client.isolated_group_size
                and not client.in_flight
                and not client.crash_suspects
                and client.health_check_task is None
            ):
                client.isolated_group_size = 0
        if not self._groups:
            for client in clients:
                client.draining = client.isolated_group_size > 0
            return None
        group, crashed_client = self._groups[0]
        target = self._pick_client(crashed_client, clients, now)
        if target is None:
            return None
        target.draining = True
        busy = target.in_flight or target.crash_suspects or target.health_check_task is not None
        if busy or not target.is_up or now < target.cooldown_until:
            return None
        self._groups.popleft()
        target.isolated_group_size = len(group)
        return target, group

    def _pick_client(
        self, crashed_client: EndpointClient, clients: Sequence[EndpointClient], now: float
    ) -> EndpointClient | None:
        if (
            crashed_client.is_up
            or crashed_client.down_since is None
            or now - crashed_client.down_since < CRASHED_ENDPOINT_WAIT_S
        ):
            return crashed_client
        return next((client for client in clients if client.is_up), None)
