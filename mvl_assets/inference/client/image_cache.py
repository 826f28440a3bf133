"""Tracks the images that a server has cached, which are sent by uuid without their bytes.

vLLM caches a prepared image under the `uuid` that came with it, and accepts the uuid alone from then on
(https://docs.vllm.ai, multimodal inputs, cached inputs). That saves sending, decoding and preparing it; a judge asks
three questions about each. While an image is sent for the first time, other requests with it wait, and then go to the
same server, which also has the common prefix cached. A server that has evicted an image rejects the request, which is
then sent again with the bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from mvl_assets.inference.client.attempt import PendingRequest

# A server's cache holds some gigabytes of prepared images, of about 20 MB each at the largest sizes.
MAX_CACHED_IMAGES = 64
# When misses exceed hits by this number, images are sent with their bytes from then on.
MAX_NET_MISSES = 8


class ServerImageCache:
    """The images that one server has cached, by `Request.cache_names`, and the requests that wait for one to arrive."""

    def __init__(self) -> None:
        self._cached: OrderedDict[str, None] = OrderedDict()
        self._in_transit: dict[str, list[PendingRequest]] = {}
        self._net_hits = 0

    @property
    def is_effective(self) -> bool:
        """Whether the cache works: False for a server that keeps rejecting images it should have."""
        return self._net_hits > -MAX_NET_MISSES

    def contains(self, names: Sequence[str]) -> bool:
        """Return whether the first of the images is cached; most requests have only one."""
        return names[0] in self._cached

    def defer(self, pending: PendingRequest) -> bool:
        """Keep `pending` back while one of its images is in transit; return whether it was kept."""
        for name in pending.request.cache_names.values():
            if name in self._in_transit:
                self._in_transit[name].append(pending)
                return True
        return False

    def mark_sent(self, names: Iterable[str]) -> frozenset[str]:
        """Return the images that need no bytes; the others are in transit from now on."""
        cached = frozenset(name for name in names if name in self._cached)
        for name in names:
            if name not in cached:
                self._in_transit.setdefault(name, [])
        return cached

    def on_hit(self, names: Iterable[str]) -> list[PendingRequest]:
        """Record that a request with these images was answered; return the requests that waited for it."""
        for name in names:
            self._cached[name] = None
            self._cached.move_to_end(name)
        while len(self._cached) > MAX_CACHED_IMAGES:
            self._cached.popitem(last=False)
        self._net_hits += 1
        return self._pop_deferred(names)

    def on_miss(self, names: Iterable[str], rejected: bool) -> list[PendingRequest]:
        """Record that a request with these images was `rejected` or failed; return the requests that waited for it."""
        for name in names:
            self._cached.pop(name, None)
        self._net_hits -= rejected
        return self._pop_deferred(names)

    def clear(self) -> None:
        """Forget everything: the server was started again."""
        self._cached.clear()

    def _pop_deferred(self, names: Iterable[str]) -> list[PendingRequest]:
        return [pending for name in names for pending in self._in_transit.pop(name, ())]
