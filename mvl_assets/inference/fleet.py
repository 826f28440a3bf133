"""Fleets: servers of one model that join and leave while a run goes on, listed in a file or behind a DNS name."""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint import Endpoint

FILE_POLL_INTERVAL_S = 2.0
DNS_POLL_INTERVAL_S = 5.0
MAX_FILE_BYTES = 1 << 20

ResolveHost = Callable[[str, int], Awaitable[Sequence[str]]]


class FleetError(MvlError):
    """The endpoints cannot be listed just now: those that were listed last stay."""


@dataclass(frozen=True)
class Fleet(ABC):
    """The endpoints of one model, which may change at any time.

    Attributes:
        template: What all endpoints have in common; only their addresses differ.
        poll_interval_s: Seconds between two looks.
    """

    template: Endpoint
    poll_interval_s: float

    @property
    @abstractmethod
    def name(self) -> str:
        """What the endpoints come from, for messages."""

    @abstractmethod
    async def list_endpoints(self) -> list[Endpoint]:
        """Return the endpoints of this moment, each once.

        Raises:
            FleetError: They cannot be listed.
        """


@dataclass(frozen=True)
class FileFleet(Fleet):
    """Endpoints in a file: one base URL per line, or a JSON or YAML list of them, `[]` for none. `#` begins a comment.

    The file is read anew each time, so it does not matter how it is replaced, or what the clock of its disk says.
    """

    path: Path = Path()
    poll_interval_s: float = FILE_POLL_INTERVAL_S

    @property
    def name(self) -> str:
        return str(self.path)

    async def list_endpoints(self) -> list[Endpoint]:
        base_urls = await asyncio.to_thread(read_base_urls, self.path)
        return [replace(self.template, base_url=base_url) for base_url in base_urls]


@dataclass(frozen=True)
class DnsFleet(Fleet):
    """Endpoints behind one DNS name, such as that of a headless service: each of its addresses is a server.

    Attributes:
        resolve: Returns the addresses of a host and port.
    """

    poll_interval_s: float = DNS_POLL_INTERVAL_S
    resolve: ResolveHost | None = None

    @property
    def name(self) -> str:
        return f"the addresses of {self.template.redacted_url}"

    async def list_endpoints(self) -> list[Endpoint]:
        url = urlsplit(self.template.base_url)
        host = url.hostname or ""
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            addresses = await (self.resolve or resolve_host)(host, port)
        except OSError as error:
            raise FleetError(f"{host} cannot be resolved: {error.strerror or error}") from error
        return [replace(self.template, address=address) for address in dict.fromkeys(addresses)]


async def resolve_host(host: str, port: int) -> list[str]:
    """Return the addresses of a host, as the system's resolver gives them."""
    loop = asyncio.get_running_loop()
    results = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in results]


def read_base_urls(path: Path) -> list[str]:
    """Return the base URLs in a file, each once.

    Raises:
        FleetError: It cannot be read, or holds something else. The message does not repeat its content: a URL may hold
            a password.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise FleetError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise FleetError(f"{path} is not text in UTF-8") from error
    if len(content) > MAX_FILE_BYTES:
        raise FleetError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB")
    base_urls = _parse_lines(text)
    if not base_urls:
        # As a reader may see it while it is written in place: that must not take all servers away.
        raise FleetError(f"{path} lists no endpoint (write [] where that is meant)")
    if base_urls[0].startswith(("[", "-")):
        base_urls = _parse_list(path, text)
    for number, base_url in enumerate(base_urls, 1):
        if not is_base_url(base_url):
            raise FleetError(f"{path}: entry {number} is not a URL of the form http://host:port/v1")
    return list(dict.fromkeys(base_url.rstrip("/") for base_url in base_urls))


def is_base_url(text: str) -> bool:
    """Return whether a text is an HTTP URL with a host."""
    try:
        url = urlsplit(text)
        (url.hostname or "").encode("idna")
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0 and not text.split()[1:]
    except ValueError:  # a port that is no number, half an IPv6 address, a name that no resolver takes
        return False


def _parse_lines(text: str) -> list[str]:
    lines = (line.split(" #")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _parse_list(path: Path, text: str) -> list[str]:
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise FleetError(f"{path} begins like a list and is none in JSON or YAML") from error
    if not isinstance(document, list) or not all(isinstance(entry, str) for entry in document):
        raise FleetError(f"{path} is not a list of URLs")
    return document
