"""A forwarder process whose supervisor talks nonsense, or goes, ends in good order and by itself."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from backends import raw_backend
from processes import Program, running

from trioproxy import __version__
from trioproxy.config.schema import Config
from trioproxy.control.codec import decode, encode
from trioproxy.control.descriptors import DescriptorFrames
from trioproxy.control.messages import Done, Hello, Start, StartAccepting
from trioproxy.control.tables import TableEncoder
from trioproxy.control.wire import control_sockets, lean, send_start
from trioproxy.net.loads import Loads
from trioproxy.routing.route import Backend, Route
from trioproxy.routing.table import Table
from trioproxy.testing import Wire


@asynccontextmanager
async def orphan(*passed: int) -> AsyncGenerator[tuple[DescriptorFrames, Program]]:
    """A forwarder process with us as its supervisor, which inherits these descriptors."""
    frames, theirs = control_sockets()
    command = [sys.executable, "-m", "trioproxy.process.child", "--control-fd", str(theirs.fileno())]
    async with running(command, descriptors=[theirs.fileno(), *passed]) as program:
        theirs.close()
        yield frames, program
        await frames.aclose()


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"", 0),
        (b"\0\0", 0),
        (b"\0\0\0\5hello", 1),
        (b"\xff\xff\xff\xff", 1),
        (struct.pack("!I", len(encode(Done()))) + encode(Done()), 1),
    ],
)
async def test_a_forwarder_that_is_greeted_with_nonsense_ends(said: bytes, code: int) -> None:
    async with orphan() as (frames, program):
        if said:
            await frames._stream.send_all(said)
        if code == 0:
            await frames.aclose()
        assert await program.ended() == code


async def test_a_forwarder_that_is_told_nonsense_drains_and_ends() -> None:
    config = Config.model_validate(
        {"worker": {"drain_timeout": 5}, "listeners": [{"name": "plain", "bind": "127.0.0.1:0", "tls": "off"}]}
    )
    loads = Loads.create(1)
    asked = trio.Event()

    async def slowly(wire: Wire) -> None:
        await wire.read_head()
        asked.set()
        await trio.sleep(0.5)  # the time it takes: the garbage comes meanwhile
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    with socket.create_server(("127.0.0.1", 0)) as sock, trio.fail_after(30):
        port = sock.getsockname()[1]
        async with raw_backend(slowly) as backend, orphan(loads) as (frames, program):
            os.close(loads)
            route = Route(session_id="s", service="v", backends=(Backend(host="127.0.0.1", port=backend),))
            start = Start(__version__, 0, lean(config), (7,), loads, 1)
            await send_start(frames, start, lambda _: sock.dup())
            assert decode(await frames.receive() or b"", Hello).version == __version__
            for part in TableEncoder().encode(Table.build([route], version=1), None):
                await frames.send(part)
            await frames.send(encode(StartAccepting()))
            for _ in range(2):
                await frames.receive()
            idle = Wire(await trio.open_tcp_stream("127.0.0.1", port))
            busy = Wire(await trio.open_tcp_stream("127.0.0.1", port))
            await busy.send(b"GET /s/v/ HTTP/1.1\r\nHost: x\r\n\r\n")
            await asked.wait()
            await frames.send(b"nonsense")
            assert await idle.read_all() == b""
            answer = await busy.read_response()
            assert (answer.status, answer.values("connection")) == (200, [b"close"])
            assert await program.ended() == 0
            assert "cannot be understood any more" in await program.stderr.line(lambda line: "understood" in line)
