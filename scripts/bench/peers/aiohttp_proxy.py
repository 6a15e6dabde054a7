"""A proxy out of aiohttp's server and client, the way one writes it: both WebSocket legs terminated, bodies streamed,
hop-by-hop fields stripped, forwarded fields added. No access log.

    python aiohttp_proxy.py PORT BACKEND_PORT [uvloop]
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
HANDSHAKE = frozenset({"sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions"})


class Proxy:
    """Forwards everything to one backend."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._session: aiohttp.ClientSession | None = None

    async def open(self, _app: web.Application) -> None:
        """Make the client session; it lives as long as the process."""
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        )

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Forward a request."""
        assert self._session is not None
        headers = self._forwarded(request)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._websocket(self._session, request, headers)
        async with self._session.request(
            request.method,
            self._backend + request.raw_path,
            headers=headers,
            data=request.content if request.body_exists else None,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=3),
        ) as upstream:
            response = web.StreamResponse(
                status=upstream.status, reason=upstream.reason, headers=_end_to_end(upstream.headers)
            )
            await response.prepare(request)
            async for piece in upstream.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    def _forwarded(self, request: web.Request) -> CIMultiDict[str]:
        headers = _end_to_end(request.headers)
        headers["X-Forwarded-For"] = request.remote or ""
        headers["X-Forwarded-Proto"] = request.scheme
        headers["X-Forwarded-Host"] = request.host
        return headers

    async def _websocket(
        self, session: aiohttp.ClientSession, request: web.Request, headers: CIMultiDict[str]
    ) -> web.WebSocketResponse:
        for name in HANDSHAKE:
            headers.popall(name, None)
        async with session.ws_connect(
            self._backend + request.raw_path, headers=headers, max_msg_size=0, autoping=False
        ) as backend:
            client = web.WebSocketResponse(max_msg_size=0, compress=False, autoping=False)
            await client.prepare(request)
            pumps = [asyncio.create_task(_pump(client, backend)), asyncio.create_task(_pump(backend, client))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await client.close()
            return client


Leg = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _pump(source: Leg, target: Leg) -> None:
    async for message in source:
        if message.type is aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await target.send_bytes(message.data)
        elif message.type is aiohttp.WSMsgType.PING:
            await target.ping(message.data)
        elif message.type is aiohttp.WSMsgType.PONG:
            await target.pong(message.data)


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    named = {name.strip().lower() for line in headers.getall("Connection", []) for name in line.split(",")}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP | named)


async def serve(port: int, backend_port: int) -> None:
    """Serve until killed."""
    proxy = Proxy(f"http://127.0.0.1:{backend_port}")
    app = web.Application(client_max_size=0)
    app.on_startup.append(proxy.open)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await asyncio.Event().wait()


def main() -> None:
    """Choose the event loop and run."""
    port, backend_port, *rest = sys.argv[1:]
    run = uvloop.run if rest == ["uvloop"] else asyncio.run
    run(serve(int(port), int(backend_port)))


if __name__ == "__main__":
    main()
