"""Building a student for ZeRO-3: one rank reads the weights, every rank keeps its partition of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from mvl_training.model.cost_model import ModelSizes, compute_model_sizes
from mvl_training.model.student_model import Student
from mvl_training.model.students.llava_onevision import LlavaOnevisionForConditionalGeneration, LlavaOnevisionStudent
from mvl_training.trainer.collective import run_on_rank_0


def build_student_zero3(
    build_student: Callable[[], Student],
    deepspeed_config: dict[str, Any],
    dtype: torch.dtype,
    check_sizes: Callable[[ModelSizes], None] | None = None,
) -> tuple[Student, ModelSizes]:
    """Build a LLaVA-OneVision student whose weights are partitioned over the ranks from the start. Collective.

    Only rank 0 calls `build_student`, so a machine holds the whole weights once, not once per rank. Buffers (the
    rotary frequencies) are copied from rank 0 unchanged: in bf16, positions would differ from the exported model's.

    Args:
        build_student: Builds the whole student.
        deepspeed_config: DeepSpeed's configuration.
        dtype: Type of the weights that the configuration asks for. DeepSpeed never casts a model built this way, so the
            stage trains in it.
        check_sizes: Called on all ranks with the sizes of the whole student, before anything is on their devices.

    Returns:
        The partitioned student, and the sizes of the whole one.

    Raises:
        MvlError: `build_student` raised it on rank 0, or `check_sizes` on all; raised on all ranks.
        RuntimeError: DeepSpeed built the weights in another type.
    """
    import deepspeed
    from transformers.initialization import no_init_weights

    full_student: Student | None = None

    def build_and_describe() -> tuple[Any, ...]:
        nonlocal full_student
        full_student = build_student()
        assert isinstance(full_student, LlavaOnevisionStudent)  # a recipe with another is refused
        llava = full_student.llava
        sizes, buffers = compute_model_sizes(full_student), dict(full_student.named_buffers())
        return llava.config, llava.generation_config, full_student.grid, sizes, buffers

    config, generation_config, grid, sizes, buffers = run_on_rank_0(build_and_describe)
    if check_sizes is not None:
        check_sizes(sizes)
    # Without a `dtype`: given one, DeepSpeed 0.19 takes it only where the accelerator has fp16, else bf16.
    with no_init_weights(), deepspeed.zero.Init(config_dict_or_path=deepspeed_config):
        llava = LlavaOnevisionForConditionalGeneration(config)
    if (dtypes := {parameter.dtype for parameter in llava.parameters()}) != {dtype}:
        raise RuntimeError(f"DeepSpeed built weights of {dtypes}, not {dtype}")
    llava.tie_weights()
    llava.generation_config = generation_config
    student = LlavaOnevisionStudent(llava, grid)
    weights = {} if full_student is None else dict(full_student.named_parameters())
    for name, parameter in student.named_parameters():
        with torch.no_grad(), deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if full_student is not None:
                parameter.copy_(weights[name])
    for name, buffer in list(student.named_buffers()):
        owner, _, leaf = name.rpartition(".")
        setattr(student.get_submodule(owner), leaf, buffers[name].to(buffer.device))
    return student, sizes


def gather_own_parameters(student: Student) -> AbstractContextManager[Any]:
    """Gather the weights that `Student` reads outside of their modules, for calls that do not go through its `forward`.

    Without ZeRO-3 nothing happens. Collective.
    """
    import deepspeed

    gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(student.list_own_parameters())
    return gathered
