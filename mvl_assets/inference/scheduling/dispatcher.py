"""Decides which request is sent to which endpoint, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mvl_assets.inference.client.attempt import Attempt, AttemptResult, PendingRequest
from mvl_assets.inference.client.chat_protocol import Reply, build_request_body
from mvl_assets.inference.client.endpoint_client import EndpointClient
from mvl_assets.inference.client.faults import FaultScope, RequestFault
from mvl_assets.inference.scheduling.quarantine import Quarantine
from mvl_assets.inference.scheduling.ready_queue import ReadyQueue
from mvl_assets.inference.scheduling.request_queue import RequestQueue
from mvl_assets.inference.scheduling.run_context import RunContext


class Dispatcher:
    """Sends the requests of one run to endpoints that have capacity.

    Args:
        run: The run.
        queue: Knows whether more is to come.
        ready: Chooses the next request and its endpoint.
        quarantine: Requests that need an endpoint of their own.
        on_reply: Takes a request, its reply and the latency in seconds.
        on_fault: Takes a request, the endpoint, the fault and the time at which the attempt was sent.
    """

    def __init__(
        self,
        run: RunContext,
        queue: RequestQueue,
        ready: ReadyQueue,
        quarantine: Quarantine,
        on_reply: Callable[[PendingRequest, Reply, float], None],
        on_fault: Callable[[PendingRequest, EndpointClient, RequestFault, float], None],
    ) -> None:
        self._run = run
        self._queue = queue
        self._ready = ready
        self._quarantine = quarantine
        self._on_reply = on_reply
        self._on_fault = on_fault

    def dispatch(self) -> None:
        """Start every attempt that may start now. Call it whenever something changes."""
        if self._run.tasks.stopping:
            return
        clients = self._run.clients
        now = self._run.tasks.loop.time()
        for client in clients:
            client.demote_stragglers()
        while (assignment := self._quarantine.pop_next_group(clients, now)) is not None:
            client, group = assignment
            for pending in group:
                self._start_attempt(pending, client)
        free_clients = [client for client in clients if client.is_free(now)]
        while self._ready and free_clients:
            client, pending = self._ready.pop_next(free_clients)
            if pending.is_settled:
                continue
            if pending.images and (names := list(pending.request.cache_names.values())):
                if any(client.supports_image_cache and client.image_cache.defer(pending) for client in clients):
                    continue
                if not client.image_cache.contains(names):
                    holders = [holder for holder in free_clients if holder.image_cache.contains(names)]
                    client = _pick_least_loaded(holders) if holders else client
            self._start_attempt(pending, client)
            if not client.is_free(now):
                free_clients.remove(client)
        if self._queue.is_drained and not self._quarantine and self._run.options.hedge_requests:
            self._hedge_stragglers(now)

    def _hedge_stragglers(self, now: float) -> None:
        """Send requests that hang once more, at the end of a run and where there is capacity (hedged requests)."""
        clients = (*self._run.clients, *self._run.leaving)
        for pending in [pending for client in clients for pending in client.list_hedge_candidates(now)]:
            free_clients = [client for client in self._run.clients if client.is_free(now)]
            if free_clients:
                self._start_attempt(pending, _pick_least_loaded(free_clients))

    def _start_attempt(self, pending: PendingRequest, client: EndpointClient) -> None:
        attempt = Attempt(pending, self._run.tasks.loop.time())
        pending.attempts.append(attempt)
        pending.attempts_sent += 1
        self._run.outcome.attempts_sent += 1
        client.on_sent(attempt)
        may_cache = pending.images and client.supports_image_cache and not pending.inline_images
        if may_cache and (names := list(pending.request.cache_names.values())):
            attempt.cached_names = client.image_cache.mark_sent(names)
        attempt.task = self._run.tasks.spawn(self._run_attempt(attempt, client))
        # A task that is cancelled before its first step never reaches its own `finally`.
        attempt.task.add_done_callback(lambda _: self._detach_attempt(attempt, client, None))

    async def _run_attempt(self, attempt: Attempt, client: EndpointClient) -> None:
        pending, request = attempt.pending, attempt.pending.request
        max_timeout_s = self._run.options.compute_timeout_s(request)
        timeout_s = client.latency.compute_timeout_s(max_timeout_s, pending.client_timeouts)
        is_constrained = request.output.kind != "text"
        result: AttemptResult | None = None
        try:
            if not client.is_form_known(request.output):
                result = await client.find_output_form(self._run.transport, request.output)
                attempt.sent_at = self._run.tasks.loop.time()
            if result is None and request.cut_answer is not None:
                await client.find_context(self._run.transport)
                result = client.find_context_fault(request)
                attempt.sent_at = self._run.tasks.loop.time()
            if result is None:
                body = build_request_body(request, client.endpoint, pending.images, attempt.cached_names)
                result = await self._run.transport.send_request(client.endpoint, body, timeout_s)
            if isinstance(result, Reply) and is_constrained:
                result = replace(result, output_form=client.endpoint.output_form)
        finally:
            now = self._run.tasks.loop.time()
            if isinstance(result, Reply):
                client.on_success(attempt, result.completion_tokens, now)
            self._detach_attempt(attempt, client, result)
        if pending.is_settled:
            return
        if isinstance(result, Reply):
            self._on_reply(pending, result, now - attempt.sent_at)
        else:
            if result.error == "timeout" and timeout_s < max_timeout_s:
                # Given up early because of how long other replies take: not held against the request.
                pending.client_timeouts += 1
                result = replace(result, scope=FaultScope.ENDPOINT)
            if result.scope is FaultScope.REQUEST and attempt.cached_names is not None:
                # The server may have dropped an image from its cache; sending the bytes will show whether it has.
                self._run.error_counts["image_rejected"] += 1
                pending.inline_images = True
                self._ready.push_front([pending])
            else:
                self._on_fault(pending, client, result, attempt.sent_at)
        self.dispatch()

    def _detach_attempt(self, attempt: Attempt, client: EndpointClient, result: AttemptResult | None) -> None:
        """Stop tracking an ended attempt, once, and queue the requests that waited for its images."""
        if attempt not in attempt.pending.attempts:
            return
        attempt.pending.attempts.remove(attempt)
        client.on_finished(attempt)
        if attempt.cached_names is not None:
            names = list(attempt.pending.request.cache_names.values())
            if isinstance(result, Reply):
                deferred = client.image_cache.on_hit(names)
            else:
                rejected = result is not None and result.scope is FaultScope.REQUEST
                deferred = client.image_cache.on_miss(names, rejected=rejected)
            self._ready.push_front(deferred)


def _pick_least_loaded(clients: list[EndpointClient]) -> EndpointClient:
    return min(clients, key=lambda client: client.load)
