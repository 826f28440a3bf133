"""Packs as tensors, in an order that is a function of (plan, seed, step) alone, on any number of ranks.

Belongs here: joining samples into one sequence, which packs make up which optimizer step, loading ahead. Does not:
how packs are chosen (`packing`), what the model does with them (`model`).

A step takes `per_step` packs of the plan's order, whatever the number of ranks; rank r of w takes the packs r, r+w, ….
Where they do not divide evenly a rank gets an empty pack, which costs one dummy tile and no loss.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from mvl_assets.errors import MvlError
from mvl_assets.lake import views
from mvl_assets.lake.lake import Lake
from mvl_assets.media.picture import PictureError
from mvl_assets.media.tiles import Layout
from mvl_training.conversation import IGNORE, Unusable
from mvl_training.pack_plan import PackPlan
from mvl_training.processing import Sample, SampleProcessor
from mvl_training.recipe import StageName

GREY = 127


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
class Order:
    """Which packs make up which step."""

    packs: int
    per_step: int
    seed: int

    @classmethod
    def of(cls, plan: PackPlan, samples_per_step: int, seed: int) -> Order:
        """Packs per step such that a step holds about `samples_per_step` samples."""
        per_step = max(1, round(samples_per_step * len(plan) / int(plan.n_samples.sum())))
        return cls(len(plan), min(per_step, len(plan)), seed)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.packs // self.per_step)

    def step(self, number: int) -> list[int]:
        """Positions of the packs of step `number` (from 0). The first epoch follows the plan, later ones shuffle it."""
        epoch, within = divmod(number, self.steps_per_epoch)
        places = slice(within * self.per_step, min((within + 1) * self.per_step, self.packs))
        if epoch == 0:
            return list(range(places.start, places.stop))
        return [int(p) for p in _shuffled(self.packs, self.seed, epoch)[places]]

    def micro_steps(self, world: int) -> int:
        """Forward passes per rank and step."""
        return -(-self.per_step // world)

    def share(self, number: int, rank: int, world: int) -> list[int | None]:
        """This rank's packs of a step; None where it has none and runs empty."""
        mine: list[int | None] = list(self.step(number)[rank::world])
        return mine + [None] * (self.micro_steps(world) - len(mine))


@lru_cache(maxsize=1)
def _shuffled(packs: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(packs)


class PackLoader:
    """Reads the samples of a pack from the lake and makes it tensors."""

    def __init__(self, lake: Lake, stage: StageName, plan: PackPlan, processor: SampleProcessor) -> None:
        self.lake = lake
        self.stage = stage
        self.plan = plan
        self.processor = processor

    def load(self, position: int | None) -> Packed:
        """The pack at a position of the plan (None: an empty one). Raises MvlError naming the sample when it no longer
        is what the plan counted: the plan and the lake belong to different versions."""
        placeholders = (self.processor.tokens.image, self.processor.tokens.video)
        if position is None:
            return collate([], placeholders, self.processor.grid.tile)
        pack = self.plan[position]
        rows = views.rows_by_id(self.lake, self.stage, pack.row_ids)
        wanted = {i for row in rows.values() for i in self.processor.used_pictures(row)}
        pictures = self.lake.images.fetch(wanted)
        samples = []
        for row_id, length in zip(pack.row_ids, pack.lengths, strict=True):
            row = rows.get(row_id)
            if row is None:
                raise _stale(self.stage, row_id, "is not in the mixture")
            try:
                sample = self.processor.build(row, pictures)
            except (Unusable, PictureError) as error:
                raise _stale(self.stage, row_id, str(error)) from error
            if len(sample.encoded.ids) != length:
                raise _stale(self.stage, row_id, f"has {len(sample.encoded.ids)} tokens, the plan says {length}")
            samples.append(sample)
        return collate(samples, placeholders, self.processor.grid.tile)


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
            for position in positions:
                if self._stop.is_set():
                    return
                self._put(loader.load(position))
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
