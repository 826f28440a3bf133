"""Inference of an exported checkpoint by the training code: greedy answers, and losses of reference answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mvl_assets.common.markers import IMAGE_MARKER
from mvl_assets.errors import MvlError
from mvl_assets.media.image import standardise_image
from mvl_assets.media.tiles import TileLayout
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
from mvl_training.model.student_model import load_student
from mvl_training.recipe import parse_recipe
from mvl_training.trainer.export import DTYPE_BY_PRECISION, export_checkpoint
from mvl_training.trainer.run_files import EXPORT_DIR, PROVENANCE_FILE

ChatMessage = tuple[str, Sequence[str | bytes | list[bytes]]]
"""(role, parts); a part is text, the bytes of an image, or the frames of a video."""


class StudentRunner:
    """A model loaded from an exported checkpoint.

    Images are tiled as in the checkpoint's training stage. Prompts are ChatML for every stage, also for
    alignment, which was not trained on it.
    """

    def __init__(self, path: Path | str, *, max_new_tokens: int = 64) -> None:
        """Load the model onto the GPU, or onto the CPU without one.

        Args:
            path: An export, a training stage's output folder with `export/` in it, or a training checkpoint, which is
                first exported to a folder next to it.
            max_new_tokens: Default limit of an answer.

        Raises:
            MvlError: `path` holds no model.
        """
        export_dir = _resolve_export_dir(Path(path))
        self._provenance: dict[str, Any] = json.loads((export_dir / PROVENANCE_FILE).read_text(encoding="utf-8"))
        recipe = parse_recipe(self._provenance["recipe"], str(export_dir / PROVENANCE_FILE))
        stage_config = recipe.get_stage(self._provenance["stage"])
        self.max_new_tokens = max_new_tokens
        self.tokenizer = ChatTokenizer.load(export_dir)
        self.system_prompt = recipe.system_prompt
        # As it was trained: in float32 a model of bf16 would take twice the memory and give other answers.
        dtype = DTYPE_BY_PRECISION[stage_config.precision]
        self.student = load_student(export_dir, recipe.grid.to_tile_grid(), dtype).eval()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.student.to(self.device)
        text_config: Any = self.student.llava.config.text_config
        self.processor = SampleProcessor(
            self.tokenizer,
            recipe.grid.to_tile_grid(),
            image_mode=stage_config.image_mode,
            chat_format="chatml",
            system_prompt=recipe.system_prompt,
            paper_parity=False,
            frame_limits=FrameLimits(stage_config.max_frames),
            video_newlines=recipe.video_newlines,
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
        return [self.generate_reply([("user", [*images, question])]) for images, question in questions]

    def compute_losses(self, samples: Sequence[tuple[list[bytes], str, str]]) -> list[float]:
        """Return the mean loss per loss token, end token included, of each (images, question, reference answer)."""
        losses = []
        for question_images, question, answer in samples:
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
            batch = self._build_batch([self.processor.build_sample(row, image_data)])
            with torch.no_grad():
                losses.append(float(self.student(batch)) / batch.n_loss_tokens)
        return losses

    def build_prompt_ids(self, images: list[bytes], question: str) -> list[int]:
        """Return the tokens of a question's prompt, placeholders included."""
        sizes = [standardise_image(image).size for image in images]
        visuals = [
            VisualPlaceholder("image", layout.n_tokens)
            for layout in self.processor.compute_layouts(sizes, is_video=False)
        ]
        return encode_prompt(question, visuals, self.tokenizer, system_prompt=self.system_prompt)

    def describe(self) -> dict[str, Any]:
        """Return recipe (name and content), training stage, step, run, plan version and library versions."""
        return self._provenance

    def generate_reply(self, messages: Sequence[ChatMessage], *, max_new_tokens: int | None = None) -> str:
        """Return the greedy continuation of a conversation with images and videos at their places in the text.

        As in training, one image is cut into tiles; each of several images, and each frame of a video, is one tile.

        Raises:
            MvlError: Prompt and answer do not fit into the model's positions.
            ImageError: An image is broken.
        """
        token_budget = max_new_tokens or self.max_new_tokens
        images = [standardise_image(part) for _, parts in messages for part in parts if isinstance(part, bytes)]
        image_tiles, layouts = self.processor.tile_images(images, is_video=False)
        tiled_images = iter(zip(layouts, _split_by_layout(image_tiles, layouts), strict=True))
        visual_tiles: list[tuple[TileLayout, np.ndarray]] = []
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
                    tiles, (layout,) = self.processor.tile_images(
                        [standardise_image(frame) for frame in part], is_video=True
                    )
                visual_tiles.append((layout, tiles))
                prompt_parts.append(VisualPlaceholder("video" if layout.is_video else "image", layout.n_tokens))
            prompt_messages.append((role, prompt_parts))
        input_ids = encode_chat_prompt(prompt_messages, self.tokenizer, system_prompt=self.system_prompt)
        if len(input_ids) + token_budget > self.processor.max_seq_len:
            raise MvlError(
                f"a question of {len(input_ids)} tokens and an answer of {token_budget} do not fit into the"
                f" {self.processor.max_seq_len} positions of the model",
                hint="ask with fewer images or a lower max_new_tokens",
            )
        all_tiles = np.concatenate([image_tiles[:0], *(tiles for _, tiles in visual_tiles)])
        batch = self._build_batch(
            [_build_unlabelled_sample(input_ids, all_tiles, tuple(layout for layout, _ in visual_tiles))]
        )
        with torch.no_grad():
            inputs_embeds = self.student.embed_inputs(batch)
            generated_ids = self.student.llava.generate(  # type: ignore[misc]
                inputs_embeds=inputs_embeds,
                attention_mask=torch.ones(inputs_embeds.shape[:2], dtype=torch.long, device=self.device),
                max_new_tokens=token_budget,
                do_sample=False,
                eos_token_id=self.tokenizer.im_end_id,
                pad_token_id=self.tokenizer.im_end_id,
            )
        return self.tokenizer.decode(generated_ids[0].tolist()).strip()

    def _build_batch(self, samples: list[ProcessedSample]) -> PackedBatch:
        placeholder_ids = (self.tokenizer.image_token_id, self.tokenizer.video_token_id)
        return collate(samples, placeholder_ids, self.processor.grid.tile_size).to(self.device)


def _split_by_layout(tiles: np.ndarray, layouts: Sequence[TileLayout]) -> list[np.ndarray]:
    """Split tiles by the layout they belong to."""
    return np.split(tiles, np.cumsum([layout.n_tiles for layout in layouts])[:-1]) if layouts else []


def _build_unlabelled_sample(
    input_ids: list[int], image_tiles: np.ndarray, layouts: tuple[TileLayout, ...]
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
        return export_checkpoint(path, path.parent / f"export-{path.name}")
    raise MvlError(
        f"{path} holds no exported model", hint="name an `export` folder or a training stage's output folder"
    )
