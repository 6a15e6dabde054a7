"""Other people's client libraries through a real worker."""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import trio
from backends import Body, digest_of_blocks, echo_backend, websocket_backend
from processes import eventually
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from worker import Worker, running_worker

CODES = [1000, 1001, 1011, 3000, 4000, 4001, 4999]


def header(answer: httpx.Response, name: str) -> list[str]:
    """Values of a request header as the echo backend saw them."""
    return [value for key, value in answer.json()["headers"] if key.lower() == name]


@pytest.mark.parametrize("tls", [True, False])
async def test_httpx_reads_posts_and_streams(tmp_path: Path, tls: bool) -> None:
    async with echo_backend() as echo, running_worker(tmp_path) as worker, worker.client() as client:
        await worker.route("s", "app", echo.port)
        url = f"{worker.https if tls else worker.http}/s/app"
        answer = await client.get(f"{url}/a%2Fb//c;d/..%2e?x=%20&y=1;2")
        assert answer.json()["target"] == "/a%2Fb//c;d/..%2e?x=%20&y=1;2"
        assert answer.headers.get_list("set-cookie") == ["a=1; Path=/s/app/", "b=2; Path=/s/app/deep"]
        assert header(answer, "x-forwarded-for") == ["127.0.0.1"]
        assert header(answer, "x-forwarded-proto") == ["https" if tls else "http"]
        assert header(answer, "x-forwarded-prefix") == ["/s/app"]
        assert header(answer, "host") == [answer.request.url.netloc.decode()]

        body = random.Random(3).randbytes(3_000_000)
        posted = await client.post(f"{url}/", content=body)
        assert posted.json()["digest"] == hashlib.sha256(body).hexdigest()

        streamed = await client.put(f"{url}/", content=Body(3))
        assert streamed.json()["digest"] == digest_of_blocks(3)
        assert header(streamed, "transfer-encoding") == ["chunked"]
        assert (await client.head(f"{url}/")).headers["content-length"] != "0"
        assert (await client.request("PROPFIND", f"{url}/")).json()["method"] == "PROPFIND"


async def test_many_requests_at_once_share_few_connections_and_mix_nothing_up(tmp_path: Path) -> None:
    async with echo_backend() as echo, running_worker(tmp_path) as worker:
        await worker.route("s", "app", echo.port)
        limits = httpx.Limits(max_connections=20)
        async with worker.client(limits=limits) as client:

            async def ask(number: int) -> None:
                body = str(number).encode() * (number % 50)
                answer = await client.post(f"{worker.https}/s/app/{number}", content=body)
                assert answer.json()["target"] == f"/{number}"
                assert answer.json()["digest"] == hashlib.sha256(body).hexdigest()

            async with trio.open_nursery() as nursery:
                for number in range(300):
                    nursery.start_soon(ask, number)
        assert len(echo.asked) == 300
        assert echo.connections <= 20


async def test_aiohttp_reads_posts_and_talks(tmp_path: Path) -> None:
    async with echo_backend() as echo, websocket_backend() as ws, running_worker(tmp_path) as worker:
        await worker.route("s", "app", echo.port)
        await worker.route("s", "ws", ws.port)
        body = random.Random(4).randbytes(2_000_000)

        async def visit() -> None:
            timeout = aiohttp.ClientTimeout(total=30)
            connector = aiohttp.TCPConnector(ssl=worker.trust())
            async with aiohttp.ClientSession(f"{worker.https}", connector=connector, timeout=timeout) as session:
                async with session.get("/s/app/path?q=1") as answer:
                    assert (await answer.json())["target"] == "/path?q=1"

                async with session.post("/s/app/", data=io.BytesIO(body), chunked=True) as answer:
                    assert (await answer.json())["digest"] == hashlib.sha256(body).hexdigest()
                async with session.ws_connect("/s/ws/", max_msg_size=0) as websocket:
                    await websocket.send_bytes(body)
                    assert await websocket.receive_bytes() == body
                    await websocket.send_str("close 4321 bye")
                    closing = await websocket.receive()
                    assert (closing.data, closing.extra) == (4321, "bye")

        await trio.to_thread.run_sync(asyncio.run, visit())


@pytest.mark.parametrize("mode", ["message", "relay"])
async def test_websockets_on_asyncio_sees_every_close_code_and_its_compression(tmp_path: Path, mode: str) -> None:
    async with websocket_backend() as backend, running_worker(tmp_path) as worker:
        await worker.route("s", "ws", backend.port, websocket=mode)
        seen: dict[int, tuple[int | None, str | None]] = {}

        async def be_closed(code: int) -> None:
            async with dial(worker) as websocket:
                names = [extension.name for extension in websocket.protocol.extensions]
                assert names == (["permessage-deflate"] if mode == "relay" else [])
                await websocket.send(["fragments ", "of one", " message"])
                assert await websocket.recv() == "fragments of one message"
                await websocket.send(f"close {code} bye {code}")
                with pytest.raises(ConnectionClosed):
                    await websocket.recv()
            seen[code] = (websocket.close_code, websocket.close_reason)

        async def close(code: int) -> None:
            async with dial(worker) as websocket:
                await websocket.send("hello")
                assert await websocket.recv() == "hello"
                await websocket.close(code, f"bye {code}")

        async def visit() -> None:
            await asyncio.gather(*map(be_closed, CODES), *map(close, CODES))

        await trio.to_thread.run_sync(asyncio.run, visit())
        assert seen == {code: (code, f"bye {code}") for code in CODES}
        told = [(code, f"bye {code}") for code in CODES for _ in range(2)]
        # A client may have left before its backend hears of it.
        await eventually(lambda: sorted(backend.closed) == told)
        if mode == "message":
            for side in ("backend", "client"):
                assert (await worker.record(detail=f"ended by {side}: bye 4001"))["close_code"] == 4001


def dial(worker: Worker) -> connect:
    url = f"{worker.https.replace('http', 'ws')}/s/ws/"
    return connect(url, ssl=worker.trust(), proxy=None, open_timeout=20, close_timeout=20)


async def test_a_refused_handshake_reaches_the_client_as_the_answer_it_was(tmp_path: Path) -> None:
    async with echo_backend() as echo, running_worker(tmp_path) as worker:
        await worker.route("s", "ws", echo.port)

        async def visit() -> Any:
            with pytest.raises(Exception) as refused:
                async with dial(worker):
                    pass
            return refused.value

        error = await trio.to_thread.run_sync(asyncio.run, visit())
        assert error.response.status_code == 200
        assert b'"target": "/"' in error.response.body
