"""Which requests belong on the same server: those about one image, or with one beginning.

A server answers them faster one after the other, because it has the image prepared and the common prefix computed.
"""

from __future__ import annotations

from collections.abc import Sequence

from mvl_assets.inference.client.endpoint_client import EndpointClient
from mvl_assets.inference.client.stable_hash import compute_stable_hash
from mvl_assets.inference.request import Request

# More requests with the same beginning share instructions rather than a subject, and every server soon has those.
MAX_TEXT_GROUP_SIZE = 8
# Servers cache whole blocks of tokens: a shorter common beginning saves nothing.
MIN_PREFIX_CHARS = 64
# Multiplicative hashing by 2**64 / golden ratio (Knuth, The Art of Computer Programming 3, 6.4).
MULTIPLIER, MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


class AffinityGrouper:
    """Computes the affinity of requests in the order in which they are read: equal numbers belong together."""

    def __init__(self) -> None:
        self._text = ""
        self._group_size = 0
        self._affinity = 0

    def compute_affinity(self, request: Request) -> int:
        """Return a number of 64 bits that depends on the first image, or on the first of a group of similar texts."""
        image_ids = request.image_ids
        if image_ids:
            return compute_stable_hash(image_ids[0])
        text = "\n".join(_extract_text(message["content"]) for message in request.messages)
        half = len(text) // 2
        if half >= MIN_PREFIX_CHARS and self._group_size < MAX_TEXT_GROUP_SIZE and text[:half] == self._text[:half]:
            self._group_size += 1
        else:
            self._affinity, self._group_size = compute_stable_hash(request.key), 1
        self._text = text
        return self._affinity


def pick_preferred(clients: Sequence[EndpointClient], affinity: int) -> EndpointClient:
    """Return the client that requests of this affinity go to first, by rendezvous hashing.

    A client that joins or leaves changes the choice for its own share of the requests only, and all processes choose
    alike.

    Thaler and Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM Trans. Networking 6(1), 1998.
    """
    if len(clients) == 1:
        return clients[0]
    return max(clients, key=lambda client: ((affinity ^ client.affinity_seed) * MULTIPLIER) & MASK)


def _extract_text(content: object) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))  # type: ignore[attr-defined]
