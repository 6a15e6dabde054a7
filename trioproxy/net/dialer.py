"""Connecting to backends: TCP, unix sockets, and TLS on either."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from typing import cast

import trio

from trioproxy.errors import ConnectFailed, Overloaded, ProxyError
from trioproxy.net.exhausted import is_exhausted
from trioproxy.net.plain import PlainStream
from trioproxy.net.stream import set_keepalive
from trioproxy.net.tls import TlsStream, client_context, connect_tls, why_broken
from trioproxy.routing.route import Backend, BackendTls

Dialer = Callable[[Backend], Awaitable[trio.abc.HalfCloseableStream]]
"""Opens a connection to a backend, or raises ConnectFailed or Overloaded. Its caller holds the deadline."""

RETRY_AFTER = 1
"""Seconds; what a client is told when files or memory ran out."""

MAX_CONTEXTS = 64
"""TLS contexts kept: one per way of verifying that the routes' backends name."""


class _Unusable(Exception):
    """The backend cannot be reached this way; says why."""


async def dial(backend: Backend) -> trio.abc.HalfCloseableStream:
    """Connect to a backend, its TLS handshake included. `timeouts.connect` is the caller's scope to set.

    Names are resolved and their addresses tried side by side (RFC 8305). Raises ConnectFailed, whose text
    names the address and the reason and may be shown to clients; Overloaded when it is this process that has no
    file or memory left, for which the backend is not to blame. Cancelled, it leaves nothing open.
    """
    try:
        stream = await _connect(backend)
    except (OSError, UnicodeError, _Unusable) as exc:  # UnicodeError: a name that IDNA cannot encode
        raise _failure(exc, f"cannot connect to {_where(backend)}") from exc
    if not backend.tls:
        return stream
    try:
        try:
            return await _start_tls(stream, backend)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
    except (ValueError, trio.BrokenResourceError, _Unusable) as exc:  # ValueError: a name that cannot be SNI
        raise _failure(exc, f"TLS with {_where(backend)} failed") from exc


def _failure(exc: Exception, what: str) -> ProxyError:
    if is_exhausted(exc):
        return Overloaded("this worker has no files or memory left to reach a backend with", retry_after=RETRY_AFTER)
    return ConnectFailed(f"{what}: {_reason(exc)}")


async def _connect(backend: Backend) -> PlainStream:
    if backend.host.startswith("unix:"):
        stream = await trio.open_unix_socket(backend.host.removeprefix("unix:"))
    else:
        stream = await trio.open_tcp_stream(backend.host, backend.port)
    try:
        set_keepalive(stream)
        check_connected(stream.socket)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return PlainStream.adopt(stream)


def check_connected(sock: trio.socket.SocketType) -> None:
    """Raise OSError for two kinds of socket that look connected and are not.

    A unix socket whose listener's queue is full fails with EAGAIN, which trio takes for "in progress". And
    a TCP connection to a dead port of the ephemeral range on this host may get that very port for its own
    end, and meet itself (RFC 9293 §3.5, simultaneous open).
    """
    remote = sock.getpeername()
    if sock.family != trio.socket.AF_UNIX and remote == sock.getsockname():
        raise ConnectionRefusedError("connection refused")


async def _start_tls(stream: PlainStream, backend: Backend) -> TlsStream:
    tls = backend.tls if isinstance(backend.tls, BackendTls) else BackendTls()
    name = tls.server_name or (None if backend.host.startswith("unix:") else backend.host)
    if name is None and tls.verify:
        raise _Unusable("on a unix socket, tls.server_name must say which name to verify")
    context = await trio.to_thread.run_sync(_context, tls, abandon_on_cancel=True)
    return await connect_tls(stream, context, name)


def _context(tls: BackendTls) -> ssl.SSLContext:
    try:
        changed = Path(tls.ca_file).stat().st_mtime_ns if tls.ca_file else 0
        return _cached_context(tls.verify, tls.ca_file, changed)
    except OSError as exc:  # ssl.SSLError is one
        raise _Unusable(f"its tls.ca_file cannot be used ({_reason(exc)})") from exc


@lru_cache(maxsize=MAX_CONTEXTS)
def _cached_context(verify: bool, ca_file: str | None, _changed: int) -> ssl.SSLContext:
    # Kept because reading the system's CAs takes tens of milliseconds; a changed file is a new key.
    return client_context(verify=verify, ca_file=ca_file)


def _where(backend: Backend) -> str:
    if backend.host.startswith("unix:"):
        return backend.host
    return f"[{backend.host}]:{backend.port}" if ":" in backend.host else f"{backend.host}:{backend.port}"


def _reason(exc: BaseException) -> str:
    """Why, in words without paths or addresses of ours."""
    if isinstance(exc, trio.BrokenResourceError):
        return why_broken(exc)
    cause: object = exc.__cause__
    if isinstance(cause, ExceptionGroup):  # trio tried every address of the name
        tried = cast(ExceptionGroup[Exception], cause).exceptions
        return ", ".join(dict.fromkeys(_reason(inner) for inner in tried))
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or "TLS error").replace("_", " ").lower()
    if isinstance(exc, socket.gaierror):
        return str(exc.strerror).lower()
    if isinstance(exc, OSError) and exc.errno:
        return os.strerror(exc.errno).lower()  # trio puts the address into exc.strerror
    if isinstance(exc, ValueError):
        return "its name is not a valid host name"
    return str(exc)
