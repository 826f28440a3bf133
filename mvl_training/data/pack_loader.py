"""Loading of packs as tensors: samples joined into one sequence, read ahead of the training loop.

The step number is the state: a loader gets packs, as positions in the plan, from `step_packs` and keeps nothing between
steps.

Shapes in names: L tokens of the pack, K of them loss tokens, V visual tokens, T tiles, P pixels along a tile's side.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from mvl_assets.common.rejects import RejectError
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.media.image import ImageError
from mvl_training.data.chat_format import IGNORE_INDEX
from mvl_training.data.loss_weights import compute_sample_weights, compute_token_weights
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.packed_rows import PackedRows
from mvl_training.data.planned_packs import PlannedPackReader
from mvl_training.data.processing import ProcessedSample, SampleProcessor
from mvl_training.data.raw_packs import RawPack
from mvl_training.data.students.inputs import VisualLayout
from mvl_training.recipe import LossWeighting


@dataclass(frozen=True, slots=True)
class SkippedSample:
    """A sample that cannot be trained on: its mixture row, its source, and why."""

    row_id: str
    source: str
    error: str


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """One sequence of N samples that do not see each other: L tokens, V visual tokens, T tiles (at least one).

    Attributes:
        input_ids_1L: int64 (1, L).
        position_ids_1L: int64 (1, L); positions restart at 0 with each sample.
        cu_seqlens: int32 (N + 1,): sample n has the tokens `cu_seqlens[n]` to `cu_seqlens[n + 1]`.
        max_seqlen: Tokens of the longest sample.
        targets_L: int64 (L,): the next token where the loss is taken, else IGNORE_INDEX; never crosses samples.
        loss_positions_K: int64 (K,): positions of the targets that the loss is taken on. Known beforehand, so that a
            device is not asked for them, which would make it wait.
        visual_positions_V: int64 (V,): positions of the placeholder tokens, in order.
        tiles_T3PP: uint8 (T, 3, P, P); whole students may have another form of tiles, (T, …).
        layouts: Layouts of the images and videos in order; empty if the tiles are a dummy's.
        n_loss_tokens_by_sample: Tokens that the loss is taken on; none of an empty pack.
        loss_weight: Their weights, summed.
        token_weights_L: float32 (L,): weights of the tokens in the loss; None: all are 1.
        row_ids: The mixture rows of the samples.
        categories: Of the samples.
        skipped: Samples of the pack that are left out because an image of theirs cannot be decoded.
        rope_ids_31L: int64 (3, 1, L): positions in time, height and width, of a student that has them.
    """

    input_ids_1L: torch.Tensor
    position_ids_1L: torch.Tensor
    cu_seqlens: torch.Tensor
    max_seqlen: int
    targets_L: torch.Tensor
    loss_positions_K: torch.Tensor
    visual_positions_V: torch.Tensor
    tiles_T3PP: torch.Tensor
    layouts: tuple[VisualLayout, ...]
    n_loss_tokens_by_sample: tuple[int, ...]
    loss_weight: float
    token_weights_L: torch.Tensor | None = None
    row_ids: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    skipped: tuple[SkippedSample, ...] = ()
    rope_ids_31L: torch.Tensor | None = None

    @property
    def n_loss_tokens(self) -> int:
        """Tokens that the loss is taken on."""
        return sum(self.n_loss_tokens_by_sample)

    def to(self, device: torch.device) -> PackedBatch:
        """Return the batch with its tensors on a device."""
        if device.type == "cpu":
            return self
        return self._convert_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> PackedBatch:
        """Return the batch with its tensors in page-locked memory: only copies from there overlap with work on a GPU.

        The current CUDA device of the calling thread is initialised.
        """
        return self._convert_tensors(torch.Tensor.pin_memory)

    def _convert_tensors(self, convert: Callable[[torch.Tensor], torch.Tensor]) -> PackedBatch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
        converted: dict[str, Any] = {name: convert(tensor) for name, tensor in tensors.items()}
        return replace(self, **converted)


def collate(
    samples: Sequence[ProcessedSample],
    placeholder_ids: tuple[int, int],
    blank_tiles: np.ndarray,
    loss_weighting: LossWeighting = "token",
    categories: Sequence[str] = (),
) -> PackedBatch:
    """Join samples into one sequence.

    Without samples, or without images in them, the batch gets the tiles of a grey image, so that every rank calls the
    vision tower every time (ranks that skip it hang ZeRO-3 and crash ZeRO-2).

    Args:
        samples: The samples to join; may be empty.
        placeholder_ids: Ids of the image and the video token.
        blank_tiles: Tiles of a grey image, uint8 (T, …).
        loss_weighting: What counts alike in the loss.
        categories: Of the samples, where they are reported apart.
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
    tiles = [sample.tiles for sample in samples if len(sample.tiles)] or [blank_tiles]
    rope_ids = [sample.rope_ids_3L for sample in samples if sample.rope_ids_3L is not None]
    n_loss_tokens_N = np.array([sample.encoded.n_loss_tokens for sample in samples] or [0])
    token_weights_L = np.repeat(compute_token_weights(n_loss_tokens_N, loss_weighting), lengths).astype(np.float32)
    return PackedBatch(
        input_ids_1L=torch.from_numpy(input_ids_L)[None],
        position_ids_1L=torch.from_numpy(position_ids_L)[None],
        cu_seqlens=torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int32)),
        max_seqlen=max(lengths),
        targets_L=torch.from_numpy(targets_L),
        loss_positions_K=torch.from_numpy(np.flatnonzero(targets_L != IGNORE_INDEX)),
        visual_positions_V=torch.from_numpy(visual_positions_V),
        tiles_T3PP=torch.from_numpy(np.concatenate(tiles)),
        layouts=tuple(layout for sample in samples for layout in sample.layouts),
        n_loss_tokens_by_sample=tuple(n_loss_tokens_N.tolist()) if samples else (),
        loss_weight=float(compute_sample_weights(n_loss_tokens_N, loss_weighting).sum()),
        token_weights_L=None if loss_weighting == "token" else torch.from_numpy(token_weights_L),
        row_ids=tuple(sample.row_id for sample in samples),
        categories=tuple(categories),
        rope_ids_31L=torch.from_numpy(np.concatenate(rope_ids, axis=1))[:, None] if rope_ids else None,
    )


class PackLoader:
    """Reads the samples of packs and turns them into tensors.

    Args:
        lake: The lake.
        stage: The training stage.
        plan: Its packed rows, which are read in order, or its pack plan, whose rows are then looked up in the lake.
        processor: The rules of the stage.
        loss_weighting: What counts alike in the loss.
    """

    def __init__(
        self,
        lake: Lake,
        stage: TrainingStage,
        plan: PackPlan | PackedRows,
        processor: SampleProcessor,
        loss_weighting: LossWeighting = "token",
    ) -> None:
        self.stage = stage
        self.plan = plan
        self.processor = processor
        self.loss_weighting: LossWeighting = loss_weighting
        self.reader = plan if isinstance(plan, PackedRows) else PlannedPackReader(lake, plan, processor)

    def load(self, pack: Sequence[int]) -> PackedBatch:
        """Return the pack of the samples at these positions of the plan. See `iter_batches`."""
        (batch,) = self.iter_batches([pack])
        return batch

    def iter_batches(self, packs: Iterable[Sequence[int]]) -> Iterator[PackedBatch]:
        """Yield packs, given as positions of their samples in the plan (none: an empty pack), in their order.

        A sample with an image that cannot be decoded is left out of its pack, whoever loads it.

        Raises:
            MvlError: A sample differs from what the plan counted: the mixture or its images changed after planning.
        """
        return map(self._collate_pack, self.reader.iter_raw_packs(packs))

    def _collate_pack(self, raw_pack: RawPack) -> PackedBatch:
        samples, categories, skipped = [], [], []
        for planned_row in raw_pack.planned_rows:
            row_id, length = planned_row.row_id, planned_row.n_tokens
            row = raw_pack.rows.get(row_id)
            if row is None:
                raise _build_stale_plan_error(self.stage, row_id, "is not in the mixture")
            try:
                sample = self.processor.build_sample(row, raw_pack.image_data)
            except ImageError as error:
                skipped.append(SkippedSample(row_id, row["source"], f"{error.code}: {error}"))
                continue
            except RejectError as error:
                raise _build_stale_plan_error(self.stage, row_id, str(error)) from error
            if len(sample.encoded.input_ids) != length:
                raise _build_stale_plan_error(
                    self.stage, row_id, f"has {len(sample.encoded.input_ids)} tokens, the plan says {length}"
                )
            samples.append(sample)
            categories.append(row["category"])
        batch = collate(
            samples,
            self.processor.tokenizer.placeholder_ids,
            self.processor.inputs.blank_tiles,
            self.loss_weighting,
            categories,
        )
        return replace(batch, skipped=tuple(skipped))


def _build_stale_plan_error(stage: str, row_id: str, problem: str) -> MvlError:
    return MvlError(f"row {row_id} of mixture/{stage} {problem}", hint=f"materialise pack_plan/{stage} again")


class Prefetcher:
    """Loads packs ahead in one thread (decoding and resizing release the GIL). Iterate over it, then `close` it.

    Args:
        loader: Loads them.
        packs: Positions of their samples.
        depth: Packs that wait at most.
        device: Where they will be copied; for a GPU their memory is pinned.
    """

    def __init__(
        self,
        loader: PackLoader,
        packs: Iterator[Sequence[int]],
        depth: int = 4,
        device: torch.device = torch.device("cpu"),
    ) -> None:
        self._queue: queue.Queue[PackedBatch | BaseException | None] = queue.Queue(maxsize=depth)
        self._stop_event = threading.Event()
        self._device = device
        self._thread = threading.Thread(target=self._run, args=(loader, packs), name="pack-loader", daemon=True)
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

    def _run(self, loader: PackLoader, packs: Iterator[Sequence[int]]) -> None:
        is_cuda = self._device.type == "cuda"
        try:
            # Each thread has a current device of its own: without this, pinning would open the first GPU in every rank.
            with torch.cuda.device(self._device) if is_cuda else nullcontext():
                for batch in loader.iter_batches(packs):
                    if self._stop_event.is_set():
                        return
                    self._put(batch.pin_memory() if is_cuda else batch)
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
