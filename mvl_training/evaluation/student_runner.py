"""Inference of an exported checkpoint by the training code: greedy answers, and losses of reference answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mvl_assets.common.markers import IMAGE_MARKER
from mvl_assets.errors import MvlError
from mvl_assets.media.image import standardise_image
from mvl_training.data.chat_format import (
    IGNORE_INDEX,
    ChatTokenizer,
    EncodedSample,
    VisualPlaceholder,
    encode_chat_prompt,
    encode_prompt,
)
from mvl_training.data.pack_loader import PackedBatch, collate
from mvl_training.data.processing import ProcessedSample, SampleProcessor
from mvl_training.data.raw_packs import FrameLimits
from mvl_training.data.students.inputs import VisualLayout
from mvl_training.data.students.open_inputs import load_student_tokenizer, open_inputs
from mvl_training.model.students.choose import load_student
from mvl_training.recipe import parse_recipe
from mvl_training.trainer.export import DTYPE_BY_PRECISION, export_checkpoint
from mvl_training.trainer.run_files import EXPORT_DIR, PROVENANCE_FILE, get_scratch_export_dir

ChatMessage = tuple[str, Sequence[str | bytes | list[bytes]]]
"""(role, parts); a part is text, the bytes of an image, or the frames of a video."""

MAX_BATCH_TOKENS = 32_768
"""Most tokens of conversations that are answered at a time, padding and answers included: 1.9 GB of keys and values in
a 7B model, more while the prompts are read."""

MAX_DECODED = 32
"""Most conversations whose images are decoded at a time: up to 0.5 GB."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is asked: messages, and the most tokens of the answer."""

    messages: Sequence[ChatMessage]
    max_new_tokens: int


class StudentRunner:
    """A model loaded from an exported checkpoint.

    Images are tiled as in the checkpoint's training stage. Prompts are ChatML for every stage, also for
    alignment, which was not trained on it.
    """

    def __init__(
        self, path: Path | str, *, max_new_tokens: int = 64, device: int = 0, batch_tokens: int = MAX_BATCH_TOKENS
    ) -> None:
        """Load the model onto a GPU, or onto the CPU without one.

        Args:
            path: An export, a training stage's output folder with `export/` in it, or a training checkpoint, which is
                first exported to a folder next to it.
            max_new_tokens: Default limit of an answer.
            device: Number of the GPU.
            batch_tokens: Most tokens that are answered at a time.

        Raises:
            MvlError: `path` holds no model.
        """
        export_dir = _resolve_export_dir(Path(path))
        self._provenance: dict[str, Any] = json.loads((export_dir / PROVENANCE_FILE).read_text(encoding="utf-8"))
        recipe = parse_recipe(self._provenance["recipe"], str(export_dir / PROVENANCE_FILE))
        stage_config = recipe.get_stage(self._provenance["stage"])
        self.max_new_tokens = max_new_tokens
        self.batch_tokens = batch_tokens
        self.tokenizer = (
            ChatTokenizer.load(export_dir)
            if recipe.student is None
            else load_student_tokenizer(recipe.student.family, export_dir)
        )
        self.system_prompt = recipe.system_prompt
        # As it was trained: in float32 a model of bf16 would take twice the memory and give other answers.
        dtype = DTYPE_BY_PRECISION[stage_config.precision]
        self.student = load_student(recipe, export_dir, dtype).eval()
        self.device = torch.device("cuda", device) if torch.cuda.is_available() else torch.device("cpu")
        self.student.to(self.device)
        text_config: Any = self.student.vlm.config.text_config
        self.processor = SampleProcessor(
            open_inputs(recipe, self._provenance["stage"], self.tokenizer, export_dir),
            chat_format="chatml",
            system_prompt=recipe.system_prompt,
            paper_parity=False,
            frame_limits=FrameLimits(stage_config.max_frames),
            image_first=False,
            max_seq_len=text_config.max_position_embeddings,
        )

    def answer_questions(self, questions: Sequence[tuple[list[bytes], str]]) -> list[str]:
        """Return greedy answers.

        Args:
            questions: Image files (PNG, JPEG, ...; may be none) and the text without markers.

        Raises:
            ImageError: Bytes are not an image.
        """
        return self.generate_replies(
            [Conversation([("user", [*images, question])], self.max_new_tokens) for images, question in questions]
        )

    def compute_losses(self, samples: Sequence[tuple[list[bytes], str, str]]) -> list[float]:
        """Return the mean loss per loss token, end token included, of each (images, question, reference answer)."""
        losses: list[float] = []
        for start in range(0, len(samples), MAX_DECODED):
            decoded = [self._build_labelled_sample(*sample) for sample in samples[start : start + MAX_DECODED]]
            lengths = [len(sample.encoded.input_ids) for sample in decoded]
            for positions in self._iter_batches(range(len(decoded)), lengths, [0] * len(decoded)):
                batch = self._build_batch([decoded[i] for i in positions])
                with torch.no_grad():
                    self.student(batch)
                losses += [
                    loss / n_tokens
                    for loss, n_tokens in zip(
                        self.student.sample_losses_N.tolist(), batch.n_loss_tokens_by_sample, strict=True
                    )
                ]
        return losses

    def _build_labelled_sample(self, question_images: list[bytes], question: str, answer: str) -> ProcessedSample:
        image_data = {str(i): data for i, data in enumerate(question_images)}
        row = {
            "row_id": "",
            "image_ids": list(image_data),
            "video": None,
            "conversations": [
                {"from": "human", "value": f"{IMAGE_MARKER}\n" * len(question_images) + question},
                {"from": "gpt", "value": answer},
            ],
        }
        return self.processor.build_sample(row, image_data)

    def build_prompt_ids(self, images: list[bytes], question: str) -> list[int]:
        """Return the tokens of a question's prompt, placeholders included."""
        inputs = self.processor.inputs
        sizes = [standardise_image(image).size for image in images]
        visuals = [inputs.build_placeholder(layout) for layout in inputs.compute_layouts(sizes, is_video=False)]
        return encode_prompt(
            question, visuals, self.tokenizer, system_prompt=self.system_prompt, style=inputs.chat_style
        )

    def describe(self) -> dict[str, Any]:
        """Return recipe (name and content), training stage, step, run, plan version and library versions."""
        return self._provenance

    def generate_reply(self, messages: Sequence[ChatMessage], *, max_new_tokens: int | None = None) -> str:
        """Return the greedy continuation of one conversation; see `generate_replies`."""
        return self.generate_replies([Conversation(messages, max_new_tokens or self.max_new_tokens)])[0]

    def generate_replies(self, conversations: Sequence[Conversation]) -> list[str]:
        """Return the greedy continuation of conversations with images and videos at their places in the text.

        As in training, one image is cut into tiles; each of several images, and each frame of a video, is one tile.
        Conversations of about the same length are answered together, padded on the left. In fp32 the answers are those
        that each would get alone; in bf16 sums are rounded in another order.

        Raises:
            MvlError: Prompt and answer do not fit into the model's positions.
            ImageError: An image is broken.
        """
        replies: dict[int, str] = {}
        for start in range(0, len(conversations), MAX_DECODED):
            chunk = conversations[start : start + MAX_DECODED]
            samples = [self._build_prompt(conversation) for conversation in chunk]
            budgets = [conversation.max_new_tokens for conversation in chunk]
            lengths = [len(sample.encoded.input_ids) for sample in samples]
            order = sorted(range(len(chunk)), key=lambda i: (budgets[i], lengths[i]))
            for positions in self._iter_batches(order, lengths, budgets):
                texts = self._generate([samples[i] for i in positions], [budgets[i] for i in positions])
                replies.update(zip((start + i for i in positions), texts, strict=True))
        return [replies[i] for i in range(len(conversations))]

    def _iter_batches(
        self, order: Sequence[int], lengths: Sequence[int], budgets: Sequence[int]
    ) -> Iterator[list[int]]:
        """Yield consecutive positions of an order, as many at a time as `batch_tokens` allows with padding."""
        batch: list[int] = []
        for position in order:
            longer = [*batch, position]
            n_tokens = len(longer) * (max(lengths[i] for i in longer) + max(budgets[i] for i in longer))
            if batch and n_tokens > self.batch_tokens:
                yield batch
                longer = [position]
            batch = longer
        if batch:
            yield batch

    def _build_prompt(self, conversation: Conversation) -> ProcessedSample:
        messages, token_budget, inputs = conversation.messages, conversation.max_new_tokens, self.processor.inputs
        images = [standardise_image(part) for _, parts in messages for part in parts if isinstance(part, bytes)]
        image_tiles, layouts = inputs.cut_tiles(images, is_video=False)
        tiled_images = iter(zip(layouts, _split_by_layout(image_tiles, layouts), strict=True))
        visual_tiles: list[tuple[VisualLayout, np.ndarray]] = []
        prompt_messages: list[tuple[str, list[str | VisualPlaceholder]]] = []
        for role, parts in messages:
            prompt_parts: list[str | VisualPlaceholder] = []
            for part in parts:
                if isinstance(part, str):
                    prompt_parts.append(part)
                    continue
                if isinstance(part, bytes):
                    layout, tiles = next(tiled_images)
                else:
                    tiles, (layout,) = inputs.cut_tiles([standardise_image(frame) for frame in part], is_video=True)
                visual_tiles.append((layout, tiles))
                prompt_parts.append(inputs.build_placeholder(layout))
            prompt_messages.append((role, prompt_parts))
        input_ids = encode_chat_prompt(
            prompt_messages, self.tokenizer, system_prompt=self.system_prompt, style=inputs.chat_style
        )
        if len(input_ids) + token_budget > self.processor.max_seq_len:
            raise MvlError(
                f"a question of {len(input_ids)} tokens and an answer of {token_budget} do not fit into the"
                f" {self.processor.max_seq_len} positions of the model",
                hint="ask with fewer images or a lower max_new_tokens",
            )
        all_tiles = np.concatenate([image_tiles[:0], *(tiles for _, tiles in visual_tiles)])
        return _build_unlabelled_sample(input_ids, all_tiles, tuple(layout for layout, _ in visual_tiles))

    def _generate(self, samples: Sequence[ProcessedSample], budgets: Sequence[int]) -> list[str]:
        """Return the greedy answers to prompts, each of at most as many tokens as its budget."""
        batch = self._build_batch(list(samples))
        with torch.no_grad():
            generated_ids = self.student.generate(batch, max_new_tokens=max(budgets), end_id=self.tokenizer.im_end_id)
        return [self.tokenizer.decode(ids[:budget]).strip() for ids, budget in zip(generated_ids, budgets, strict=True)]

    def _build_batch(self, samples: list[ProcessedSample]) -> PackedBatch:
        blank_tiles = self.processor.inputs.blank_tiles
        return collate(samples, self.tokenizer.placeholder_ids, blank_tiles).to(self.device)


def _split_by_layout(tiles: np.ndarray, layouts: Sequence[VisualLayout]) -> list[np.ndarray]:
    """Split tiles by the layout they belong to."""
    return np.split(tiles, np.cumsum([layout.n_tiles for layout in layouts])[:-1]) if layouts else []


def _build_unlabelled_sample(
    input_ids: list[int], image_tiles: np.ndarray, layouts: tuple[VisualLayout, ...]
) -> ProcessedSample:
    array = np.array(input_ids, dtype=np.int32)
    return ProcessedSample(
        "", EncodedSample(array, np.full(len(input_ids), IGNORE_INDEX, dtype=np.int32)), image_tiles, layouts
    )


def _resolve_export_dir(path: Path) -> Path:
    for folder in (path, path / EXPORT_DIR):
        if (folder / PROVENANCE_FILE).is_file():
            return folder
    if (path / "state.json").is_file():
        return export_checkpoint(path, get_scratch_export_dir(path))
    raise MvlError(
        f"{path} holds no exported model", hint="name an `export` folder or a training stage's output folder"
    )
