"""What stands before a worker: TLS clients that name a host, and load balancers that name a client."""

from __future__ import annotations

import re
import shutil
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from backends import echo_backend
from curl import curl, needs_curl
from processes import eventually, free_port, listens, run, running
from worker import Worker, running_worker

from trioproxy.testing import Wire

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
needs_haproxy = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")

HAPROXY = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen front
    bind 127.0.0.1:{port}
    server worker 127.0.0.1:{worker} {send}
"""


# --- TLS -----------------------------------------------------------------------------------------------


async def s_client(worker: Worker, *arguments: str) -> str:
    connect = f"127.0.0.1:{worker.port(worker.https)}"
    done = await run(["openssl", "s_client", "-connect", connect, "-brief", *arguments])
    return done.stderr.decode() + done.stdout.decode()


@needs_openssl
async def test_openssl_is_shown_the_certificate_of_the_name_it_asks_for(tmp_path: Path, authority: Any) -> None:
    first = authority.issue("first.test", common_name="first")
    second = authority.issue("second.test", "*.wild.test", common_name="second")
    certificates = [{"cert": pair.cert, "key": pair.key} for pair in (first, second)]
    async with running_worker(tmp_path, {"tls": {"certificates": certificates}}, trusted=authority.ca) as worker:
        trust = ("-CAfile", str(authority.ca), "-verify_return_error")
        for name, subject in [
            ("first.test", "first"),
            ("second.test", "second"),
            ("any.wild.test", "second"),
            ("unknown.test", "first"),
        ]:
            told = await s_client(worker, *trust, "-servername", name)
            assert f"Peer certificate: CN = {subject}" in told, told
        assert "Peer certificate: CN = first" in await s_client(worker, *trust, "-noservername")


@needs_openssl
async def test_openssl_gets_tls_1_2_and_1_3_and_nothing_older(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as worker:
        assert "Protocol version: TLSv1.3" in await s_client(worker, "-tls1_3", "-alpn", "h2,http/1.1")
        assert "Protocol version: TLSv1.2" in await s_client(worker, "-tls1_2")
        assert "CONNECTION ESTABLISHED" not in await s_client(worker, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")


# --- the PROXY protocol --------------------------------------------------------------------------------


def behind_a_balancer() -> dict[str, Any]:
    bind = {"bind": "127.0.0.1:0", "proxy_protocol": True}
    return {"listeners": [{"name": "tls", **bind}, {"name": "plain", **bind, "tls": "off"}]}


def version_2(source: str, port: int) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton("192.0.2.80") + struct.pack("!HH", port, 443)
    extension = b"\x04\x00\x03\0\0\0"  # NOOP, three bytes of padding (§2.2.6)
    return b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11" + struct.pack("!H", len(addresses + extension)) + addresses + extension


@pytest.mark.parametrize(
    "header", [b"PROXY TCP4 203.0.113.7 192.0.2.80 50000 443\r\n", version_2("203.0.113.7", 50000)], ids=["v1", "v2"]
)
async def test_the_service_sees_the_client_that_a_proxy_header_names(tmp_path: Path, header: bytes) -> None:
    async with echo_backend() as echo, running_worker(tmp_path, behind_a_balancer()) as worker:
        await worker.route("s", "app", echo.port)
        wire = Wire(await trio.open_tcp_stream("127.0.0.1", worker.port(worker.http)))
        for part in (header[:7], header[7:20], header[20:] + b"GET /s/app/ HTTP/1.1\r\nHost: x\r\n\r\n"):
            await wire.send(part)
        assert (await wire.read_response()).status == 200
        assert echo.asked[0].values("x-forwarded-for") == ["203.0.113.7"]
        assert (await worker.record(path="/s/app/"))["client"] == "203.0.113.7"
        await wire.aclose()


async def test_without_its_proxy_header_a_connection_is_not_served(tmp_path: Path) -> None:
    async with running_worker(tmp_path, behind_a_balancer()) as worker:
        wire = Wire(await trio.open_tcp_stream("127.0.0.1", worker.port(worker.http)))
        await wire.send(b"GET /s/app/ HTTP/1.1\r\nHost: x\r\n\r\n")
        with suppress(trio.BrokenResourceError):  # closing with unread bytes resets the connection: an end as well
            assert await wire.read_all() == b""
        metrics = (await worker.call("GET", "/metrics")).text
        assert re.search(r'^trioproxy_errors_total\{code="bad_proxy_header"\} 1', metrics, re.MULTILINE)


@needs_curl
@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_curl_announces_itself_as_a_balancer_would(tmp_path: Path, scheme: str) -> None:
    async with echo_backend() as echo, running_worker(tmp_path, behind_a_balancer()) as worker:
        await worker.route("s", "app", echo.port)
        url = worker.https if scheme == "https" else worker.http
        answer = await curl("-k", "--haproxy-protocol", "--interface", "127.0.0.9", f"{url}/s/app/")
        assert (answer.code, answer.status) == (0, 200), answer.error
        assert echo.asked[0].values("x-forwarded-for") == ["127.0.0.9"]
        assert echo.asked[0].values("x-forwarded-proto") == [scheme]


@needs_curl
@needs_haproxy
@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2"])
async def test_haproxy_in_front_names_its_clients(tmp_path: Path, send: str) -> None:
    async with echo_backend() as echo, running_worker(tmp_path, behind_a_balancer()) as worker:
        await worker.route("s", "app", echo.port)
        port = free_port()
        config = tmp_path / "haproxy.cfg"
        config.write_text(HAPROXY.format(port=port, worker=worker.port(worker.https), send=send))
        async with running(["haproxy", "-db", "-f", config]):
            await eventually(lambda: listens(port))
            answer = await curl("-k", "--interface", "127.0.0.9", f"https://127.0.0.1:{port}/s/app/")
            assert (answer.code, answer.status) == (0, 200), answer.error
        assert echo.asked[-1].values("x-forwarded-for") == ["127.0.0.9"]
