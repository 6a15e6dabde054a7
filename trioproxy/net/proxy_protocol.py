"""The PROXY protocol, versions 1 and 2, without I/O: who a load balancer says is at the other end.

Source: haproxy.org/download/3.0/doc/proxy-protocol.txt (sections cited below).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

V1_MAX_BYTES = 107
"""The longest possible version 1 line, CRLF included (§2.1)."""
V2_MAX_BYTES = 16 + 8192
"""The longest version 2 header taken: its fixed part, addresses and TLVs. The format would allow 64 KiB."""
HEADER_MAX_BYTES = V2_MAX_BYTES

_V1_SIGNATURE = b"PROXY "
_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED_BYTES = 16
_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")
_LOCAL, _PROXY = 0, 1
_UNSPEC, _INET, _INET6, _UNIX = range(4)
_ADDRESS_BYTES = {_INET: 12, _INET6: 36, _UNIX: 216}


class MalformedHeader(ValueError):
    """What came is no PROXY header, now or with more bytes. The connection must end (§2)."""


@dataclass(frozen=True, slots=True)
class NeedMore:
    """The bytes so far begin a header. At least `missing` more are wanted."""

    missing: int


@dataclass(frozen=True, slots=True)
class Header:
    """A whole header. Addresses are (host, port), ("unix", 0), or None where the socket's own ones stand."""

    source: tuple[str, int] | None
    destination: tuple[str, int] | None
    size: int  # bytes it took; what follows belongs to the connection


def parse(data: bytes) -> NeedMore | Header:
    """Read the header at the start of `data`. Raises MalformedHeader as soon as it cannot become one.

    Never asks for more than `HEADER_MAX_BYTES` in total.
    """
    if data[: len(_V1_SIGNATURE)] == _V1_SIGNATURE[: len(data)]:
        return _parse_v1(data)
    if data[: len(_V2_SIGNATURE)] == _V2_SIGNATURE[: len(data)]:
        return _parse_v2(data)
    raise MalformedHeader("no PROXY protocol signature")


def _parse_v1(data: bytes) -> NeedMore | Header:
    end = data.find(b"\r\n", 0, V1_MAX_BYTES)
    if end < 0:
        if len(data) >= V1_MAX_BYTES:
            raise MalformedHeader(f"version 1 line longer than {V1_MAX_BYTES} bytes")
        return NeedMore(1 if data.endswith(b"\r") else 2)
    fields = data[len(_V1_SIGNATURE) : end].split(b" ")
    size = end + 2
    if fields[0] == b"UNKNOWN":  # §2.1: the rest of the line is to be ignored
        return Header(None, None, size)
    if fields[0] not in (b"TCP4", b"TCP6") or len(fields) != 5:
        raise MalformedHeader("version 1 line is not PROXY TCP4|TCP6 source destination port port")
    _, source, destination, source_port, destination_port = fields
    version = 4 if fields[0] == b"TCP4" else 6
    return Header(
        (_text_address(source, version), _text_port(source_port)),
        (_text_address(destination, version), _text_port(destination_port)),
        size,
    )


def _text_address(text: bytes, version: int) -> str:
    try:
        address = IPv4Address(text.decode("ascii")) if version == 4 else IPv6Address(text.decode("ascii"))
    except ValueError:  # UnicodeDecodeError is one
        raise MalformedHeader(f"version 1 line has no IPv{version} address where one belongs") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise MalformedHeader("version 1 line has an IPv6 address with a scope")
    return str(address)


def _text_port(text: bytes) -> int:
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise MalformedHeader("version 1 line has no port where one belongs")
    return int(text)


def _parse_v2(data: bytes) -> NeedMore | Header:
    if len(data) < _V2_FIXED_BYTES:
        return NeedMore(_V2_FIXED_BYTES - len(data))
    version, command = data[12] >> 4, data[12] & 0x0F
    family, transport = data[13] >> 4, data[13] & 0x0F
    length = int.from_bytes(data[14:16], "big")
    size = _V2_FIXED_BYTES + length
    if version != 2 or command not in (_LOCAL, _PROXY):
        raise MalformedHeader("version 2 header has an unknown version or command")
    if family > _UNIX or transport > 2:
        raise MalformedHeader("version 2 header has an unknown address family or transport")
    if size > V2_MAX_BYTES:
        raise MalformedHeader(f"version 2 header longer than {V2_MAX_BYTES} bytes")
    # §2.2: LOCAL is the proxy's own connection (a health check), UNSPEC an unknown one; both carry no address.
    if command == _LOCAL or family == _UNSPEC:
        return NeedMore(size - len(data)) if len(data) < size else Header(None, None, size)
    if length < _ADDRESS_BYTES[family]:
        raise MalformedHeader("version 2 header is too short for its addresses")
    if len(data) < size:
        return NeedMore(size - len(data))
    source, destination = _binary_addresses(family, data[_V2_FIXED_BYTES:size])
    return Header(source, destination, size)


def _binary_addresses(family: int, block: bytes) -> tuple[tuple[str, int], tuple[str, int]]:
    if family == _UNIX:  # two paths of 108 bytes, which name no client
        return ("unix", 0), ("unix", 0)
    if family == _INET:
        source, destination, ports = str(IPv4Address(block[0:4])), str(IPv4Address(block[4:8])), block[8:12]
    else:
        source, destination, ports = str(IPv6Address(block[0:16])), str(IPv6Address(block[16:32])), block[32:36]
    return (source, int.from_bytes(ports[:2], "big")), (destination, int.from_bytes(ports[2:], "big"))
