"""Which requests are sent again when a server is lost, and when."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from mvl_assets.inference.client.attempt import PendingRequest
from mvl_assets.inference.client.endpoint_client import EndpointClient
from mvl_assets.inference.client.faults import FaultScope, RequestFault
from mvl_assets.inference.client.transport import Transport
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.scheduling.fault_handler import FaultHandler
from mvl_assets.inference.scheduling.quarantine import Quarantine
from mvl_assets.inference.scheduling.ready_queue import ReadyQueue
from mvl_assets.inference.scheduling.run_context import RunContext, RunTasks
from tests.inference.helpers import build_requests

CRASH = RequestFault("connection_lost", "reset", FaultScope.UNKNOWN, server_may_have_crashed=True)


def test_a_request_whose_loss_shows_while_its_server_is_known_to_be_down_is_not_held_back() -> None:
    """The diagnosis has released its suspects by then, and waits for the server for as long as it is away."""

    async def lose_request() -> tuple[int, int]:
        client = EndpointClient(Endpoint("http://127.0.0.1:9/v1", "m"), EngineOptions())
        run = RunContext(EngineOptions(), [client], Transport(), RunTasks())
        quarantine = Quarantine(n_groups=8, max_solo_crashes=2)
        handler = FaultHandler(run, ReadyQueue(run.clients), quarantine, cast(Any, None), lambda: None)
        now = run.tasks.loop.time()
        client.state.begin_diagnosis()
        client.state.mark_down(now)
        handler.handle(PendingRequest(build_requests(1)[0]), client, CRASH, now)
        run.tasks.shut_down_log_thread()
        return len(quarantine), len(client.pop_crash_suspects())

    assert asyncio.run(lose_request()) == (1, 0)
