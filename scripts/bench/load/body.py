"""A client for one large body, in a process of its own.

    python -m bench.load.body download --connect PORT --path PATH --bytes N [--times N] [--verify]
    python -m bench.load.body upload --connect PORT --path PATH --bytes N

Prints bytes and seconds as JSON. An upload is chunked. Without `--verify` a download is only counted, not looked at.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import socket
import time

from bench.backends.bodies import BLOCK_BYTES, CHUNKED_BLOCK, LAST_CHUNK, digest_of
from bench.errors import BenchError

_BUFFER = bytearray(1024 * 1024)


def download(port: int, path: str, size: int) -> None:
    """Read an answer to its end and count its bytes. Raises BenchError when there are too few."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        count = sock.recv_into(_BUFFER)
        start = bytes(_BUFFER[:1024])
        total = 0
        tail = b""
        while count:
            total += count
            tail = bytes(_BUFFER[max(0, count - 5) : count])
            count = sock.recv_into(_BUFFER)
    chunked = b"chunked" in start.lower()
    head, _, _ = start.partition(b"\r\n\r\n")
    whole = total >= size and tail.endswith(LAST_CHUNK[-len(tail) :]) if chunked else total == len(head) + 4 + size
    if not start.startswith(b"HTTP/1.1 200 ") or not whole:
        raise BenchError(f"a body of {size} bytes came as {total} bytes with head and framing: {head!r}")


def verified_download(port: int, path: str, size: int) -> None:
    """Read an answer and check its every byte. Raises BenchError."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", path)
    response = connection.getresponse()
    digest = hashlib.sha256()
    total = 0
    while piece := response.read(BLOCK_BYTES):
        digest.update(piece)
        total += len(piece)
    connection.close()
    if response.status != 200 or total != size or digest.hexdigest() != digest_of(size):
        raise BenchError(f"status {response.status}, and {total} bytes that are not the {size} that were sent")


def upload(port: int, path: str, size: int) -> None:
    """Send a chunked body and check that it arrived. Raises BenchError."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(
            f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n".encode()
            + b"Connection: close\r\n\r\n"
        )
        for _ in range(size // BLOCK_BYTES):
            sock.sendall(CHUNKED_BLOCK)
        sock.sendall(LAST_CHUNK)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    if not answer.startswith(b"HTTP/1.1 200 ") or digest_of(size).encode() not in answer:
        raise BenchError(f"the upload did not arrive as it was sent: {answer[-200:]!r}")


def main() -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["download", "upload"])
    parser.add_argument("--connect", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--verify", action="store_true")
    arguments = parser.parse_args()
    carry = upload if arguments.what == "upload" else verified_download if arguments.verify else download
    began = time.perf_counter()
    for _ in range(arguments.times):
        carry(arguments.connect, arguments.path, arguments.bytes)
    print(json.dumps({"bytes": arguments.bytes * arguments.times, "seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
