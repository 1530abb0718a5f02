"""Who is on this machine, and which names stand for it."""

import ipaddress
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

# Starlette's test client has no network behind it and calls itself by this name.
_IN_PROCESS = "testclient"


def is_here(client: Any) -> bool:
    """Tell whether a peer, as ASGI names it, is on this machine."""
    return bool(client) and (str(client[0]) == _IN_PROCESS or is_loopback(str(client[0])))


@lru_cache(maxsize=256)
def is_foreign(name: str) -> bool:
    """Tell whether a Host or Origin names another host; names without a dot are of this network."""
    try:
        host = urlsplit(name if "//" in name else f"//{name}").hostname or ""
    except ValueError:
        return True
    return "." in host and not is_loopback(host)


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Tell whether a name or address stands for this machine as seen from itself."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback
