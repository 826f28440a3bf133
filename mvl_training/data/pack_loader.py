"""Packs as tensors.

Belongs here: joining samples into one sequence, loading ahead. Does not: which samples share a pack (`packing`), which
packs make up a step (`order`), what the model does with them (`model`).
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

from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries import views
from mvl_assets.media.image import PictureError
from mvl_assets.media.tiles import Layout
from mvl_training.data.chat_format import IGNORE, Unusable
from mvl_training.data.pack_plan import Pack, PackPlan
from mvl_training.data.processing import Sample, SampleProcessor
from mvl_training.recipe import StageName

_Item = TypeVar("_Item")

GREY = 127

READ_PACKS = 256
READ_BYTES = 32 << 20
"""Some 400 pictures. Lance hands out 256 together at three times the rate of 8, and more no faster."""


@dataclass(frozen=True, slots=True)
class Packed:
    """One sequence of samples that do not see each other. L tokens, V visual tokens, T tiles (at least one).

    `ids_1L` and `positions_1L` int64, positions restart at 0 with each sample; sample n lies between `bounds_N[n]` and
    `bounds_N[n + 1]` (int32), the longest has `longest` tokens. `targets_L` is the next token where the
    loss is taken, else IGNORE; it never crosses samples. `visual_V` are the places of the placeholder tokens in order.
    `tiles_T3PP` is uint8. `layouts` are those of the pictures and videos in order; none when the only tile is a dummy.
    """

    ids_1L: torch.Tensor
    positions_1L: torch.Tensor
    bounds_N: torch.Tensor
    longest: int
    targets_L: torch.Tensor
    visual_V: torch.Tensor
    tiles_T3PP: torch.Tensor
    layouts: tuple[Layout, ...]
    n_targets: int
    row_ids: tuple[str, ...] = ()

    def to(self, device: torch.device) -> Packed:
        if device.type == "cpu":
            return self
        return replace(
            self,
            ids_1L=self.ids_1L.to(device, non_blocking=True),
            positions_1L=self.positions_1L.to(device, non_blocking=True),
            bounds_N=self.bounds_N.to(device, non_blocking=True),
            targets_L=self.targets_L.to(device, non_blocking=True),
            visual_V=self.visual_V.to(device, non_blocking=True),
            tiles_T3PP=self.tiles_T3PP.to(device, non_blocking=True),
        )


def collate(samples: Sequence[Sample], placeholders: tuple[int, int], tile: int) -> Packed:
    """Joins samples into one sequence. `placeholders` are the ids of the image and the video token.

    No samples, or none with pictures: one grey tile, so that every rank calls the vision tower every time (ranks that
    skip it hang ZeRO-3 and crash ZeRO-2).
    """
    lengths = [len(s.encoded.ids) for s in samples] or [2]
    positions = np.concatenate([np.arange(length) for length in lengths])
    if not samples:
        ids = np.zeros(2, dtype=np.int64)
        targets = np.full(2, IGNORE, dtype=np.int64)
    else:
        ids = np.concatenate([s.encoded.ids for s in samples]).astype(np.int64)
        targets = np.concatenate([np.append(s.encoded.labels[1:], np.int32(IGNORE)) for s in samples]).astype(np.int64)
    pixels = [s.tiles for s in samples if len(s.tiles)] or [np.full((1, 3, tile, tile), GREY, dtype=np.uint8)]
    visual = np.flatnonzero(np.isin(ids, placeholders)) if samples else np.empty(0, dtype=np.int64)
    return Packed(
        ids_1L=torch.from_numpy(ids)[None],
        positions_1L=torch.from_numpy(positions)[None],
        bounds_N=torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int32)),
        longest=max(lengths),
        targets_L=torch.from_numpy(targets),
        visual_V=torch.from_numpy(visual),
        tiles_T3PP=torch.from_numpy(np.concatenate(pixels)),
        layouts=tuple(layout for s in samples for layout in s.layouts),
        n_targets=int((targets != IGNORE).sum()),
        row_ids=tuple(s.row_id for s in samples),
    )


@dataclass(frozen=True, slots=True)
class Read:
    """A pack with all that its samples are made of; None for an empty one. Dictionaries are shared with others."""

    pack: Pack | None
    rows: Mapping[str, dict[str, Any]]
    pictures: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class _Portion:
    """Consecutive packs, and the ids of all their pictures."""

    packs: list[Pack | None]
    rows: Mapping[str, dict[str, Any]]
    pictures: set[str]


class PackLoader:
    """Reads the samples of packs from the lake and makes them tensors."""

    def __init__(self, lake: Lake, stage: StageName, plan: PackPlan, processor: SampleProcessor) -> None:
        self.lake = lake
        self.stage = stage
        self.plan = plan
        self.processor = processor

    def load(self, position: int | None) -> Packed:
        """The pack at a position of the plan; see `stream`."""
        (packed,) = self.stream([position])
        return packed

    def stream(self, positions: Iterable[int | None]) -> Iterator[Packed]:
        """The packs at these positions of the plan (None: an empty one), in their order. Raises MvlError naming the
        sample that no longer is what the plan counted: the plan and the lake belong to different versions."""
        return map(self._made, self.read(positions))

    def read(self, positions: Iterable[int | None]) -> Iterator[Read]:
        """What the packs at these positions are made of, in their order, before anything is decoded.

        Rows are looked up for `READ_PACKS` packs together and pictures for `READ_BYTES`, which costs a twentieth of
        looking them up pack by pack, each one ahead of what is handed out. Held at a time: the rows of twice so many
        packs, and twice so many bytes of pictures unless those of one pack alone are more.
        """
        portions = _ahead(self._portions(iter(positions)))
        for reads in _ahead(self._fetched(portion) for portion in portions):
            yield from reads

    def _portions(self, positions: Iterator[int | None]) -> Iterator[_Portion]:
        """Packs whose pictures are read together: cut where these would be more than `READ_BYTES`."""
        while some := list(islice(positions, READ_PACKS)):
            packs = iter(self.plan.at([position for position in some if position is not None]))
            listed = [None if position is None else next(packs) for position in some]
            row_ids = [row_id for pack in listed if pack is not None for row_id in pack.row_ids]
            rows = views.rows_by_id(self.lake, self.stage, row_ids)
            wanted = [self._pictures(pack, rows) for pack in listed]
            sizes = self.lake.images.sizes(set[str]().union(*wanted))
            portion, held = _Portion([], rows, set()), 0
            for pack, ids in zip(listed, wanted, strict=True):
                size = sum(sizes.get(i, 0) for i in ids)
                if portion.packs and held + size > READ_BYTES:
                    yield portion
                    portion, held = _Portion([], rows, set()), 0
                portion.packs.append(pack)
                portion.pictures.update(ids)
                held += size
            yield portion

    def _pictures(self, pack: Pack | None, rows: Mapping[str, dict[str, Any]]) -> set[str]:
        known = () if pack is None else (rows[row_id] for row_id in pack.row_ids if row_id in rows)
        return {i for row in known for i in self.processor.used_pictures(row)}

    def _fetched(self, portion: _Portion) -> list[Read]:
        pictures = self.lake.images.fetch_stored(portion.pictures)
        return [Read(pack, portion.rows, pictures) for pack in portion.packs]

    def _made(self, read: Read) -> Packed:
        placeholders = (self.processor.tokens.image, self.processor.tokens.video)
        if read.pack is None:
            return collate([], placeholders, self.processor.grid.tile)
        samples = []
        for row_id, length in zip(read.pack.row_ids, read.pack.lengths, strict=True):
            row = read.rows.get(row_id)
            if row is None:
                raise _stale(self.stage, row_id, "is not in the mixture")
            try:
                sample = self.processor.build(row, read.pictures)
            except (Unusable, PictureError) as error:
                raise _stale(self.stage, row_id, str(error)) from error
            if len(sample.encoded.ids) != length:
                raise _stale(self.stage, row_id, f"has {len(sample.encoded.ids)} tokens, the plan says {length}")
            samples.append(sample)
        return collate(samples, placeholders, self.processor.grid.tile)


def _ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """The same; while an item is used, a thread makes the next."""
    with ThreadPoolExecutor(1, "pack-reader") as thread:
        upcoming = thread.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = thread.submit(next, items, None)
            yield item


def _stale(stage: str, row_id: str, what: str) -> MvlError:
    return MvlError(f"row {row_id} of mixture/{stage} {what}", hint=f"materialise pack_plan/{stage} again")


class Prefetch:
    """Loads packs ahead in one thread (decoding and resizing release Python's lock). Iterate, then `close`."""

    def __init__(self, loader: PackLoader, positions: Iterator[int | None], depth: int = 4) -> None:
        self._queue: queue.Queue[Packed | BaseException | None] = queue.Queue(maxsize=depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(loader, positions), name="pack-loader", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Packed]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue

    def _work(self, loader: PackLoader, positions: Iterator[int | None]) -> None:
        try:
            for packed in loader.stream(positions):
                if self._stop.is_set():
                    return
                self._put(packed)
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: Packed | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue
