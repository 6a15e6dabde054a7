"""What a socket can do and a `trio.abc.Stream` cannot say: peek, keep-alive, abort.

Each helper finds the socket under pushed-back bytes and TLS by itself, and does without one where there
is none (memory streams in tests).
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Protocol, cast, runtime_checkable

import trio

from trioproxy.net.plain import PlainStream
from trioproxy.net.prefixed import PrefixedStream

KEEPALIVE_IDLE = 60
"""Seconds of silence before the first TCP keep-alive probe."""
KEEPALIVE_INTERVAL = 30
"""Seconds between probes."""
KEEPALIVE_COUNT = 8
"""Unanswered probes after which the peer is gone."""
USER_TIMEOUT = KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_COUNT
"""Seconds that sent bytes may stay unacknowledged, or unsent before a window that stays closed.

Linux lets TCP_USER_TIMEOUT override the probe count, so both say the same: five minutes. Much less would
cut peers that live but do not read (a paused download), which is `timeouts.stall`'s to decide.
"""

_READABLE = select.POLLIN | select.POLLERR | select.POLLHUP | select.POLLRDHUP | select.POLLNVAL


AnySocket = trio.socket.SocketType | socket.socket


@runtime_checkable
class _Peekable(Protocol):
    def readable_now(self) -> bool: ...


@runtime_checkable
class _Resettable(Protocol):
    def reset(self) -> None: ...


def _layers(stream: trio.abc.AsyncResource) -> Iterator[trio.abc.AsyncResource]:
    """The stream, and what lies under it, outermost first."""
    while True:
        yield stream
        if isinstance(stream, PrefixedStream):
            stream = stream.inner
        elif isinstance(stream, trio.SSLStream):
            stream = cast(trio.SSLStream[trio.abc.Stream], stream).transport_stream
        else:
            return


def socket_of(stream: trio.abc.AsyncResource) -> AnySocket | None:
    """The socket under the stream, or None when it has none."""
    for layer in _layers(stream):
        if isinstance(layer, PlainStream):
            return layer.sock
        if isinstance(layer, trio.SocketStream):
            return layer.socket
    return None


def is_readable(stream: trio.abc.Stream) -> bool:
    """Ask `readable_probe` once."""
    return readable_probe(stream)()


def readable_probe(stream: trio.abc.Stream) -> Callable[[], bool]:
    """A question to ask of an idle stream: would a read not wait? That means its end, or bytes nobody asked for.

    It never blocks and consumes nothing. A closed stream is readable. A stream that is no socket is asked by
    its method `readable_now() -> bool`, if it has one. Under TLS the answer may be a false yes (a session
    ticket came in), which costs a connection and never a response. Made once per connection, because looking
    for the socket costs more than the question.
    """
    tests: list[Callable[[], bool]] = []
    for layer in _layers(stream):
        if isinstance(layer, PrefixedStream):
            tests.append(_prefix_test(layer))
        elif isinstance(layer, trio.SSLStream):
            tests.append(_tls_test(cast("trio.SSLStream[trio.abc.Stream]", layer)))
        elif isinstance(layer, PlainStream):
            tests.append(_socket_test(layer.sock))
        elif isinstance(layer, trio.SocketStream):
            tests.append(_socket_test(layer.socket))
        elif isinstance(layer, _Peekable):
            tests.append(layer.readable_now)
    return tests[0] if len(tests) == 1 else lambda: any(test() for test in tests)


def _prefix_test(stream: PrefixedStream) -> Callable[[], bool]:
    return lambda: stream.pending > 0


def _tls_test(stream: trio.SSLStream[trio.abc.Stream]) -> Callable[[], bool]:
    return lambda: bool(stream.pending() > 0)


def _socket_test(sock: AnySocket) -> Callable[[], bool]:
    if sock.fileno() < 0:
        return lambda: True
    poll = select.poll()  # not select(): it knows no descriptor above 1023
    poll.register(sock.fileno(), _READABLE)
    # A closed socket has no descriptor; its old number may belong to another one by now.
    return lambda: sock.fileno() < 0 or bool(poll.poll(0))


def _is_tcp(sock: AnySocket) -> bool:
    return sock.family in (socket.AF_INET, socket.AF_INET6)


def set_keepalive(stream: trio.abc.Stream) -> None:
    """Notice a vanished peer within about `USER_TIMEOUT` seconds, idle or not. TCP only."""
    sock = socket_of(stream)
    if sock is None or not _is_tcp(sock):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT * 1000)  # in milliseconds


async def abort(stream: trio.abc.Stream) -> None:
    """End the connection so that the peer sees a failure: TCP reset, and no TLS close_notify.

    A checkpoint that does not wait. Bytes still in the kernel's buffers are dropped. A stream that is no socket
    is told by its method `reset()`, if it has one.
    """
    sock = socket_of(stream)
    if sock is not None and sock.fileno() >= 0 and _is_tcp(sock):
        # Linger for zero seconds: close() then sends RST instead of FIN.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for layer in _layers(stream):
        if isinstance(layer, _Resettable):
            layer.reset()
    await trio.aclose_forcefully(stream)  # a cancelled aclose of TLS says no close_notify
