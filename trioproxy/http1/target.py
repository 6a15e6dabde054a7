"""What a request is addressed to: its target and its host (RFC 9112 §3.2)."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address

from trioproxy.errors import BadRequest

_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
# RFC 3986 §3.2: reg-name or IPv4 (unreserved, sub-delims, escapes), or a bracketed IP literal, and a port.
_HOST = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2}){1,255})(?::[0-9]{0,5})?"
)
_HEX_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


@lru_cache(maxsize=1024)
def valid_host(value: bytes) -> bool:
    """Whether a Host field value or authority is a host with an optional port (RFC 3986 §3.2)."""
    found = _HOST.fullmatch(value)
    return found is not None and (found[1] is None or _is_ipv6(found[1]))


def bad_escape(path: bytes) -> bool:
    """Whether a "%" is not followed by two hex digits."""
    return _HEX_ESCAPE.search(path) is not None


def _is_ipv6(literal: bytes) -> bool:
    try:
        IPv6Address(literal.decode("ascii"))
    except ValueError:
        return False
    return True


def split_target(method: bytes, target: bytes, hosts: list[bytes], *, http11: bool) -> tuple[bytes, bytes, bytes]:
    """Path, query with its "?", and authority. `hosts` are the values of the Host fields. Raises BadRequest."""
    if len(hosts) > 1 or (http11 and not hosts):
        raise BadRequest("a request has exactly one Host field")
    authority = hosts[0] if hosts else b""
    if hosts and not valid_host(authority):
        raise BadRequest("the Host field is not a host name with an optional port")
    if b"#" in target:
        raise BadRequest("the target has a fragment")
    if target == b"*":
        if method != b"OPTIONS":
            raise BadRequest('the target "*" is for OPTIONS only')
        return b"*", b"", authority
    if not target.startswith(b"/"):
        authority, target = _split_absolute(method, target, authority)
    path, mark, query = target.partition(b"?")
    return path, mark + query, authority


def _split_absolute(method: bytes, target: bytes, host: bytes) -> tuple[bytes, bytes]:
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        raise BadRequest("the target is neither a path nor an http URL")
    authority, rest = found.groups()
    # RFC 9112 §3.2.2 lets the authority win over a different Host; a proxy in front that thinks otherwise
    # makes that a way around its rules, so a difference is refused.
    if host and authority.lower() != host.lower():
        raise BadRequest("the target's authority differs from Host")
    if not valid_host(authority):
        raise BadRequest("the target's authority is not a host name with an optional port")
    authority = host or authority
    if not rest and method == b"OPTIONS":
        return authority, b"*"  # RFC 9112 §3.2.4
    return authority, rest if rest.startswith(b"/") else b"/" + rest
