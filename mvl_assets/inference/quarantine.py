"""Finding the request that takes a server down, among all that were in flight when it died.

The suspects are asked again in a few groups, each alone on the server. A group that brings it down once more is split
further; a request that does so with nothing beside it, more than once, is the culprit. Everybody else gets an answer.
With at most `parts` suspects every group is a single request; with 256 the culprit costs five deaths, not 256 turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from mvl_assets.inference.endpoint_client import Item, Lane

# How long a group waits for the endpoint that died, before another one is put at risk.
WAIT_FOR_HOME_S = 30.0


class Quarantine:
    def __init__(self, parts: int, deaths_to_fail: int) -> None:
        self._parts = parts
        self._deaths_to_fail = deaths_to_fail
        self._groups: deque[tuple[list[Item], Lane]] = deque()

    def __len__(self) -> int:
        return sum(len(group) for group, _ in self._groups)

    def put(self, lane: Lane, suspects: list[Item]) -> list[Item]:
        """Takes the requests that `lane` held when it died. Returns those that are found guilty."""
        if lane.group == 1 and len(suspects) == 1:
            suspects[0].deaths_alone += 1
            if suspects[0].deaths_alone >= self._deaths_to_fail:
                return suspects
        size = -(-len(suspects) // self._parts)
        groups = [suspects[i : i + size] for i in range(0, len(suspects), size)] if suspects else []
        # In front: what is known to be dangerous is settled before other groups run beside a fresh server.
        self._groups.extendleft((group, lane) for group in reversed(groups))
        return []

    def next_group(self, lanes: Sequence[Lane], now: float) -> tuple[Lane, list[Item]] | None:
        """A group and the lane that is empty for it. Reserves a lane and lets it run empty first."""
        for lane in lanes:
            if lane.group and not lane.in_flight and not lane.suspects and lane.examination is None:
                lane.group = 0
        if not self._groups:
            for lane in lanes:
                lane.reserved = lane.group > 0
            return None
        group, home = self._groups[0]
        host = self._host(home, lanes, now)
        if host is None:
            return None
        host.reserved = True
        busy = host.in_flight or host.suspects or host.examination is not None
        if busy or not host.up or now < host.resting_until:
            return None
        self._groups.popleft()
        host.group = len(group)
        return host, group

    def _host(self, home: Lane, lanes: Sequence[Lane], now: float) -> Lane | None:
        if home.up or home.down_since is None or now - home.down_since < WAIT_FOR_HOME_S:
            return home
        return next((lane for lane in lanes if lane.up), None)
