"""A real Jupyter server for a test, and just enough of the kernel protocol to compute with it."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import trio
from processes import eventually, running
from websockets.trio.client import ClientConnection

TOKEN = "a-token-for-jupyter"
BINARY_PROTOCOL = "v1.kernel.websocket.jupyter.org"


@asynccontextmanager
async def running_jupyter(folder: Path, *, base_url: str) -> AsyncGenerator[int]:
    """The port of a `jupyter_server` with a Python kernel; its files are in `folder`. It compresses WebSockets."""
    await trio.Path(folder).mkdir()
    command = [
        sys.executable, "-m", "jupyter_server", "--allow-root", "--no-browser",
        f"--ServerApp.base_url={base_url}",
        f"--ServerApp.root_dir={folder}",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port=0",
        "--ServerApp.allow_remote_access=True",
        "--ServerApp.websocket_compression_options={}",
        f"--IdentityProvider.token={TOKEN}",
    ]  # fmt: skip
    names = ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environ = {name: str(folder) for name in names}
    async with running(command, environ=environ, grace=20) as program:
        port = 0

        def is_up() -> bool:
            nonlocal port
            if program.code is not None:
                raise EOFError("\n".join(program.stderr.lines[-50:]))
            for path in folder.glob("jpserver-*.json"):
                port = cast(int, json.loads(path.read_text() or '{"port": 0}')["port"])
            return port != 0

        await eventually(is_up, seconds=60)
        yield port


def execute_request(code: str) -> dict[str, Any]:
    content: dict[str, Any] = {
        "code": code,
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": False,
    }
    header = {"msg_id": uuid4().hex, "msg_type": "execute_request", "session": "test", "username": "", "version": "5.4"}
    return {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}


async def compute(websocket: ClientConnection, code: str) -> str:
    """Let the kernel execute `code`; the text of its result. Speaks the sub-protocol that was agreed on."""
    binary = websocket.subprotocol == BINARY_PROTOCOL
    request = execute_request(code)
    await websocket.send(_pack(request) if binary else json.dumps(request))
    while True:
        received = await websocket.recv()
        assert isinstance(received, bytes) == binary
        message = _unpack(received) if isinstance(received, bytes) else json.loads(received)
        if message["parent_header"].get("msg_id") != request["header"]["msg_id"]:
            continue
        assert message["header"]["msg_type"] != "error", message
        if message["header"]["msg_type"] == "execute_result":
            return message["content"]["data"]["text/plain"]


_PARTS = ("header", "parent_header", "metadata", "content")


def _pack(message: dict[str, Any]) -> bytes:
    """Number of offsets, the offsets (little-endian, 64 bits), then the channel and the parts between them."""
    parts = [message["channel"].encode(), *(json.dumps(message[name]).encode() for name in _PARTS)]
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets) + b"".join(parts)


def _unpack(data: bytes) -> dict[str, Any]:
    (count,) = struct.unpack_from("<Q", data)
    offsets = struct.unpack_from(f"<{count}Q", data, 8)
    channel, *parts = (data[start:end] for start, end in pairwise(offsets))
    return {"channel": channel.decode()} | {
        name: json.loads(part) for name, part in zip(_PARTS, parts[: len(_PARTS)], strict=True)
    }
