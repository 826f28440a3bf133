"""Packs are read ahead, in order, and errors arrive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import chain

import pytest
import torch

from mvl_assets.lake.lake import Lake
from mvl_training.data import planned_packs, raw_packs
from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.data.pack_loader import PackedBatch, PackLoader, Prefetcher
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


def load_full_batch(loader: PackLoader) -> PackedBatch:
    """Return a batch that has every tensor a batch can have."""
    batch = loader.load([0, 1])
    n_tokens = len(batch.targets_L)
    return replace(
        batch, token_weights_L=torch.ones(n_tokens), rope_ids_31L=torch.zeros(3, 1, n_tokens, dtype=torch.int64)
    )


def get_tensors(batch: PackedBatch) -> dict[str, torch.Tensor]:
    tensors = {field.name: getattr(batch, field.name) for field in fields(batch) if "torch.Tensor" in str(field.type)}
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()), "load_full_batch lacks a tensor"
    return tensors


def test_every_tensor_of_a_batch_is_copied_to_the_device(lake: Lake, recipe: Recipe, tokens: ChatTokenizer) -> None:
    batch = load_full_batch(loader_of(lake, recipe, tokens))
    copied = batch.to(torch.device("meta"))
    assert {tensor.device.type for tensor in get_tensors(copied).values()} == {"meta"}
    assert copied.row_ids == batch.row_ids and copied.layouts == batch.layouts
    assert batch.to(torch.device("cpu")) is batch


def test_every_tensor_of_a_batch_is_pinned(
    lake: Lake, recipe: Recipe, tokens: ChatTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a CUDA device torch pins nothing, so what is pinned is recorded."""
    batch = load_full_batch(loader_of(lake, recipe, tokens))
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    result, originals = batch.pin_memory(), get_tensors(batch)
    for name, tensor in get_tensors(result).items():
        assert any(tensor is own for own in pinned), name
        assert torch.equal(tensor, originals[name])
    assert result.loss_weight == batch.loss_weight and result.row_ids == batch.row_ids


def test_nothing_is_pinned_for_a_cpu(
    lake: Lake, recipe: Recipe, tokens: ChatTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pytest.fail("pinned"))
    prefetch = Prefetcher(loader_of(lake, recipe, tokens), iter([[0], [1]]))
    assert len(list(prefetch)) == 2
    prefetch.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_packs_for_a_gpu_are_pinned(lake: Lake, recipe: Recipe, tokens: ChatTokenizer) -> None:
    prefetch = Prefetcher(loader_of(lake, recipe, tokens), iter([[0], [1]]), device=torch.device("cuda"))
    for batch in prefetch:
        tensors = [value for field in fields(batch) if isinstance(value := getattr(batch, field.name), torch.Tensor)]
        assert all(tensor.is_pinned() for tensor in tensors if tensor.numel())
    prefetch.close()
