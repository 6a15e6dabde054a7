"""A small HTTP/1.1 server as a program: `counting_backend.py PORT FILE` writes down each request before it answers.

`/mode/NAME` changes how it behaves, see `Server.answer`. A target's last segment is the request's id.
"""

from __future__ import annotations

import math
import os
import struct
import sys
from pathlib import Path
from typing import Final

import trio

DELAY: Final = 0.01
"""Seconds an answer takes; ten times that when it is slow."""
LINE: Final = b"%d has answered %b\n"
REPEATED: Final = 40
"""How often an answer says so: no answer that breaks off looks whole."""
RESTED: Final = 0.3
"""When it flaps, it answers who comes after so many quiet seconds, and nobody soon after that."""
LINGER: Final = struct.pack("ii", 1, 0)
"""Has a socket send a reset when it is closed, see socket(7)."""


class Server:
    """What all connections share."""

    def __init__(self, port: int, file: int) -> None:
        self.port = port
        self.file = file
        self.mode = "well"
        self.asked_at = -math.inf

    async def serve(self, stream: trio.SocketStream) -> None:
        buffer = b""
        try:
            while True:
                while b"\r\n\r\n" not in buffer:
                    buffer = await _more(stream, buffer)
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                method, target, _ = head.split(b" ", 2)
                length = _length(head)
                if not target.startswith(b"/mode/"):
                    self.note(method, target)
                while len(buffer) < length:
                    buffer = await _more(stream, buffer)
                buffer = buffer[length:]
                if not await self.answer(stream, target):
                    return
        except (EOFError, trio.BrokenResourceError):
            return

    def note(self, method: bytes, target: bytes) -> None:
        """In one write, so that it outlives a SIGKILL; before anything else is done."""
        os.write(self.file, method + b" " + target.rpartition(b"/")[2] + b"\n")

    async def answer(self, stream: trio.SocketStream, target: bytes) -> bool:
        """Whether the connection goes on."""
        name = target.rpartition(b"/")[2]
        if target.startswith(b"/mode/"):
            self.mode = name.decode()
            await self.say(stream, b"200", b"as you wish")
            return True
        mode, before, self.asked_at = self.mode, self.asked_at, trio.current_time()
        if mode == "flaps":
            mode = "well" if self.asked_at - before > RESTED else "resets"
        match mode:
            case "silent":
                await stream.receive_some()  # until the other end gives up
                return False
            case "resets":
                stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, LINGER)
                return False
            case "breaks":
                body = LINE % (self.port, name) * REPEATED
                await stream.send_all(_head(b"200", len(body)) + body[: len(body) // 2])
                stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, LINGER)
                return False
            case "500" | "503":
                await self.say(stream, mode.encode(), b"it does not work")
            case _:
                await trio.sleep(DELAY * (10 if mode == "slow" else 1))
                await self.say(stream, b"200", LINE % (self.port, name) * REPEATED)
        return True

    async def say(self, stream: trio.SocketStream, status: bytes, body: bytes) -> None:
        await stream.send_all(_head(status, len(body)) + body)


async def _more(stream: trio.SocketStream, buffer: bytes) -> bytes:
    data = await stream.receive_some()
    if not data:
        raise EOFError
    return buffer + data


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _head(status: bytes, length: int) -> bytes:
    return b"HTTP/1.1 %b Status\r\nContent-Length: %d\r\n\r\n" % (status, length)


async def main(port: int, path: Path) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    await trio.serve_tcp(Server(port, file).serve, port, host="127.0.0.1")


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), Path(sys.argv[2]))
