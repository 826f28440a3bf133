"""DeepSpeed's engine around a student: its configuration, what learns, and what makes a layer faster or smaller."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from mvl_assets.errors import MvlError
from mvl_training.model.lora import is_adapter
from mvl_training.model.student_model import HEAD_CHUNK_TOKENS, Student
from mvl_training.recipe import StageConfig

ATTENTION_OPERATORS = ("scaled_dot_product", "varlen_attn")
"""Parts of the names of torch's operators of attention."""


def build_deepspeed_config(stage_config: StageConfig, load_universal: bool) -> dict[str, Any]:
    """Return DeepSpeed's configuration of a stage.

    Learning rates are set by the loop, not by a DeepSpeed scheduler, and so is where a step ends: its number of
    micro-steps depends on its samples.
    """
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": stage_config.max_grad_norm,
        "bf16": {"enabled": stage_config.precision == "bf16"},
        # A sum over many micro-steps in bf16 would lose small gradients.
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": _build_zero_config(stage_config),
        "checkpoint": {"load_universal": load_universal},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # DeepSpeed's is compiled at first use
        "steps_per_print": 1 << 40,
        "wall_clock_breakdown": False,
    }


def _build_zero_config(stage_config: StageConfig) -> dict[str, Any]:
    offload = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {"stage": stage_config.zero_stage, **({"offload_optimizer": offload} if stage_config.offload else {})}


def build_parameter_groups(student: Student, stage_config: StageConfig) -> list[dict[str, Any]]:
    """Return one AdamW parameter group per component that learns, and freeze everything else.

    With `lora` the language tower's group has its adapters alone.
    """
    groups: dict[str, list[torch.nn.Parameter]] = {component: [] for component in stage_config.learning_rates}
    for name, parameter in student.named_parameters():
        component = student.find_component(name)
        learns = component in groups and (stage_config.lora is None or component != "language" or is_adapter(name))
        parameter.requires_grad_(learns)
        if component is not None and learns:
            groups[component].append(parameter)
    return [
        {"params": groups[component], "lr": rate, "name": component}
        for component, rate in stage_config.learning_rates.items()
    ]


def build_engine(student: Student, stage_config: StageConfig, *, load_universal: bool = False) -> Any:
    """Build the DeepSpeed engine around a student. Collective; torch.distributed must be initialised.

    Args:
        student: The model.
        stage_config: Of the stage.
        load_universal: Whether the engine will load a checkpoint in DeepSpeed's universal form.

    Raises:
        MvlError: The stage asks for kernels that this machine has not.
    """
    if stage_config.liger_kernels:
        if not torch.cuda.is_available():
            raise MvlError(
                "`liger_kernels` needs a CUDA device: its kernels are written in Triton",
                hint="remove it from the recipe",
            )
        apply_liger_kernels(student)

    import deepspeed

    student.n_head_chunks = count_head_chunks(stage_config)
    if stage_config.gradient_checkpointing:
        enable_checkpointing(student, stage_config)
    if stage_config.compile_layers:
        compile_layers(student)
    groups = build_parameter_groups(student, stage_config)
    optimizer = torch.optim.AdamW(
        groups, betas=(0.9, 0.999), eps=1e-8, weight_decay=stage_config.weight_decay, fused=_can_fuse(stage_config)
    )
    if stage_config.zero_stage == 3:
        # Read in Student's own forward, not in that of the module that owns it.
        for parameter in student.list_own_parameters():
            deepspeed.zero.register_external_parameter(student, parameter)
    engine, *_ = deepspeed.initialize(
        model=student,
        optimizer=optimizer,
        config=build_deepspeed_config(stage_config, load_universal),
    )
    engine.train()
    return engine


def count_head_chunks(stage_config: StageConfig) -> int | None:
    """Return `Student.n_head_chunks` of a stage."""
    return -(-stage_config.pack_tokens // HEAD_CHUNK_TOKENS) if stage_config.zero_stage == 3 else None


def _can_fuse(stage_config: StageConfig) -> bool:
    """Return whether one kernel updates all weights; the states of an offloaded optimizer are on the CPU."""
    return torch.cuda.is_available() and not stage_config.offload


def enable_checkpointing(student: Student, stage_config: StageConfig) -> None:
    """Compute activations again in the backward pass, all of them or all but the outputs of attention."""
    options: dict[str, Any] = {"use_reentrant": False}
    if stage_config.recompute == "attention_kept":
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _choose_kept)
    student.vlm.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def compile_layers(student: Student) -> None:
    """Compile the layers of the language tower, one by one: they are equal, so one graph serves all."""
    for layer in student.vlm.model.language_model.layers:
        # Packs have other lengths in each step.
        layer.compile(dynamic=True)


def _choose_kept(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Keep the outputs of attention for the backward pass; everything else is computed again."""
    is_attention = any(word in str(operator) for word in ATTENTION_OPERATORS)
    return CheckpointPolicy.MUST_SAVE if is_attention else CheckpointPolicy.PREFER_RECOMPUTE


def apply_liger_kernels(student: Student) -> None:
    """Replace norms, rotary embedding and feed-forward of the language tower by Liger's kernels.

    They run on CUDA devices, and on a CPU under Triton's interpreter alone.

    Raises:
        MvlError: The package is not installed, or it has no kernels for this tower.
    """
    tower = student.vlm.model.language_model
    try:
        from liger_kernel.transformers import monkey_patch
    except ImportError as error:
        raise MvlError("`liger_kernels` needs a package", hint="pip install 'mvl[liger]'") from error
    apply = monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN.get(tower.config.model_type)
    if apply is None:
        raise MvlError(f"Liger has no kernels for {tower.config.model_type}", hint="remove `liger_kernels`")
    # The loss stays ours: it is weighted by sample, and the head runs on loss tokens only.
    apply(model=tower, cross_entropy=False, fused_linear_cross_entropy=False)
