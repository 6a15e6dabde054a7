"""A WebSocket server that sends every message back, as fast as Python can."""

from __future__ import annotations

import hashlib
import re
import socket
from base64 import b64encode

from bench.load.loop import Loop

_KEY = re.compile(rb"(?i)\r\nsec-websocket-key: *([^\r]+)\r\n")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_CLOSE = 0x8
_PING = 0x9
_PONG = 0xA


def accept_key(key: bytes) -> bytes:
    """Sec-WebSocket-Accept for a key."""
    return b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


class EchoServer:
    """Listens on a port of 127.0.0.1 inside a loop."""

    def __init__(self, loop: Loop, port: int) -> None:
        self._loop = loop
        self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self._listener.setblocking(False)
        loop.add(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.add(sock.fileno(), _Connection(self._loop, sock).readable)


class _Connection:
    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        self._data = b""
        self._open = False

    def readable(self) -> None:
        try:
            data = self._sock.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self._end()
            return
        self._data += data
        if not self._open:
            self._handshake()
        while self._open and (frame := self._take_frame()):
            self._answer(*frame)

    def _handshake(self) -> None:
        head, separator, rest = self._data.partition(b"\r\n\r\n")
        if not separator:
            return
        key = _KEY.search(head + b"\r\n")
        if key is None:
            self._sock.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self._end()
            return
        self._sock.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(key[1]) + b"\r\n\r\n"
        )
        self._data = rest
        self._open = True

    def _take_frame(self) -> tuple[int, bytes] | None:
        """First byte and unmasked payload of the next frame; None while it is not complete."""
        data = self._data
        if len(data) < 6:
            return None
        length = data[1] & 0x7F  # the masking bit is set: it comes from a client (RFC 6455 §5.1)
        assert length < 126, "messages are short here"
        end = 6 + length
        if len(data) < end:
            return None
        key = data[2:6] * (length // 4 + 1)
        payload = int.from_bytes(data[6:end]) ^ int.from_bytes(key[:length])
        self._data = data[end:]
        return data[0], payload.to_bytes(length)

    def _answer(self, first: int, payload: bytes) -> None:
        opcode = first & 0xF
        if opcode == _PONG:
            return
        if opcode == _PING:
            first = 0x80 | _PONG
        self._sock.send(bytes((first, len(payload))) + payload)
        if opcode == _CLOSE:
            self._end()

    def _end(self) -> None:
        self._open = False
        self._loop.remove(self._sock.fileno())
        self._sock.close()
