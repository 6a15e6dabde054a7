"""Who the client is, and what the backend is told about it (X-Forwarded-*; RFC 7239 for what is read).

The rule: only a peer inside the trusted networks is believed. X-Forwarded-For, or else Forwarded, is walked from the
right through trusted addresses to the first one that is not; that is the client, and whatever stands left of it was
written by the client itself and is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from trioproxy.http1.target import valid_host

Address = IPv4Address | IPv6Address
Networks = Sequence[IPv4Network | IPv6Network]
MAX_HOPS = 32

_PORT = re.compile(rb"0*[1-9][0-9]{0,4}")
# An encoded path without a query, and not "//host" or "/\host", to which browsers would go from a redirect.
_PREFIX = re.compile(rb"(?:/[!$-.0-;=@-Z_a-z~]+){1,16}")


@dataclass(frozen=True, slots=True)
class Origin:
    """The client and the address it used, as far as they can be believed."""

    client: str  # IP address without port
    chain: tuple[str, ...]  # what X-Forwarded-For says to the backend: the client, then trusted proxies
    scheme: str  # "http" or "https"
    host: bytes  # Host as the client sent it
    port: int
    prefix: bytes = b""  # what a trusted proxy in front stripped from the path


@dataclass(frozen=True, slots=True)
class _Claim:
    """What one proxy on the way says of who connected to it; empty where it says nothing."""

    address: str
    scheme: bytes = b""
    host: bytes = b""


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address | None:
    """An IP address, also "1.2.3.4:567", "[::1]" and "[::1]:567"; None when it is none. IPv4-mapped becomes IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def inside(address: Address | None, networks: Networks) -> bool:
    """Whether the address lies in one of the networks."""
    return address is not None and any(address in network for network in networks)


def find_origin(
    peer: str,
    special: Mapping[bytes, list[bytes]],
    *,
    tls: bool,
    authority: bytes,
    trusted: Networks,
    local_peer: bool = False,
) -> Origin:
    """Work out the origin of a request.

    `peer` is the address of the connection's other end; `special` holds the head's fields that claim something.
    `local_peer`: it came over a unix socket, whose file permissions say who may connect, so it is trusted.
    """
    scheme = "https" if tls else "http"
    address = parse_address(peer)
    peer_text = str(address) if address is not None else "127.0.0.1"
    if not (local_peer or inside(address, trusted)):
        return Origin(peer_text, (peer_text,), scheme, authority, _port(authority, scheme))
    claim, walked = _walk(_claims(special), trusted)
    client = walked[0] if walked else peer_text
    chain = (peer_text,) if walked in ([], [peer_text]) else (*walked, peer_text)
    claimed_scheme = (_last(special, b"x-forwarded-proto") or claim.scheme).lower()
    if claimed_scheme in (b"http", b"https", b"ws", b"wss"):
        scheme = "https" if claimed_scheme in (b"https", b"wss") else "http"
    claimed_host = _last(special, b"x-forwarded-host") or claim.host
    host = claimed_host if claimed_host and valid_host(claimed_host) else authority
    claimed_port = _last(special, b"x-forwarded-port")
    port = int(claimed_port) if _PORT.fullmatch(claimed_port) else _port(host, scheme)
    claimed_prefix = _last(special, b"x-forwarded-prefix").rstrip(b"/")
    prefix = claimed_prefix if _PREFIX.fullmatch(claimed_prefix) else b""
    return Origin(client, chain, scheme, host, port, prefix)


def _last(special: Mapping[bytes, list[bytes]], name: bytes) -> bytes:
    """The last element of a list field: what the proxy next to us wrote."""
    lines = special.get(name)
    return lines[-1].rpartition(b",")[2].strip() if lines else b""


def _claims(special: Mapping[bytes, list[bytes]]) -> list[_Claim]:
    """What is claimed, the proxy next to us last."""
    lists = special.get(b"x-forwarded-for")
    if lists:
        return [_Claim(item) for line in lists for item in line.decode("latin-1").split(",")][-MAX_HOPS:]
    # Split at every comma, quoted or not: a trusted proxy quotes none, and a quotation mark that the client left
    # open must not swallow what the proxies wrote behind it.
    return [_element(item) for line in special.get(b"forwarded", []) for item in line.split(b",")][-MAX_HOPS:]


def _element(element: bytes) -> _Claim:
    """One element of Forwarded (RFC 7239 §4)."""
    found: dict[bytes, bytes] = {}
    for pair in element.split(b";"):
        name, _, value = pair.partition(b"=")
        found[name.strip().lower()] = value.strip().strip(b'"')
    return _Claim(found.get(b"for", b"").decode("latin-1"), found.get(b"proto", b""), found.get(b"host", b""))


def _walk(claims: list[_Claim], trusted: Networks) -> tuple[_Claim, list[str]]:
    """The claim about the client, and the addresses from it to the one that connected to our peer."""
    walked: list[str] = []
    believed = _Claim("")
    for claim in reversed(claims):
        believed = claim  # a trusted proxy wrote it: our peer, or the one the last step led to
        address = parse_address(claim.address)
        if address is None:
            # "unknown" or junk: whoever wrote it did not tell us who came before, so the last known one is it.
            break
        walked.insert(0, str(address))
        if not inside(address, trusted):
            break
    return believed, walked


def _port(authority: bytes, scheme: str) -> int:
    host, colon, port = authority.rpartition(b":")
    if colon and port.isdigit() and not host.endswith(b":"):
        return int(port)
    return 443 if scheme == "https" else 80
