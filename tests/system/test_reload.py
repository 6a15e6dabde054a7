"""A reload takes everything over or nothing, and nobody who is connected notices."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from backends import echo_backend, raw_backend, websocket_backend
from cryptography import x509
from processes import eventually, run
from websockets.trio.client import connect
from worker import Worker, base_config, running_worker, write_config

from trioproxy.testing import Wire


class Steady:
    """A backend whose download goes on, a piece each time the test asks for one."""

    def __init__(self) -> None:
        self.more = trio.Semaphore(0)

    async def serve(self, wire: Wire) -> None:
        await wire.read_head()
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await self.more.acquire()
            await wire.send(b"5\r\npiece\r\n")


@asynccontextmanager
async def undisturbed(worker: Worker, ws_port: int, steady_port: int, steady: Steady) -> AsyncGenerator[None]:
    """A WebSocket and a download, over TLS, that must work before, and still after, what happens meanwhile."""
    await worker.route("long", "ws", ws_port)
    await worker.route("long", "steady", steady_port)
    url = f"{worker.https.replace('http', 'ws')}/long/ws/"
    async with (
        connect(url, ssl=worker.trust(), server_hostname="localhost", proxy=None) as websocket,
        worker.client() as client,
        client.stream("GET", f"https://localhost:{worker.port(worker.https)}/long/steady/") as download,
    ):
        pieces = download.aiter_raw()

        async def works() -> None:
            steady.more.release()
            assert await anext(pieces) == b"piece"
            await websocket.send("echo")
            assert await websocket.recv() == "echo"

        await works()
        yield
        await works()


async def serial_served(worker: Worker, server_name: str = "localhost") -> int:
    """Serial number of the certificate that a new connection gets."""

    def fetch() -> bytes:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", worker.port(worker.https)), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=server_name) as encrypted,
        ):
            return encrypted.getpeercert(binary_form=True) or b""

    return x509.load_der_x509_certificate(await trio.to_thread.run_sync(fetch)).serial_number


def serial_of(pair: Any) -> int:
    return x509.load_pem_x509_certificate(pair.cert.read_bytes()).serial_number


def route(service: str, port: int) -> dict[str, Any]:
    return {"session_id": "s", "service": service, "backends": [{"host": "127.0.0.1", "port": port}]}


def config(folder: Path, pair: Any, routes_file: Path, routes: list[Any], **more: Any) -> dict[str, Any]:
    return {
        **base_config(folder),
        "tls": {"certificates": [{"cert": pair.cert, "key": pair.key}]},
        "routes": routes,
        # Not looked at while a test runs: what changes does so by the reload.
        "providers": {"file": {"path": routes_file, "interval": 3600}},
        **more,
    }


async def reload_by_signal(worker: Worker) -> None:
    seen = worker.log_lines
    worker.program.signal(signal.SIGHUP)
    await worker.logged('"reloaded"', after=seen)


async def reload_by_command(worker: Worker) -> None:
    done = await reload_command(worker)
    assert done.returncode == 0, done.stderr


async def reload_command(worker: Worker) -> Any:
    command = [sys.executable, "-m", "trioproxy", "reload", "-c", worker.config, "--management", worker.management]
    # The configuration may be what is broken: the token is given.
    return await run([*command, f"--token={worker.token}"])


@pytest.mark.parametrize("reload", [reload_by_signal, reload_by_command])
async def test_certificates_limits_and_routes_change_under_running_traffic(
    tmp_path: Path, authority: Any, reload: Any
) -> None:
    old, new = authority.issue("localhost"), authority.issue("localhost")
    routes_file = tmp_path / "routes.json"
    routes_file.write_text(json.dumps({"routes": [route("from-file", 1)]}))
    steady = Steady()
    async with (
        echo_backend() as echo,
        websocket_backend() as ws,
        raw_backend(steady.serve) as steady_port,
        running_worker(
            tmp_path, config(tmp_path, old, routes_file, [route("static", echo.port)]), trusted=authority.ca
        ) as worker,
        worker.client() as client,
    ):

        async def status(service: str) -> int:
            return (await client.post(f"{worker.http}/s/{service}/", content=b"x" * 2000)).status_code

        assert [await status(one) for one in ("static", "static-2", "from-file", "from-file-2")] == [200, 404, 502, 404]
        assert await serial_served(worker) == serial_of(old)
        async with undisturbed(worker, ws.port, steady_port, steady):
            routes_file.write_text(json.dumps({"routes": [route("from-file-2", echo.port)]}))
            changed = config(tmp_path, new, routes_file, [route("static-2", echo.port)])
            write_config(worker.config, {**changed, "limits": {"body_bytes": 2000}})
            await reload(worker)
            assert [await status(one) for one in ("static", "static-2", "from-file", "from-file-2")] == [
                404,
                200,
                404,
                200,
            ]
            assert await serial_served(worker) == serial_of(new)
            answer = await client.post(f"{worker.http}/s/static-2/", content=b"x" * 2001)
            assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def break_syntax(worker: Worker, whole: dict[str, Any]) -> str:
    worker.config.write_text("limits = {", encoding="utf-8")
    return "is not TOML"


def break_a_value(worker: Worker, whole: dict[str, Any]) -> str:
    write_config(worker.config, {**whole, "routes": [], "limits": {"body_bytes": "much"}})
    return "body_bytes"


def break_the_certificate(worker: Worker, whole: dict[str, Any]) -> str:
    broken = worker.folder / "broken.crt"
    broken.write_text("no certificate")
    write_config(worker.config, {**whole, "routes": [], "tls": {"certificates": [{"cert": broken, "key": broken}]}})
    return str(broken)


def break_the_routes_file(worker: Worker, whole: dict[str, Any]) -> str:
    (worker.folder / "routes.json").write_text('{"routes": [{"session_id": "s"}]}')
    write_config(worker.config, {**whole, "routes": []})
    return "routes.json"


@pytest.mark.parametrize("spoil", [break_syntax, break_a_value, break_the_certificate, break_the_routes_file])
async def test_a_broken_configuration_changes_nothing_and_says_what_is_wrong(
    tmp_path: Path, authority: Any, spoil: Any
) -> None:
    pair = authority.issue("localhost")
    routes_file = tmp_path / "routes.json"
    routes_file.write_text(json.dumps({"routes": []}))
    steady = Steady()
    async with (
        echo_backend() as echo,
        websocket_backend() as ws,
        raw_backend(steady.serve) as steady_port,
        running_worker(
            tmp_path, config(tmp_path, pair, routes_file, [route("static", echo.port)]), trusted=authority.ca
        ) as worker,
        worker.client() as client,
        undisturbed(worker, ws.port, steady_port, steady),
    ):
        reason = spoil(worker, config(tmp_path, pair, routes_file, [route("static", echo.port)]))
        seen = worker.log_lines
        worker.program.signal(signal.SIGHUP)
        assert reason in await worker.logged("nothing was reloaded", after=seen)
        done = await reload_command(worker)
        assert done.returncode != 0
        assert reason in done.stderr.decode()
        assert (await client.post(f"{worker.http}/s/static/", content=b"x")).status_code == 200
        assert await serial_served(worker) == serial_of(pair)
        assert await worker.ready()


@pytest.mark.parametrize("ending", ["json", "toml"])
async def test_an_edited_routes_file_is_taken_up_without_being_told(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"routes.{ending}"

    def edit(*routes: dict[str, Any]) -> None:
        fresh = path.with_suffix(".new")
        if ending == "json":
            fresh.write_text(json.dumps({"routes": routes}))
        else:
            write_config(fresh, {"routes": routes})
        fresh.replace(path)

    edit()
    async with (
        echo_backend() as echo,
        running_worker(tmp_path, {"providers": {"file": {"path": path, "interval": 0.1}}}) as worker,
        worker.client() as client,
    ):

        async def answers(service: str, status: int) -> None:
            async def does() -> bool:
                return (await client.get(f"{worker.http}/s/{service}/")).status_code == status

            await eventually(does)

        await answers("one", 404)
        edit(route("one", echo.port))
        await answers("one", 200)
        seen = worker.log_lines
        path.write_text("broken")
        assert str(path) in await worker.logged("the routes file cannot be used", after=seen)
        await answers("one", 200)
        edit(route("two", echo.port))
        await answers("two", 200)
        await answers("one", 404)
