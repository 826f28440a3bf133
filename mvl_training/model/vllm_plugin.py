"""vLLM shows pictures to our checkpoints as training does: as many tokens as their `vision_aspect_ratio` says.

vLLM's LLaVA-OneVision takes every model for an "anyres_max_9" one, whatever its config says, so pictures of more than
four tiles would get other token counts in vLLM than in the training of an "anyres_max_4" checkpoint.

Belongs here: what vLLM calls when it starts (entry point `vllm.general_plugins`). Does not: the model (`vllm_student`).
Nothing is imported but vLLM, so this package also installs alone (`pip install --no-deps`) into an environment that
holds vLLM and nothing else of ours.
"""

from __future__ import annotations

ARCHITECTURE = "LlavaOnevisionForConditionalGeneration"


def register() -> None:
    """Puts our class in the place of vLLM's. Called in every process of a server, before it looks at a model."""
    from vllm import ModelRegistry

    ModelRegistry.register_model(ARCHITECTURE, f"mvl_training.model.vllm_model:{ARCHITECTURE}")
