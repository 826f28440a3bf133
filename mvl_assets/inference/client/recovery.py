"""Waiting until an endpoint answers again, restarting its local server where it has one."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable
from typing import Any

from mvl_assets.errors import MvlError
from mvl_assets.inference.client.endpoint_client import EndpointClient
from mvl_assets.inference.client.faults import RequestFault
from mvl_assets.inference.client.transport import Transport
from mvl_assets.inference.endpoint import EndpointError
from mvl_assets.inference.options import EngineOptions

# Of a local server that ends each time before it has answered the probe.
MAX_RESTARTS = 3
MAX_FAILED_RESTARTS = 2


async def wait_for_recovery(
    client: EndpointClient, transport: Transport, options: EngineOptions, rng: random.Random
) -> None:
    """Return when an endpoint that was marked as down answers a probe again, or has left its fleet.

    With an open circuit it must also answer the request that it answered before (`canary_body`), the half-open state
    of a circuit breaker. Before its first answer there is none: the circuit then stays open. A local server that is
    gone is started again.

    Args:
        client: Client of the endpoint.
        transport: Sends the probes.
        options: Intervals and bounds of the probes.
        rng: Source of the jitter between probes.

    Raises:
        MvlError: The restart has failed twice, or the server keeps ending before it answers.
    """
    loop = asyncio.get_running_loop()
    n_restarts = n_failed_restarts = 0
    while not client.has_left:
        healthy = await transport.is_healthy(client.endpoint)
        if not healthy and client.endpoint.restart is not None:
            if n_restarts == MAX_RESTARTS:
                raise EndpointError(
                    f"{client.endpoint.redacted_url} was started {n_restarts} times and ended before it answered",
                    hint="`mvl serve status` names its log",
                )
            restart_began_at = loop.time()
            client.state.begin_restart()
            try:
                endpoint = await run_in_daemon_thread(client.endpoint.restart)
                n_restarts += 1
                client.on_restarted(endpoint, loop.time() - restart_began_at)
            except MvlError:
                n_failed_restarts += 1
                if n_failed_restarts == MAX_FAILED_RESTARTS:
                    raise
            finally:
                client.state.end_restart()
        # The probe decides, not /health: some proxies answer that one themselves.
        fault = await transport.probe(client.endpoint)
        circuit_was_open = client.state.is_circuit_open
        if fault is None and circuit_was_open and client.canary_body is not None:
            result = await transport.send_request(client.endpoint, client.canary_body, options.base_timeout_s)
            fault = result if isinstance(result, RequestFault) else None
        if fault is None:
            client.on_recovered(loop.time(), close_circuit=not circuit_was_open or client.canary_body is not None)
            return
        client.state.record_fault(fault)
        if fault.retry_after_s is not None:
            await asyncio.sleep(fault.retry_after_s)
        await asyncio.sleep(options.probe_interval_s * rng.uniform(0.5, 1.0))


def run_in_daemon_thread(function: Callable[[], Any]) -> asyncio.Future[Any]:
    """Run a call that may take minutes in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def run_and_settle() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as raised:
            error = raised
        # RuntimeError: the loop has ended, and nothing waits for the result any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run_and_settle, name="restart-server", daemon=True).start()
    return future
