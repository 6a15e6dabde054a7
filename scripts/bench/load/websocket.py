"""WebSocket clients and the echo server behind the proxy, in one process: between two processes on one core, each
message would cost two more context switches.

    python -m bench.load.websocket ping-pong --connect PORT --path PATH --echo PORT --connections N --seconds S
    python -m bench.load.websocket hold --connect PORT --path PATH --echo PORT --connections N

`ping-pong` prints its figures as JSON. `hold` prints "open" when all are open, and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import sys
from base64 import b64encode

from bench.backends.echo import EchoServer, accept_key
from bench.errors import BenchError
from bench.load.loop import Loop

PAYLOAD_BYTES = 64
WARM_UP_SECONDS = 0.3
OPEN_SECONDS = 10.0
_BINARY = 0x82  # FIN and opcode 2 (RFC 6455 §5.2)
_MASKED = 0x80
_STATUS = re.compile(rb"HTTP/1\.1 101 ")
_ACCEPT = re.compile(rb"(?i)\r\nsec-websocket-accept: *([^\r]+)\r\n")


class Client:
    """One connection that sends a message, waits for it to come back, and sends it again."""

    def __init__(self, loop: Loop, port: int, path: str) -> None:
        payload = os.urandom(PAYLOAD_BYTES)
        key = os.urandom(4)
        mask = int.from_bytes(key * (PAYLOAD_BYTES // 4))
        masked = (int.from_bytes(payload) ^ mask).to_bytes(PAYLOAD_BYTES)
        self._message = bytes((_BINARY, _MASKED | PAYLOAD_BYTES)) + key + masked
        self._answer = bytes((_BINARY, PAYLOAD_BYTES)) + payload
        self._received = b""
        self._key = b64encode(os.urandom(16))
        self.round_trips = 0
        self.rounds_left = 1
        self.open = False
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(
            b"GET %b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Version: 13\r\n\r\n" % (path.encode(), port, self._key)
        )
        self.socket.setblocking(False)
        loop.add(self.socket.fileno(), self.readable)

    def readable(self) -> None:
        """Take what has come; send the next message when the last one is back. Raises BenchError."""
        data = self.socket.recv(4096)
        if data == self._answer and not self._received:  # nearly always
            self.round_trips += 1
            if self.rounds_left > self.round_trips:
                self.socket.send(self._message)
            return
        if not data:
            raise BenchError("the proxy closed a WebSocket")
        self._received += data
        if not self.open:
            self._finish_handshake()
        elif self._received == self._answer:
            self._received = b""
            self.round_trips += 1
            if self.rounds_left > self.round_trips:
                self.socket.send(self._message)
        elif not self._answer.startswith(self._received):
            raise BenchError(f"a message came back changed: {self._received!r}")

    def start(self, rounds: int) -> None:
        """Send the first of so many messages."""
        self.rounds_left = self.round_trips + rounds
        self.socket.send(self._message)

    def _finish_handshake(self) -> None:
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        accept = _ACCEPT.search(head + b"\r\n")
        if not _STATUS.match(head) or accept is None or accept[1] != accept_key(self._key) or rest:
            raise BenchError(f"the WebSocket handshake failed: {self._received!r}")
        self._received = b""
        self.open = True


def open_clients(loop: Loop, arguments: argparse.Namespace) -> list[Client]:
    """Open all connections, one after the other, and send one message over each. Raises BenchError."""
    clients: list[Client] = []
    for _ in range(arguments.connections):
        client = Client(loop, arguments.connect, arguments.path)
        clients.append(client)
        if not loop.run_until(lambda: clients[-1].open, seconds=OPEN_SECONDS):
            raise BenchError("a WebSocket was not opened in time")
        client.start(1)
        if not loop.run_until(lambda: clients[-1].round_trips == 1, seconds=OPEN_SECONDS):
            raise BenchError("a message did not come back in time")
    return clients


def ping_pong(arguments: argparse.Namespace) -> dict[str, float]:
    """Round trips in the measured time, that time in seconds, and all round trips since the start."""
    loop = Loop()
    _echo = EchoServer(loop, arguments.echo)
    clients = open_clients(loop, arguments)
    for client in clients:
        client.start(sys.maxsize)
    loop.run_for(WARM_UP_SECONDS)
    before = sum(client.round_trips for client in clients)
    seconds = loop.run_for(arguments.seconds)
    total = sum(client.round_trips for client in clients)
    return {"round_trips": total - before, "seconds": seconds, "total": total}


def hold(arguments: argparse.Namespace) -> None:
    """Open all connections and keep them until standard input ends."""
    loop = Loop()
    _echo = EchoServer(loop, arguments.echo)
    clients = open_clients(loop, arguments)
    print("open", flush=True)
    ended: list[bool] = []
    loop.add(sys.stdin.fileno(), lambda: ended.append(True))
    loop.run_until(lambda: bool(ended), seconds=60.0)
    for client in clients:
        client.socket.close()


def main() -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["ping-pong", "hold"])
    parser.add_argument("--connect", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--echo", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    if arguments.what == "hold":
        hold(arguments)
    else:
        print(json.dumps(ping_pong(arguments)))


if __name__ == "__main__":
    main()
