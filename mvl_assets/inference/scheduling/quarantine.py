"""Finding the request that crashes a server among all that were in flight: poison-pill bisection.

The suspects are sent again in a few groups, each alone on the server. A group that crashes it once more is split
further; a request that does so alone, more than once, is the culprit. All others are answered. With at most `n_groups`
suspects every group is a single request; with 256 suspects the culprit costs five crashes and not 256 turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from mvl_assets.inference.client.attempt import PendingRequest
from mvl_assets.inference.client.endpoint_client import EndpointClient

# How long a group waits for the endpoint that crashed, before another one is put at risk.
CRASHED_ENDPOINT_WAIT_S = 30.0


class Quarantine:
    """Groups of suspects that wait for an endpoint of their own.

    Args:
        n_groups: Into how many groups the suspects of a crash are split.
        max_solo_crashes: Crashes with nothing else in flight that make a request the culprit: one may be chance.
    """

    def __init__(self, n_groups: int, max_solo_crashes: int) -> None:
        self._n_groups = n_groups
        self._max_solo_crashes = max_solo_crashes
        self._groups: deque[tuple[list[PendingRequest], EndpointClient]] = deque()

    def __len__(self) -> int:
        """Return the number of suspects that wait."""
        return sum(len(group) for group, _ in self._groups)

    def add_suspects(self, client: EndpointClient, suspects: list[PendingRequest]) -> list[PendingRequest]:
        """Take the requests that `client` held when it crashed, and return those that are proven to be the culprits."""
        if client.state.isolated_group_size == 1 and len(suspects) == 1:
            suspects[0].solo_crashes += 1
            if suspects[0].solo_crashes >= self._max_solo_crashes:
                return suspects
        group_size = -(-len(suspects) // self._n_groups)
        groups = [suspects[i : i + group_size] for i in range(0, len(suspects), group_size)] if suspects else []
        # In front: what is known to be dangerous is settled before other groups reach a restarted server.
        self._groups.extendleft((group, client) for group in reversed(groups))
        return []

    def pop_next_group(
        self, clients: Sequence[EndpointClient], now: float
    ) -> tuple[EndpointClient, list[PendingRequest]] | None:
        """Return a group and the idle endpoint that it may be sent to; None while there is none.

        Drains the endpoint for the next group, and opens endpoints again when no group is left.
        """
        for client in clients:
            if client.state.isolated_group_size and client.is_idle:
                client.state.end_isolation()
        if not self._groups:
            for client in clients:
                client.state.end_draining()
            return None
        group, crashed_client = self._groups[0]
        target = self._pick_client(crashed_client, clients, now)
        if target is None:
            return None
        target.state.begin_draining()
        if not target.is_idle or not target.state.is_up or target.state.is_cooling_down(now):
            return None
        self._groups.popleft()
        target.state.isolate(len(group))
        return target, group

    def _pick_client(
        self, crashed_client: EndpointClient, clients: Sequence[EndpointClient], now: float
    ) -> EndpointClient | None:
        state = crashed_client.state
        if not crashed_client.has_left and (
            state.is_up or state.down_since is None or now - state.down_since < CRASHED_ENDPOINT_WAIT_S
        ):
            return crashed_client
        return next((client for client in clients if client.state.is_up), None)
