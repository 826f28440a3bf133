"""Handles failed attempts: the request fails, is sent again, or its endpoint is diagnosed first."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from mvl_assets.errors import MvlError
from mvl_assets.inference.client.attempt import PendingRequest
from mvl_assets.inference.client.endpoint_client import EndpointClient
from mvl_assets.inference.client.faults import FaultScope, RequestFault, compute_backoff_s
from mvl_assets.inference.client.output_forms import is_form_error
from mvl_assets.inference.client.recovery import wait_for_recovery
from mvl_assets.inference.endpoint import EndpointError
from mvl_assets.inference.scheduling.quarantine import Quarantine
from mvl_assets.inference.scheduling.ready_queue import ReadyQueue
from mvl_assets.inference.scheduling.request_settler import RequestSettler
from mvl_assets.inference.scheduling.run_context import RunContext


class FaultHandler:
    """Handles the faults of one run.

    Args:
        run: The run.
        ready: Takes what is sent again.
        quarantine: Takes requests that may have crashed an endpoint.
        settler: Takes requests that fail.
        dispatch: Called when there may be something to send again.
        refuse: Removes an endpoint that rejects every request; None where that ends the run.
    """

    def __init__(
        self,
        run: RunContext,
        ready: ReadyQueue,
        quarantine: Quarantine,
        settler: RequestSettler,
        dispatch: Callable[[], None],
        refuse: Callable[[EndpointClient, str], None] | None = None,
    ) -> None:
        self._run = run
        self._ready = ready
        self._quarantine = quarantine
        self._settler = settler
        self._dispatch = dispatch
        self._refuse = refuse
        self._rng = random.Random()

    def handle(self, pending: PendingRequest, client: EndpointClient, fault: RequestFault, sent_at: float) -> None:
        """Fail, resend or hold back a request whose attempt has failed.

        Args:
            pending: The request.
            client: Client of the endpoint it was sent to.
            fault: What went wrong, and whose fault it is.
            sent_at: When the attempt was sent, in seconds on the event loop's clock.
        """
        loop = self._run.tasks.loop
        now = loop.time()
        self._run.error_counts[fault.error] += 1
        if fault.scope is FaultScope.REQUEST:
            if pending.request.output.kind != "text" and is_form_error(fault.message):
                self._run.tasks.spawn(self._classify_form_fault(pending, client, fault))
            else:
                self._settler.fail(pending, fault.error, fault.message)
            return
        if fault.scope is FaultScope.CONFIG:
            self._run.tasks.spawn(self._classify_config_fault(pending, client, fault))
            return
        client.on_failure(fault, sent_at, now)
        if client.rejects_permanently(pending, fault, now):
            self._settler.fail(pending, fault.error, fault.message)
            return
        if client.has_left:
            # It is being stopped: what is lost with it says nothing about the request.
            if fault.server_may_have_crashed:
                fault = replace(fault, scope=FaultScope.ENDPOINT)
            if not pending.attempts:
                self._schedule_retry(pending, fault, client)
            return
        if client.state.is_cooling_down(now):
            loop.call_at(client.state.cooldown_until, self._dispatch)
        if pending.attempts:
            pass  # another attempt is under way, and decides
        elif fault.server_may_have_crashed:
            client.add_crash_suspect(pending, fault)
            if client.state.is_under_diagnosis and not client.state.is_up:
                # The diagnosis has released its suspects and waits for the server, which may never come back.
                self._release_suspects(client, healthy=False)
        else:
            self._schedule_retry(pending, fault, client)
        looks_down = fault.server_may_have_crashed or fault.error == "no_connection" or client.state.is_circuit_open
        if looks_down and not client.state.is_under_diagnosis:
            client.state.begin_diagnosis()
            self._run.tasks.spawn(self._diagnose(client))

    async def _classify_config_fault(
        self, pending: PendingRequest, client: EndpointClient, fault: RequestFault
    ) -> None:
        """Probe whether an endpoint rejects everything, or only this request, for its content or its price."""
        probe_fault = await self._run.transport.probe(client.endpoint)
        if probe_fault is None or probe_fault.scope is not FaultScope.CONFIG:
            if not pending.is_settled and not pending.attempts:
                self._schedule_retry(pending, replace(fault, scope=FaultScope.UNKNOWN), client)
            return
        if self._retry_elsewhere(pending, client, fault, probe_fault.message):
            return
        self._run.tasks.abort(
            EndpointError(
                f"{client.endpoint.redacted_url} rejects every request for {client.endpoint.model}: {fault.message}",
                hint="check the address, the model's name and the key in the profile; stored answers are kept",
            )
        )
        self._settler.fail(pending, fault.error, fault.message)

    async def _classify_form_fault(self, pending: PendingRequest, client: EndpointClient, fault: RequestFault) -> None:
        """Probe whether a server refuses the form of every constraint, or this request alone."""
        form = client.endpoint.output_form
        if await self._run.transport.accepts_form(client.endpoint, form) is not False:
            if not pending.is_settled:
                self._settler.fail(pending, fault.error, fault.message)
            return
        reason = f"it refuses the form of output {form!r}: {fault.message}"
        self._run.error_counts["form_refused"] += 1
        if self._retry_elsewhere(pending, client, fault, reason):
            return
        self._run.tasks.abort(
            EndpointError(
                f"{client.endpoint.redacted_url} cannot be used for {client.endpoint.model}: {reason}",
                hint="set output_form of the model in the profile to another form, or to auto; stored answers are kept",
            )
        )

    def _retry_elsewhere(
        self, pending: PendingRequest, client: EndpointClient, fault: RequestFault, reason: str
    ) -> bool:
        """Leave an endpoint out of its fleet, and its request to another; return False where the list is fixed."""
        if self._refuse is None:
            return False
        self._refuse(client, reason)
        if not pending.is_settled and not pending.attempts:
            self._schedule_retry(pending, replace(fault, scope=FaultScope.ENDPOINT), client)
        return True

    async def _diagnose(self, client: EndpointClient) -> None:
        """Check the endpoint's health, wait for its recovery when it is down, and decide on its crash suspects."""
        try:
            healthy = await self._run.transport.is_healthy(client.endpoint)
            if not healthy or client.state.is_circuit_open:
                client.state.mark_down(self._run.tasks.loop.time())
                # It may never come back, and others can take over.
                if not healthy or any(other.state.is_up for other in self._run.clients):
                    self._release_suspects(client, healthy)
                try:
                    await wait_for_recovery(client, self._run.transport, self._run.options, self._rng)
                except MvlError as error:
                    # The others go on without it; its suspects move to them.
                    if not any(other.state.is_up for other in self._run.clients):
                        raise
                    client.state.record_fault(RequestFault("server_start_failed", str(error), FaultScope.ENDPOINT))
                    self._run.error_counts["server_start_failed"] += 1
        finally:
            client.state.end_diagnosis()
        self._release_suspects(client, healthy)

    def _release_suspects(self, client: EndpointClient, healthy: bool) -> None:
        """Send the requests that an endpoint held at a fault again, each alone on a server if it has crashed."""
        suspects = client.pop_crash_suspects()
        if healthy:
            for pending, fault in suspects:
                self._schedule_retry(pending, fault, client)
        else:
            for pending in self._quarantine.add_suspects(client, [pending for pending, _ in suspects]):
                message = "the server crashed each time it held this request alone"
                self._settler.fail(pending, "crashed_server", message)
        self._dispatch()

    def _schedule_retry(self, pending: PendingRequest, fault: RequestFault, client: EndpointClient) -> None:
        options = self._run.options
        # While the circuit is open nothing proves that the request is at fault.
        if fault.scope is FaultScope.UNKNOWN and not client.state.is_circuit_open:
            pending.row_failures += 1
            if pending.row_failures >= options.max_attempts:
                self._settler.fail(pending, fault.error, fault.message)
                return
        delay_s = compute_backoff_s(
            pending.attempts_sent, client.compute_backoff_base_s(), options.backoff_cap_s, self._rng
        )
        delay_s = max(delay_s, fault.retry_after_s or 0.0)
        self._run.tasks.loop.call_later(delay_s, self._requeue, pending)

    def _requeue(self, pending: PendingRequest) -> None:
        self._ready.append_unassigned(pending)
        self._dispatch()
