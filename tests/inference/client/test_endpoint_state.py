"""The states of an endpoint, and what each means for requests and for the time that a run waits."""

from __future__ import annotations

import pytest

from mvl_assets.inference.client.endpoint_state import EndpointState, EndpointStateMachine, Isolation
from mvl_assets.inference.client.faults import FaultScope, RequestFault

FAULT = RequestFault("http_500", "broken", FaultScope.UNKNOWN)


def test_a_healthy_endpoint_takes_requests_while_it_is_diagnosed() -> None:
    state = EndpointStateMachine(circuit_breaker_threshold=3)
    state.begin_diagnosis()
    assert (state.current, state.is_under_diagnosis) == (EndpointState.DIAGNOSING, True)
    assert state.accepts_requests(now=0.0)
    state.end_diagnosis()
    assert (state.current, state.is_under_diagnosis) == (EndpointState.READY, False)


def test_a_crash_is_followed_by_restart_recovery_and_a_ready_endpoint() -> None:
    state = EndpointStateMachine(circuit_breaker_threshold=3)
    state.begin_diagnosis()
    state.mark_down(now=10.0)
    assert not state.accepts_requests(now=10.0)
    assert state.compute_outage_s(now=14.0) == 4.0
    state.begin_restart()
    assert state.current is EndpointState.RESTARTING
    assert state.compute_outage_s(now=500.0) == 0.0, "a start is waited for"
    state.mark_restarted(restart_s=490.0)
    state.end_restart()
    assert state.compute_outage_s(now=504.0) == 4.0, "the time of the start is left out"
    state.mark_recovered(close_circuit=True)
    state.end_diagnosis()
    assert state.current is EndpointState.READY
    assert state.accepts_requests(now=504.0)
    assert state.compute_outage_s(now=504.0) == 0.0


def test_an_endpoint_that_does_not_recover_is_lost_until_another_fault_has_it_diagnosed() -> None:
    state = EndpointStateMachine(circuit_breaker_threshold=3)
    state.begin_diagnosis()
    state.mark_down(now=10.0)
    state.end_diagnosis()
    assert (state.current, state.is_under_diagnosis, state.is_up) == (EndpointState.LOST, False, False)
    assert state.compute_outage_s(now=20.0) == 10.0
    state.begin_diagnosis()
    assert (state.current, state.is_under_diagnosis, state.is_up) == (EndpointState.DOWN, True, False)


def test_the_circuit_opens_after_failures_in_a_row_and_closes_with_one_success() -> None:
    state = EndpointStateMachine(circuit_breaker_threshold=3)
    for now in (1.0, 2.0):
        state.record_failure(FAULT, now)
    state.record_success()
    for now in (3.0, 4.0):
        state.record_failure(FAULT, now)
    assert not state.is_circuit_open
    assert state.compute_outage_s(now=9.0) == 0.0
    state.record_failure(FAULT, 5.0)
    assert state.is_circuit_open
    assert state.compute_outage_s(now=9.0) == 6.0, "since the first of the failures"
    state.record_success()
    assert not state.is_circuit_open
    assert state.compute_outage_s(now=9.0) == 0.0


@pytest.mark.parametrize("close_circuit", [True, False])
def test_a_recovery_that_only_the_probe_proves_leaves_the_circuit_open(close_circuit: bool) -> None:
    state = EndpointStateMachine(circuit_breaker_threshold=1)
    state.record_failure(FAULT, 1.0)
    state.begin_diagnosis()
    state.mark_down(2.0)
    state.mark_recovered(close_circuit=close_circuit)
    assert state.is_circuit_open is not close_circuit
    assert state.compute_outage_s(now=5.0) == (0.0 if close_circuit else 4.0)


def test_a_cool_down_is_never_shortened_and_ends_with_a_recovery() -> None:
    state = EndpointStateMachine(circuit_breaker_threshold=3)
    state.cool_down(until=20.0)
    state.cool_down(until=10.0)
    assert state.is_cooling_down(now=19.0) and not state.accepts_requests(now=19.0)
    assert state.accepts_requests(now=20.0)
    state.begin_diagnosis()
    state.mark_down(now=12.0)
    state.mark_recovered(close_circuit=True)
    assert state.accepts_requests(now=13.0)


def test_isolation_outlives_a_crash_and_ends_before_the_endpoint_is_shared_again() -> None:
    state = EndpointStateMachine(circuit_breaker_threshold=3)
    state.begin_draining()
    assert state.is_draining and not state.accepts_requests(now=0.0)
    state.isolate(group_size=1)
    state.begin_diagnosis()
    state.mark_down(now=1.0)
    state.mark_recovered(close_circuit=True)
    state.end_diagnosis()
    assert state.isolated_group_size == 1
    state.end_draining()
    assert state.isolation is Isolation.ISOLATED, "a group is still being served"
    state.end_isolation()
    assert (state.isolation, state.isolated_group_size) == (Isolation.DRAINING, 0)
    state.end_draining()
    assert state.accepts_requests(now=2.0)


def test_a_transition_that_makes_no_sense_is_an_error() -> None:
    state = EndpointStateMachine(circuit_breaker_threshold=3)
    with pytest.raises(RuntimeError, match="from ready to restarting"):
        state.begin_restart()
    with pytest.raises(RuntimeError, match="from ready to down"):
        state.mark_down(now=0.0)
