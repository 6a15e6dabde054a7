"""Sticky clients stay on their backend: in every forwarder, after a restart, and with another worker of the secret."""

from __future__ import annotations

import stat
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from backends import raw_backend
from forwarders import dial, server_of
from processes import eventually
from worker import Worker, running_worker

from trioproxy.testing import Wire
from trioproxy.testing.wire import Response

TWO: dict[str, Any] = {"worker": {"processes": 2, "drain_timeout": 2}}


@asynccontextmanager
async def named_backends(count: int) -> AsyncGenerator[list[int]]:
    """Backends that answer with their number, at these ports; what a request brought of cookies is repeated."""
    async with AsyncExitStack() as stack:
        ports: list[int] = []
        for number in range(count):

            async def serve(wire: Wire, number: int = number) -> None:
                while True:
                    head = await wire.read_head()
                    cookies = b"yes" if b"cookie:" in head.lower() else b"no"
                    body = b"%d cookies: %b" % (number, cookies)
                    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

            ports.append(await stack.enter_async_context(raw_backend(serve)))
        yield ports


async def ask(worker: Worker, cookie: bytes = b"") -> Response:
    """One request on a connection of its own."""
    wire = await dial(worker)
    try:
        await wire.send(b"GET /s/web/ HTTP/1.1\r\nHost: worker\r\n" + cookie + b"\r\n")
        return await wire.read_response()
    finally:
        await wire.aclose()


async def clients(worker: Worker, backends: int) -> dict[bytes, bytes]:
    """A cookie for each backend, by what the backend answers to it."""
    found: dict[bytes, bytes] = {}
    while len(found) < backends:
        response = await ask(worker)
        (line,) = response.values("set-cookie")
        found[response.body] = b"Cookie: " + line.partition(b";")[0] + b"\r\n"
    return found


async def assert_they_stay(worker: Worker, known: dict[bytes, bytes]) -> None:
    """Every client is served as before, by both forwarders."""
    servers: set[bytes] = set()
    while len(servers) < 2:
        for body, cookie in known.items():
            response = await ask(worker, cookie)
            assert (response.body, response.values("set-cookie")) == (body, [])
            servers.add(server_of(response))


async def test_clients_stay_in_every_forwarder_and_after_a_restart(tmp_path: Path) -> None:
    async with named_backends(3) as ports:
        async with running_worker(tmp_path, TWO) as worker:
            await worker.route("s", "web", *ports, sticky=True)
            known = await clients(worker, 3)
            assert all(body.endswith(b"cookies: no") for body in known)
            await assert_they_stay(worker, known)
            secret = tmp_path / "state" / "sticky.secret"
            assert stat.S_IMODE(secret.stat().st_mode) == 0o600
            text = secret.read_text().strip()
            assert not any(text in line for line in (*worker.program.stderr.lines, *worker.program.stdout.lines))
            values = [cookie.partition(b"=")[2].strip().decode() for cookie in known.values()]
            assert not any(value in line for value in values for line in worker.program.stdout.lines)
        async with running_worker(tmp_path, TWO) as worker:
            await assert_they_stay(worker, known)


async def test_clients_stay_with_another_worker_that_has_the_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("kept by all workers\n")
    config = {**TWO, "sticky": {"secret_file": tmp_path / "secret"}}
    async with named_backends(2) as ports:
        known: dict[bytes, bytes] = {}
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            async with running_worker(tmp_path / name, config) as worker:
                await worker.route("s", "web", *ports, sticky=True)
                known = known or await clients(worker, 2)
                await assert_they_stay(worker, known)
                assert not (tmp_path / name / "state" / "sticky.secret").exists()


async def test_a_reload_brings_another_secret_to_all_forwarders(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the first secret of all\n")
    config = {**TWO, "sticky": {"secret_file": secret}}
    async with named_backends(2) as ports, running_worker(tmp_path, config) as worker:
        await worker.route("s", "web", *ports, sticky=True)
        old = await clients(worker, 2)
        secret.write_text("short\n")
        refused = await worker.call("POST", "/v1/reload")
        assert refused.status_code >= 400
        assert "short" not in refused.text
        await assert_they_stay(worker, old)
        secret.write_text("the second secret of all\n")
        assert (await worker.call("POST", "/v1/reload")).status_code == 202
        assert all([(await ask(worker, cookie)).values("set-cookie") for cookie in old.values()])
        await assert_they_stay(worker, await clients(worker, 2))


async def test_what_check_prints_hides_the_secret(tmp_path: Path) -> None:
    config = tmp_path / "trioproxy.toml"
    config.write_text('[sticky]\nsecret = "nobody is to see this"\n')
    ended = await trio.run_process(
        [sys.executable, "-m", "trioproxy", "check", "-c", config], capture_stdout=True, capture_stderr=True
    )
    assert b"sticky.secret" in ended.stdout
    assert b"nobody is to see this" not in ended.stdout + ended.stderr


async def test_an_ejection_of_one_forwarder_keeps_traffic_from_a_dead_backend(tmp_path: Path) -> None:
    async with named_backends(3) as ports, running_worker(tmp_path, {"worker": {"processes": 1}}) as worker:
        dead = await _unused_port()
        await worker.route("s", "web", *ports[:2], dead)

        async def ejected() -> bool:
            assert (await ask(worker)).status == 200
            listed = (await worker.call("GET", "/v1/backends")).json()["backends"]
            return {one["backend_id"]: one["state"] for one in listed}.get(f"127.0.0.1:{dead}") == "ejected"

        await eventually(ejected)


async def _unused_port() -> int:
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
