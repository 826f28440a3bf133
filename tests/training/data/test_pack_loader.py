"""Packs are read ahead, in order, and errors arrive."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pytest
import torch

from mvl_assets.lake.lake import Lake
from mvl_training.data import planned_packs, raw_packs
from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.data.pack_loader import PackLoader, Prefetcher
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.processing import SampleProcessor
from mvl_training.recipe import Recipe


def loader_of(lake: Lake, recipe: Recipe, tokens: ChatTokenizer) -> PackLoader:
    plan = PackPlan(lake, "single_image")
    return PackLoader(lake, "single_image", plan, SampleProcessor.for_stage(recipe, "single_image", tokens))


@pytest.mark.parametrize(("packs", "size"), [(1, 1), (3, 1), (4, 700), (100, 1 << 20)])
def test_packs_read_together_are_those_read_one_by_one_in_order(
    lake: Lake, recipe: Recipe, tokens: ChatTokenizer, monkeypatch: pytest.MonkeyPatch, packs: int, size: int
) -> None:
    loader = loader_of(lake, recipe, tokens)
    chosen_packs = [[7, 30], [], [2], [3, 4, 5], [3], [len(loader.plan) - 1], [0], []]
    one_by_one = [loader.load(pack) for pack in chosen_packs]
    monkeypatch.setattr(planned_packs, "READ_GROUP_PACKS", packs)
    monkeypatch.setattr(raw_packs, "READ_GROUP_BYTES", size)
    for batch, other in zip(loader.iter_batches(chosen_packs), one_by_one, strict=True):
        assert batch.row_ids == other.row_ids
        assert torch.equal(batch.input_ids_1L, other.input_ids_1L)
        assert torch.equal(batch.tiles_T3PP, other.tiles_T3PP)


def test_image_bytes_in_memory_stay_within_the_limit_unless_one_pack_exceeds_it(
    lake: Lake, recipe: Recipe, tokens: ChatTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = loader_of(lake, recipe, tokens)
    monkeypatch.setattr(raw_packs, "READ_GROUP_BYTES", 9000)
    own_packs = [[position] for position in range(len(loader.plan))]
    image_groups = {
        id(raw_pack.image_data): raw_pack.image_data for raw_pack in list(loader.reader.iter_raw_packs(own_packs))
    }
    group_bytes = [sum(map(len, images.values())) for images in image_groups.values()]
    pack_bytes = [
        sum(map(len, raw_pack.image_data.values()))
        for pack in own_packs
        for raw_pack in loader.reader.iter_raw_packs([pack])
    ]
    assert 1 < len(group_bytes) < len(loader.plan)
    assert max(group_bytes) <= max(9000, *pack_bytes)


def test_an_error_while_prefetching_reaches_the_loop(lake: Lake, recipe: Recipe, tokens: ChatTokenizer) -> None:
    loader = loader_of(lake, recipe, tokens)
    prefetch = Prefetcher(loader, chain([[0], []], failing()))
    with pytest.raises(OSError, match="the disk is gone"):
        list(prefetch)
    prefetch.close()


def failing() -> Iterator[list[int]]:
    raise OSError("the disk is gone")
    yield


def test_closing_a_loader_in_the_middle_ends_its_thread(lake: Lake, recipe: Recipe, tokens: ChatTokenizer) -> None:
    prefetch = Prefetcher(loader_of(lake, recipe, tokens), iter([[0]] * 1000))
    next(iter(prefetch))
    prefetch.close()
    assert not prefetch._thread.is_alive()
