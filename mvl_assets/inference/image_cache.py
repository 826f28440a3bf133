"""Which pictures a server has seen: those are sent by name, without their bytes.

vLLM keeps what it made of a picture under the `uuid` that came with it, and takes the uuid alone for the picture from
then on (https://docs.vllm.ai, multimodal inputs, cached inputs). That saves sending, decoding and preparing it; a judge
asks three questions about each. While a picture is on its way for the first time, other questions about it wait, and
then go to the same server, which still has what it computed of the common beginning, too.

Belongs here: what one server has. A server that has forgotten a picture refuses the request, which then goes again with
the bytes: that is `engine.py`'s affair, and how the parts look `chat_protocol.py`'s.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mvl_assets.inference.endpoint_client import PendingRequest

# A server's cache holds some gigabytes of prepared pictures, of about 20 MB each at the largest sizes.
MAX_CACHED_IMAGES = 64
# So many more refusals than answers, and pictures go with their bytes from then on.
MAX_NET_MISSES = 8


class ServerImageCache:
    """The pictures of one server, by image id, and the requests that wait for one of them to arrive there."""

    def __init__(self) -> None:
        self._cached: OrderedDict[str, None] = OrderedDict()
        self._in_transit: dict[str, list[PendingRequest]] = {}
        self._net_hits = 0

    @property
    def is_effective(self) -> bool:
        """False for a server that again and again refuses what it should have."""
        return self._net_hits > -MAX_NET_MISSES

    def contains(self, image_ids: Sequence[str]) -> bool:
        """Whether the first of them is there; most requests have only one."""
        return image_ids[0] in self._cached

    def defer(self, pending: PendingRequest) -> bool:
        """Whether `pending` has been put by until a picture of its own has arrived."""
        for image_id in pending.images:
            if image_id in self._in_transit:
                self._in_transit[image_id].append(pending)
                return True
        return False

    def mark_sent(self, image_ids: Iterable[str]) -> frozenset[str]:
        """Those that need no bytes; the others are on their way from now on."""
        cached = frozenset(image_id for image_id in image_ids if image_id in self._cached)
        for image in image_ids:
            if image not in cached:
                self._in_transit.setdefault(image, [])
        return cached

    def on_hit(self, image_ids: Iterable[str]) -> list[PendingRequest]:
        """A request with these pictures was answered. Returns the requests that waited for it."""
        for image_id in image_ids:
            self._cached[image_id] = None
            self._cached.move_to_end(image_id)
        while len(self._cached) > MAX_CACHED_IMAGES:
            self._cached.popitem(last=False)
        self._net_hits += 1
        return self._pop_deferred(image_ids)

    def on_miss(self, image_ids: Iterable[str], rejected: bool) -> list[PendingRequest]:
        """It was not, `rejected` by the server or for another reason. Returns the requests that waited for it."""
        for image_id in image_ids:
            self._cached.pop(image_id, None)
        self._net_hits -= rejected
        return self._pop_deferred(image_ids)

    def clear(self) -> None:
        """The server was started again."""
        self._cached.clear()

    def _pop_deferred(self, image_ids: Iterable[str]) -> list[PendingRequest]:
        return [pending for image_id in image_ids for pending in self._in_transit.pop(image_id, ())]
