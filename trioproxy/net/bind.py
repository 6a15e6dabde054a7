"""Listening sockets, from the addresses people write in the configuration."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from trioproxy.config.schema import ListenerConfig

BACKLOG = 4096
"""Connections the kernel holds before we accept them; it caps this at net.core.somaxconn."""
UNIX_MODE = 0o660


class BindError(OSError):
    """No listening socket could be had. Its text is one sentence that names the address."""

    def __init__(self, bind: str, number: int | None, reason: str) -> None:
        super().__init__(number, f"cannot listen on {bind}: {reason}")

    def __str__(self) -> str:
        return str(self.strerror)


def bind_listener(bind: str) -> socket.socket:
    """Open a listening socket for "host:port", "[v6]:port", "unix:/path" or "fd:N" (adopted as it is).

    "[::]" takes IPv4 too. A stale unix socket file is replaced; one that somebody listens on, or a file of
    another kind, is left alone. Blocks for a name that has to be looked up. Raises BindError, an OSError.
    """
    try:
        if bind.startswith("unix:"):
            return _bind_unix(Path(bind.removeprefix("unix:")))
        if bind.startswith("fd:"):
            return _adopt(int(bind.removeprefix("fd:")))
        return _bind_tcp(bind)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise BindError(bind, exc.errno, reason[:1].lower() + reason[1:]) from exc


def url_of(config: ListenerConfig, sock: socket.socket) -> str:
    """What to show people: "https://127.0.0.1:5050" with the real port, or "unix:/path"."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"{'http' if config.tls == 'off' else 'https'}://{host}:{name[1]}"


def _bind_tcp(bind: str) -> socket.socket:
    host, _, port = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "0.0.0.0"  # noqa: S104 - ":5050" is all of IPv4
    found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_unix(path: Path) -> socket.socket:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(sock.fileno(), UNIX_MODE)  # the file is made with this mode less the umask: never wider
        sock.bind(str(path))
        path.chmod(UNIX_MODE)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    """Remove a socket file nobody listens on. Raises OSError when what is there must stay."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "there is a file of that name, and it is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        refused = probe.connect_ex(str(path))
    if refused != errno.ECONNREFUSED:  # 0 = accepted, EAGAIN = its backlog is full, else we cannot tell
        raise OSError(errno.EADDRINUSE, "another process listens there")
    with suppress(FileNotFoundError):
        path.unlink()


def _adopt(number: int) -> socket.socket:
    sock = socket.socket(fileno=number)
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()  # it stays its owner's
        raise OSError(errno.EINVAL, "that descriptor is no listening stream socket")
    sock.set_inheritable(False)
    return sock
