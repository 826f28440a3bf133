"""The address and properties of a server that requests are sent to. `endpoints.py` finds or starts it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from mvl_assets.errors import InfrastructureError


class EndpointError(InfrastructureError):
    """An endpoint as a whole cannot be used: unreachable for too long, or it rejects every request."""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How requests are handed to a server in batches. The defaults are the limits of OpenAI.

    Attributes:
        max_requests: Requests of one batch.
        max_bytes: Bytes of its file.
        window: Time in which the server has to answer it.
        max_open: Batches that the server has at a time; 130 bytes of memory go to each of their requests.
        poll_interval_s: Seconds between two looks at them.
        settle_s: Seconds after which the server's list has every batch that was made.
    """

    max_requests: int = 50_000
    max_bytes: int = 200_000_000
    window: str = "24h"
    max_open: int = 16
    poll_interval_s: float = 30.0
    settle_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One OpenAI-compatible server.

    Attributes:
        base_url: Ends before `/chat/completions`, so usually in `/v1`.
        model: The name that the server knows.
        address: IP address to connect to, for one of several servers behind the host of `base_url`, which stays the
            name in the Host header and in TLS. None: whichever the host resolves to.
        api_key_env: Environment variable of the API key, which is read when a run begins and never stored or logged.
        restart: Brings a local server back, and returns where it is now.
        heartbeat_file: Touched while requests run, so that an idle local server can end.
    """

    base_url: str
    model: str
    api_key_env: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    start_concurrency: int = 8
    max_concurrency: int = 256
    # Longest side, in pixels, of an image that the model can use.
    max_image_side: int = 1344
    # The CPU build of vLLM crashes on a seed with a temperature above 0.
    supports_seed: bool = True
    restart: Callable[[], Endpoint] | None = field(default=None, compare=False)
    heartbeat_file: Path | None = field(default=None, compare=False)
    address: str | None = None
    # `vllm`, `openai` or `none`, see `client.output_forms`; `auto`: to be found out.
    output_form: str = "vllm"
    # Tokens that a prompt and its answer may have together; None: to be found out, or not known.
    max_model_len: int | None = None
    # Whether it gives log-probabilities; None: to be found out, where a choice is asked for and the form is not vLLM's.
    gives_logprobs: bool | None = None
    # Requests are handed to it in batches; None: one by one.
    batch: BatchOptions | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What tells the servers of a model apart."""
        return self.base_url.rstrip("/"), self.address or ""

    @property
    def batch_folder(self) -> Path | None:
        """The folder of batches that `base_url` names (`file:///shared/batches`); None for a server."""
        return find_batch_folder(self.base_url)

    @property
    def chat_url(self) -> str:
        return f"{self._connect_url}/chat/completions"

    @property
    def files_url(self) -> str:
        return f"{self._connect_url}/files"

    @property
    def batches_url(self) -> str:
        return f"{self._connect_url}/batches"

    @property
    def models_url(self) -> str:
        return f"{self._connect_url}/models"

    @property
    def health_url(self) -> str:
        return f"{self._root_url}/health"

    @property
    def metrics_url(self) -> str:
        return f"{self._root_url}/metrics"

    @property
    def redacted_url(self) -> str:
        """`base_url` without user name and password, for messages."""
        scheme, separator, remainder = self.base_url.partition("://")
        host, slash, path = remainder.partition("/")
        redacted_url = f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
        return redacted_url if self.address is None else f"{redacted_url} at {self.address}"

    @property
    def server_hostname(self) -> str | None:
        """The name that TLS asks for and checks, where it is not that of the URL."""
        return None if self.address is None else urlsplit(self.base_url).hostname

    @property
    def _root_url(self) -> str:
        return self._connect_url.removesuffix("/v1")

    @property
    def _connect_url(self) -> str:
        """`base_url`, with `address` in the place of the host."""
        base_url = self.base_url.rstrip("/")
        if self.address is None:
            return base_url
        url = urlsplit(base_url)
        user, at, _ = url.netloc.rpartition("@")
        host = f"[{self.address}]" if ":" in self.address else self.address
        port = "" if url.port is None else f":{url.port}"
        return urlunsplit(url._replace(netloc=f"{user}{at}{host}{port}"))

    def build_headers(self) -> dict[str, str]:
        """Return the headers of every request.

        Raises:
            EndpointError: The variable of the API key is not set.
        """
        headers = {"Content-Type": "application/json", **self.headers}
        if self.address is not None:
            headers["Host"] = urlsplit(self.base_url).netloc.rpartition("@")[2]
        if self.api_key_env is not None:
            api_key = os.environ.get(self.api_key_env, "").strip()
            if not api_key:
                raise EndpointError(
                    f"the environment variable {self.api_key_env} is not set, and {self.redacted_url} needs a key",
                    hint=f"export {self.api_key_env}=... and run again",
                )
            headers["Authorization"] = f"Bearer {api_key}"
        return headers


def find_batch_folder(base_url: str) -> Path | None:
    """Return the folder that an address names, where it is a `file:` URL without a host."""
    url = urlsplit(base_url)
    return Path(unquote(url.path)) if url.scheme == "file" and not url.netloc and len(url.path) > 1 else None
