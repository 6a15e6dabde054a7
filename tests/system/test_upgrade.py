"""A new generation of the whole program takes over, and not one request, write or WebSocket is lost to that."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import trio
from backends import raw_backend, websocket_backend
from load import Target, under_load
from processes import eventually, run
from websockets.exceptions import ConnectionClosed
from websockets.trio.client import connect
from worker import READY, Worker, running_worker

from trioproxy.testing import Wire

PROCESSES = [0, 2]


async def hello(wire: Wire) -> None:
    while True:
        await wire.read_head()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")


async def supervisor_of(worker: Worker) -> int:
    return (await worker.call("GET", "/v1/worker")).json()["pid"]


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended may stay listed, until whoever is its parent now asks for its end."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def connections(worker: Worker) -> int:
    return (await worker.call("GET", "/v1/connections")).json()["total"]


async def upgrade_command(worker: Worker) -> CompletedProcess[bytes]:
    command = [sys.executable, "-m", "trioproxy", "upgrade", "-c", worker.config, "--management", worker.management]
    return await run([*command, f"--token={worker.token}"], seconds=60)


async def by_command(worker: Worker) -> None:
    done = await upgrade_command(worker)
    assert done.returncode == 0, done.stderr
    assert f"process {await supervisor_of(worker)} serves" in done.stdout.decode()


async def by_signal(worker: Worker) -> None:
    seen = worker.log_lines
    worker.program.signal(signal.SIGUSR2)
    await worker.program.stderr.line(lambda line: READY.match(line) is not None, after=seen, seconds=60)


@asynccontextmanager
async def successors_end(worker: Worker) -> AsyncGenerator[None]:
    """At the end of the block, have the generation that serves then end in good order."""
    yield
    pid = await supervisor_of(worker)
    assert pid != worker.program.pid
    assert await worker.program.ended(seconds=30) == 0
    os.kill(pid, signal.SIGTERM)
    await eventually(lambda: not is_running(pid), seconds=30)
    assert worker.bug_lines() == []


@pytest.mark.parametrize("processes", PROCESSES)
@pytest.mark.parametrize("upgrade", [by_signal, by_command])
async def test_an_upgrade_under_load_costs_nobody_a_request(tmp_path: Path, processes: int, upgrade: Any) -> None:
    config = {"worker": {"processes": processes, "drain_timeout": 10}}
    async with (
        raw_backend(hello) as port,
        running_worker(tmp_path, config, seconds=150) as worker,
        successors_end(worker),
    ):
        await worker.route("s", "v", port)
        targets = (
            Target(worker.port(worker.http), "/s/v/"),
            Target(worker.port(worker.https), "/s/v/", worker.trust()),
        )
        async with under_load(*targets) as load:
            await upgrade(worker)
            await load.more()
            assert await supervisor_of(worker) != worker.program.pid
            await worker.program.ended(seconds=30)
            await load.more()
        # Kept connections were told that they end, and each client has come again just once.
        kept = [client.connections for client in load.clients if client.keeps]
        assert max(kept) <= 2


@pytest.mark.parametrize("processes", PROCESSES)
async def test_a_websocket_lives_on_in_the_old_generation_until_its_drain_is_over(
    tmp_path: Path, processes: int
) -> None:
    config = {"worker": {"processes": processes, "drain_timeout": 8}}
    async with (
        websocket_backend() as ws,
        running_worker(tmp_path, config, seconds=150) as worker,
        successors_end(worker),
    ):
        await worker.route("s", "ws", ws.port)
        url = f"ws://127.0.0.1:{worker.port(worker.http)}/s/ws/"
        async with connect(url, proxy=None) as old, AsyncExitStack() as stack:
            await by_signal(worker)
            new = await stack.enter_async_context(connect(url, proxy=None))
            while not await connections(worker):  # for a moment the old generation accepts, too
                new = await stack.enter_async_context(connect(url, proxy=None))
            for websocket in (old, new):
                await websocket.send("still here")
                assert await websocket.recv() == "still here"
            with pytest.raises(ConnectionClosed) as closed, trio.fail_after(20):
                await old.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
            await worker.program.ended()
            await new.send("go on")
            assert await new.recv() == "go on"


async def test_writes_during_an_upgrade_are_all_kept(tmp_path: Path) -> None:
    written = 0
    over = False

    async def write(worker: Worker) -> None:
        nonlocal written
        while not over:
            await worker.route("w", f"n{written}", 9)
            written += 1

    async with running_worker(tmp_path, {"worker": {"processes": 1}}, seconds=150) as worker, successors_end(worker):
        await worker.route("s", "v", 9)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, worker)
            await by_command(worker)
            before = written
            await eventually(lambda: written > before + 3)
            over = True
        table = (await worker.call("GET", "/v1/routes")).json()
        names = {(route["session_id"], route["service"]) for route in table["routes"]}
        assert names == {("s", "v"), *(("w", f"n{number}") for number in range(written))}
        assert table["version"] > written


async def test_what_operators_said_of_backends_holds_in_the_next_generation(tmp_path: Path) -> None:
    async with running_worker(tmp_path, {"worker": {"processes": 1}}, seconds=150) as worker, successors_end(worker):
        await worker.route("s", "v", 9, 10)
        backend = (await worker.call("GET", "/v1/backends")).json()["backends"][0]
        assert (await worker.call("POST", f"/v1/backends/s/v/{backend['backend_id']}/drain")).status_code == 200
        await by_command(worker)
        found = (await worker.call("GET", "/v1/backends")).json()["backends"]
        states = {one["backend_id"]: one["state"] for one in found}
        assert states.pop(backend["backend_id"]) == "draining"
        assert set(states.values()) == {"healthy"}


def break_syntax(worker: Worker) -> str:
    worker.config.write_text("limits = {", encoding="utf-8")
    return "is not TOML"


def take_an_address(worker: Worker, port: int) -> str:
    text = worker.config.read_text(encoding="utf-8")
    marker = "listeners = ["
    assert marker in text
    entry = f'{{ name = "taken", bind = "127.0.0.1:{port}", tls = "off" }}, '
    worker.config.write_text(text.replace(marker, marker + entry), encoding="utf-8")
    return f"cannot listen on 127.0.0.1:{port}"


@pytest.mark.parametrize("processes", PROCESSES)
@pytest.mark.parametrize("spoil", [lambda worker, _: break_syntax(worker), take_an_address])
async def test_a_generation_that_does_not_come_up_changes_nothing_and_the_reason_is_told(
    tmp_path: Path, processes: int, spoil: Callable[[Worker, int], str]
) -> None:
    config = {"worker": {"processes": processes, "drain_timeout": 10}}
    async with raw_backend(hello) as port, running_worker(tmp_path, config, seconds=150) as worker:
        await worker.route("s", "v", port)
        good = worker.config.read_text(encoding="utf-8")
        async with under_load(Target(worker.port(worker.http), "/s/v/")) as load:
            reason = spoil(worker, port)
            done = await upgrade_command(worker)
            assert done.returncode == 1
            assert reason in done.stderr.decode()
            assert reason in await worker.logged("the upgrade failed")
            await load.more()
        assert all(client.connections == 1 for client in load.clients if client.keeps)
        assert await supervisor_of(worker) == worker.program.pid
        await worker.route("s", "v2", port)
        # It can be told again, once what was wrong is mended.
        worker.config.write_text(good, encoding="utf-8")
        async with successors_end(worker):
            await by_command(worker)


async def test_the_service_manager_is_told_who_the_service_is(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)

        async def told() -> list[str]:
            with trio.fail_after(60):
                await trio.lowlevel.wait_readable(manager)
            return manager.recv(4096).decode().splitlines()

        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        config = {"worker": {"processes": 1}}
        async with running_worker(tmp_path, config, environ=environ, seconds=150) as worker:
            assert (await told())[0] == "READY=1"
            good = worker.config.read_text(encoding="utf-8")
            break_syntax(worker)
            worker.program.signal(signal.SIGUSR2)
            assert (await told())[0] == "RELOADING=1"
            assert (await told())[0] == "READY=1"
            worker.config.write_text(good, encoding="utf-8")
            async with successors_end(worker):
                worker.program.signal(signal.SIGUSR2)
                assert (await told())[0] == "RELOADING=1"
                main, ready, _ = await told()
                assert (main, ready) == (f"MAINPID={await supervisor_of(worker)}", "READY=1")
            # The old one has ended, and the next thing said is the end of the new one.
            assert (await told())[0] == "STOPPING=1"


async def test_a_second_upgrade_while_one_runs_is_refused(tmp_path: Path) -> None:
    async with running_worker(tmp_path, {"worker": {"processes": 1}}, seconds=150) as worker, successors_end(worker):
        assert (await worker.call("POST", "/v1/upgrade")).status_code == 202
        second = await worker.call("POST", "/v1/upgrade")
        assert (second.status_code, second.json()["detail"]) == (409, "an upgrade is running already")
        reload = await worker.call("POST", "/v1/reload")
        assert (reload.status_code, reload.json()["problems"]) == (
            400,
            ["an upgrade is running: reload when it is over"],
        )

        async def is_over() -> bool:
            return await supervisor_of(worker) != worker.program.pid

        await eventually(is_over, seconds=60)


async def test_unix_and_inherited_sockets_and_a_second_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "front.sock"
    with socket.create_server(("127.0.0.1", 0)) as given:
        config = {
            "worker": {"processes": 1, "drain_timeout": 2},
            "listeners": [
                {"name": "u", "bind": f"unix:{path}", "tls": "off"},
                {"name": "f", "bind": f"fd:{given.fileno()}", "tls": "off"},
                {"name": "t", "bind": "127.0.0.1:0"},
            ],
        }
        async with (
            raw_backend(hello) as port,
            running_worker(tmp_path, config, descriptors=[given.fileno()], seconds=150) as worker,
            successors_end(worker),
        ):
            await worker.route("s", "v", port)
            inode = path.stat().st_ino
            generations = [worker.program.pid]
            for _ in range(2):
                await by_command(worker)
                generations.append(await supervisor_of(worker))
                await eventually(lambda: not is_running(generations[-2]), seconds=30)
            assert len(set(generations)) == 3
            assert path.stat().st_ino == inode
            for stream in (
                await trio.open_unix_socket(str(path)),
                await trio.open_tcp_stream("127.0.0.1", given.getsockname()[1]),
            ):
                wire = Wire(stream)
                await wire.send(b"GET /s/v/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await wire.read_response()).status == 200
                await wire.aclose()
