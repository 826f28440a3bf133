"""Ask a checkpoint questions on this machine, with the code it was trained with.

Belongs here: loading an export for asking, greedy answers, losses of known answers. Does not: choosing questions and
scoring (`evaluation`), servers (`mvl_assets.inference`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mvl_assets.errors import MvlError
from mvl_assets.media import image
from mvl_assets.media.tiles import Layout
from mvl_training.data.chat_format import IGNORE, ChatTokens, Encoded, Visual, chat_prompt, prompt
from mvl_training.data.pack_loader import Packed, collate
from mvl_training.data.processing import Sample, SampleProcessor
from mvl_training.model.student_model import load_student
from mvl_training.recipe import parse_recipe
from mvl_training.trainer.export import PROVENANCE, export_checkpoint

Message = tuple[str, Sequence[str | bytes | list[bytes]]]
"""(role, parts): words, the bytes of a picture, or the frames of a video."""


class Runner:
    """A model loaded from an export, from a stage's output folder that holds `export/`, or from a training checkpoint
    (which is exported beside itself first).

    Pictures are tiled as in the checkpoint's stage; questions are asked in the chat format, also of the alignment
    stage, which has not seen it. Raises MvlError when there is nothing to load.
    """

    def __init__(self, path: Path | str, *, max_new_tokens: int = 64) -> None:
        folder = _export_of(Path(path))
        self._about: dict[str, Any] = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        recipe = parse_recipe(self._about["recipe"], str(folder / PROVENANCE))
        settings = recipe.stage(self._about["stage"])
        self.max_new_tokens = max_new_tokens
        self.tokens = ChatTokens.load(folder)
        self.system = recipe.system
        self.student = load_student(folder, recipe.grid.build()).eval()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.student.to(self.device)
        text: Any = self.student.llava.config.text_config
        self.processor = SampleProcessor(
            self.tokens,
            recipe.grid.build(),
            pictures=settings.pictures,
            style="chatml",
            system=recipe.system,
            paper_parity=False,
            frames=settings.frames,
            length=text.max_position_embeddings,
        )

    def answer(self, questions: Sequence[tuple[list[bytes], str]]) -> list[str]:
        """Greedy answers. Each question: picture bytes (PNG, JPEG…; may be empty) and the text without markers.

        Raises `picture.PictureError` for bytes that are no picture.
        """
        return [self.reply([("user", [*pictures, question])]) for pictures, question in questions]

    def loss(self, samples: Sequence[tuple[list[bytes], str, str]]) -> list[float]:
        """Mean loss per target token of each (pictures, question, true answer); the end of the answer counts."""
        out = []
        for pictures, question, answer in samples:
            images = {str(i): data for i, data in enumerate(pictures)}
            row = {
                "row_id": "",
                "image_ids": list(images),
                "video": None,
                "conversations": [
                    {"from": "human", "value": "<image>\n" * len(pictures) + question},
                    {"from": "gpt", "value": answer},
                ],
            }
            batch = self._batch([self.processor.build(row, images)])
            with torch.no_grad():
                out.append(float(self.student(batch)) / batch.n_targets)
        return out

    def prompt_ids(self, pictures: list[bytes], question: str) -> list[int]:
        """The tokens the model is asked with, placeholders included."""
        sizes = [image.standardise(p).size for p in pictures]
        visuals = [Visual("image", layout.tokens) for layout in self.processor.layouts(sizes, video=False)]
        return prompt(question, visuals, self.tokens, system=self.system)

    def describe(self) -> dict[str, Any]:
        """Recipe (name and content), stage, step, run, plan version, library versions of the checkpoint."""
        return self._about

    def reply(self, messages: Sequence[Message], *, max_new_tokens: int | None = None) -> str:
        """The greedy continuation of a conversation, pictures and videos where they stand among the words.

        One picture is tiled as in training, several are shown whole each, as training shows them; so is a video.
        Raises MvlError when prompt and answer do not fit into the model, `picture.PictureError` for broken pictures.
        """
        room = max_new_tokens or self.max_new_tokens
        stills = [image.standardise(part) for _, parts in messages for part in parts if isinstance(part, bytes)]
        cut, layouts = self.processor.cut(stills, video=False)
        still = iter(zip(layouts, _split(cut, layouts), strict=True))
        shown: list[tuple[Layout, np.ndarray]] = []
        asked: list[tuple[str, list[str | Visual]]] = []
        for role, parts in messages:
            said: list[str | Visual] = []
            for part in parts:
                if isinstance(part, str):
                    said.append(part)
                    continue
                if isinstance(part, bytes):
                    layout, tiles = next(still)
                else:
                    tiles, (layout,) = self.processor.cut([image.standardise(f) for f in part], video=True)
                shown.append((layout, tiles))
                said.append(Visual("video" if layout.kind == "video" else "image", layout.tokens))
            asked.append((role, said))
        ids = chat_prompt(asked, self.tokens, system=self.system)
        if len(ids) + room > self.processor.length:
            raise MvlError(
                f"a question of {len(ids)} tokens and an answer of {room} do not fit into the {self.processor.length}"
                " positions of the model",
                hint="ask with fewer pictures or a lower max_new_tokens",
            )
        every = np.concatenate([cut[:0], *(tiles for _, tiles in shown)])
        batch = self._batch([_unlabelled(ids, every, tuple(layout for layout, _ in shown))])
        with torch.no_grad():
            embedded = self.student.embed(batch)
            made = self.student.llava.generate(  # type: ignore[misc]
                inputs_embeds=embedded,
                attention_mask=torch.ones(embedded.shape[:2], dtype=torch.long, device=self.device),
                max_new_tokens=room,
                do_sample=False,
                eos_token_id=self.tokens.end,
                pad_token_id=self.tokens.end,
            )
        return self.tokens.decode(made[0].tolist()).strip()

    def _batch(self, samples: list[Sample]) -> Packed:
        placeholders = (self.tokens.image, self.tokens.video)
        return collate(samples, placeholders, self.processor.grid.tile).to(self.device)


def _split(tiles: np.ndarray, layouts: Sequence[Layout]) -> list[np.ndarray]:
    """The tiles of each layout."""
    return np.split(tiles, np.cumsum([layout.tiles for layout in layouts])[:-1]) if layouts else []


def _unlabelled(ids: list[int], cut: np.ndarray, layouts: tuple[Layout, ...]) -> Sample:
    array = np.array(ids, dtype=np.int32)
    return Sample("", Encoded(array, np.full(len(ids), IGNORE, dtype=np.int32)), cut, layouts)


def _export_of(path: Path) -> Path:
    for folder in (path, path / "export"):
        if (folder / PROVENANCE).is_file():
            return folder
    if (path / "state.json").is_file():
        return export_checkpoint(path, path.parent / f"export-{path.name}")
    raise MvlError(f"{path} holds no exported model", hint="name an `export` folder or a stage's output folder")
