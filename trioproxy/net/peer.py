"""Who is at the other end of a client connection."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import cast

import trio

from trioproxy.net.stream import socket_of

Address = tuple[str, int]
"""(host, port), without brackets or scope; ("unix", 0) where there is no such thing."""
UNIX: Address = ("unix", 0)


@dataclass(frozen=True, slots=True)
class Peer:
    """A client, as the socket or the PROXY header tells it, and the way it came in."""

    host: str
    port: int
    local_host: str
    local_port: int
    listener: str
    tls: bool
    server_name: str | None  # SNI, as sent

    @property
    def address(self) -> str:
        """How logs write the client: "1.2.3.4:567", "[::1]:567" or "unix"."""
        if (self.host, self.port) == UNIX:
            return "unix"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def plain_host(host: str) -> str:
    """An IP address the way trusted networks and logs know it: IPv4 out of ::ffff:0:0/96, and no scope."""
    if ":" not in host:
        return host
    address = IPv6Address(host.partition("%")[0])
    return str(address.ipv4_mapped or address)


def socket_addresses(stream: trio.abc.Stream) -> tuple[Address, Address]:
    """(remote, local) of the socket under the stream. Raises OSError when the peer is already gone."""
    sock = socket_of(stream)
    if sock is None:
        return UNIX, UNIX
    return _address(sock.getpeername()), _address(sock.getsockname())


def _address(name: object) -> Address:
    if not isinstance(name, tuple):  # AF_UNIX: a path, empty for a client
        return UNIX
    host, port = cast(tuple[str, int], name[:2])  # AF_INET6 has two more
    return plain_host(host), port
