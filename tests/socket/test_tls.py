from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from trioproxy.config.schema import CertificateConfig, ListenerConfig, TimeoutsConfig, TlsConfig
from trioproxy.errors import ConfigError
from trioproxy.net.bind import bind_listener
from trioproxy.net.certificates import CertificateStore
from trioproxy.net.limiter import ConnectionLimiter
from trioproxy.net.listener import Listener
from trioproxy.net.peer import Peer
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.net.stream import abort
from trioproxy.observe.metrics import Metrics

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="wants the openssl command")


def config(*pairs: Any) -> TlsConfig:
    return TlsConfig(certificates=tuple(CertificateConfig(cert=pair.cert, key=pair.key) for pair in pairs))


async def respond(stream: PrefixedStream, peer: Peer) -> None:
    """What a close-delimited response looks like: bytes, then the end."""
    request = await stream.receive_some()
    await stream.send_all(b"you sent " + bytes(request))
    if b"abort" in request:
        await abort(stream)


async def echo(stream: PrefixedStream, peer: Peer) -> None:
    async for data in stream:
        await stream.send_all(data)


@asynccontextmanager
async def serving(store: CertificateStore, metrics: Metrics, handler: Any = respond) -> AsyncIterator[int]:
    sock = bind_listener("127.0.0.1:0")
    port = sock.getsockname()[1]
    listener = Listener(
        ListenerConfig(),
        sock,
        handler=handler,
        certificates=store,
        limiter=ConnectionLimiter(100),
        metrics=metrics,
        timeouts=TimeoutsConfig,
        trusted=lambda: (),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(listener.serve, nursery)
        yield port
        nursery.cancel_scope.cancel()


async def s_client(port: int, *arguments: str, send: bytes = b"hello\n") -> subprocess.CompletedProcess[bytes]:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-ign_eof", *arguments]
    with trio.fail_after(20):
        return await trio.run_process(command, stdin=send, capture_stdout=True, capture_stderr=True, check=False)


@pytest.fixture
def store(authority: Any, tmp_path: Path) -> CertificateStore:
    return CertificateStore(
        config(authority.issue("first.example", common_name="first"), authority.issue("*.example", common_name="wild")),
        tmp_path,
    )


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["-servername", "first.example"], b"CN = first"),
        (["-servername", "any.example"], b"CN = wild"),
        (["-servername", "elsewhere.test"], b"CN = first"),
        (["-noservername"], b"CN = first"),
        (["-tls1_2", "-servername", "any.example"], b"CN = wild"),
    ],
)
async def test_openssl_is_shown_the_certificate_for_the_name_it_asks_for(
    store: CertificateStore, authority: Any, arguments: list[str], shown: bytes
) -> None:
    async with serving(store, Metrics()) as port:
        done = await s_client(port, "-CAfile", str(authority.ca), "-alpn", "h2,http/1.1", *arguments)
    assert b"subject=" + shown in done.stdout.replace(b"CN=", b"CN = ")
    assert b"Verify return code: 0 (ok)" in done.stdout
    assert b"ALPN protocol: http/1.1" in done.stdout
    assert b"you sent hello" in done.stdout


async def test_the_end_of_a_response_is_told_from_a_cut_one(store: CertificateStore) -> None:
    async with serving(store, Metrics()) as port:
        whole = await s_client(port, "-msg")
        cut = await s_client(port, "-msg", send=b"abort\n")
    assert b"<<< TLS 1.3, Alert [length 0002], warning close_notify" in whole.stdout
    assert b"<<< TLS 1.3, Alert" not in cut.stdout


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
async def test_old_versions_of_tls_are_refused(store: CertificateStore, version: str) -> None:
    metrics = Metrics()
    async with serving(store, metrics) as port:
        done = await s_client(port, version, "-cipher", "ALL:@SECLEVEL=0")
    assert b"you sent" not in done.stdout
    assert metrics.tls_handshakes == {"failed": 1}


async def test_a_session_is_resumed_by_its_ticket_even_after_a_reload(
    store: CertificateStore, authority: Any, tmp_path: Path
) -> None:
    session = tmp_path / "session"
    async with serving(store, Metrics()) as port:
        first = await s_client(port, "-tls1_2", "-sess_out", str(session))
        store.reload(config(authority.issue("new.example")))
        second = await s_client(port, "-tls1_2", "-sess_in", str(session))
    assert b"New, TLSv1.2" in first.stdout
    assert b"Reused, TLSv1.2" in second.stdout


async def test_a_reload_leaves_open_connections_alone_and_serves_new_ones(
    store: CertificateStore, authority: Any, tmp_path: Path
) -> None:
    context = ssl.create_default_context(cafile=str(authority.ca))

    async def connect(port: int, name: str) -> trio.SSLStream[trio.SocketStream]:
        stream = trio.SSLStream(await trio.open_tcp_stream("127.0.0.1", port), context, server_hostname=name)
        await stream.do_handshake()
        return stream

    async def converses(stream: trio.SSLStream[trio.SocketStream]) -> bool:
        await stream.send_all(b"hello")
        return await stream.receive_some() == b"hello"

    async with serving(store, Metrics(), echo) as port:
        early = await connect(port, "first.example")
        assert await converses(early)
        with pytest.raises(ConfigError):
            store.reload(config(CertificateConfig(cert=tmp_path / "no.crt", key=tmp_path / "no.key")))
        still_old = await connect(port, "first.example")
        store.reload(config(authority.issue("new.example")))
        late = await connect(port, "new.example")
        for stream in (early, still_old, late):
            assert await converses(stream)
        with pytest.raises(trio.BrokenResourceError):
            await connect(port, "first.example")
        for stream in (early, still_old, late):
            await trio.aclose_forcefully(stream)


async def test_curl_takes_a_response_that_ends_with_the_connection(store: CertificateStore, authority: Any) -> None:
    async def http_1_0(stream: PrefixedStream, peer: Peer) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.0 200 OK\r\n\r\nbody")

    if shutil.which("curl") is None:
        pytest.skip("wants curl")
    async with serving(store, Metrics(), http_1_0) as port:
        with trio.fail_after(20):
            done = await trio.run_process(
                ["curl", "--silent", "--show-error", "--noproxy", "*", "--cacert", str(authority.ca),
                 "--resolve", f"first.example:{port}:127.0.0.1", f"https://first.example:{port}/"],
                capture_stdout=True, capture_stderr=True, check=False,
            )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"body", b"")
