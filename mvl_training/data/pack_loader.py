"""Loading of packs as tensors: samples joined into one sequence, read ahead of the training loop.

The step number is the state: a loader gets the positions of packs from `batch_order` and keeps nothing between steps.

Shapes in names: L tokens of the pack, V visual tokens, T tiles, P pixels along a tile's side.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch

from mvl_assets.common.rejects import RejectError
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries import views
from mvl_assets.media.tiles import TileLayout
from mvl_training.data.chat_format import IGNORE_INDEX
from mvl_training.data.pack_plan import Pack, PackPlan
from mvl_training.data.processing import ProcessedSample, SampleProcessor

_T = TypeVar("_T")

BLANK_PIXEL = 127

READ_GROUP_PACKS = 256
READ_GROUP_BYTES = 32 << 20
"""About 400 images. Lance reads 256 images at once three times as fast as 8; more than that gains nothing."""


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """One sequence of N samples that do not see each other: L tokens, V visual tokens, T tiles (at least one).

    Attributes:
        input_ids_1L: int64 (1, L).
        position_ids_1L: int64 (1, L); positions restart at 0 with each sample.
        cu_seqlens: int32 (N + 1,): sample n has the tokens `cu_seqlens[n]` to `cu_seqlens[n + 1]`.
        max_seqlen: Tokens of the longest sample.
        targets_L: int64 (L,): the next token where the loss is taken, else IGNORE_INDEX; never crosses samples.
        visual_positions_V: int64 (V,): positions of the placeholder tokens, in order.
        tiles_T3PP: uint8 (T, 3, P, P).
        layouts: Layouts of the images and videos in order; empty if the only tile is a dummy.
        n_loss_tokens: Tokens that the loss is taken on.
        row_ids: The mixture rows of the samples.
    """

    input_ids_1L: torch.Tensor
    position_ids_1L: torch.Tensor
    cu_seqlens: torch.Tensor
    max_seqlen: int
    targets_L: torch.Tensor
    visual_positions_V: torch.Tensor
    tiles_T3PP: torch.Tensor
    layouts: tuple[TileLayout, ...]
    n_loss_tokens: int
    row_ids: tuple[str, ...] = ()

    def to(self, device: torch.device) -> PackedBatch:
        """Return the batch with its tensors on a device."""
        if device.type == "cpu":
            return self
        return replace(
            self,
            input_ids_1L=self.input_ids_1L.to(device, non_blocking=True),
            position_ids_1L=self.position_ids_1L.to(device, non_blocking=True),
            cu_seqlens=self.cu_seqlens.to(device, non_blocking=True),
            targets_L=self.targets_L.to(device, non_blocking=True),
            visual_positions_V=self.visual_positions_V.to(device, non_blocking=True),
            tiles_T3PP=self.tiles_T3PP.to(device, non_blocking=True),
        )


def collate(samples: Sequence[ProcessedSample], placeholder_ids: tuple[int, int], tile_size: int) -> PackedBatch:
    """Join samples into one sequence.

    Without samples, or without images in them, the batch gets one grey tile, so that every rank calls the vision tower
    every time (ranks that skip it hang ZeRO-3 and crash ZeRO-2).

    Args:
        samples: The samples to join; may be empty.
        placeholder_ids: Ids of the image and the video token.
        tile_size: Side of a tile in pixels.
    """
    lengths = [len(sample.encoded.input_ids) for sample in samples] or [2]
    position_ids_L = np.concatenate([np.arange(length) for length in lengths])
    if samples:
        ends = np.full(1, IGNORE_INDEX, dtype=np.int32)
        targets = [np.concatenate([sample.encoded.labels[1:], ends]) for sample in samples]
        input_ids_L = np.concatenate([sample.encoded.input_ids for sample in samples]).astype(np.int64)
        targets_L = np.concatenate(targets).astype(np.int64)
        visual_positions_V = np.flatnonzero(np.isin(input_ids_L, placeholder_ids))
    else:
        input_ids_L = np.zeros(2, dtype=np.int64)
        targets_L = np.full(2, IGNORE_INDEX, dtype=np.int64)
        visual_positions_V = np.empty(0, dtype=np.int64)
    blank_tile_13PP = np.full((1, 3, tile_size, tile_size), BLANK_PIXEL, dtype=np.uint8)
    tiles = [sample.tiles for sample in samples if len(sample.tiles)] or [blank_tile_13PP]
    return PackedBatch(
        input_ids_1L=torch.from_numpy(input_ids_L)[None],
        position_ids_1L=torch.from_numpy(position_ids_L)[None],
        cu_seqlens=torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int32)),
        max_seqlen=max(lengths),
        targets_L=torch.from_numpy(targets_L),
        visual_positions_V=torch.from_numpy(visual_positions_V),
        tiles_T3PP=torch.from_numpy(np.concatenate(tiles)),
        layouts=tuple(layout for sample in samples for layout in sample.layouts),
        n_loss_tokens=int((targets_L != IGNORE_INDEX).sum()),
        row_ids=tuple(sample.row_id for sample in samples),
    )


@dataclass(frozen=True, slots=True)
class RawPack:
    """A pack with the rows and encoded images of its samples, not yet decoded.

    Attributes:
        pack: None for an empty pack.
        rows: Mixture rows by id; shared with other packs.
        image_data: Encoded images by id; shared with other packs.
    """

    pack: Pack | None
    rows: Mapping[str, dict[str, Any]]
    image_data: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class _ReadGroup:
    """Consecutive packs, and the ids of all their images."""

    packs: list[Pack | None]
    rows: Mapping[str, dict[str, Any]]
    image_ids: set[str]


class PackLoader:
    """Reads the samples of packs from the lake and turns them into tensors."""

    def __init__(self, lake: Lake, stage: TrainingStage, plan: PackPlan, processor: SampleProcessor) -> None:
        self.lake = lake
        self.stage = stage
        self.plan = plan
        self.processor = processor

    def load(self, position: int | None) -> PackedBatch:
        """Return the pack at a position of the plan (None: an empty one). See `iter_batches`."""
        (batch,) = self.iter_batches([position])
        return batch

    def iter_batches(self, positions: Iterable[int | None]) -> Iterator[PackedBatch]:
        """Yield the packs at these positions of the plan (None: an empty one), in their order.

        Raises:
            MvlError: A sample differs from what the plan counted: the mixture or its images changed after planning.
        """
        return map(self._collate_pack, self.iter_raw_packs(positions))

    def iter_raw_packs(self, positions: Iterable[int | None]) -> Iterator[RawPack]:
        """Yield the packs at these positions (None: an empty one) as rows and encoded images, in their order.

        The rows of `READ_GROUP_PACKS` packs are read together, and images in groups of `READ_GROUP_BYTES`, at a
        twentieth of the cost of reading pack by pack; the next group is read while one is used. Memory holds the rows
        and image bytes of two groups, more only if a single pack has more than `READ_GROUP_BYTES` of images.
        """
        read_groups = _prefetch(self._iter_read_groups(iter(positions)))
        for raw_packs in _prefetch(self._fetch_group(read_group) for read_group in read_groups):
            yield from raw_packs

    def _iter_read_groups(self, positions: Iterator[int | None]) -> Iterator[_ReadGroup]:
        """Yield packs whose images are read together: a group ends before it would exceed `READ_GROUP_BYTES`."""
        while group_positions := list(islice(positions, READ_GROUP_PACKS)):
            packs = iter(self.plan.read_packs([position for position in group_positions if position is not None]))
            packs_or_none = [None if position is None else next(packs) for position in group_positions]
            row_ids = [row_id for pack in packs_or_none if pack is not None for row_id in pack.row_ids]
            rows = views.read_mixture_rows_by_id(self.lake, self.stage, row_ids)
            image_ids_by_pack = [self._collect_image_ids(pack, rows) for pack in packs_or_none]
            bytes_by_image = self.lake.images.read_sizes(set[str]().union(*image_ids_by_pack))
            group, group_bytes = _ReadGroup([], rows, set()), 0
            for pack, image_ids in zip(packs_or_none, image_ids_by_pack, strict=True):
                pack_bytes = sum(bytes_by_image.get(image_id, 0) for image_id in image_ids)
                if group.packs and group_bytes + pack_bytes > READ_GROUP_BYTES:
                    yield group
                    group, group_bytes = _ReadGroup([], rows, set()), 0
                group.packs.append(pack)
                group.image_ids.update(image_ids)
                group_bytes += pack_bytes
            yield group

    def _collect_image_ids(self, pack: Pack | None, rows: Mapping[str, dict[str, Any]]) -> set[str]:
        pack_rows = () if pack is None else (rows[row_id] for row_id in pack.row_ids if row_id in rows)
        return {image_id for row in pack_rows for image_id in self.processor.select_image_ids(row)}

    def _fetch_group(self, group: _ReadGroup) -> list[RawPack]:
        image_data = self.lake.images.read_stored_images(group.image_ids)
        return [RawPack(pack, group.rows, image_data) for pack in group.packs]

    def _collate_pack(self, raw_pack: RawPack) -> PackedBatch:
        placeholder_ids = (self.processor.tokenizer.image_token_id, self.processor.tokenizer.video_token_id)
        if raw_pack.pack is None:
            return collate([], placeholder_ids, self.processor.grid.tile_size)
        samples = []
        for row_id, length in zip(raw_pack.pack.row_ids, raw_pack.pack.lengths, strict=True):
            row = raw_pack.rows.get(row_id)
            if row is None:
                raise _build_stale_plan_error(self.stage, row_id, "is not in the mixture")
            try:
                sample = self.processor.build_sample(row, raw_pack.image_data)
            except RejectError as error:
                raise _build_stale_plan_error(self.stage, row_id, str(error)) from error
            if len(sample.encoded.input_ids) != length:
                raise _build_stale_plan_error(
                    self.stage, row_id, f"has {len(sample.encoded.input_ids)} tokens, the plan says {length}"
                )
            samples.append(sample)
        return collate(samples, placeholder_ids, self.processor.grid.tile_size)


def _prefetch(items: Iterator[_T]) -> Iterator[_T]:
    """Yield the same items; while one is used, a thread prepares the next."""
    with ThreadPoolExecutor(1, "pack-reader") as executor:
        next_item = executor.submit(next, items, None)
        while (item := next_item.result()) is not None:
            next_item = executor.submit(next, items, None)
            yield item


def _build_stale_plan_error(stage: str, row_id: str, problem: str) -> MvlError:
    return MvlError(f"row {row_id} of mixture/{stage} {problem}", hint=f"materialise pack_plan/{stage} again")


class Prefetcher:
    """Loads packs ahead in one thread (decoding and resizing release the GIL). Iterate over it, then `close` it."""

    def __init__(self, loader: PackLoader, positions: Iterator[int | None], depth: int = 4) -> None:
        self._queue: queue.Queue[PackedBatch | BaseException | None] = queue.Queue(maxsize=depth)
        self._stop_event = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(loader, positions), name="pack-loader", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[PackedBatch]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Stop the thread, also in the middle of the data."""
        self._stop_event.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue

    def _run(self, loader: PackLoader, positions: Iterator[int | None]) -> None:
        try:
            for batch in loader.iter_batches(positions):
                if self._stop_event.is_set():
                    return
                self._put(batch)
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: PackedBatch | BaseException | None) -> None:
        while not self._stop_event.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue
