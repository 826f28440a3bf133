"""The flags that a local server gets."""

from __future__ import annotations

import platform

import pytest
import torch

from mvl_assets.inference.local_server import server_spec
from mvl_assets.inference.local_server.server_spec import ServerSpec, has_bfloat16_instructions


@pytest.mark.skipif(platform.machine() != "x86_64", reason="torch tells the abilities of x86 CPUs only")
def test_what_the_system_tells_of_the_cpu_is_what_torch_finds():
    assert has_bfloat16_instructions() == torch.cpu._is_avx512_bf16_supported()


@pytest.mark.parametrize(("is_supported", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_a_cpu_without_bfloat16_serves_in_float32(is_supported: bool, dtype: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server_spec, "has_bfloat16_instructions", lambda: is_supported)
    monkeypatch.setattr(server_spec, "runs_on_cpu", lambda: True)
    flags = ServerSpec(model="m", served_model_name="m", args=("--dtype", "auto"))._build_flags("m")
    assert [flags[n + 1] for n, flag in enumerate(flags) if flag == "--dtype"] == [dtype, "auto"]
