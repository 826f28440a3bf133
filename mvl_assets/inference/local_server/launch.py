"""Runs vLLM's OpenAI-compatible server: `python -m mvl_assets.inference.local_server.launch <vLLM flags>`.

Holds what must happen inside the server's own process before vLLM is imported. vLLM spawns its engine as a child
process, which imports this module again (as `__mp_main__`): the patch below is therefore at module level, guarded so
that importing the module from anywhere else changes nothing.
"""

from __future__ import annotations

import importlib
import runpy
from collections.abc import Callable
from typing import Any

from mvl_assets.inference.local_server.torch_compat import patch_cpu_torch


def inspect_models_in_this_process() -> None:
    """Make vLLM inspect model classes here: the fresh interpreter that it uses would lack the patch."""
    registry = importlib.import_module("vllm.model_executor.models.registry")

    def call(function: Callable[[], Any]) -> Any:
        return function()

    registry._run_in_subprocess = call  # type: ignore[attr-defined]


if __name__ in ("__main__", "__mp_main__") and patch_cpu_torch():
    inspect_models_in_this_process()

if __name__ == "__main__":
    # Not the `vllm` command: the CPU build lacks the package metadata it asks for.
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
