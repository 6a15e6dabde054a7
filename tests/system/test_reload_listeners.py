"""Listeners, certificates and limits change by a reload, under load, and not one request fails."""

from __future__ import annotations

import signal
import ssl
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from backends import raw_backend, websocket_backend
from forwarders import forwarders, hurt
from load import Target, under_load
from processes import eventually, free_port, listens, run
from websockets.trio.client import connect
from worker import Worker, base_config, running_worker, write_config

from trioproxy.testing import Wire

PROCESSES = [0, 2]


async def hello(wire: Wire) -> None:
    while True:
        await wire.read_head()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")


def config_of(folder: Path, processes: int, *listeners: dict[str, Any], **more: Any) -> dict[str, Any]:
    base = base_config(folder)
    base["worker"]["processes"] = processes
    # The addresses as they were given: that is what a listener is known by.
    base["listeners"] = list(listeners)
    return {**base, **more}


def plain(name: str, port: int, **options: Any) -> dict[str, Any]:
    return {"name": name, "bind": f"127.0.0.1:{port}", "tls": "off", **options}


def encrypted(name: str, port: int) -> dict[str, Any]:
    return {"name": name, "bind": f"127.0.0.1:{port}"}


async def refuses(port: int) -> bool:
    return not await listens(port)


async def reload(worker: Worker, config: dict[str, Any]) -> None:
    write_config(worker.config, config)
    answer = await worker.call("POST", "/v1/reload")
    assert (answer.status_code, answer.json()["needs_restart"]) == (202, []), answer.text


@pytest.mark.parametrize("processes", PROCESSES)
async def test_a_listener_that_is_added_serves_at_once_and_the_others_go_on(tmp_path: Path, processes: int) -> None:
    ports = [free_port(), free_port(), free_port()]
    first = plain("first", ports[0])
    async with (
        raw_backend(hello) as port,
        running_worker(tmp_path, config_of(tmp_path, processes, first)) as worker,
    ):
        await worker.route("s", "v", port)
        async with under_load(Target(ports[0], "/s/v/")) as load:
            # Until now no listener had TLS: there was no certificate either.
            assert (await worker.call("GET", "/v1/certificates")).json()["certificates"] == []
            more = (plain("second", ports[1]), first, encrypted("third", ports[2]))
            await reload(worker, config_of(tmp_path, processes, *more))
            await load.more()
            async with under_load(Target(ports[1], "/s/v/"), Target(ports[2], "/s/v/", worker.trust())):
                await load.more()
        names = [one["name"] for one in (await worker.call("GET", "/v1/worker")).json()["listeners"]]
        assert names == ["second", "first", "third"]


@pytest.mark.parametrize("processes", PROCESSES)
async def test_a_listener_that_is_removed_takes_nothing_new_and_its_connections_go_on(
    tmp_path: Path, processes: int
) -> None:
    ports = [free_port(), free_port()]
    kept, goes = plain("kept", ports[0]), plain("goes", ports[1])
    async with (
        raw_backend(hello) as port,
        websocket_backend() as ws,
        running_worker(tmp_path, config_of(tmp_path, processes, goes, kept)) as worker,
    ):
        await worker.route("s", "v", port)
        await worker.route("s", "ws", ws.port)
        async with (
            connect(f"ws://127.0.0.1:{ports[1]}/s/ws/", proxy=None) as websocket,
            # On the one that goes there are only clients that keep their connection.
            under_load(Target(ports[1], "/s/v/"), fresh=0) as going,
            under_load(Target(ports[0], "/s/v/")) as staying,
        ):
            await reload(worker, config_of(tmp_path, processes, kept))
            await eventually(partial(refuses, ports[1]))  # at first, who has come before is served
            await going.more()
            await staying.more()
            await websocket.send("still here")
            assert await websocket.recv() == "still here"
            # Its address is free, also for a listener of other options.
            await reload(worker, config_of(tmp_path, processes, kept, encrypted("again", ports[1])))
            async with under_load(Target(ports[1], "/s/v/", worker.trust())):
                await going.more()
            assert all(client.connections == 1 for client in going.clients)


@pytest.mark.parametrize("processes", PROCESSES)
async def test_new_options_of_a_listener_are_for_new_connections_and_keep_its_socket(
    tmp_path: Path, processes: int
) -> None:
    ports = [free_port(), free_port()]
    steady = plain("steady", ports[1])
    async with (
        raw_backend(hello) as port,
        running_worker(tmp_path, config_of(tmp_path, processes, plain("web", ports[0]), steady)) as worker,
    ):
        await worker.route("s", "v", port)

        async def new_connection(first: bytes = b"") -> bytes:
            wire = Wire(await trio.open_tcp_stream("127.0.0.1", ports[0]))
            await wire.send(first + b"GET /s/v/ HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % ports[0])
            answer = await wire.read_response()
            await wire.aclose()
            return answer.head

        async with (
            under_load(Target(ports[0], "/s/v/"), fresh=0) as old,
            under_load(Target(ports[1], "/s/v/")) as others,
        ):
            await reload(worker, config_of(tmp_path, processes, plain("web", ports[0], redirect_to_https=True), steady))
            assert (await new_connection()).startswith(b"HTTP/1.1 308 ")
            await reload(worker, config_of(tmp_path, processes, plain("web", ports[0], proxy_protocol=True), steady))
            header = b"PROXY TCP4 192.0.2.7 192.0.2.1 5 80\r\n"
            assert (await new_connection(header)).startswith(b"HTTP/1.1 200 ")
            assert (await worker.record(client="192.0.2.7"))["status"] == 200
            await reload(worker, config_of(tmp_path, processes, encrypted("web", ports[0]), steady))
            async with under_load(Target(ports[0], "/s/v/", worker.trust())):
                await old.more()
                await others.more()
            assert all(client.connections == 1 for client in old.clients)


@pytest.mark.parametrize("processes", PROCESSES)
async def test_certificates_and_limits_change_and_nobody_notices(
    tmp_path: Path, authority: Any, processes: int
) -> None:
    port_tls, port_plain = free_port(), free_port()
    listeners = (encrypted("tls", port_tls), plain("plain", port_plain))
    pairs = [authority.issue("localhost"), authority.issue("localhost")]
    trust = ssl.create_default_context(cafile=authority.ca)

    def config(number: int) -> dict[str, Any]:
        pair = pairs[number % 2]
        limits = {"connections": 100 + number, "head_bytes": 8192 * (number + 1)}
        certificates = [{"cert": pair.cert, "key": pair.key}]
        return config_of(tmp_path, processes, *listeners, tls={"certificates": certificates}, limits=limits)

    async with (
        raw_backend(hello) as port,
        running_worker(tmp_path, config(0), trusted=authority.ca) as worker,
    ):
        await worker.route("s", "v", port)
        before = await forwarders(worker)
        async with under_load(Target(port_tls, "/s/v/", trust), Target(port_plain, "/s/v/"), fresh=1) as load:
            for number in range(1, 4):
                await reload(worker, config(number))
                await load.more()
        assert [one["pid"] for one in await forwarders(worker)] == [one["pid"] for one in before]


@pytest.mark.parametrize("processes", PROCESSES)
async def test_an_address_that_cannot_be_had_leaves_everything_as_it_was(tmp_path: Path, processes: int) -> None:
    ports = [free_port(), free_port()]
    first, spare = plain("first", ports[0]), tmp_path / "spare.sock"
    async with (
        raw_backend(hello) as port,
        running_worker(tmp_path, config_of(tmp_path, processes, first)) as worker,
    ):
        await worker.route("s", "v", port)
        async with under_load(Target(ports[0], "/s/v/")):
            # The first of the new ones can be had, the second belongs to somebody else, and the old one is gone.
            wrong = (plain("second", ports[1]), {"name": "u", "bind": f"unix:{spare}"}, plain("taken", port))
            write_config(worker.config, config_of(tmp_path, processes, *wrong, limits={"body_bytes": 1}))
            command = [sys.executable, "-m", "trioproxy", "reload", "--management", worker.management]
            done = await run([*command, "-c", worker.config, f"--token={worker.token}"])
            assert done.returncode == 1
            assert f"listener 'taken' cannot listen on 127.0.0.1:{port}: address already in use" in done.stderr.decode()
            assert not await listens(ports[1])
            assert not spare.exists()
            listening = (await worker.call("GET", "/v1/worker")).json()["listeners"]
            assert [one["name"] for one in listening] == ["first"]
        # Once it is right it is taken up, in one go.
        await reload(worker, config_of(tmp_path, processes, first, plain("second", ports[1])))
        assert await listens(ports[1])


async def test_a_forwarder_that_is_started_later_has_the_listeners_of_now(tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    first, second = plain("first", ports[0]), plain("second", ports[1])
    async with (
        raw_backend(hello) as port,
        running_worker(tmp_path, config_of(tmp_path, 1, first)) as worker,
    ):
        await worker.route("s", "v", port)
        await reload(worker, config_of(tmp_path, 1, second))
        (old,) = worker.forwarders()
        hurt(old, signal.SIGKILL)
        async with under_load(Target(ports[1], "/s/v/")):
            assert not await listens(ports[0])
        assert old not in worker.forwarders()
