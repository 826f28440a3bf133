"""Restricts connections to addresses of the public internet, unless a setting allows the local network.

The check is made when a socket is created for one resolved address, so it covers every redirect and a name that
resolves to another address the second time.
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
    """Return whether an IP address is of the public internet; IPv4 addresses inside IPv6 ones are unwrapped."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if embedded is not None:
            address = embedded
    return address.is_global and not address.is_multicast


def create_public_socket(addr_info: tuple[Any, ...]) -> socket.socket:
    """Create a socket for one resolved address, as aiohttp's `socket_factory`. Raises `AddressNotAllowed`."""
    family, kind, protocol, _, sockaddr = addr_info
    if not is_public_address(sockaddr[0]) and os.environ.get(ALLOW_PRIVATE_ENV) != "1":
        raise AddressNotAllowed(
            f"{sockaddr[0]} is not an address of the public internet",
            hint=f"set {ALLOW_PRIVATE_ENV}=1 to fetch from a mirror or through a proxy in your own network",
        )
    return socket.socket(family, kind, protocol)


def get_proxy(url: URL) -> str | None:
    """Return the proxy that the environment sets for this URL; the check above then sees only the proxy's address."""
    if proxy_bypass(url.host or ""):
        return None
    return getproxies().get(url.scheme)
