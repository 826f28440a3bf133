"""Which images a server has cached, and which requests wait for one of them to arrive."""

from __future__ import annotations

import dataclasses

from mvl_assets.inference.client.attempt import PendingRequest
from mvl_assets.inference.client.image_cache import MAX_CACHED_IMAGES, MAX_NET_MISSES, ServerImageCache
from tests.inference.helpers import build_request


def build_pending(*image_ids: str) -> PendingRequest:
    request = build_request("what is it?")
    content = [{"type": "image", "image": image_id} for image_id in image_ids]
    return PendingRequest(dataclasses.replace(request, messages=({"role": "user", "content": content},)))


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
    waiting = [build_pending("a"), build_pending("a")]
    assert [cache.defer(pending) for pending in waiting] == [True, True]
    assert not cache.defer(build_pending("b"))
    assert cache.on_hit(["a"]) == waiting
    assert not cache.defer(build_pending("a"))
    assert cache.on_hit(["a"]) == [], "each request comes back once"


def test_one_of_several_images_is_cached_apart_and_frames_of_a_video_are_not() -> None:
    """A server may prepare them otherwise than an image that is alone in its prompt."""
    cache = ServerImageCache()
    cache.mark_sent(list(build_pending("a").request.cache_names.values()))
    several = build_pending("b", "a")
    assert not cache.defer(several)
    cache.on_hit(["a"])
    assert cache.mark_sent(list(several.request.cache_names.values())) == frozenset()
    assert cache.defer(build_pending("a", "c")) and not cache.defer(build_pending("b"))
    video = dataclasses.replace(
        several.request, messages=({"role": "user", "content": [{"type": "video", "frames": ["a", "b"]}]},)
    )
    assert video.image_ids == ("a", "b") and video.cache_names == {}


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
