"""Runs vLLM's OpenAI-compatible server: `python -m mvl_assets.inference.local_server.launch <vLLM flags>`.

Belongs here: what must happen inside the server's own process before vLLM is imported. The flags are decided in
`server_spec.py`, the process is kept by `supervisor.py`.

vLLM spawns its engine as a child process, which imports this module again (as `__mp_main__`): the repair below
therefore stands at module level, guarded so that importing the module from anywhere else touches nothing.
"""

from __future__ import annotations

import importlib
import runpy
from collections.abc import Callable
from typing import Any

from mvl_assets.inference.local_server.torch_compat import patch_cpu_torch


def inspect_models_in_this_process() -> None:
    """vLLM looks at a model's class in a fresh interpreter, which would lack the repair; do it in this one instead."""
    registry = importlib.import_module("vllm.model_executor.models.registry")

    def call(function: Callable[[], Any]) -> Any:
        return function()

    registry._run_in_subprocess = call  # type: ignore[attr-defined]


if __name__ in ("__main__", "__mp_main__") and patch_cpu_torch():
    inspect_models_in_this_process()

if __name__ == "__main__":
    # Not the `vllm` command: the CPU build lacks the package metadata it asks for.
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
