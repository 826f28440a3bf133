"""vLLM plugin that gives images as many tokens as in training.

vLLM's LLaVA-OneVision treats every model as "anyres_max_9", whatever its config says, so images of more than four
tiles would have other token counts in vLLM than in the training of an "anyres_max_4" checkpoint. And it cuts each of
several images into tiles, where training, as the released code, makes each one tile.

vLLM calls `register` when it starts (entry point `vllm.general_plugins`). Only vLLM is imported, so this package can be
installed alone (`pip install --no-deps`) into an environment that holds vLLM and nothing else of ours.
"""

from __future__ import annotations

ARCHITECTURE = "LlavaOnevisionForConditionalGeneration"


def register() -> None:
    """Register our class in place of vLLM's. Called in every process of a server, before it looks at a model."""
    from vllm import ModelRegistry

    ModelRegistry.register_model(ARCHITECTURE, f"mvl_training.model.vllm_model:{ARCHITECTURE}")
