"""Optimizer states that a conversion to another number of ranks made one of many."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from mvl_training.trainer.checkpoint import _unshare_optimizer_state


def test_every_group_keeps_its_own_settings_and_every_state_its_own_count_of_steps() -> None:
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    groups = [{"lr": 1e-3, "name": "language"}, {"lr": 1e-2, "name": "vision"}]
    adam = torch.optim.AdamW([{"params": [w], **g} for w, g in zip(weights, groups, strict=True)])
    shared = torch.tensor(6.0)
    for weight in weights:
        adam.state[weight] |= {"step": shared, "exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}
        weight.grad = torch.ones(2)
    for group in adam.param_groups:
        group.update(groups[0])
    _unshare_optimizer_state(SimpleNamespace(optimizer=adam, param_groups=adam.param_groups), groups, zero_stage=3)
    adam.step()
    assert [float(adam.state[w]["step"]) for w in weights] == [7.0, 7.0]
    assert [(g["name"], g["lr"]) for g in adam.param_groups] == [("language", 1e-3), ("vision", 1e-2)]
