from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.config.schema import CertificateConfig, ListenerConfig, TimeoutsConfig, TlsConfig
from trioproxy.net.certificates import CertificateStore
from trioproxy.net.entrance import Entrance
from trioproxy.net.peer import Peer
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.net.stream import abort
from trioproxy.net.tls import CLOSE_NOTIFY_SECONDS, accept_tls, client_context, connect_tls
from trioproxy.observe.metrics import Metrics

HEADER = b"PROXY TCP4 192.0.2.7 198.51.100.9 4711 443\r\n"
PLAIN = Peer("unix", 0, "unix", 0, "web", tls=False, server_name=None)
BEHIND = Peer("192.0.2.7", 4711, "198.51.100.9", 443, "web", tls=False, server_name=None)
V2_MAPPED = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24"
    + bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 7])
    + bytes(10) + b"\xff\xff" + bytes([198, 51, 100, 9])
    + (4711).to_bytes(2, "big") + (443).to_bytes(2, "big")
)  # fmt: skip
V2_LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"


class Door:
    """An entrance and its figures."""

    def __init__(self, *, tls: CertificateStore | None = None, proxy_protocol: bool = False) -> None:
        self.metrics = Metrics()
        self.entrance = Entrance(
            ListenerConfig(tls="auto" if tls else "off", proxy_protocol=proxy_protocol),
            certificates=tls,
            metrics=self.metrics,
            timeouts=lambda: TimeoutsConfig(tls_handshake=10.0),
            trusted=lambda: (),
        )

    async def admit(self, stream: trio.abc.Stream) -> tuple[PrefixedStream, Peer] | None:
        return await self.entrance.admit(PrefixedStream(stream))

    def failures(self) -> dict[str, int]:
        return dict(self.metrics.errors) | dict(self.metrics.tls_handshakes)


@pytest.fixture
def certificates(authority: Any, tmp_path: Path) -> CertificateStore:
    pairs = [authority.issue("a.example"), authority.issue("b.example")]
    config = TlsConfig(certificates=tuple(CertificateConfig(cert=pair.cert, key=pair.key) for pair in pairs))
    return CertificateStore(config, tmp_path)


async def test_without_tls_and_header_a_connection_is_admitted_as_it_is() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"GET /")
    admitted = await Door().admit(ours)
    assert admitted is not None
    stream, peer = admitted
    assert peer == PLAIN
    assert peer.address == "unix"
    assert await stream.receive_some() == b"GET /"


def test_a_listener_that_wants_tls_needs_certificates() -> None:
    with pytest.raises(ValueError, match="no certificates"):
        Entrance(
            ListenerConfig(),
            certificates=None,
            metrics=Metrics(),
            timeouts=TimeoutsConfig,
            trusted=lambda: (),
        )


# --- PROXY header ---------------------------------------------------------------------------------------


@given(
    header=st.sampled_from([(HEADER, BEHIND), (V2_MAPPED, BEHIND), (V2_LOCAL, PLAIN), (b"PROXY UNKNOWN\r\n", PLAIN)]),
    rest=st.binary(max_size=20),
    cuts=st.lists(st.integers(0, 80), max_size=6),
)
def test_any_split_of_header_and_rest_gives_the_same_peer_and_the_same_rest(
    header: tuple[bytes, Peer], rest: bytes, cuts: list[int]
) -> None:
    data, expected = header
    whole = data + rest
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]

    async def main() -> None:
        ours, theirs = trio.testing.lockstep_stream_pair()

        async def send() -> None:
            for start, end in pairwise(edges):
                await theirs.send_all(whole[start:end])
            await theirs.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            admitted = await Door(proxy_protocol=True).admit(ours)
            assert admitted is not None
            stream, peer = admitted
            received = b""
            while chunk := await stream.receive_some():
                received += chunk
        assert peer == expected
        assert received == rest

    trio.run(main)


async def test_a_malformed_header_is_refused_and_counted() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"GET / HTTP/1.1\r\n\r\n")
    door = Door(proxy_protocol=True)
    assert await door.admit(ours) is None
    assert door.failures() == {"bad_proxy_header": 1}


async def test_a_header_cut_short_is_refused_and_counted() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(HEADER[:-1])
    await theirs.send_eof()
    door = Door(proxy_protocol=True)
    assert await door.admit(ours) is None
    assert door.failures() == {"bad_proxy_header": 1}


@pytest.mark.parametrize("ending", ["eof", "break"])
async def test_a_balancer_that_only_looks_whether_we_listen_is_no_failure(ending: str) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    if ending == "eof":
        await theirs.send_eof()
    else:
        ours.receive_stream.receive_some_hook = _break
    door = Door(proxy_protocol=True)
    assert await door.admit(ours) is None
    assert door.failures() == {}


async def _break() -> None:
    await trio.lowlevel.checkpoint()
    raise trio.BrokenResourceError


@pytest.mark.parametrize("sent", [b"", HEADER[:20]])
async def test_timeouts_tls_handshake_bounds_the_proxy_header(autojump_clock: Any, sent: bytes) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(sent)
    door = Door(proxy_protocol=True)
    assert await door.admit(ours) is None
    assert trio.current_time() == 10.0
    assert door.failures() == {"bad_proxy_header": 1}


# --- TLS ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def shaken(door: Door, authority: Any, *, prefix: bytes = b"", name: str = "b.example") -> AsyncIterator[Any]:
    """A TLS connection through the door: (server's stream, peer, client's SSLStream)."""
    ours, theirs = trio.testing.memory_stream_pair()
    context = ssl.create_default_context(cafile=str(authority.ca))
    await theirs.send_all(prefix)
    client = trio.SSLStream(theirs, context, server_hostname=name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        admitted = await door.admit(ours)
    assert admitted is not None
    yield *admitted, client


async def test_tls_is_spoken_and_the_server_name_noted(certificates: CertificateStore, authority: Any) -> None:
    door = Door(tls=certificates)
    async with shaken(door, authority) as (stream, peer, client):
        assert (peer.tls, peer.server_name) == (True, "b.example")
        await client.send_all(b"ping")
        assert await stream.receive_some() == b"ping"
        await stream.send_all(b"pong")
        assert await client.receive_some() == b"pong"
    assert door.failures() == {"ok": 1}


async def test_tls_may_follow_a_proxy_header_in_the_same_segment(
    certificates: CertificateStore, authority: Any
) -> None:
    door = Door(tls=certificates, proxy_protocol=True)
    async with shaken(door, authority, prefix=HEADER, name="a.example") as (stream, peer, client):
        assert (peer.address, peer.tls, peer.server_name) == ("192.0.2.7:4711", True, "a.example")
        await client.send_all(b"ping")
        assert await stream.receive_some() == b"ping"


async def test_a_client_of_one_connection_does_not_lend_its_server_name_to_the_next(
    certificates: CertificateStore, authority: Any
) -> None:
    door = Door(tls=certificates)
    async with shaken(door, authority, name="a.example") as (_, peer, _client):
        assert peer.server_name == "a.example"
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.SSLStream(theirs, client_context(verify=False, ca_file=None)).do_handshake)
        admitted = await door.admit(ours)
    assert admitted is not None
    assert admitted[1].server_name is None


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x00\x05hello", bytes(600)])
async def test_garbage_instead_of_tls_is_refused_and_counted(certificates: CertificateStore, sent: bytes) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(sent)
    await theirs.send_eof()
    door = Door(tls=certificates)
    assert await door.admit(ours) is None
    assert door.failures() == {"failed": 1}


async def test_a_connection_that_breaks_in_the_handshake_is_counted(certificates: CertificateStore) -> None:
    ours, _ = trio.testing.memory_stream_pair()
    ours.receive_stream.receive_some_hook = _break
    door = Door(tls=certificates)
    assert await door.admit(ours) is None
    assert door.failures() == {"failed": 1}


async def test_timeouts_tls_handshake_bounds_the_tls_handshake(
    certificates: CertificateStore, autojump_clock: Any
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"\x16\x03\x01")
    door = Door(tls=certificates)
    assert await door.admit(ours) is None
    assert trio.current_time() == 10.0
    assert door.failures() == {"timeout": 1}


async def test_header_and_tls_share_one_deadline(certificates: CertificateStore, autojump_clock: Any) -> None:
    ours, theirs = trio.testing.memory_stream_pair()

    async def late() -> None:
        await trio.sleep(9)
        await theirs.send_all(HEADER)

    door = Door(tls=certificates, proxy_protocol=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(late)
        assert await door.admit(ours) is None
    assert trio.current_time() == 10.0
    assert door.failures() == {"timeout": 1}


# --- how TLS ends ---------------------------------------------------------------------------------------


async def test_closing_says_close_notify(certificates: CertificateStore, authority: Any) -> None:
    async with shaken(Door(tls=certificates), authority) as (stream, _, client):
        await stream.aclose()
        assert await client.receive_some() == b""


async def test_aborting_says_no_close_notify(certificates: CertificateStore, authority: Any) -> None:
    async with shaken(Door(tls=certificates), authority) as (stream, _, client):
        await abort(stream)
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()


async def test_a_client_that_leaves_without_close_notify_has_ended(
    certificates: CertificateStore, authority: Any
) -> None:
    async with shaken(Door(tls=certificates), authority) as (stream, _, client):
        await client.transport_stream.send_eof()
        with trio.testing.assert_checkpoints():
            assert await stream.receive_some() == b""
        await stream.aclose()


async def test_reading_ahead_notices_such_a_client_too(certificates: CertificateStore, authority: Any) -> None:
    async with shaken(Door(tls=certificates), authority) as (stream, _, client):
        await client.transport_stream.send_eof()
        assert await stream.read_ahead(10) == 0


async def test_a_failure_below_tls_is_no_end(certificates: CertificateStore, authority: Any) -> None:
    async with shaken(Door(tls=certificates), authority) as (stream, _, _client):
        stream.inner.transport_stream.receive_stream.receive_some_hook = _break
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()


async def test_a_backend_that_leaves_without_close_notify_has_broken(
    certificates: CertificateStore, authority: Any
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    context = client_context(verify=True, ca_file=str(authority.ca))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept_tls, theirs, certificates.context)
        backend = await connect_tls(ours, context, "a.example")
    await theirs.send_eof()
    with pytest.raises(trio.BrokenResourceError):
        await backend.receive_some()


async def test_closing_waits_a_bounded_time_for_a_peer_that_does_not_read(
    certificates: CertificateStore, autojump_clock: Any
) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    client = trio.SSLStream(theirs, client_context(verify=False, ca_file=None))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        stream, _ = await accept_tls(ours, certificates.context)
    await stream.aclose()
    assert trio.current_time() == CLOSE_NOTIFY_SECONDS
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")
