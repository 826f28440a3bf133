"""Loss on held-out samples while a stage trains: whole, by category, and as a small set of questions.

A question counts as answered if every token of the reference is the most likely one after those before it: then greedy
decoding would write exactly the reference. So one forward pass measures loss and answers, under ZeRO-3, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
import torch.distributed as dist

from mvl_assets.common.rejects import RejectError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.holdout import MAX_ANSWER_CHARS
from mvl_training.data.pack_loader import PackedBatch, collate
from mvl_training.data.processing import ProcessedSample, SampleProcessor
from mvl_training.trainer.step_sums import StepSums

_HeldOutSample: TypeAlias = tuple[ProcessedSample, Mapping[str, Any]]
_HeldOutPack: TypeAlias = tuple[PackedBatch, Sequence[Mapping[str, Any]]]

MAX_KEPT_BYTES = 1 << 30
"""Bytes of tiles that a rank keeps from one measurement to the next; samples beyond are decoded every time."""


class HeldOutEvaluator:
    """Measures a student on held-out samples, divided over the ranks.

    Args:
        rows: Held-out samples, as `read_held_out_samples` gives them; equal on all ranks.
        lake: The lake with their images.
        processor: The rules of the stage.
        pack_tokens: Most tokens of a pack.
    """

    def __init__(
        self, rows: Sequence[Mapping[str, Any]], lake: Lake, processor: SampleProcessor, pack_tokens: int
    ) -> None:
        self._categories = sorted({row["category"] for row in rows})
        self._own_rows = rows[dist.get_rank() :: dist.get_world_size()]
        self._processor = processor
        self._pack_tokens = pack_tokens
        self._kept: list[_HeldOutPack] = []
        self._n_kept_bytes = 0
        self._image_data: dict[str, bytes] = {}
        for source in sorted({row["source"] for row in self._own_rows}):
            source_rows = [row for row in self._own_rows if row["source"] == source]
            image_ids = {image_id for row in source_rows for image_id in processor.select_image_ids(row)}
            self._image_data |= lake.get_images(source).read_stored_images(image_ids)

    def evaluate(self, engine: Any) -> dict[str, Any]:
        """Return `held_out_loss` per loss token, `held_out_exact` (share of questions answered), and both by category.

        Collective. Samples that cannot be trained on do not count.
        """
        sums = StepSums(self._categories)
        answered: dict[str, list[int]] = {category: [0, 0] for category in self._categories}
        engine.eval()
        packs = self._iter_packs()
        # Every rank makes as many passes, as ZeRO-3 needs.
        while _has_any_rank(pack := next(packs, None), engine.device):
            batch, rows = pack or self._collate([], [])
            on_device = batch.to(engine.device)
            with torch.no_grad():
                engine(on_device)
            sums.add(batch, engine.module.sample_losses_N)
            hits = engine.module.sample_hits_N.tolist()
            for row, n_hits, n_tokens in zip(rows, hits, batch.n_loss_tokens_by_sample, strict=False):
                if is_question(row):
                    answered[row["category"]][0] += n_hits == n_tokens
                    answered[row["category"]][1] += 1
        engine.train()
        return self._summarize(engine, sums, answered)

    def _summarize(self, engine: Any, sums: StepSums, answered: Mapping[str, list[int]]) -> dict[str, Any]:
        own = sums.to_list()
        counts = [float(count) for pair in answered.values() for count in pair]
        total = torch.tensor([*own, *counts], dtype=torch.float64, device=engine.device)
        dist.all_reduce(total)
        values = total.tolist()
        totals = sums.read_list(values[: len(own)])
        pairs = values[len(own) :]
        n_correct, n_questions = pairs[::2], pairs[1::2]
        exact = {c: n / m for c, n, m in zip(self._categories, n_correct, n_questions, strict=True) if m}
        return {
            "held_out_loss": totals.mean_loss,
            "held_out_loss_by_category": totals.loss_by_category,
            "held_out_exact": sum(n_correct) / sum(n_questions) if sum(n_questions) else None,
            "held_out_exact_by_category": exact,
            "held_out_questions": round(sum(n_questions)),
        }

    def _iter_packs(self) -> Iterator[_HeldOutPack]:
        """Yield the rank's packs; the first ones are kept for the next time, as many as `MAX_KEPT_BYTES` allows."""
        yield from self._kept
        is_keeping = True
        for samples in self._iter_sample_packs(self._own_rows):
            pack = self._collate([sample for sample, _ in samples], [row for _, row in samples])
            n_bytes = pack[0].tiles_T3PP.nbytes
            is_keeping = is_keeping and self._n_kept_bytes + n_bytes <= MAX_KEPT_BYTES
            if is_keeping:
                self._kept.append(pack)
                self._n_kept_bytes += n_bytes
                self._own_rows = self._own_rows[self._own_rows.index(samples[-1][1]) + 1 :]
            yield pack
        if is_keeping:  # what is left cannot be trained on
            self._own_rows = []
            self._image_data.clear()

    def _iter_sample_packs(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[list[_HeldOutSample]]:
        """Yield samples in packs of at most `pack_tokens` tokens, in their order."""
        samples: list[_HeldOutSample] = []
        n_tokens = 0
        for row in rows:
            try:
                sample = self._processor.build_sample({**row, "row_id": row["version_id"]}, self._image_data)
            except RejectError:  # too long, or an image that cannot be decoded
                continue
            length = len(sample.encoded.input_ids)
            if samples and n_tokens + length > self._pack_tokens:
                yield samples
                samples, n_tokens = [], 0
            samples.append((sample, row))
            n_tokens += length
        if samples:
            yield samples

    def _collate(self, samples: Sequence[ProcessedSample], rows: Sequence[Mapping[str, Any]]) -> _HeldOutPack:
        placeholder_ids, blank_tiles = self._processor.tokenizer.placeholder_ids, self._processor.inputs.blank_tiles
        return collate(samples, placeholder_ids, blank_tiles, categories=[row["category"] for row in rows]), rows


def _has_any_rank(pack: _HeldOutPack | None, device: torch.device) -> bool:
    """Return whether a rank has a pack left. Collective."""
    has_pack = torch.tensor([pack is not None], dtype=torch.int32, device=device)
    dist.all_reduce(has_pack, op=dist.ReduceOp.MAX)
    return bool(has_pack)


def is_question(row: Mapping[str, Any]) -> bool:
    """Return whether a sample is one question with a short answer, which can be right or wrong."""
    turns = row["conversations"]
    return [turn["from"] for turn in turns] == ["human", "gpt"] and 0 < len(turns[1]["value"]) <= MAX_ANSWER_CHARS
