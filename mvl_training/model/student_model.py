"""The student: a model of transformers that trains on packed sequences. One subclass per family, in `students/`.

A subclass is the half of a family's adapter that needs torch; docs/students.md says what it must give. Shapes in names:
L tokens, K loss tokens, V visual tokens, T tiles, D hidden size, N samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.data.pack_loader import PackedBatch
from mvl_training.data.processing import SampleProcessor
from mvl_training.model import varlen_attention
from mvl_training.recipe import ModelComponent, Recipe

HEAD_CHUNK_TOKENS = 2048
"""Most loss tokens whose logits are in memory at a time: 2048 x 152k words are 1.2 GB in float32."""


@dataclass(frozen=True, slots=True)
class VisionSizes:
    """The sizes of a vision tower, as the cost model counts its work.

    Attributes:
        n_layers: Layers.
        hidden_size: Width.
        patches_per_tile: Patches of a tile.
        attended_patches: Patches that a patch attends to, on average over layers.
        features_per_tile: Features of a tile that the projector works on.
    """

    n_layers: int
    hidden_size: int
    patches_per_tile: int
    attended_patches: float
    features_per_tile: int


class Student(nn.Module):
    """A vision-language model over packed sequences: `forward` returns the summed loss of one pack.

    The vision tower is called once per pass, over all tiles and frames together; samples see only themselves; the
    language head runs only on positions that have a target, in chunks of `HEAD_CHUNK_TOKENS` whose logits are
    recomputed in the backward pass (a pack's whole logits would take gigabytes).

    Attributes:
        vlm: transformers' model: `vlm.model.language_model` is the language tower, `vlm.lm_head` the head. The name of
            the attribute that holds it is a prefix of the parameters' names in checkpoints.
        n_head_chunks: Number of chunks; None: as many as the pack needs. Set under ZeRO-3, where all ranks must call
            the head equally often, whatever their packs hold.
        sample_losses_N: Cross-entropy of each sample of the last pass, summed over its loss tokens without weights.
        sample_hits_N: How many of the loss tokens of each sample were the most likely ones; 0 while it trains.
    """

    hub_head_name: ClassVar[str]
    """Name of the head's weights in exports, which have them unless they are those of the word embedding."""

    vlm: Any

    def __init__(self) -> None:
        super().__init__()
        self.n_head_chunks: int | None = None
        self.sample_losses_N = self.sample_hits_N = torch.zeros(0)

    @classmethod
    def start(cls, recipe: Recipe, tokenizer: ChatTokenizer, dtype: torch.dtype = torch.float32) -> Self:
        """Return the student before any training.

        Raises:
            MvlError: A model cannot be read, or is not what the recipe says.
        """
        raise NotImplementedError

    @classmethod
    def load(cls, recipe: Recipe, export_dir: Path, dtype: torch.dtype = torch.float32) -> Self:
        """Load the student from an export.

        Raises:
            MvlError: The folder is not an export of such a student.
        """
        raise NotImplementedError

    @classmethod
    def build_shell(cls, recipe: Recipe) -> Self:
        """Return the student without memory for its weights, on the meta device.

        Raises:
            MvlError: A config cannot be read.
        """
        raise NotImplementedError

    @staticmethod
    def find_component(parameter_name: str) -> ModelComponent | None:
        """Return the component that a parameter learns with; None: it never learns."""
        raise NotImplementedError

    @staticmethod
    def to_hub_name(parameter_name: str) -> str:
        """Return the name of a parameter in exports.

        Raises:
            KeyError: It has none.
        """
        raise NotImplementedError

    def write_model_files(self, source_dir: Path, model_dir: Path, processor: SampleProcessor) -> None:
        """Write everything of an export but the weights: configs, processor, tokenizer, chat template.

        Args:
            source_dir: Folder of the model or tokenizer that the student started from.
            model_dir: Folder that gets the files.
            processor: The rules of the stage.

        Raises:
            MvlError: The files would make other tokens of a sample than `processor`.
        """
        raise NotImplementedError

    def describe_vision(self) -> VisionSizes:
        """Return the sizes of the vision tower."""
        raise NotImplementedError

    def build_language_inputs(self, batch: PackedBatch) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        """Return the language tower's arguments: `inputs_embeds` (1, L, D), `position_ids`, and a family's own.

        Every vision parameter that learns must be tied to them, also where the pack has no image.
        """
        raise NotImplementedError

    def list_own_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that are read outside of the modules that hold them; ZeRO-3 must be told of them."""
        return []

    def pack_attention(self) -> None:
        """Let the language tower's samples see only themselves."""
        self.vlm.model.language_model.set_attn_implementation(varlen_attention.ATTENTION_NAME)

    def generate(self, batch: PackedBatch, *, max_new_tokens: int, end_id: int) -> list[list[int]]:
        """Return the ids that greedy decoding adds to each sample of a pack of prompts.

        Args:
            batch: The prompts.
            max_new_tokens: Most ids of each.
            end_id: Id that ends an answer.
        """
        # One pass of the vision tower over all images, as in training.
        embedded_1LD = self.build_language_inputs(batch)["inputs_embeds"]
        assert isinstance(embedded_1LD, torch.Tensor)
        inputs_embeds, attention_mask = pad_left(embedded_1LD[0].split(batch.cu_seqlens.diff().tolist()))
        generated_ids = self.vlm.generate(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=end_id,
            pad_token_id=end_id,
        )
        ids: list[list[int]] = generated_ids.tolist()
        return ids

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Return the cross-entropy summed over the pack's loss tokens with their weights, a float32 scalar."""
        hidden_LD = self.compute_last_hidden(batch)
        n_chunks = self.n_head_chunks or max(1, math.ceil(len(batch.loss_positions_K) / HEAD_CHUNK_TOKENS))
        if n_chunks == 1:
            loss, sample_sums_2N = self._compute_head_loss(hidden_LD, batch.loss_positions_K, batch)
            self.sample_losses_N, self.sample_hits_N = sample_sums_2N
            return loss
        losses, sample_sums = zip(
            *(
                checkpoint(self._compute_head_loss, hidden_LD, chunk_positions, batch, use_reentrant=False)
                for chunk_positions in torch.tensor_split(batch.loss_positions_K, n_chunks)
            ),
            strict=True,
        )
        self.sample_losses_N, self.sample_hits_N = torch.stack(sample_sums).sum(dim=0)
        return torch.stack(losses).sum()

    def _compute_head_loss(
        self, hidden_LD: torch.Tensor, loss_positions: torch.Tensor, batch: PackedBatch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weighted loss of these positions, and two sums of each sample, detached, (2, N).

        The sums are the loss without weights and the number of tokens that were the most likely ones.
        """
        sample_sums_2N = torch.zeros(2, len(batch.cu_seqlens) - 1, device=hidden_LD.device)
        if not len(loss_positions):
            # Still through the head, so that every rank has the same gradients to exchange.
            return self.vlm.lm_head(hidden_LD[:1]).float().sum() * 0.0, sample_sums_2N
        logits, targets = self.vlm.lm_head(hidden_LD[loss_positions]).float(), batch.targets_L[loss_positions]
        losses = functional.cross_entropy(logits, targets, reduction="none")
        sample_index = torch.searchsorted(batch.cu_seqlens.to(loss_positions.dtype), loss_positions, right=True) - 1
        sample_sums_2N[0].index_add_(0, sample_index, losses.detach())
        if not self.training:
            sample_sums_2N[1].index_add_(0, sample_index, (logits.argmax(dim=-1) == targets).float())
        weighted_losses = losses if batch.token_weights_L is None else losses * batch.token_weights_L[loss_positions]
        return weighted_losses.sum(), sample_sums_2N

    def compute_last_hidden(self, batch: PackedBatch) -> torch.Tensor:
        """Return the last hidden states of the language tower, (L, D)."""
        # No cache and no mask: with either, transformers would take the packed samples for one sequence.
        outputs = self.vlm.model.language_model(
            **self.build_language_inputs(batch),
            attention_mask=None,
            use_cache=False,
            cu_seqlens=batch.cu_seqlens,
            max_seqlen=batch.max_seqlen,
        )
        hidden_LD: torch.Tensor = outputs.last_hidden_state[0]
        return hidden_LD


def pad_left(sequences: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sequences of different lengths as one batch, padded with zeros on the left, and its attention mask."""
    padded = nn.utils.rnn.pad_sequence(list(sequences), batch_first=True, padding_side="left")
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=padded.device)
    mask = torch.arange(padded.shape[1], 0, -1, device=padded.device)[None] <= lengths[:, None]
    return padded, mask.long()
