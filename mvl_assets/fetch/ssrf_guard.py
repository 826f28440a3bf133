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

from mvl_assets.fetch.errors import AddressRefused

ALLOW = "MVL_ALLOW_PRIVATE_FETCH"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(host: str) -> bool:
    """Whether an address (as text) is one of the public internet; addresses inside IPv6 wrappings are unwrapped."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            address = inner
    return address.is_global and not address.is_multicast


def checked_socket(info: tuple[Any, ...]) -> socket.socket:
    """A socket for one resolved address, as aiohttp's `socket_factory`. Raises `AddressRefused`."""
    family, kind, protocol, _, place = info
    if not is_public(place[0]) and os.environ.get(ALLOW) != "1":
        raise AddressRefused(
            f"{place[0]} is not an address of the public internet",
            hint=f"set {ALLOW}=1 if a mirror or a proxy of your own network is meant",
        )
    return socket.socket(family, kind, protocol)


def proxy_for(url: URL) -> str | None:
    """The proxy that the environment names for this address. The check above then sees the proxy's address only."""
    if proxy_bypass(url.host or ""):
        return None
    return getproxies().get(url.scheme)
