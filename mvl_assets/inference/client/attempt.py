"""A request under way, and the attempts that are made for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from mvl_assets.inference.client.chat_protocol import Reply
from mvl_assets.inference.client.faults import RequestFault
from mvl_assets.inference.progress import RequestOutcome
from mvl_assets.inference.request import Request

# How one attempt ends; None if it was cancelled.
AttemptResult = Reply | RequestFault


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request that was read from the iterable and is not stored yet.

    Attributes:
        affinity: Requests with the same number belong on the same server; see `scheduling.affinity`.
        images: Prepared bytes by image id, from loading until the request is settled.
        attempts_sent: Attempts so far, whatever their result.
        row_failures: Attempts that may have failed because of the request itself.
        client_timeouts: Attempts that were given up before the run's own time-out.
        rejections: Attempts that an endpoint did not accept (429, 503), the first of them at `first_rejected_at`.
        solo_crashes: Crashes of a server that held this request alone.
        attempts: Attempts in flight, oldest first. More than one only for hedged requests.
        outcome: Set once the request is answered or has failed; attempts that are still in flight then do not count.
        inline_images: Whether images are sent with their bytes and without a uuid.
    """

    request: Request
    affinity: int = 0
    images: dict[str, bytes] = field(default_factory=dict)
    attempts_sent: int = 0
    row_failures: int = 0
    client_timeouts: int = 0
    rejections: int = 0
    first_rejected_at: float | None = None
    solo_crashes: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    outcome: RequestOutcome | None = None
    inline_images: bool = False

    @property
    def is_settled(self) -> bool:
        return self.outcome is not None


@dataclass(slots=True, eq=False)
class Attempt:
    """One sending of a request to one endpoint.

    Attributes:
        sent_at: Seconds on the event loop's clock.
        in_flight_at_send: What the endpoint held when the attempt was sent, the attempt included.
        cached_names: Images sent by uuid only, by their names in the cache; None when no image of the request has one.
    """

    pending: PendingRequest
    sent_at: float
    in_flight_at_send: int = 1
    cached_names: frozenset[str] | None = None
    task: asyncio.Task[None] | None = None
