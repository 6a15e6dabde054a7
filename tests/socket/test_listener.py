from __future__ import annotations

import os
import socket
import ssl
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioproxy.config.schema import CertificateConfig, ListenerConfig, TimeoutsConfig, TlsConfig
from trioproxy.net.bind import bind_listener, url_of
from trioproxy.net.certificates import CertificateStore
from trioproxy.net.limiter import ConnectionLimiter
from trioproxy.net.listener import Listener
from trioproxy.net.peer import Peer
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.net.stream import abort
from trioproxy.observe.metrics import Metrics


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Server:
    """A listener on a real socket whose handler tells the peer it saw and then echoes."""

    def __init__(
        self, sock: socket.socket, *, trusted: tuple[str, ...] = (), per_client: int = 0, **config: Any
    ) -> None:
        self.address = sock.getsockname()
        self.metrics = Metrics()
        self.limiter = ConnectionLimiter(1000, per_client)
        self.peers: list[Peer] = []
        self.certificates: CertificateStore | None = config.pop("certificates", None)
        self.listener = Listener(
            ListenerConfig(tls="auto" if self.certificates else "off", **config),
            sock,
            handler=self._handle,
            certificates=self.certificates,
            limiter=self.limiter,
            metrics=self.metrics,
            timeouts=TimeoutsConfig,
            trusted=lambda: [ip_network(item) for item in trusted],
        )

    async def _handle(self, stream: PrefixedStream, peer: Peer) -> None:
        self.peers.append(peer)
        await stream.send_all(b"!")
        async for data in stream:
            await stream.send_all(data)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        """Accept during the block; at its end wait until the clients' connections have ended."""
        with trio.fail_after(20):
            async with trio.open_nursery() as connections, trio.open_nursery() as accepting:
                await accepting.start(self.listener.serve, connections)
                yield self
                accepting.cancel_scope.cancel()


# --- who the client is ----------------------------------------------------------------------------------


async def test_the_peer_is_the_socket_s_address() -> None:
    async with Server(bind_listener("127.0.0.1:0")).running() as server:
        client = await trio.open_tcp_stream(*server.address)
        assert await client.receive_some() == b"!"
        host, port = client.socket.getsockname()
        await client.aclose()
    assert server.peers == [Peer(host, port, "127.0.0.1", server.address[1], "web", tls=False, server_name=None)]
    assert server.peers[0].address == f"127.0.0.1:{port}"


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="no IPv6 here")
async def test_ipv4_clients_of_an_ipv6_socket_have_ipv4_addresses() -> None:
    sock = bind_listener("[::]:0")
    async with Server(sock).running() as server:
        for host in ("127.0.0.1", "::1"):
            client = await trio.open_tcp_stream(host, server.address[1])
            assert await client.receive_some() == b"!"
            await client.aclose()
    assert [(peer.host, peer.local_host) for peer in server.peers] == [("127.0.0.1", "127.0.0.1"), ("::1", "::1")]
    assert server.peers[1].address == f"[::1]:{server.peers[1].port}"


async def test_the_client_of_a_unix_socket_is_called_unix(tmp_path: Path) -> None:
    async with Server(bind_listener(f"unix:{tmp_path}/s")).running():
        client = await trio.open_unix_socket(tmp_path / "s")
        assert await client.receive_some() == b"!"
        await client.aclose()


@pytest.mark.parametrize(("trusted", "admitted"), [((), True), (("127.0.0.0/8",), True), (("192.0.2.0/24",), False)])
async def test_a_proxy_header_is_believed_from_trusted_peers_only(trusted: tuple[str, ...], admitted: bool) -> None:
    server = Server(bind_listener("127.0.0.1:0"), trusted=trusted, proxy_protocol=True)
    async with server.running():
        client = await trio.open_tcp_stream(*server.address)
        await client.send_all(b"PROXY TCP4 192.0.2.7 198.51.100.9 4711 443\r\nrest")
        received = b""
        try:
            while len(received) < 5 and (data := await client.receive_some()):
                received += data
        except trio.BrokenResourceError:  # closed with our bytes unread
            pass
        assert received == (b"!rest" if admitted else b"")
        await client.aclose()
    assert [peer.address for peer in server.peers] == (["192.0.2.7:4711"] if admitted else [])
    assert server.metrics.errors["bad_proxy_header"] == (0 if admitted else 1)


async def test_one_client_gets_as_many_connections_as_it_may() -> None:
    server = Server(bind_listener("127.0.0.1:0"), per_client=1, proxy_protocol=True)

    async def connect(host: str) -> trio.SocketStream:
        client = await trio.open_tcp_stream(*server.address)
        await client.send_all(f"PROXY TCP4 {host} 198.51.100.9 1 2\r\n".encode())
        return client

    async with server.running():
        first = await connect("192.0.2.1")
        assert await first.receive_some() == b"!"
        second, other = await connect("192.0.2.1"), await connect("192.0.2.2")
        assert await second.receive_some() == b""
        assert await other.receive_some() == b"!"
        for client in (first, second, other):
            await client.aclose()
    assert server.metrics.errors["client_limit"] == 1


async def test_a_client_that_is_gone_before_it_is_looked_at_is_not_served() -> None:
    server = Server(bind_listener("127.0.0.1:0"))
    async with server.running():
        pass
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = await trio.open_tcp_stream(*listening.getsockname())
        accepted = trio.SocketStream(trio.socket.from_stdlib_socket(listening.accept()[0]))
    await abort(client)
    async with accepted:
        await trio.lowlevel.wait_readable(accepted.socket)
        assert await server.listener._entrance.admit(PrefixedStream(accepted)) is None


async def test_after_many_connections_of_every_kind_open_files_are_as_before(authority: Any, tmp_path: Path) -> None:
    pair = authority.issue("localhost")
    store = CertificateStore(TlsConfig(certificates=(CertificateConfig(cert=pair.cert, key=pair.key),)), tmp_path)
    context = ssl.create_default_context(cafile=str(authority.ca))
    async with Server(bind_listener("127.0.0.1:0")).running() as first:  # with it comes what stays for the run
        client = await trio.open_tcp_stream(*first.address)
        assert await client.receive_some() == b"!"
        await wait_all_tasks_blocked()
        await client.aclose()
    before = open_files()
    server = Server(bind_listener("127.0.0.1:0"), certificates=store)
    async with server.running():
        for round_ in range(60):
            client = await trio.open_tcp_stream(*server.address)
            if round_ % 4 == 0:
                await client.send_all(b"garbage, and no TLS at all")
                await client.aclose()
            elif round_ % 4 == 1:
                await abort(client)
            else:
                encrypted = trio.SSLStream(client, context, server_hostname="localhost")
                await encrypted.do_handshake()
                await (encrypted.aclose() if round_ % 4 == 2 else abort(encrypted))
    assert open_files() == before
    assert server.metrics.tls_handshakes["ok"] > 0
    assert server.metrics.connections["web"] == 0


# --- binding --------------------------------------------------------------------------------------------


@contextmanager
def bound(bind: str) -> Iterator[socket.socket]:
    with bind_listener(bind) as sock:
        yield sock


def connects(address: Any, family: int = socket.AF_INET) -> bool:
    with socket.socket(family) as client:
        return client.connect_ex(address) == 0


def test_a_tcp_address_is_bound_with_its_real_port_in_the_url() -> None:
    with bound("127.0.0.1:0") as sock:
        port = sock.getsockname()[1]
        assert connects(("127.0.0.1", port))
        assert url_of(ListenerConfig(bind="127.0.0.1:0"), sock) == f"https://127.0.0.1:{port}"
        assert url_of(ListenerConfig(bind="127.0.0.1:0", tls="off"), sock) == f"http://127.0.0.1:{port}"


def test_all_addresses_and_host_names_can_be_bound() -> None:
    for bind, host in [("0.0.0.0:0", "0.0.0.0"), (":0", "0.0.0.0"), ("localhost:0", "127.0.0.1")]:
        with bound(bind) as sock:
            assert sock.getsockname()[0] == host
            assert url_of(ListenerConfig(tls="off"), sock).startswith(f"http://{host}:")


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="no IPv6 here")
def test_an_ipv6_address_takes_ipv4_only_when_it_is_all_addresses() -> None:
    with bound("[::]:0") as sock:
        assert connects(("127.0.0.1", sock.getsockname()[1]))
        assert url_of(ListenerConfig(), sock) == f"https://[::]:{sock.getsockname()[1]}"
    with bound("[::1]:0") as sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_a_taken_address_is_named_in_the_error() -> None:
    with bound("127.0.0.1:0") as sock:
        bind = f"127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(OSError) as caught:
            bind_listener(bind)
    assert str(caught.value) == f"cannot listen on {bind}: address already in use"
    assert isinstance(caught.value.errno, int)


def test_a_host_name_that_does_not_exist_is_named_in_the_error() -> None:
    with pytest.raises(OSError, match=r"^cannot listen on no\.such\.host\.invalid:1: "):
        bind_listener("no.such.host.invalid:1")


def test_a_unix_socket_is_for_owner_and_group_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with bound(f"unix:{tmp_path}/s") as sock:
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660
            assert url_of(ListenerConfig(), sock) == f"unix:{tmp_path}/s"
            assert connects(str(tmp_path / "s"), socket.AF_UNIX)
    finally:
        os.umask(before)


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    bind_listener(f"unix:{tmp_path}/s").close()
    assert not connects(str(tmp_path / "s"), socket.AF_UNIX)
    with bound(f"unix:{tmp_path}/s"):
        assert connects(str(tmp_path / "s"), socket.AF_UNIX)


def test_a_live_unix_socket_is_left_alone(tmp_path: Path) -> None:
    with bound(f"unix:{tmp_path}/s"):
        with pytest.raises(OSError, match="another process listens there"):
            bind_listener(f"unix:{tmp_path}/s")
        assert connects(str(tmp_path / "s"), socket.AF_UNIX)


def test_a_live_unix_socket_whose_queue_is_full_is_left_alone(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(tmp_path / "s"))
        busy.listen(0)
        first.connect(str(tmp_path / "s"))
        with pytest.raises(OSError, match="another process listens there"):
            bind_listener(f"unix:{tmp_path}/s")


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_is_never_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match="there is a file of that name, and it is no socket"):
        bind_listener(f"unix:{path}")
    assert path.is_symlink() or path.exists()


def test_a_unix_socket_where_no_file_can_be_made_is_named_in_the_error(tmp_path: Path) -> None:
    bind = f"unix:{tmp_path}/no/such/folder/s"
    with pytest.raises(OSError) as caught:
        bind_listener(bind)
    assert str(caught.value) == f"cannot listen on {bind}: no such file or directory"


def test_an_inherited_socket_is_adopted() -> None:
    parent = socket.create_server(("127.0.0.1", 0))
    address = parent.getsockname()
    with bound(f"fd:{parent.detach()}") as sock:
        assert sock.getsockname() == address
        assert not sock.get_inheritable()
        thread = threading.Thread(target=connects, args=(address,))
        thread.start()
        sock.accept()[0].close()
        thread.join()


def test_a_descriptor_that_is_no_listening_socket_is_refused_and_left_open(tmp_path: Path) -> None:
    with socket.socket() as idle:
        with pytest.raises(OSError, match=rf"^cannot listen on fd:{idle.fileno()}: that descriptor is no listening"):
            bind_listener(f"fd:{idle.fileno()}")
        assert idle.getsockname() == ("0.0.0.0", 0)
    with (tmp_path / "file").open("w") as file:
        with pytest.raises(OSError, match="cannot listen on fd:"):
            bind_listener(f"fd:{file.fileno()}")
        os.fstat(file.fileno())
