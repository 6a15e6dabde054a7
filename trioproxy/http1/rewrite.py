"""Mapping what a backend says about its own root to where clients see it, when a route strips its prefix.

A backend at the stripped root answers `Location: /login`; for the client that is `/<session>/<service>/login`.
A value that already carries the prefix is left alone: the backend has read X-Forwarded-Prefix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from trioproxy.http1.fields import Field, Fields

MAPPED = frozenset({b"location", b"content-location", b"refresh", b"set-cookie"})
_URL = re.compile(rb"((?:[hH][tT][tT][pP][sS]?:)?//)([^/?#]*)(.*)", re.DOTALL)
# The seconds, a separator, maybe "url=". Possessive, since a backend must not be able to make it look back for long.
_REFRESH = re.compile(rb"[0-9.]*+(?:[ \t]*+[;,]|[ \t])[ \t]*+(?:[uU][rR][lL][ \t]*+=[ \t]*+)?+")
_COOKIE_PATH = re.compile(rb"(;[ \t]*[pP][aA][tT][hH][ \t]*=[ \t]*)(/[^;]*)")


@dataclass(frozen=True, slots=True)
class Mapping:
    """One route's mapping. All values as on the wire."""

    prefix: bytes  # stripped from the path; without trailing slash, may be empty (addressed by host name)
    host: bytes  # Host the backend got
    backend: bytes  # the backend's own host:port

    def fields(self, fields: Fields) -> Fields:
        """The response's fields, mapped."""
        return [self._field(field) if field[0] in MAPPED else field for field in fields]

    def _field(self, field: Field) -> Field:
        lower, name, value = field
        if lower == b"set-cookie":
            return (lower, name, self.cookie(value))
        if lower == b"refresh":
            return (lower, name, self.refresh(value))
        return (lower, name, self.url(value))

    def path(self, path: bytes) -> bytes:
        """An absolute path below the backend's root, as the client sees it."""
        if path.startswith(self.prefix) and path[len(self.prefix) : len(self.prefix) + 1] in (b"", b"/", b"?", b"#"):
            return path
        return self.prefix + path

    def url(self, value: bytes) -> bytes:
        """A URL reference (RFC 3986 §4.1). Other hosts and relative paths stay as they are."""
        if value.startswith(b"/") and not value.startswith(b"//"):
            return self.path(value)
        found = _URL.fullmatch(value)
        if found is None:
            return value
        start, authority, rest = found.groups()
        if authority.lower() in (self.backend.lower(), self._hybrid()):
            # The backend named itself by an address that clients cannot reach; the path alone will do, unless it
            # would read as a host.
            mapped = self.path(rest if rest.startswith(b"/") else b"/" + rest)
            return b"//" + self.host + mapped if mapped.startswith(b"//") else mapped
        if authority.lower() == self.host.lower():
            return start + authority + self.path(rest if rest.startswith(b"/") else b"/" + rest)
        return value

    def _hybrid(self) -> bytes:
        """What a server calls itself that takes its name from Host and its port from its socket, as nginx does."""
        name = re.sub(rb":[0-9]*\Z", b"", self.host)
        return (name + b":" + self.backend.rpartition(b":")[2]).lower()

    def refresh(self, value: bytes) -> bytes:
        """Map the URL in a Refresh field, which browsers read as HTML's `<meta http-equiv=refresh>`."""
        found = _REFRESH.match(value)
        if found is None:
            return value
        start, target = found[0], value[found.end() :]
        quote = target[:1]
        if quote not in (b'"', b"'"):
            return start + self.url(target)
        target, closing, rest = target[1:].partition(quote)
        return start + quote + self.url(target) + closing + rest

    def cookie(self, value: bytes) -> bytes:
        """A Set-Cookie field, its Path mapped; should there be several, browsers take the last one."""
        if value[:7].lower() == b"__host-":
            return value  # RFC 6265bis §4.1.3.2: valid with Path=/ only, the browser would drop it
        return _COOKIE_PATH.sub(lambda found: found[1] + self.path(found[2]), value)
