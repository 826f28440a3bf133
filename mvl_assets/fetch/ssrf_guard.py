"""Which machines may be asked for files: those of the public internet, unless a setting allows the local network.

The check stands where a socket is made for one resolved address, so it holds for every redirect and for a name that
resolves to something else the second time.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from mvl_assets.fetch.errors import AddressNotAllowed

ALLOW_PRIVATE_ENV = "MVL_ALLOW_PRIVATE_FETCH"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public_address(host: str) -> bool:
    """Whether an address (as text) is one of the public internet; addresses inside IPv6 wrappings are unwrapped."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if embedded is not None:
            address = embedded
    return address.is_global and not address.is_multicast


def create_public_socket(addr_info: tuple[Any, ...]) -> socket.socket:
    """A socket for one resolved address, as aiohttp's `socket_factory`. Raises `AddressNotAllowed`."""
    family, kind, protocol, _, sockaddr = addr_info
    if not is_public_address(sockaddr[0]) and os.environ.get(ALLOW_PRIVATE_ENV) != "1":
        raise AddressNotAllowed(
            f"{sockaddr[0]} is not an address of the public internet",
            hint=f"set {ALLOW_PRIVATE_ENV}=1 if a mirror or a proxy of your own network is meant",
        )
    return socket.socket(family, kind, protocol)


def get_proxy(url: URL) -> str | None:
    """The proxy that the environment names for this address. The check above then sees the proxy's address only."""
    if proxy_bypass(url.host or ""):
        return None
    return getproxies().get(url.scheme)
