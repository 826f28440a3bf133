"""Hugging Face's Trainer as a process of `training.py`: same weights and samples, padded batches.

    torchrun --nproc_per_node 2 benchmarks/hf_trainer.py --recipe FILE --lake ROOT --out FILE --steps N [--order …]

In its favour, samples are encoded, decoded and tiled before the clock starts, where our loop does so while it runs. The
defaults are kept: batches of 8 per rank in random order, padded on the right to the longest, fp32, DDP. Rank 0 writes
one JSON object with `seconds`, `loss_tokens` (of all ranks) and `losses` of every step.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from mvl_assets.common.batches import iter_batches
from mvl_assets.common.rejects import RejectError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries import views
from mvl_assets.media.image import compute_standard_size
from mvl_training.data.chat_format import IGNORE_INDEX
from mvl_training.data.processing import ProcessedSample, SampleProcessor, load_tokenizer
from mvl_training.model.students.choose import start_student
from mvl_training.recipe import Recipe, load_recipe

STAGE = "single_image"


class EncodedSamples(torch.utils.data.Dataset[dict[str, Any]]):
    """The first `n_samples` rows of the mixture, ready for the model."""

    def __init__(self, lake: Lake, processor: SampleProcessor, n_samples: int) -> None:
        self.items: list[dict[str, Any]] = []
        for rows in iter_batches(views.iter_mixture_rows(lake, STAGE, 0, n_samples), 64):
            ids = {i for row in rows for i in processor.select_image_ids(row)}
            images, image_info = lake.images.read_images(ids), lake.images.read_properties(ids)
            for row in rows:
                canvas_sizes = [
                    compute_standard_size(image_info[i].width, image_info[i].height).canvas
                    for i in processor.select_image_ids(row)
                ]
                with suppress(RejectError):  # the plan leaves such rows out, too
                    self.items.append(to_item(processor.build_sample(row, images), canvas_sizes))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.items[index]


def to_item(sample: ProcessedSample, canvas_sizes: Sequence[tuple[int, int]]) -> dict[str, Any]:
    return {
        "input_ids": torch.from_numpy(sample.encoded.input_ids).long(),
        "labels": torch.from_numpy(sample.encoded.labels).long(),
        "tiles": torch.from_numpy(sample.tiles),
        "sizes": [(height, width) for width, height in canvas_sizes],
    }


class PaddingCollator:
    """Builds right-padded batches for transformers' LLaVA-OneVision and records their loss tokens."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id
        self.n_loss_tokens_by_batch: list[int] = []

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        def pad_sequences(values: list[torch.Tensor], padding_value: int) -> torch.Tensor:
            return nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=padding_value)

        self.n_loss_tokens_by_batch.append(sum(int((i["labels"][1:] != IGNORE_INDEX).sum()) for i in items))
        batch = {
            "input_ids": pad_sequences([i["input_ids"] for i in items], self.pad_token_id),
            "attention_mask": pad_sequences([torch.ones_like(i["input_ids"]) for i in items], 0),
            "labels": pad_sequences([i["labels"] for i in items], IGNORE_INDEX),
        }
        if items_with_images := [i for i in items if len(i["tiles"])]:
            # The model skips the padding tiles of an image.
            pixels = pad_sequences([i["tiles"].float() / 127.5 - 1.0 for i in items_with_images], 0)
            sizes = torch.tensor([size for i in items_with_images for size in i["sizes"]])
            batch |= {"pixel_values": pixels, "image_sizes": sizes}
        return batch


class LossTokenHeadModel(nn.Module):
    """The same model with the language head on loss tokens only, as ours has it."""

    def __init__(self, llava: nn.Module) -> None:
        super().__init__()
        self.llava = llava

    def forward(self, labels: torch.Tensor, num_items_in_batch: Any = None, **inputs: Any) -> dict[str, torch.Tensor]:
        hidden = self.llava.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
        loss_mask = labels[:, 1:] != IGNORE_INDEX
        loss = functional.cross_entropy(
            self.llava.lm_head(hidden[loss_mask]).float(), labels[:, 1:][loss_mask], reduction="sum"
        )
        return {"loss": loss / num_items_in_batch}


def run_trainer(recipe: Recipe, options: argparse.Namespace) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    tokenizer = load_tokenizer(recipe)
    llava: Any = start_student(recipe, tokenizer).llava
    llava.model.language_model.set_attn_implementation("sdpa")
    arguments = TrainingArguments(
        output_dir=str(options.out.with_suffix(".trainer")),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch,
        train_sampling_strategy=options.order,
        learning_rate=max(recipe.get_stage(STAGE).learning_rates.values()),
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        seed=recipe.seed,
    )
    world_size = dist.get_world_size()
    lake = Lake(options.lake)
    n_samples = min(lake.get_table(f"mixture/{STAGE}").count(), options.steps * options.batch * world_size)
    collator = PaddingCollator(tokenizer.im_end_id)
    step_times: list[float] = []

    class StepTimer(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            if not step_times:
                step_times.append(time.monotonic())

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            step_times.append(time.monotonic())

    trainer = Trainer(
        model=llava if options.head == "all" else LossTokenHeadModel(llava),
        args=arguments,
        train_dataset=EncodedSamples(lake, SampleProcessor.for_stage(recipe, STAGE, tokenizer), n_samples),
        data_collator=collator,
        callbacks=[StepTimer],
    )
    trainer.train()
    # The loader is one batch ahead of the step.
    n_loss_tokens_by_step = torch.tensor(collator.n_loss_tokens_by_batch[: options.steps])
    dist.all_reduce(n_loss_tokens_by_step)
    if dist.get_rank() == 0:
        results = {
            "seconds": [after - before for before, after in pairwise(step_times)],
            "loss_tokens": n_loss_tokens_by_step.tolist(),
            "losses": list(iter_losses(trainer.state.log_history)),
        }
        options.out.write_text(json.dumps(results), encoding="utf-8")


def iter_losses(history: list[dict[str, Any]]) -> Iterator[float]:
    return (float(log_entry["loss"]) for log_entry in history if "loss" in log_entry)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--lake", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--order", default="random", choices=("random", "group_by_length"))
    parser.add_argument("--head", default="all", choices=("all", "loss_tokens"))
    options = parser.parse_args()
    dist.init_process_group("gloo")
    run_trainer(load_recipe(options.recipe), options)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
