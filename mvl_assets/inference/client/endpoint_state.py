"""The state of one endpoint: a circuit breaker with diagnosis and restart, and isolation for suspected requests.

`EndpointStateMachine` is the only owner: other modules call its methods and assign none of its fields.
"""

from __future__ import annotations

from enum import Enum

from mvl_assets.inference.client.faults import RequestFault


class EndpointState(Enum):
    """Availability of an endpoint, with the step of diagnosis or recovery that is under way."""

    READY = "ready"
    DIAGNOSING = "diagnosing"  # A failure looked like a crash: its health is being checked. Still takes requests.
    DOWN = "down"  # Takes no requests; probed until it answers.
    RESTARTING = "restarting"  # Takes no requests; its local server is being started again.
    LOST = "lost"  # Takes no requests, and its restart has failed: nothing is tried until a late fault arrives.


class Isolation(Enum):
    """Sharing mode of an endpoint: it serves all requests, or only those suspected of crashing it."""

    SHARED = "shared"
    DRAINING = "draining"  # Takes nothing new: kept free for a group of suspects.
    ISOLATED = "isolated"  # Holds a group of suspects and nothing else.


_TRANSITIONS = {
    EndpointState.READY: {EndpointState.DIAGNOSING},
    EndpointState.DIAGNOSING: {EndpointState.READY, EndpointState.DOWN},
    EndpointState.DOWN: {EndpointState.DOWN, EndpointState.RESTARTING, EndpointState.READY, EndpointState.LOST},
    EndpointState.RESTARTING: {EndpointState.DOWN},
    EndpointState.LOST: {EndpointState.DOWN},
}


class EndpointStateMachine:
    """State of one endpoint. All times are seconds on the event loop's clock.

    Isolation is independent of `current`: an endpoint that crashes with a group of suspects stays isolated, because
    the size of the group decides what the crash proves.

    Args:
        circuit_breaker_threshold: Failures in a row, over all requests, that open the circuit.
    """

    def __init__(self, circuit_breaker_threshold: int) -> None:
        self._circuit_breaker_threshold = circuit_breaker_threshold
        self._current = EndpointState.READY
        self._down_since: float | None = None
        self._cooldown_until = 0.0
        self._consecutive_failures = 0
        # Since when every request has failed; None while requests succeed.
        self._no_success_since: float | None = None
        self._has_responded = False
        self._last_fault: RequestFault | None = None
        self._isolation = Isolation.SHARED
        self._isolated_group_size = 0

    # -- reading -------------------------------------------------------------------------------------------------------

    @property
    def current(self) -> EndpointState:
        return self._current

    @property
    def is_up(self) -> bool:
        return self._current in (EndpointState.READY, EndpointState.DIAGNOSING)

    @property
    def is_under_diagnosis(self) -> bool:
        """Whether a diagnosis is under way, the wait for recovery included."""
        return self._current not in (EndpointState.READY, EndpointState.LOST)

    @property
    def is_draining(self) -> bool:
        """Whether the endpoint takes suspects only."""
        return self._isolation is not Isolation.SHARED

    @property
    def isolation(self) -> Isolation:
        return self._isolation

    @property
    def isolated_group_size(self) -> int:
        """Size of the group of suspects that the endpoint holds alone; 0 without one."""
        return self._isolated_group_size

    @property
    def is_circuit_open(self) -> bool:
        return self._consecutive_failures >= self._circuit_breaker_threshold

    @property
    def consecutive_failures(self) -> int:
        return self._consecutive_failures

    @property
    def has_responded(self) -> bool:
        """Whether the endpoint has answered anything in this run, or was started again."""
        return self._has_responded

    @property
    def down_since(self) -> float | None:
        return self._down_since

    @property
    def cooldown_until(self) -> float:
        return self._cooldown_until

    @property
    def last_fault(self) -> RequestFault | None:
        return self._last_fault

    def is_cooling_down(self, now: float) -> bool:
        return now < self._cooldown_until

    def accepts_requests(self, now: float) -> bool:
        """Return whether requests may be sent, as far as the state decides it."""
        return self.is_up and not self.is_draining and not self.is_cooling_down(now)

    def compute_outage_s(self, now: float) -> float:
        """Return how long the endpoint has been down or has failed every request; 0 while it works or starts."""
        if self._current is EndpointState.RESTARTING:
            return 0.0
        no_success_since = self._no_success_since if self.is_circuit_open else None
        return now - min(since for since in (self._down_since, no_success_since, now) if since is not None)

    # -- requests ------------------------------------------------------------------------------------------------------

    def record_success(self) -> None:
        """Close the circuit: a request was answered."""
        self._has_responded = True
        self._consecutive_failures = 0
        self._no_success_since = None

    def record_failure(self, fault: RequestFault, now: float) -> None:
        """Count a failed request."""
        self._last_fault = fault
        self._consecutive_failures += 1
        if self._no_success_since is None:
            self._no_success_since = now

    def record_fault(self, fault: RequestFault) -> None:
        """Remember the fault in which a probe or a restart ended, for messages."""
        self._last_fault = fault

    def cool_down(self, until: float) -> None:
        """Take no requests before `until`, as the endpoint asked for."""
        self._cooldown_until = max(self._cooldown_until, until)

    # -- diagnosis and recovery ----------------------------------------------------------------------------------------

    def begin_diagnosis(self) -> None:
        """Enter the diagnosis of a failure that looked like a crash; a lost endpoint is down while it lasts."""
        self._move_to(EndpointState.DOWN if self._current is EndpointState.LOST else EndpointState.DIAGNOSING)

    def mark_down(self, now: float) -> None:
        self._move_to(EndpointState.DOWN)
        self._down_since = now

    def begin_restart(self) -> None:
        self._move_to(EndpointState.RESTARTING)

    def mark_restarted(self, restart_s: float) -> None:
        """Leave a restart that took `restart_s`, possibly minutes, out of the outage: the silence was expected."""
        self._has_responded = True
        self._no_success_since = None
        if self._down_since is not None:
            self._down_since += restart_s

    def end_restart(self) -> None:
        """Wait for an answer again, whether the restart has succeeded or not."""
        self._move_to(EndpointState.DOWN)

    def mark_recovered(self, *, close_circuit: bool) -> None:
        """Enter `READY`; the circuit stays open when only the probe was answered, which proves nothing."""
        self._move_to(EndpointState.READY)
        self._has_responded = True
        if close_circuit:
            self._consecutive_failures = 0
            self._no_success_since = None
        self._down_since = None
        self._cooldown_until = 0.0

    def end_diagnosis(self) -> None:
        """Leave the diagnosis: ready when the endpoint was healthy or has recovered, else lost."""
        if self._current is EndpointState.DIAGNOSING:
            self._move_to(EndpointState.READY)
        elif self._current is EndpointState.DOWN:
            self._move_to(EndpointState.LOST)

    def _move_to(self, state: EndpointState) -> None:
        if state not in _TRANSITIONS[self._current]:
            raise RuntimeError(f"an endpoint cannot go from {self._current.value} to {state.value}")
        self._current = state

    # -- isolation -----------------------------------------------------------------------------------------------------

    def begin_draining(self) -> None:
        """Take nothing new until a group of suspects can be sent alone."""
        if self._isolation is Isolation.SHARED:
            self._isolation = Isolation.DRAINING

    def isolate(self, group_size: int) -> None:
        """Hold a group of suspects and nothing else."""
        self._isolation = Isolation.ISOLATED
        self._isolated_group_size = group_size

    def end_isolation(self) -> None:
        """Stay free for the next group: this one is settled."""
        self._isolation = Isolation.DRAINING
        self._isolated_group_size = 0

    def end_draining(self) -> None:
        """Serve everything again, unless a group of suspects is still being served."""
        if self._isolation is Isolation.DRAINING:
            self._isolation = Isolation.SHARED
