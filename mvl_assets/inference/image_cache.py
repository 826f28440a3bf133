"""Which pictures a server has seen: those are sent by name, without their bytes.

vLLM keeps what it made of a picture under the `uuid` that came with it, and takes the uuid alone for the picture from
then on (https://docs.vllm.ai, multimodal inputs, cached inputs). That saves sending, decoding and preparing it; a judge
asks three questions about each. While a picture is on its way for the first time, other questions about it wait, and
then go to the same server, which still has what it computed of the common beginning, too.

Belongs here: what one server has. A server that has forgotten a picture refuses the request, which then goes again with
the bytes: that is `engine.py`'s affair, and how the parts look `wire.py`'s.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mvl_assets.inference.endpoint_client import Item

# A server's cache holds some gigabytes of prepared pictures, of about 20 MB each at the largest sizes.
REMEMBERED = 64
# So many more refusals than answers, and pictures go with their bytes from then on.
REFUSALS = 8


class Shown:
    """The pictures of one server, by image id, and the requests that wait for one of them to arrive there."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._coming: dict[str, list[Item]] = {}
        self._balance = 0

    @property
    def pays(self) -> bool:
        """False for a server that again and again refuses what it should have."""
        return self._balance > -REFUSALS

    def has(self, images: Sequence[str]) -> bool:
        """Whether the first of them is there; most requests have only one."""
        return images[0] in self._seen

    def wait(self, item: Item) -> bool:
        """Whether `item` has been put by until a picture of its own has arrived."""
        for image in item.pictures:
            if image in self._coming:
                self._coming[image].append(item)
                return True
        return False

    def send(self, images: Iterable[str]) -> frozenset[str]:
        """Those that need no bytes; the others are on their way from now on."""
        seen = frozenset(image for image in images if image in self._seen)
        for image in images:
            if image not in seen:
                self._coming.setdefault(image, [])
        return seen

    def arrived(self, images: Iterable[str]) -> list[Item]:
        """A request with these pictures was answered. Returns the requests that waited for it."""
        for image in images:
            self._seen[image] = None
            self._seen.move_to_end(image)
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        self._balance += 1
        return self._waiting(images)

    def failed(self, images: Iterable[str], refused: bool) -> list[Item]:
        """It was not, `refused` by the server or for another reason. Returns the requests that waited for it."""
        for image in images:
            self._seen.pop(image, None)
        self._balance -= refused
        return self._waiting(images)

    def forget(self) -> None:
        """The server was started again."""
        self._seen.clear()

    def _waiting(self, images: Iterable[str]) -> list[Item]:
        return [item for image in images for item in self._coming.pop(image, ())]
