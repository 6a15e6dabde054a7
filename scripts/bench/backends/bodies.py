"""A server of large bodies, from memory: GET /length/N and GET /chunked/N send N bytes, PUT answers with the SHA-256
of what it got. One thread per connection; a path may have anything in front.

    python -m bench.backends.bodies PORT
"""

from __future__ import annotations

import hashlib
import random
import re
import socket
import sys
import threading
from collections.abc import Iterator
from functools import lru_cache
from io import BufferedReader

BLOCK_BYTES = 1024 * 1024
CHUNK_BYTES = 64 * 1024
BLOCK = random.Random(20).randbytes(BLOCK_BYTES)  # a body is this, over and over
CHUNKED_BLOCK = b"".join(
    b"%x\r\n%b\r\n" % (CHUNK_BYTES, BLOCK[start : start + CHUNK_BYTES]) for start in range(0, BLOCK_BYTES, CHUNK_BYTES)
)
LAST_CHUNK = b"0\r\n\r\n"
_GET = re.compile(rb"GET \S*/(length|chunked)/(\d+) HTTP/1\.[01]\r\n")
_PUT = re.compile(rb"PUT \S+ HTTP/1\.1\r\n")
_CLOSE = re.compile(rb"(?i)\r\nconnection: *close\r\n")
_LENGTH = re.compile(rb"(?i)content-length:\s*(\d+)\r\n")


@lru_cache(maxsize=4)
def digest_of(size: int) -> str:
    """SHA-256 of a body of so many bytes, a multiple of `BLOCK_BYTES`."""
    digest = hashlib.sha256()
    for _ in range(size // BLOCK_BYTES):
        digest.update(BLOCK)
    return digest.hexdigest()


def serve(sock: socket.socket) -> None:
    """Answer requests on one connection until it ends."""
    with sock, sock.makefile("rb") as reader:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while head := _read_head(reader):
                _answer(sock, reader, head)
                if _CLOSE.search(head):
                    return
        except ConnectionError:
            return  # a client or proxy that has had enough


def _read_head(reader: BufferedReader) -> bytes:
    return b"".join(iter(reader.readline, b"\r\n")) if reader.peek(1) else b""


def _answer(sock: socket.socket, reader: BufferedReader, head: bytes) -> None:
    if found := _GET.match(head):
        _send(sock, int(found[2]), chunked=found[1] == b"chunked")
        return
    assert _PUT.match(head), head
    if b"100-continue" in head:
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    digest = hashlib.sha256()
    for piece in _body(reader, head):
        digest.update(piece)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + digest.hexdigest().encode())


def _send(sock: socket.socket, size: int, *, chunked: bool) -> None:
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n" + framing + b"\r\n\r\n")
    for _ in range(size // BLOCK_BYTES):
        sock.sendall(CHUNKED_BLOCK if chunked else BLOCK)
    if chunked:
        sock.sendall(LAST_CHUNK)


def _body(reader: BufferedReader, head: bytes) -> Iterator[bytes]:
    if found := _LENGTH.search(head):
        yield from _exactly(reader, int(found[1]))
        return
    while size := int(reader.readline().partition(b";")[0], 16):
        yield from _exactly(reader, size)
        reader.readline()
    while reader.readline() != b"\r\n":
        pass


def _exactly(reader: BufferedReader, size: int) -> Iterator[bytes]:
    while size:
        piece = reader.read(min(size, BLOCK_BYTES))
        if not piece:
            raise ConnectionResetError("the body ended early")
        size -= len(piece)
        yield piece


def main() -> None:
    """Listen and serve until killed."""
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    main()
