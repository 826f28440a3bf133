"""Optimizer states after DeepSpeed has loaded a checkpoint of another number of ranks.

That they are right after a whole run is tested in `test_trainer_main`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch

from mvl_training.trainer.checkpoint_loader import unshare_optimizer_state


@dataclass
class ZeroOptimizer:
    """The two attributes of DeepSpeed's optimizer that are used."""

    optimizer: torch.optim.Optimizer

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups


def load_as_deepspeed_does(
    adam: torch.optim.Optimizer, weights: list[torch.nn.Parameter], saved_group: dict[str, Any]
) -> None:
    """What `test_deepspeed_still_shares_one_step_and_one_groups_settings` finds in DeepSpeed's source."""
    state_step = torch.tensor(6.0)
    for weight in weights:
        adam.state[weight]["step"] = state_step
    for param_group in adam.param_groups:
        param_group.update(saved_group)


def test_every_group_keeps_its_own_settings_and_every_state_its_own_step() -> None:
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    groups = [{"lr": 1e-3, "name": "language"}, {"lr": 1e-2, "name": "vision"}]
    adam = torch.optim.AdamW([{"params": [w], **g} for w, g in zip(weights, groups, strict=True)])
    for weight in weights:
        adam.state[weight] |= {"exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}
        weight.grad = torch.ones(2)
    load_as_deepspeed_does(adam, weights, groups[0])
    unshare_optimizer_state(ZeroOptimizer(adam), groups, zero_stage=3)
    adam.step()
    assert [float(adam.state[weight]["step"]) for weight in weights] == [7.0, 7.0]
    assert [(group["name"], group["lr"]) for group in adam.param_groups] == [("language", 1e-3), ("vision", 1e-2)]


def test_deepspeed_still_shares_one_step_and_one_groups_settings() -> None:
    """Where this fails, DeepSpeed has changed: see whether `unshare_optimizer_state` is still needed."""
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3

    source = inspect.getsource(DeepSpeedZeroOptimizer_Stage3.load_hp_checkpoint_state_from_checkpoint_dir_stage3)
    assert "self.optimizer.state[fp32_param]['step'] = state_step" in source
    assert """optim_sd[OPTIMIZER_STATE_DICT]["param_groups"][0].items()""" in source
