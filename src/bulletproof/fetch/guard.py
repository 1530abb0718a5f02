"""Which hosts, ports and network addresses may be connected to: the guard against requests forged by an address.

What counts is the very address that a socket is about to be connected to, not what a name resolved to a moment before:
a resolver that changes its answer (DNS rebinding) gains nothing.
"""

import errno
import re
import socket
from collections.abc import Iterable
from contextvars import ContextVar
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from bulletproof.errors import ConfigurationError, InputValidationError
from bulletproof.fetch.address import Address, parse, shown

# https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry, and what clouds add to
# them. What is_global of the standard library lets through (NAT64, 6to4, 192.0.0.8, site-local, multicast) is here.
_REFUSED = [
    (ip_network(network), why)
    for why, networks in {
        "a cloud's metadata service": "169.254.169.254 169.254.170.2 100.100.100.200 168.63.129.16 fd00:ec2::254/127",
        "this machine (loopback)": "127.0.0.0/8 ::1",
        "no address at all": "0.0.0.0/8 ::",
        "a private network": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7",
        "a carrier's internal network": "100.64.0.0/10",
        "link-local": "169.254.0.0/16 fe80::/10",
        "site-local": "fec0::/10",
        "multicast": "224.0.0.0/4 ff00::/8",
        "a translation to IPv4 (NAT64)": "64:ff9b::/96 64:ff9b:1::/48",
        "a tunnel to IPv4 (6to4)": "2002::/16 192.88.99.0/24",
        "a tunnel to IPv4 (Teredo)": "2001::/32",
        "an IPv4 address in an obsolete form": "::/96",
        "reserved": """192.0.0.0/24 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.175.48.0/24 198.18.0.0/15
            198.51.100.0/24 203.0.113.0/24 240.0.0.0/4 2001::/23 2001:db8::/32 2620:4f:8000::/48 3fff::/20""",
    }.items()
    for network in networks.split()
]
_GLOBAL_UNICAST = ip_network("2000::/3")
_HOST = re.compile(r"(\*\.)?([^*/\s]+)")


def why_refused(address: str | IPv4Address | IPv6Address) -> str | None:
    """Say why a network address must not be connected to; None when it is a public one.

    Example:
        >>> why_refused("10.1.2.3"), why_refused("::ffff:127.0.0.1"), why_refused("1.1.1.1")
        ('a private network', 'this machine (loopback)', None)
    """
    found = _plain(address)
    if found is None:
        return "no network address"
    for network, why in _REFUSED:
        if found.version == network.version and found in network:
            return why
    return None if found.version == 4 or found in _GLOBAL_UNICAST else "reserved"


@lru_cache(maxsize=4096)
def _plain(address: str | IPv4Address | IPv6Address) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(address.partition("%")[0] if isinstance(address, str) else address)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped if mapped is not None else found


class Attempt:
    """What the sockets of one request were refused, for the message; set in the context before connecting."""

    def __init__(self, exempt: bool) -> None:
        self.exempt = exempt
        self.tried = 0
        self.refusals: list[str] = []


attempt: ContextVar[Attempt] = ContextVar("bulletproof_fetch_attempt")


class Guard:
    """Says which addresses may be fetched, and makes sockets to no others; see ``Fetcher`` for what it is given."""

    def __init__(self, allow_hosts: Iterable[str] = (), allow_ports: Iterable[int] = (80, 443)) -> None:
        self.ports = frozenset(allow_ports)
        self._hosts: set[tuple[str, int | None]] = set()
        self._suffixes: list[tuple[str, int | None]] = []
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in [allow_hosts] if isinstance(allow_hosts, str) else allow_hosts:
            self._add(entry.strip())
        for port in self.ports:
            if not 0 < port < 65536:
                raise ConfigurationError(f"allow_ports: {port!r} is not a port, a number from 1 to 65535")

    def _add(self, entry: str) -> None:
        try:
            if "/" in entry:
                self._networks.append(ip_network(entry, strict=False))
                return
            wild, name = (match[1], match[2]) if (match := _HOST.fullmatch(entry)) else (None, "")
            bare = f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name
            found = parse(f"http://{bare}/")
        except (ValueError, InputValidationError) as error:
            raise ConfigurationError(
                f"allow_hosts: {shown(entry)!r} is none of host, host:port, *.domain and network ({error})"
            ) from error
        port = found.port if re.search(r"[^:]:\d+$|\]:\d+$", bare) else None
        if wild:
            self._suffixes.append((f".{found.host}", port))
        else:
            self._hosts.add((found.host, port))

    def exempt(self, address: Address) -> bool:
        """Whether it is on the list of exceptions."""
        host, port = address.host, address.port
        return (
            bool(self._hosts.intersection({(host, None), (host, port)}))
            or any(host.endswith(suffix) and only in (None, port) for suffix, only in self._suffixes)
            or self._in_network(host)
        )

    def _in_network(self, address: str) -> bool:
        found = _plain(address) if self._networks else None
        return found is not None and any(found in network for network in self._networks)

    def check(self, address: Address) -> bool:
        """Refuse what can be refused before a name is resolved; whether the address is on the list of exceptions."""
        if self.exempt(address):
            return True
        # A name may lead into a network on the list, where any port will do: the socket will tell.
        if address.port not in self.ports and not self._networks:
            raise self.error(address, f"port {address.port} is not among the allowed {sorted(self.ports)}")
        why = None if _plain(address.host) is None else why_refused(address.host)
        if why is not None:
            raise self.error(address, f"{address.host} is {why}")
        return False

    @staticmethod
    def error(address: Address, why: str) -> InputValidationError:
        """The error for an address that must not be fetched."""
        hint = "Use a public http or https address, or allow the host (BULLETPROOF_FETCH_ALLOW_HOSTS)."
        return InputValidationError(
            f"{address.site} must not be fetched: {why}", code="blocked_url", hint=hint, url=shown(address)
        )

    def socket(self, info: tuple[Any, ...]) -> socket.socket:
        """Make a socket for an address from ``getaddrinfo``, or refuse: aiohttp's ``socket_factory``."""
        family, kind, protocol, _, (ip, port, *_) = info
        current = attempt.get()
        if not current.exempt and not self._in_network(ip):
            why = why_refused(ip)
            if why is None and port not in self.ports:
                why = f"on port {port}, which is not among the allowed {sorted(self.ports)}"
            if why is not None:
                current.refusals.append(f"{ip} is {why}")
                raise OSError(errno.EACCES, f"{ip} is {why}")
        current.tried += 1
        return socket.socket(family, kind, protocol)
