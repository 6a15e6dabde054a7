"""A real Jupyter server behind a real worker: notebooks compute, terminals echo, through HTTPS."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import trio
from jupyter import BINARY_PROTOCOL, TOKEN, compute, running_jupyter
from websockets.trio.client import ClientConnection, connect
from websockets.typing import Subprotocol
from worker import Worker, running_worker

MOUNTED = "/alice/jupyter"


@dataclass
class Notebooks:
    """A Jupyter server as its user sees it: at `MOUNTED` of the worker, with `client` for its REST API."""

    worker: Worker
    port: int
    path: str
    client: httpx.AsyncClient

    async def route(self, websocket: str) -> None:
        await self.worker.route("alice", "jupyter", self.port, path=self.path, websocket=websocket)

    async def start_kernel(self) -> str:
        answer = await self.client.post("/api/kernels", json={"name": "python3"})
        assert answer.status_code == 201, answer.text
        assert answer.headers["location"] == f"{MOUNTED}/api/kernels/{answer.json()['id']}"
        return answer.json()["id"]

    def websocket(self, path: str, protocol: str | None = None) -> connect:
        return connect(
            f"{self.worker.https.replace('http', 'ws')}{MOUNTED}{path}",
            ssl=self.worker.trust(),
            subprotocols=[Subprotocol(protocol)] if protocol else None,
            additional_headers={"Authorization": f"token {TOKEN}"},
            proxy=None,
            max_size=None,
        )


@asynccontextmanager
async def notebooks(folder: Path, path: str) -> AsyncGenerator[Notebooks]:
    base_url = f"{MOUNTED}/" if path == "keep" else "/"
    async with (
        running_jupyter(folder / "jupyter", base_url=base_url) as port,
        running_worker(folder / "worker") as worker,
        worker.client(base_url=f"{worker.https}{MOUNTED}", headers={"Authorization": f"token {TOKEN}"}) as client,
    ):
        yield Notebooks(worker, port, path, client)


def extensions(websocket: ClientConnection) -> list[str]:
    return [extension.name for extension in websocket.protocol.extensions]


@pytest.mark.parametrize("path", ["keep", "strip"])
async def test_a_kernel_computes_over_https_in_both_modes_and_protocols(tmp_path: Path, path: str) -> None:
    async with notebooks(tmp_path, path) as server:
        await server.route("message")
        kernel = await server.start_kernel()
        for mode, protocol in [
            ("message", None),
            ("message", BINARY_PROTOCOL),
            ("relay", None),
            ("relay", BINARY_PROTOCOL),
        ]:
            await server.route(mode)
            async with server.websocket(f"/api/kernels/{kernel}/channels", protocol) as websocket:
                assert websocket.subprotocol == protocol
                assert extensions(websocket) == (["permessage-deflate"] if mode == "relay" else [])
                with trio.fail_after(30):
                    assert await compute(websocket, "1+1") == "2"
                    assert await compute(websocket, "'x' * 200_000") == repr("x" * 200_000)
        assert (await server.client.delete(f"/api/kernels/{kernel}")).status_code == 204
        assert (await server.worker.record(kind="websocket"))["status"] == 101


async def test_kernel_connections_outlive_other_routes_and_a_reload(tmp_path: Path) -> None:
    async with notebooks(tmp_path, "keep") as server:
        await server.route("message")
        kernel = await server.start_kernel()
        channels = f"/api/kernels/{kernel}/channels"
        async with server.websocket(channels) as messages:
            await server.route("relay")
            async with server.websocket(channels) as relayed:
                with trio.fail_after(30):
                    assert await compute(messages, "x = 20; x") == "20"
                    assert await compute(relayed, "x + 1") == "21"
                await server.worker.route("bob", "other", 1)
                await server.worker.route("bob", "other", 2)
                assert (await server.worker.call("DELETE", "/v1/routes/bob/other")).status_code == 204
                server.worker.program.signal(signal.SIGHUP)
                await server.worker.logged('"reloaded"')
                with trio.fail_after(30):
                    assert await compute(messages, "x + 2") == "22"
                    assert await compute(relayed, "x + 3") == "23"


async def test_pages_uploads_and_terminals_work_below_a_stripped_prefix(tmp_path: Path) -> None:
    async with notebooks(tmp_path, "strip") as server:
        await server.route("message")
        async with server.worker.client(base_url=server.client.base_url) as stranger:
            refused = await stranger.get("/files/large.txt")
        assert refused.status_code == 302
        assert refused.headers["location"].startswith(f"{MOUNTED}/login?")

        content = {"type": "file", "format": "text", "content": "é" * 3_000_000}
        saved = await server.client.put("/api/contents/large.txt", json=content)
        assert saved.status_code == 201, saved.text
        assert saved.headers["location"] == f"{MOUNTED}/api/contents/large.txt"
        assert (await server.client.get("/files/large.txt")).text == content["content"]

        terminal = await server.client.post("/api/terminals")
        assert terminal.status_code == 200, terminal.text
        async with server.websocket(f"/terminals/websocket/{terminal.json()['name']}") as websocket:
            await websocket.send(json.dumps(["stdin", "echo hel''lo\r"]))
            seen = ""
            with trio.fail_after(30):
                while True:
                    kind, *text = json.loads(await websocket.recv())
                    seen += text[0] if kind == "stdout" else ""
                    if "hello" in seen:
                        break
