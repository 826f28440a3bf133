"""The measured process of Hugging Face's Trainer in `training.py`: same weights, samples and machine, padded batches.

    torchrun --nproc_per_node 2 benchmarks/hf_trainer.py --recipe FILE --lake ROOT --out FILE --steps N [--order …]

What favours it: its samples are encoded, decoded and cut before the clock starts, where our loop reads and decodes them
while it runs. What is its default: batches of 8 a rank in random order, padded on the right to the longest, fp32, DDP.
Rank 0 writes one JSON object: `seconds` of every step, `targets` of every step over all ranks, and `losses`.
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

from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries import views
from mvl_assets.media.image import standard_size
from mvl_training.data.chat_format import IGNORE, Unusable
from mvl_training.data.processing import Sample, SampleProcessor, load_tokens
from mvl_training.model.student_model import assemble
from mvl_training.recipe import Recipe, load_recipe

STAGE = "single_image"


class Samples(torch.utils.data.Dataset[dict[str, Any]]):
    """The first `count` rows of the mixture, ready for the model."""

    def __init__(self, lake: Lake, processor: SampleProcessor, count: int) -> None:
        self.items: list[dict[str, Any]] = []
        for rows in views.in_batches(views.mixture_rows(lake, STAGE, 0, count), 64):
            ids = {i for row in rows for i in processor.used_pictures(row)}
            pictures, known = lake.images.fetch(ids), lake.images.describe(ids)
            for row in rows:
                canvas = [standard_size(known[i].width, known[i].height).canvas for i in processor.used_pictures(row)]
                with suppress(Unusable):  # the plan leaves them out too
                    self.items.append(as_item(processor.build(row, pictures), canvas))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.items[index]


def as_item(sample: Sample, canvas: Sequence[tuple[int, int]]) -> dict[str, Any]:
    return {
        "input_ids": torch.from_numpy(sample.encoded.ids).long(),
        "labels": torch.from_numpy(sample.encoded.labels).long(),
        "tiles": torch.from_numpy(sample.tiles),
        "sizes": [(height, width) for width, height in canvas],
    }


class Padded:
    """Right-padded batches in the form of transformers' LLaVA-OneVision; notes how many targets they hold."""

    def __init__(self, pad: int) -> None:
        self.pad = pad
        self.targets: list[int] = []

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        def padded(values: list[torch.Tensor], fill: int) -> torch.Tensor:
            return nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=fill)

        self.targets.append(sum(int((i["labels"][1:] != IGNORE).sum()) for i in items))
        batch = {
            "input_ids": padded([i["input_ids"] for i in items], self.pad),
            "attention_mask": padded([torch.ones_like(i["input_ids"]) for i in items], 0),
            "labels": padded([i["labels"] for i in items], IGNORE),
        }
        if seen := [i for i in items if len(i["tiles"])]:
            # The model skips the padding tiles of a picture.
            pixels = padded([i["tiles"].float() / 127.5 - 1.0 for i in seen], 0)
            sizes = torch.tensor([size for i in seen for size in i["sizes"]])
            batch |= {"pixel_values": pixels, "image_sizes": sizes}
        return batch


class HeadOnTargets(nn.Module):
    """The same model, with the language head on the targets alone, as ours has it."""

    def __init__(self, llava: nn.Module) -> None:
        super().__init__()
        self.llava = llava

    def forward(self, labels: torch.Tensor, num_items_in_batch: Any = None, **inputs: Any) -> dict[str, torch.Tensor]:
        hidden = self.llava.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
        places = labels[:, 1:] != IGNORE
        loss = functional.cross_entropy(
            self.llava.lm_head(hidden[places]).float(), labels[:, 1:][places], reduction="sum"
        )
        return {"loss": loss / num_items_in_batch}


def run(recipe: Recipe, options: argparse.Namespace) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    tokens = load_tokens(recipe)
    llava: Any = assemble(recipe, tokens).llava
    llava.model.language_model.set_attn_implementation("sdpa")
    arguments = TrainingArguments(
        output_dir=str(options.out.with_suffix(".trainer")),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch,
        train_sampling_strategy=options.order,
        learning_rate=max(recipe.stage(STAGE).train.values()),
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        seed=recipe.seed,
    )
    world = dist.get_world_size()
    lake = Lake(options.lake)
    count = min(lake.table(f"mixture/{STAGE}").count(), options.steps * options.batch * world)
    collator = Padded(tokens.end)
    clock: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *given: Any, **more: Any) -> None:
            if not clock:
                clock.append(time.monotonic())

        def on_step_end(self, *given: Any, **more: Any) -> None:
            clock.append(time.monotonic())

    trainer = Trainer(
        model=llava if options.head == "all" else HeadOnTargets(llava),
        args=arguments,
        train_dataset=Samples(lake, SampleProcessor.for_stage(recipe, STAGE, tokens), count),
        data_collator=collator,
        callbacks=[Clock],
    )
    trainer.train()
    # The loader is one batch ahead of the step.
    targets = torch.tensor(collator.targets[: options.steps])
    dist.all_reduce(targets)
    if dist.get_rank() == 0:
        found = {
            "seconds": [after - before for before, after in pairwise(clock)],
            "targets": targets.tolist(),
            "losses": list(losses(trainer.state.log_history)),
        }
        options.out.write_text(json.dumps(found), encoding="utf-8")


def losses(history: list[dict[str, Any]]) -> Iterator[float]:
    return (float(line["loss"]) for line in history if "loss" in line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--lake", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--order", default="random", choices=("random", "group_by_length"))
    parser.add_argument("--head", default="all", choices=("all", "targets"))
    options = parser.parse_args()
    dist.init_process_group("gloo")
    run(load_recipe(options.recipe), options)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
