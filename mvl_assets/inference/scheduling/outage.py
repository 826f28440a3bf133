"""Decides when a run stops waiting for endpoints that do not answer."""

from __future__ import annotations

from collections.abc import Sequence

from mvl_assets.inference.client.endpoint_client import EndpointClient
from mvl_assets.inference.endpoint import EndpointError
from mvl_assets.inference.options import EngineOptions


def check_outage_timeout(clients: Sequence[EndpointClient], options: EngineOptions, now: float) -> None:
    """Raise when every endpoint has been down, or has failed every request, for too long.

    A server that is being started is waited for.

    Raises:
        EndpointError: Names the endpoint whose outage is the shortest.
    """
    client = min(clients, key=lambda client: client.state.compute_outage_s(now))
    outage_s = client.state.compute_outage_s(now)
    timeout_s = options.outage_timeout_s if client.state.has_responded else options.initial_outage_timeout_s
    if outage_s and outage_s >= timeout_s:
        last_message = client.state.last_fault.message if client.state.last_fault else "no connection"
        raise EndpointError(
            f"{client.endpoint.redacted_url} has answered no request for {outage_s:.0f} s (last: {last_message})",
            hint="start it, or correct its address in the profile, and run again; stored answers are kept",
        )
