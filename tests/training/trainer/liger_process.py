"""A process that compares a student with Liger's kernels with one without, on a CPU, under Triton's interpreter.

A process of its own, because Triton reads `TRITON_INTERPRET` when it is imported. It prints JSON: how often each kernel
ran, and the largest difference of the loss or a gradient.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mvl_assets.lake.lake import Lake
from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.model.students.choose import start_student
from mvl_training.trainer.engine import apply_liger_kernels, enable_checkpointing
from tests.training import tiny_model as small
from tests.training.trainer.pack_gradients import measure_gradients

RTOL, ATOL = 1e-4, 1e-6
POSITIONS = (13, 39)
"""One question without an image and one with: few tokens, as each row of a kernel takes milliseconds."""


def complete_interpreter(runs: Counter[str]) -> None:
    """Add what Triton's interpreter lacks and Liger's kernels use, and count the kernels that run.

    The compiler makes a float32 of a float argument, and takes `rsqrt` from CUDA's libdevice.
    """
    import triton.language as tl
    from liger_kernel.ops import rms_norm
    from triton.runtime import interpreter

    convert, execute = interpreter._implicit_cvt, interpreter.GridExecutor.__call__

    def convert_argument(argument: Any) -> Any:
        if not isinstance(argument, float):
            return convert(argument)
        return tl.tensor(interpreter.TensorHandle(np.array([argument], np.float32), tl.float32), tl.float32)

    def execute_and_count(executor: Any, *args: Any, **kwargs: Any) -> None:
        runs[executor.fn.__name__] += 1
        execute(executor, *args, **kwargs)

    interpreter._implicit_cvt = convert_argument
    interpreter.GridExecutor.__call__ = execute_and_count
    # Looked up when it is called: the interpreter replaces the functions of `tl.math` while a kernel runs.
    rms_norm.rsqrt = lambda x: tl.math.rsqrt(x)


def main(tokenizer: str, lake_root: str) -> None:
    assert os.environ["TRITON_INTERPRET"] == "1"
    tokens, lake, runs = ChatTokenizer.load(Path(tokenizer)), Lake(lake_root), Counter[str]()
    recipe = small.build_recipe(Path(tokenizer), gradient_checkpointing=True, recompute="attention_kept")
    plain, patched = start_student(recipe, tokens), start_student(recipe, tokens)
    # Before the kernels replace the rotary embedding of all models in this process.
    expected = measure_gradients(plain, recipe, lake, tokens, POSITIONS)
    complete_interpreter(runs)
    apply_liger_kernels(patched)
    enable_checkpointing(patched, recipe.get_stage("single_image"))
    measured = measure_gradients(patched, recipe, lake, tokens, POSITIONS)
    torch.testing.assert_close(measured, expected, rtol=RTOL, atol=ATOL)
    difference = max(float((measured[name] - value).abs().max()) for name, value in expected.items())
    print(json.dumps({"runs": runs, "difference": difference}))


if __name__ == "__main__":
    main(*sys.argv[1:])
