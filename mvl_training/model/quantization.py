"""Weights of the language tower in 4 bits (QLoRA, arXiv 2305.14314), by `bitsandbytes`: NF4, scales quantized too.

Such weights do not learn; adapters beside them do (`mvl_training.model.lora`). A checkpoint holds them as they are in
memory, and an export holds what they stand for, in the precision of the stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mvl_assets.errors import MvlError

_QUANT_TYPE = "nf4"
_WEIGHT = ".weight"
# What bitsandbytes stores beside a weight is named after it: `….weight.absmax`, ….
_QUANT_STATE = f"{_WEIGHT}.quant_state.bitsandbytes__{_QUANT_TYPE}"


def quantize_linear_layers(tower: nn.Module, dtype: torch.dtype) -> None:
    """Replace every linear layer of a tower by one with weights in 4 bits.

    Args:
        tower: The tower.
        dtype: Type in which the layers compute, to which the weights are rounded before.

    Raises:
        MvlError: bitsandbytes is not installed.
    """
    try:
        from bitsandbytes.nn import Linear4bit, Params4bit
    except ImportError as error:
        raise MvlError("`lora.quantization` needs bitsandbytes", hint="pip install 'mvl[qlora]'") from error
    layers = [(name, module) for name, module in tower.named_modules() if isinstance(module, nn.Linear)]
    for name, layer in layers:
        weight = layer.weight.detach().to(dtype)
        quantized = Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=dtype,
            quant_type=_QUANT_TYPE,
            device="meta",
        )
        quantized.weight = Params4bit(weight, requires_grad=False, quant_type=_QUANT_TYPE)
        quantized.bias = layer.bias
        quantized.register_load_state_dict_pre_hook(_drop_quant_state)
        # They are quantized when they are moved to a device.
        tower.set_submodule(name, quantized.to(weight.device))


def _drop_quant_state(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Leave out what bitsandbytes stores beside a weight: the layer has it, made of the same initial weights."""
    for name in [name for name in state_dict if name.startswith(f"{prefix}weight.")]:
        del state_dict[name]


def dequantize_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a student's weights with those in 4 bits as float32, and without what is stored beside them.

    Args:
        weights: By name, of a student with quantized layers.
    """
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Params4bit

    layers = {name.removesuffix(_QUANT_STATE) for name in weights if name.endswith(_QUANT_STATE)}
    states: dict[str, dict[str, torch.Tensor]] = {layer: {} for layer in layers}
    whole: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        layer, is_state, key = name.partition(f"{_WEIGHT}.")
        if is_state and layer in layers:
            states[layer][key] = tensor
        else:
            whole[name] = tensor
    for layer, state in states.items():
        weight = Params4bit.from_prequantized(data=whole[layer + _WEIGHT], quantized_stats=state, device="cpu")
        whole[layer + _WEIGHT] = dequantize_4bit(weight.data, weight.quant_state).float()
    return whole
