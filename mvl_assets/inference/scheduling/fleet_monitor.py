"""Keeps a run's endpoints equal to those that its fleet lists: servers join and leave while the run goes on.

A server that joins is asked for its model first. One that leaves gets nothing new, its running requests may finish, and
what is lost with it goes to the others without being held against the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from mvl_assets.inference.client.endpoint_client import EndpointClient
from mvl_assets.inference.client.endpoint_state import EndpointState
from mvl_assets.inference.client.faults import FaultScope
from mvl_assets.inference.endpoint import Endpoint, EndpointError
from mvl_assets.inference.fleet import Fleet, FleetError
from mvl_assets.inference.scheduling.ready_queue import ReadyQueue
from mvl_assets.inference.scheduling.run_context import RunContext

EndpointKey = tuple[str, str]


class FleetMonitor:
    """Adds endpoints to a run and removes them.

    Args:
        run: Its `clients` are those that get requests; its `leaving` those that still hold some.
        fleet: Lists the endpoints.
        ready: Told who joins and who leaves.
        dispatch: Called when there may be something to send.
    """

    def __init__(self, run: RunContext, fleet: Fleet, ready: ReadyQueue, dispatch: Callable[[], None]) -> None:
        self._run = run
        self._fleet = fleet
        self._ready = ready
        self._dispatch = dispatch
        self._listed: Mapping[EndpointKey, Endpoint] = {}
        self._list_error: str | None = None
        # Why a listed endpoint gets no requests; and those that are being asked for their model.
        self._refusals: dict[EndpointKey, str] = {}
        self._being_checked: set[EndpointKey] = set()
        # Endpoints that listed the model and rejected every request: to come back they must answer one.
        self._distrusted: set[EndpointKey] = set()
        self._has_had_clients = False
        self._empty_since = run.tasks.loop.time()

    @property
    def n_endpoints(self) -> int:
        """Number of endpoints that are listed."""
        return len(self._listed)

    def describe_problems(self) -> list[str]:
        """Return what is wrong with the list, and with each listed endpoint that gets no requests."""
        problems = [f"{self._list_error}, so the list before it stays"] if self._list_error else []
        for key, reason in self._refusals.items():
            problems.append(f"{self._listed[key].redacted_url} is left out: {reason}")
        return problems

    async def run_poll_loop(self) -> None:
        """Look at the list again and again, until cancelled."""
        while True:
            await self._update()
            await asyncio.sleep(self._fleet.poll_interval_s)

    def refuse(self, client: EndpointClient, reason: str) -> None:
        """Remove an endpoint that rejects every request; it is asked again at the next look."""
        if client in self._run.clients:
            self._remove(client)
            self._refusals[client.endpoint.key] = reason
            self._distrusted.add(client.endpoint.key)

    def check_outage_timeout(self, now: float) -> None:
        """Raise when there has been no endpoint for too long.

        Raises:
            EndpointError: Says what is wrong with the list and with the endpoints in it.
        """
        options = self._run.options
        timeout_s = options.outage_timeout_s if self._has_had_clients else options.initial_outage_timeout_s
        if not self._run.clients and now - self._empty_since >= timeout_s:
            problems = self.describe_problems() or [f"{self._fleet.name} lists none"]
            raise EndpointError(
                f"no endpoint to ask for {now - self._empty_since:.0f} s: {'; '.join(problems)}",
                hint="start a server or correct the list, and run again; stored answers are kept",
            )

    async def _update(self) -> None:
        try:
            endpoints = await self._fleet.list_endpoints()
        except FleetError as error:
            self._list_error = error.message
        else:
            self._list_error = None
            self._listed = {endpoint.key: endpoint for endpoint in endpoints}
        self._refusals = {key: reason for key, reason in self._refusals.items() if key in self._listed}
        self._run.leaving[:] = [client for client in self._run.leaving if client.in_flight]
        for client in [client for client in self._run.clients if client.endpoint.key not in self._listed]:
            self._remove(client)
        present = {client.endpoint.key for client in self._run.clients} | self._being_checked
        for key, endpoint in self._listed.items():
            if key not in present:
                self._being_checked.add(key)
                self._run.tasks.spawn(self._check_and_add(endpoint))

    async def _check_and_add(self, endpoint: Endpoint) -> None:
        key = endpoint.key
        try:
            transport = self._run.transport
            fault = await (transport.probe if key in self._distrusted else transport.check_model)(endpoint)
        finally:
            self._being_checked.discard(key)
        if key not in self._listed:
            return
        # 429: it is there, and busy.
        if fault is not None and (fault.scope is FaultScope.CONFIG or fault.error != "http_429"):
            self._refusals[key] = fault.message
            return
        self._refusals.pop(key, None)
        client = self._take_leaving(key) or EndpointClient(endpoint, self._run.options)
        client.has_left = False
        self._has_had_clients = True
        self._run.clients.append(client)
        self._ready.admit(client)
        self._dispatch()

    def _take_leaving(self, key: EndpointKey) -> EndpointClient | None:
        """Return the client of an endpoint that comes back before its last requests have ended, if it was well."""
        for client in self._run.leaving:
            if client.endpoint.key == key and client.state.current is EndpointState.READY:
                self._run.leaving.remove(client)
                return client
        return None

    def _remove(self, client: EndpointClient) -> None:
        self._run.clients.remove(client)
        self._run.leaving.append(client)
        client.has_left = True
        self._ready.release(client)
        if not self._run.clients:
            self._empty_since = self._run.tasks.loop.time()
        self._dispatch()
