"""Which images a server has cached, and which requests wait for one of them to arrive."""

from __future__ import annotations

from mvl_assets.inference.client.attempt import PendingRequest
from mvl_assets.inference.client.image_cache import MAX_CACHED_IMAGES, MAX_NET_MISSES, ServerImageCache
from tests.inference.helpers import build_request


def build_pending(*image_ids: str) -> PendingRequest:
    return PendingRequest(build_request("what is it?"), images=dict.fromkeys(image_ids, b""))


def test_an_image_is_sent_with_its_bytes_once_and_by_uuid_after_a_hit() -> None:
    cache = ServerImageCache()
    assert cache.mark_sent(["a"]) == frozenset()
    assert not cache.contains(["a"])
    cache.on_hit(["a"])
    assert cache.contains(["a"])
    assert cache.mark_sent(["a", "b"]) == frozenset({"a"})


def test_requests_wait_while_an_image_is_in_transit_and_come_back_in_order() -> None:
    cache = ServerImageCache()
    cache.mark_sent(["a"])
    waiting = [build_pending("a"), build_pending("b", "a")]
    assert [cache.defer(pending) for pending in waiting] == [True, True]
    assert not cache.defer(build_pending("b"))
    assert cache.on_hit(["a"]) == waiting
    assert not cache.defer(build_pending("a"))
    assert cache.on_hit(["a"]) == [], "each request comes back once"


def test_a_miss_forgets_the_image_and_frees_what_waits_for_it() -> None:
    cache = ServerImageCache()
    cache.mark_sent(["a"])
    cache.on_hit(["a"])
    cache.mark_sent(["b"])
    pending = build_pending("b")
    assert cache.defer(pending)
    assert cache.on_miss(["a", "b"], rejected=True) == [pending]
    assert not cache.contains(["a"])
    assert cache.mark_sent(["a"]) == frozenset()


def test_a_server_that_keeps_rejecting_cached_images_gets_bytes() -> None:
    cache = ServerImageCache()
    for _ in range(MAX_NET_MISSES * 2):
        cache.on_miss(["a"], rejected=False)
    assert cache.is_effective, "a lost connection proves nothing about the cache"
    for _ in range(MAX_NET_MISSES - 1):
        cache.on_miss(["a"], rejected=True)
    assert cache.is_effective
    cache.on_miss(["a"], rejected=True)
    assert not cache.is_effective
    cache.on_hit(["b"])
    assert cache.is_effective


def test_the_image_that_was_used_longest_ago_is_evicted_first() -> None:
    cache = ServerImageCache()
    image_ids = [str(number) for number in range(MAX_CACHED_IMAGES)]
    cache.on_hit(image_ids)
    cache.on_hit(["0"])
    cache.on_hit(["new"])
    assert cache.contains(["0"]) and cache.contains(["new"])
    assert not cache.contains(["1"])


def test_a_restarted_server_has_no_images() -> None:
    cache = ServerImageCache()
    cache.on_hit(["a"])
    cache.clear()
    assert not cache.contains(["a"])
