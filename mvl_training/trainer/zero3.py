"""A student for ZeRO-3: one rank reads the weights, every rank keeps its share of them.

Belongs here: building the student shared out from the start. Does not: what its weights are (`model`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from mvl_assets.errors import MvlError
from mvl_training.model.cost_model import Sizes, sizes_of_model
from mvl_training.model.student_model import LlavaOnevisionForConditionalGeneration, Student


def shared_out(whole: Callable[[], Student], settings: dict[str, Any], dtype: torch.dtype) -> tuple[Student, Sizes]:
    """The student that `whole` makes, with weights in `dtype`, and its sizes. Collective; `settings` is DeepSpeed's
    configuration.

    Only rank 0 calls `whole`, so a machine holds its weights once and not once a rank. What rank 0 raises, all raise.
    DeepSpeed never casts a model made this way, so `dtype` is what the stage trains in. Buffers (the rotary
    frequencies) are rank 0's as they are: positions in bf16 would not be those of the model that is exported.
    """
    import deepspeed
    from transformers.initialization import no_init_weights

    source: Student | None = None
    about: list[Any] = [None]
    if dist.get_rank() == 0:
        try:
            source = whole()
            llava = source.llava
            sizes, buffers = sizes_of_model(llava, source.grid), dict(source.named_buffers())
            about = [(llava.config, llava.generation_config, source.grid, sizes, buffers)]
        except MvlError as error:
            about = [error]
    dist.broadcast_object_list(about, src=0)
    if isinstance(about[0], MvlError):
        raise about[0]
    config, generation, grid, sizes, buffers = about[0]
    with no_init_weights(), deepspeed.zero.Init(config_dict_or_path=settings, dtype=dtype):
        llava = LlavaOnevisionForConditionalGeneration(config)
    llava.tie_weights()
    llava.generation_config = generation
    student = Student(llava, grid)
    weights = {} if source is None else dict(source.named_parameters())
    for name, parameter in student.named_parameters():
        with torch.no_grad(), deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if source is not None:
                parameter.copy_(weights[name])
    for name, buffer in list(student.named_buffers()):
        owner, _, leaf = name.rpartition(".")
        setattr(student.get_submodule(owner), leaf, buffers[name].to(buffer.device))
    return student, sizes
