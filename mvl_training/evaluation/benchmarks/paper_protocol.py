"""How the paper's copy of lmms-eval asked (`protocol: paper`), where lmms-eval 0.7.3 and this project ask otherwise.

Source: https://github.com/MAmmoTH-VL/MAmmoTH-VL, commit 6485109, `eval/lmms-eval` and the command in its README. What
differs between its task files and those of 0.7.3 is in `benchmarks.yaml`, as `paper_protocol` of each benchmark.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Protocol = Literal["default", "paper"]
"""How a benchmark is asked; scores of two protocols are not comparable."""

DEFAULT_PROTOCOL: Final[Protocol] = "default"

PAPER_FRAMES = 32
"""Frames of every video, evenly spread over all of its frames; those of a short one repeat. The default of its
`llava_onevision`, which the command keeps."""

PAPER_SYSTEM_PROMPT = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
"""Of its conversation template `qwen_2_5`; training had a shorter one."""


class PaperProtocol(BaseModel):
    """What the paper's task files say of one benchmark, where those of lmms-eval 0.7.3 say otherwise.

    Attributes:
        max_new_tokens: Their limit of an answer.
        prompt: Their `pre_prompt` and `post_prompt`, which come before and after the question.
        images_first: All images come before the text, also where the text names their places.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_new_tokens: int | None = Field(default=None, ge=1)
    prompt: dict[str, str] = {}
    images_first: bool = False

    def list_settings(self) -> list[Any]:
        """Return everything that the protocol sets, for the digest of a run's settings."""
        return [PAPER_FRAMES, PAPER_SYSTEM_PROMPT, self.max_new_tokens, self.prompt, self.images_first]
