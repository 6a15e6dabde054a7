"""Several forwarder processes look like one worker: to operators, to clients, and in the logs."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import trio
from backends import echo_backend, raw_backend
from cryptography import x509
from forwarders import all_ready, connections_to_each, dial, get, get_fresh, hurt, metric
from processes import eventually
from worker import Worker, base_config, running_worker, write_config

from trioproxy.testing import Wire

TWO: dict[str, Any] = {"worker": {"processes": 2, "drain_timeout": 5}}


async def hello(wire: Wire) -> None:
    while True:
        await wire.read_head()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")


async def test_connections_of_all_forwarders_are_listed_and_any_can_be_closed(tmp_path: Path) -> None:
    async with raw_backend(hello) as port, running_worker(tmp_path, TWO) as worker:
        await worker.route("s", "v", port)
        async with connections_to_each(worker, "/s/v/", 2) as connections:
            held = sum(len(wires) for wires in connections.values())
            listing = (await worker.call("GET", "/v1/connections")).json()
            assert listing["total"] == held
            assert {one["id"].partition("-")[0].encode() for one in listing["connections"]} == set(connections)
            for one in listing["connections"]:
                assert (await worker.call("DELETE", f"/v1/connections/{one['id']}")).status_code == 204
            assert (await worker.call("DELETE", f"/v1/connections/{one['id']}")).status_code in (204, 404)
            for wire in (wire for wires in connections.values() for wire in wires):
                with trio.fail_after(5):
                    assert await wire.read_all() == b""
            assert (await worker.call("DELETE", "/v1/connections/nobody-1")).status_code == 404


async def test_what_an_operator_says_of_a_backend_holds_in_every_forwarder_also_in_later_ones(tmp_path: Path) -> None:
    async with (
        echo_backend() as one,
        echo_backend() as two,
        running_worker(tmp_path, TWO) as worker,
    ):
        await worker.route("s", "v", one.port, two.port)
        backend = f"/v1/backends/s/v/127.0.0.1:{one.port}"
        assert (await worker.call("POST", f"{backend}/disable")).status_code == 200

        async def only_two() -> bool:
            before = len(one.asked), len(two.asked)
            for _ in range(20):
                assert (await get_fresh(worker, "/s/v/")).status == 200
            return (len(one.asked) - before[0], len(two.asked) - before[1]) == (0, 20)

        assert await only_two()
        for restarts, pid in enumerate(worker.forwarders(), 1):
            hurt(pid, signal.SIGKILL)
            await all_ready(worker, restarts)
        assert await only_two()
        listed = (await worker.call("GET", "/v1/backends")).json()["backends"]
        assert {entry["backend_id"]: entry["state"] for entry in listed} == {
            f"127.0.0.1:{one.port}": "disabled",
            f"127.0.0.1:{two.port}": "healthy",
        }
        assert (await worker.call("POST", f"{backend}/enable")).status_code == 200
        assert not await only_two()


async def serials(worker: Worker, count: int) -> set[int]:
    """Serial numbers of the certificates that so many new connections get."""
    found: set[int] = set()
    for _ in range(count):
        plain = await trio.open_tcp_stream("127.0.0.1", worker.port(worker.https))
        encrypted = trio.SSLStream(plain, worker.trust(), server_hostname="localhost", https_compatible=True)
        await encrypted.do_handshake()
        found.add(x509.load_der_x509_certificate(encrypted.getpeercert(binary_form=True)).serial_number)
        await trio.aclose_forcefully(encrypted)
    return found


def serial_of(pair: Any) -> int:
    return x509.load_pem_x509_certificate(pair.cert.read_bytes()).serial_number


async def test_a_reload_reaches_every_forwarder_or_none(tmp_path: Path, authority: Any) -> None:
    def config(pair: Any, **more: Any) -> dict[str, Any]:
        whole = base_config(tmp_path)
        return {
            **whole,
            "worker": {**whole["worker"], "processes": 2},
            "tls": {"certificates": [{"cert": pair.cert, "key": pair.key}]},
            **more,
        }

    old, new = authority.issue("localhost"), authority.issue("localhost")
    async with raw_backend(hello) as port, running_worker(tmp_path, config(old), trusted=authority.ca) as worker:
        await worker.route("s", "v", port)
        assert await serials(worker, 10) == {serial_of(old)}
        async with connections_to_each(worker, "/s/v/", 2) as connections:
            write_config(worker.config, config(new, limits={"head_bytes": 2000}))
            assert (await worker.call("POST", "/v1/reload")).status_code == 202
            assert await serials(worker, 20) == {serial_of(new)}
            for wire in (wire for wires in connections.values() for wire in wires):
                assert (await get(wire, "/s/v/")).status == 200
            # 431 ends the connection, so each forwarder is asked on a fresh one.
            statuses = {(await get_fresh(worker, f"/s/v/{'x' * 3000}")).status for _ in range(20)}
            assert statuses == {431}

        new.key.write_text("no key")
        write_config(worker.config, config(new))
        assert (await worker.call("POST", "/v1/reload")).status_code == 400
        assert await serials(worker, 10) == {serial_of(new)}
        assert {(await get_fresh(worker, f"/s/v/{'x' * 3000}")).status for _ in range(10)} == {431}


async def test_lines_of_the_access_log_never_mix(tmp_path: Path) -> None:
    requests, clients = 40, 12
    async with raw_backend(hello) as port, running_worker(tmp_path, TWO) as worker:
        await worker.route("s", "v", port)

        async def ask(client: int) -> None:
            wire = await dial(worker)
            for number in range(requests):
                padding = "x" * (400 * (number % 20))  # up to lines that are longer than a pipe takes in one piece
                assert (await get(wire, f"/s/v/{client}-{number}-{padding}")).status == 200
            await wire.aclose()

        async with trio.open_nursery() as nursery:
            for client in range(clients):
                nursery.start_soon(ask, client)
        await eventually(lambda: len(worker.program.stdout.lines) == requests * clients)
        records = [json.loads(line) for line in worker.program.stdout.lines]
        assert {record["path"].split("/")[3].rsplit("-", 1)[0] for record in records} == {
            f"{client}-{number}" for client in range(clients) for number in range(requests)
        }
        assert len({record["id"].partition("-")[0] for record in records}) == 2


async def test_the_access_log_is_opened_anew_by_every_forwarder(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    config = {**TWO, "log": {"access": str(path)}}
    async with raw_backend(hello) as port, running_worker(tmp_path, config) as worker:
        await worker.route("s", "v", port)
        async with connections_to_each(worker, "/s/v/", 1):
            await eventually(lambda: path.read_text().count("\n") >= 2)
            path.rename(tmp_path / "access.log.1")
            assert (await worker.call("POST", "/v1/reload")).status_code == 202
            async with connections_to_each(worker, "/s/v/", 5) as connections:
                asked = sum(map(len, connections.values()))

                def written() -> bool:
                    return path.exists() and path.read_text().count("\n") == asked

                await eventually(written)
                prefixes = {json.loads(line)["id"].partition("-")[0] for line in path.read_text().splitlines()}
                assert prefixes == {server.decode() for server in connections}


async def test_a_large_table_reaches_forwarders_under_load_and_costs_no_request(tmp_path: Path) -> None:
    count = 20_000
    path = tmp_path / "routes.json"
    path.write_text('{"routes": []}')
    config = {**TWO, "providers": {"file": {"path": path, "interval": 0.1}}}
    async with raw_backend(hello) as port, running_worker(tmp_path, config) as worker:
        await worker.route("s", "v", port)
        stop = trio.Event()
        asked = 0

        async def ask() -> None:
            nonlocal asked
            wire = await dial(worker)
            while not stop.is_set():
                assert (await get(wire, "/s/v/")).status == 200
                asked += 1
            await wire.aclose()

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
            backends = [{"host": "127.0.0.1", "port": port}]
            many = [{"session_id": f"s{number}", "service": "v", "backends": backends} for number in range(count)]
            fresh = path.with_suffix(".new")
            fresh.write_text(json.dumps({"routes": many}))
            fresh.replace(path)

            async def everywhere() -> bool:
                return {(await get_fresh(worker, f"/s{count - 1}/v/")).status for _ in range(10)} == {200}

            await eventually(everywhere, seconds=60)
            stop.set()
        assert asked > 0
        assert await metric(worker, "trioproxy_forwarder_restarts_total") == 0
        assert {
            info["table_version"] for info in (await worker.call("GET", "/v1/forwarders")).json()["forwarders"]
        } == {(await worker.call("GET", "/v1/worker")).json()["table_version"]}
