"""A run's view of one endpoint: requests in flight, concurrency limit, latency, and images that it has cached.

Which request goes where is decided in `inference.scheduling`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import replace

from mvl_assets.inference.client.attempt import Attempt, PendingRequest
from mvl_assets.inference.client.chat_protocol import build_request_body, compute_max_tokens
from mvl_assets.inference.client.concurrency_limit import AdaptiveConcurrencyLimit
from mvl_assets.inference.client.endpoint_state import EndpointStateMachine
from mvl_assets.inference.client.faults import FaultScope, RequestFault
from mvl_assets.inference.client.image_cache import ServerImageCache
from mvl_assets.inference.client.latency import LatencyTracker
from mvl_assets.inference.client.output_forms import AUTO, VLLM
from mvl_assets.inference.client.stable_hash import compute_stable_hash
from mvl_assets.inference.client.transport import Transport
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.request import OutputFormat, Request

# Rejections in a row after which Retry-After holds for the whole endpoint.
COOLDOWN_AFTER_REJECTIONS = 3
# Rejections that any request may meet on a busy server.
MAX_REJECTIONS = 20
# Stragglers, in multiples of the highest limit, beyond which nothing more is sent.
MAX_STRAGGLER_FACTOR = 4
# Attempts of one request at the same time, at the end of a run, and how old the latest must be for another.
MAX_HEDGED_ATTEMPTS = 3
MIN_HEDGE_AFTER_S = 0.25
# Readings of a server's written tokens over which its speed is taken.
N_TOKEN_READINGS = 4


class EndpointClient:
    """A run's client of one endpoint. All times are seconds on the event loop's clock.

    Attributes:
        endpoint: Where requests go; replaced when a restarted server has another address.
        state: Whether the endpoint takes requests, and why not; see `endpoint_state`.
        limit: How many requests it may hold.
        latency: How long its requests take.
        image_cache: Images that the server has.
        canary_body: Body of the first request that the endpoint answered: asked again to prove a recovery.
        reports_queue: Whether the server reports the length of its queue, which only vLLM does; None until it was
            asked.
        has_left: Whether the endpoint is no longer one of its fleet: it gets no new requests.
        affinity_seed: Decides which requests prefer this endpoint; see `scheduling.affinity`.
    """

    def __init__(self, endpoint: Endpoint, options: EngineOptions) -> None:
        self.endpoint = endpoint
        self.state = EndpointStateMachine(options.circuit_breaker_threshold)
        self.limit = AdaptiveConcurrencyLimit(endpoint.start_concurrency, endpoint.max_concurrency)
        self.latency = LatencyTracker()
        self.image_cache = ServerImageCache()
        self.canary_body: bytes | None = None
        self.reports_queue: bool | None = None
        self.has_left = False
        self.affinity_seed = compute_stable_hash(" ".join(endpoint.key))
        self._options = options
        # Attempts in flight, oldest first; and stragglers, which no longer count against the limit.
        self._active: dict[Attempt, None] = {}
        self._stragglers: dict[Attempt, None] = {}
        self._form_lock = asyncio.Lock()
        self._has_read_context = False
        self._last_reply_at = 0.0
        self._token_readings: deque[tuple[float, int]] = deque(maxlen=N_TOKEN_READINGS)
        # Requests that came back without an answer and may have crashed the server.
        self._crash_suspects: list[tuple[PendingRequest, RequestFault]] = []

    # -- capacity ------------------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        return len(self._active) + len(self._stragglers)

    @property
    def is_idle(self) -> bool:
        """Whether the endpoint holds no request, and no crash is being diagnosed."""
        return not self.in_flight and not self._crash_suspects and not self.state.is_under_diagnosis

    def is_free(self, now: float) -> bool:
        """Return whether another request may be sent."""
        return (
            not self.has_left
            and self.state.accepts_requests(now)
            and len(self._active) < self.limit.value
            and len(self._stragglers) < MAX_STRAGGLER_FACTOR * self.limit.maximum
        )

    @property
    def load(self) -> float:
        """Share of the limit that is in use."""
        return len(self._active) / self.limit.value

    @property
    def supports_image_cache(self) -> bool:
        """Whether images may be sent by uuid: only to vLLM, and while its cache is effective."""
        return self.reports_queue is True and self.image_cache.is_effective

    # -- attempts ------------------------------------------------------------------------------------------------------

    def on_sent(self, attempt: Attempt) -> None:
        self._active[attempt] = None
        attempt.in_flight_at_send = len(self._active)

    def on_finished(self, attempt: Attempt) -> None:
        self._active.pop(attempt, None)
        self._stragglers.pop(attempt, None)

    def on_success(self, attempt: Attempt, completion_tokens: int, now: float) -> None:
        """Record a reply. Call before `on_finished`."""
        latency_s = now - attempt.sent_at
        pending = attempt.pending
        self.state.record_success()
        self._last_reply_at = now
        self.latency.observe(latency_s, completion_tokens, pending.request.max_tokens)
        self.limit.on_success(len(self._active), attempt.in_flight_at_send, latency_s)
        if self.canary_body is None:
            self.canary_body = build_request_body(pending.request, self.endpoint, pending.images)

    def on_failure(self, fault: RequestFault, sent_at: float, now: float) -> None:
        """Record a failed attempt: it may open the circuit, cut the limit, or begin a cool-down."""
        self.state.record_failure(fault, now)
        if fault.error == "malformed_reply":
            return
        limit_was_cut = self.limit.on_backpressure(sent_at, now)
        # One rejection among many answers concerns its own request only.
        if fault.retry_after_s is not None and (
            limit_was_cut or self.state.consecutive_failures >= COOLDOWN_AFTER_REJECTIONS
        ):
            self.state.cool_down(now + fault.retry_after_s)

    def rejects_permanently(self, pending: PendingRequest, fault: RequestFault, now: float) -> bool:
        """Count a rejection, and return whether this one request will never be accepted.

        That is the case when it is rejected again and again, for as long as a run tolerates an outage, while the
        endpoint answers others. A gateway does so with a request that is larger than its limit of tokens per minute.
        """
        if fault.scope is not FaultScope.ENDPOINT or not fault.error.startswith("http_"):
            return False
        pending.rejections += 1
        if pending.first_rejected_at is None:
            pending.first_rejected_at = now
        return (
            pending.rejections > MAX_REJECTIONS
            and now - pending.first_rejected_at > self._options.outage_timeout_s
            and self._last_reply_at > pending.first_rejected_at
        )

    def compute_backoff_base_s(self) -> float:
        """Return the base of the exponential backoff after a failure.

        Short where the endpoint answers quickly, so that a few rejections at the end of a run do not hold it up; the
        run's own base once it rejects one request after another.
        """
        max_base_s = self._options.backoff_base_s
        if self.state.consecutive_failures >= COOLDOWN_AFTER_REJECTIONS or self.latency.straggler_after_s is None:
            return max_base_s
        return min(max_base_s, self.latency.straggler_after_s / 2)

    # -- stragglers ----------------------------------------------------------------------------------------------------

    def demote_stragglers(self) -> None:
        """Exclude hanging requests from the concurrency limit while other requests are answered.

        When nothing is answered any more, the server is slow or gone, and no request counts as late.
        """
        straggler_after_s = self.latency.straggler_after_s
        while straggler_after_s is not None and self._active:
            attempt = next(iter(self._active))
            if self._last_reply_at - attempt.sent_at <= straggler_after_s:
                break
            del self._active[attempt]
            self._stragglers[attempt] = None

    def list_hedge_candidates(self, now: float) -> list[PendingRequest]:
        """Return requests whose latest attempt takes so long that a hedged request is worth it.

        Hedged requests: Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013.
        """
        straggler_after_s = self.latency.straggler_after_s
        if straggler_after_s is None or self.state.is_draining:
            return []
        hedge_after_s = max(straggler_after_s, MIN_HEDGE_AFTER_S)
        return [
            attempt.pending
            for attempt in (*self._stragglers, *self._active)
            if now - attempt.sent_at > hedge_after_s
            and not attempt.pending.is_settled
            and attempt is attempt.pending.attempts[-1]
            and len(attempt.pending.attempts) < MAX_HEDGED_ATTEMPTS
        ]

    # -- crashes and recovery ------------------------------------------------------------------------------------------

    def add_crash_suspect(self, pending: PendingRequest, fault: RequestFault) -> None:
        """Keep a request that may have crashed the server until the diagnosis ends."""
        self._crash_suspects.append((pending, fault))

    def pop_crash_suspects(self) -> list[tuple[PendingRequest, RequestFault]]:
        suspects, self._crash_suspects = self._crash_suspects, []
        return suspects

    def on_restarted(self, endpoint: Endpoint, restart_s: float) -> None:
        """Record that the server was started again, which took `restart_s`; it may have another address now."""
        self.endpoint = replace(
            endpoint, output_form=self.endpoint.output_form, gives_logprobs=self.endpoint.gives_logprobs
        )
        self.state.mark_restarted(restart_s)

    def on_recovered(self, now: float, *, close_circuit: bool) -> None:
        """Start over with an endpoint that answers after an outage: nothing learned before is valid."""
        self.state.mark_recovered(close_circuit=close_circuit)
        self.latency = LatencyTracker()
        self.image_cache.clear()
        self.limit.reset(now)

    def is_form_known(self, output: OutputFormat) -> bool:
        """Return whether it is known how the server takes the constraint of an output format."""
        if output.kind == "text":
            return True
        form, gives_logprobs = self.endpoint.output_form, self.endpoint.gives_logprobs
        return form != AUTO and (output.kind != "choice" or form == VLLM or gives_logprobs is not None)

    async def find_output_form(self, transport: Transport, output: OutputFormat) -> RequestFault | None:
        """Find out once how the server takes a constraint; return the fault where that cannot be told now."""
        async with self._form_lock:
            if self.endpoint.output_form == AUTO:
                form = await transport.find_output_form(self.endpoint)
                if isinstance(form, RequestFault):
                    return form
                self.endpoint = replace(self.endpoint, output_form=form)
            if not self.is_form_known(output):
                has_logprobs = await transport.has_logprobs(self.endpoint)
                if isinstance(has_logprobs, RequestFault):
                    return has_logprobs
                self.endpoint = replace(self.endpoint, gives_logprobs=has_logprobs)
        return None

    async def find_context(self, transport: Transport) -> None:
        """Find out once how long the server's context is, where it says so."""
        async with self._form_lock:
            if self.endpoint.max_model_len is None and not self._has_read_context:
                with contextlib.suppress(ConnectionError):  # another time
                    max_model_len = await transport.read_max_model_len(self.endpoint)
                    self.endpoint = replace(self.endpoint, max_model_len=max_model_len)
                    self._has_read_context = True

    def find_context_fault(self, request: Request) -> RequestFault | None:
        """Return the fault of a request that the context leaves no more room than the cut answer had, if it is so."""
        max_model_len, cut_answer = self.endpoint.max_model_len, request.cut_answer
        if max_model_len is None or cut_answer is None:
            return None
        max_tokens = compute_max_tokens(request, max_model_len)
        if max_tokens > cut_answer.completion_tokens:
            return None
        message = (
            f"the answer was cut after {cut_answer.completion_tokens:,} tokens, and a context of {max_model_len:,} "
            f"tokens leaves {max(0, max_tokens):,} beside the {cut_answer.prompt_tokens:,} of the prompt: serve the "
            "model with a longer one (max_model_len), or send smaller images (max_image_side)"
        )
        return RequestFault("context_full", message, FaultScope.REQUEST)

    # -- periodic tasks ------------------------------------------------------------------------------------------------

    def send_heartbeat(self) -> None:
        """Tell a local server's supervisor that the server is in use."""
        if self.endpoint.heartbeat_file is not None:
            with contextlib.suppress(OSError):
                self.endpoint.heartbeat_file.touch()

    @property
    def wants_server_load(self) -> bool:
        """Whether to ask for the server's load: while it is up and has work, unless it is known not to report it."""
        return self.state.is_up and self.reports_queue is not False and (self.state.has_responded or self.in_flight > 0)

    async def poll_server_load(self, transport: Transport) -> None:
        """Read the server's load, if it reports one: adapt the limit to its queue, and note the tokens it has written.

        Before its first reply nothing follows from it but the speed: a proxy may answer for a server that is starting.
        """
        try:
            load = await transport.read_server_load(self.endpoint)
        except ConnectionError:  # another time
            return
        if load is not None:
            self.record_generated_tokens(load.generated_tokens, asyncio.get_running_loop().time())
        if self.state.has_responded:
            self.reports_queue = load is not None
            if load is not None and self.state.is_up:
                self.limit.on_queue_length(load.queue_length)

    def record_generated_tokens(self, generated_tokens: int, now: float) -> None:
        """Note how many tokens the server has written since it was started."""
        if self._token_readings and generated_tokens < self._token_readings[-1][1]:  # it was started again
            self._token_readings.clear()
        self._token_readings.append((now, generated_tokens))

    @property
    def generated_tokens_per_s(self) -> float | None:
        """Tokens per second that the server has written of late, for whomever; None where it does not report them."""
        if len(self._token_readings) < 2:
            return None
        (first_at, first_tokens), (last_at, last_tokens) = self._token_readings[0], self._token_readings[-1]
        return (last_tokens - first_tokens) / max(last_at - first_at, 1e-9)
