from __future__ import annotations

import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from trioproxy.errors import ConnectFailed, Overloaded, Retry, Side
from trioproxy.net.dialer import check_connected, dial
from trioproxy.net.stream import abort, socket_of
from trioproxy.net.tls import TlsStream
from trioproxy.routing.route import Backend, BackendTls

Serve = Callable[[trio.SocketStream], Awaitable[None]]


def backend(host: str, port: int = 0, **rest: Any) -> Backend:
    return Backend.model_validate({"host": host, "port": port, **rest})


async def echo(stream: trio.abc.Stream) -> None:
    async with stream:
        async for data in stream:
            await stream.send_all(data)


def tls_echo(pair: Any) -> Serve:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.load_cert_chain(pair.cert, pair.key)

    async def serve(stream: trio.SocketStream) -> None:
        encrypted = trio.SSLStream(stream, context, server_side=True)
        try:
            await echo(encrypted)
        except trio.BrokenResourceError:  # the client did not like our certificate
            await trio.aclose_forcefully(stream)

    return serve


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[int]:
    """A backend on 127.0.0.1; yields its port."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def converses(stream: trio.abc.Stream) -> bool:
    async with stream:
        await stream.send_all(b"hello")
        return await stream.receive_some() == b"hello"


async def failure(target: Backend) -> str:
    with pytest.raises(ConnectFailed) as caught:
        await dial(target)
    assert caught.value.retry is Retry.UNSENT
    assert str(caught.value) == caught.value.detail
    return caught.value.detail


# --- TCP ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_an_address_or_a_name_is_dialled_with_keepalive_and_nodelay(host: str) -> None:
    async with server(echo) as port:
        stream = await dial(backend(host, port))
        sock = socket_of(stream)
        assert sock is not None
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert await converses(stream)


async def test_a_refused_connection_is_named_with_address_and_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert await failure(backend("127.0.0.1", port)) == f"cannot connect to 127.0.0.1:{port}: connection refused"


async def test_an_ipv6_address_is_named_in_brackets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert (await failure(backend("::1", port))).startswith(f"cannot connect to [::1]:{port}: ")


@pytest.mark.parametrize("host", ["no.such.host.invalid", "x" * 64 + ".invalid", "bücher..invalid"])
async def test_a_name_that_does_not_resolve_is_named(host: str) -> None:
    assert (await failure(backend(host, 80, id="b"))).startswith(f"cannot connect to {host}:80: ")


def test_a_tcp_connection_to_itself_is_no_connection() -> None:
    async def main() -> None:
        sock = trio.socket.socket()
        with sock:
            await sock.bind(("127.0.0.1", 0))
            await sock.connect(sock.getsockname())  # what the kernel may do for a dead port of its ephemeral range
            with pytest.raises(ConnectionRefusedError):
                check_connected(sock)

    trio.run(main)


# --- unix sockets ---------------------------------------------------------------------------------------


@asynccontextmanager
async def unix_server(path: Path, serve: Serve) -> AsyncIterator[None]:
    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.bind(str(path))
    sock.listen()
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, [trio.SocketListener(sock)])
        yield
        nursery.cancel_scope.cancel()


async def test_a_unix_socket_is_dialled(tmp_path: Path) -> None:
    async with unix_server(tmp_path / "s", echo):
        assert await converses(await dial(backend(f"unix:{tmp_path}/s")))


async def test_a_unix_socket_that_is_not_there_is_named(tmp_path: Path) -> None:
    where = f"unix:{tmp_path}/s"
    assert await failure(backend(where)) == f"cannot connect to {where}: no such file or directory"


async def test_a_unix_socket_whose_queue_is_full_is_a_failed_connection(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(tmp_path / "s"))
        busy.listen(0)
        first.connect(str(tmp_path / "s"))
        assert "cannot connect to unix:" in await failure(backend(f"unix:{tmp_path}/s"))


# --- TLS ------------------------------------------------------------------------------------------------


async def test_tls_is_verified_against_the_ca_file_and_speaks_http_1_1(authority: Any) -> None:
    async with server(tls_echo(authority.issue("127.0.0.1"))) as port:
        stream = await dial(backend("127.0.0.1", port, tls=BackendTls(ca_file=str(authority.ca))))
        assert isinstance(stream, TlsStream)
        assert isinstance(stream.inner, trio.SSLStream)
        assert stream.inner.selected_alpn_protocol() == "http/1.1"
        assert await converses(stream)


async def test_server_name_is_verified_instead_of_the_host(authority: Any) -> None:
    async with server(tls_echo(authority.issue("inside.example"))) as port:
        tls = BackendTls(ca_file=str(authority.ca), server_name="inside.example")
        assert await converses(await dial(backend("127.0.0.1", port, tls=tls)))


async def test_a_certificate_of_another_name_is_refused(authority: Any) -> None:
    async with server(tls_echo(authority.issue("other.example"))) as port:
        detail = await failure(backend("127.0.0.1", port, tls=BackendTls(ca_file=str(authority.ca))))
    assert detail == (
        f"TLS with 127.0.0.1:{port} failed: its certificate is not accepted: "
        "IP address mismatch, certificate is not valid for '127.0.0.1'"
    )


async def test_a_certificate_of_an_unknown_authority_is_refused(authority: Any) -> None:
    async with server(tls_echo(authority.issue("127.0.0.1"))) as port:
        detail = await failure(backend("127.0.0.1", port, tls=True))
    assert detail.startswith(f"TLS with 127.0.0.1:{port} failed: its certificate is not accepted: ")


async def test_without_verify_any_certificate_is_taken(authority: Any) -> None:
    async with server(tls_echo(authority.issue("other.example"))) as port:
        assert await converses(await dial(backend("127.0.0.1", port, tls=BackendTls(verify=False))))


async def test_a_backend_that_speaks_no_tls_is_a_failed_connection() -> None:
    async def plain(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await stream.aclose()

    async with server(plain) as port:
        detail = await failure(backend("127.0.0.1", port, tls=BackendTls(verify=False)))
    assert detail == f"TLS with 127.0.0.1:{port} failed: wrong version number"


async def test_a_backend_that_resets_the_handshake_is_a_failed_connection() -> None:
    async def reset(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await abort(stream)

    async with server(reset) as port:
        detail = await failure(backend("127.0.0.1", port, tls=BackendTls(verify=False)))
    assert detail == f"TLS with 127.0.0.1:{port} failed: connection reset by peer"


async def test_a_backend_that_hangs_up_in_the_handshake_is_a_failed_connection() -> None:
    async def hang_up(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.aclose()

    async with server(hang_up) as port:
        detail = await failure(backend("127.0.0.1", port, tls=BackendTls(verify=False)))
    assert detail == f"TLS with 127.0.0.1:{port} failed: the connection ended without a TLS close"


@pytest.mark.parametrize(("content", "reason"), [(None, "no such file or directory"), (b"nonsense", "no certificate")])
async def test_a_ca_file_that_cannot_be_used_is_said_without_its_path(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_bytes(content)
    async with server(echo) as port:
        detail = await failure(backend("127.0.0.1", port, tls=BackendTls(ca_file=str(ca_file))))
    assert detail.startswith(f"TLS with 127.0.0.1:{port} failed: its tls.ca_file cannot be used (")
    assert reason in detail
    assert str(tmp_path) not in detail


async def test_a_ca_file_that_changed_counts_from_the_next_connection_on(authority: Any, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(authority.issue("someone.else").cert.read_bytes())
    os.utime(ca_file, ns=(1, 1))
    async with server(tls_echo(authority.issue("127.0.0.1"))) as port:
        target = backend("127.0.0.1", port, tls=BackendTls(ca_file=str(ca_file)))
        assert "certificate is not accepted" in await failure(target)
        ca_file.write_bytes(authority.ca.read_bytes())
        assert await converses(await dial(target))


@pytest.mark.parametrize("name", [".starts.with.dot", "bücher..example"])
async def test_a_server_name_that_is_none_is_a_failed_connection(name: str) -> None:
    async with server(echo) as port:
        detail = await failure(backend("127.0.0.1", port, tls=BackendTls(verify=False, server_name=name)))
    assert detail == f"TLS with 127.0.0.1:{port} failed: its name is not a valid host name"


async def test_tls_on_a_unix_socket_wants_a_server_name_to_verify(authority: Any, tmp_path: Path) -> None:
    async with unix_server(tmp_path / "s", tls_echo(authority.issue("inside.example"))):
        where = f"unix:{tmp_path}/s"
        assert "tls.server_name must say" in await failure(backend(where, tls=BackendTls(ca_file=str(authority.ca))))
        named = BackendTls(ca_file=str(authority.ca), server_name="inside.example")
        assert await converses(await dial(backend(where, tls=named)))
        assert await converses(await dial(backend(where, tls=BackendTls(verify=False))))


# --- leaks ----------------------------------------------------------------------------------------------


async def test_a_cancelled_handshake_leaves_no_open_file() -> None:
    begun, wait_begun = trio.open_memory_channel[None](5)

    async def silent(stream: trio.abc.Stream) -> None:
        async with stream:
            await stream.receive_some()
            await begun.send(None)
            await trio.sleep_forever()

    async with server(silent) as port:
        target = backend("127.0.0.1", port, tls=BackendTls(verify=False))
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(dial, target)
            for _ in range(5):
                await wait_begun.receive()
            assert open_to(port) == 5
            nursery.cancel_scope.cancel()
        assert open_to(port) == 0


def open_to(port: int) -> int:
    """How many of our descriptors are TCP connections to this port."""
    return sum(peer_port(int(path.name)) == port for path in Path("/proc/self/fd").iterdir())


def peer_port(descriptor: int) -> int | None:
    """The port at the other end of a descriptor of ours, when it is a TCP connection."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            name = sock.getpeername()
    except OSError:  # no socket, not connected, or closed since it was listed
        return None
    return name[1] if isinstance(name, tuple) else None


async def test_failed_handshakes_leave_no_open_file() -> None:
    async with server(echo) as port:
        target = backend("127.0.0.1", port, tls=BackendTls(verify=False))
        for _ in range(5):
            await failure(target)
        assert open_to(port) == 0


# --- a process without files ----------------------------------------------------------------------------


@contextmanager
def without_files(left: int = 0) -> Generator[None]:
    """So many more files may be opened, and no others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(map(int, os.listdir("/proc/self/fd"))) + 8  # noqa: PTH208 - the names are wanted, no paths
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        with suppress(OSError):
            while len(taken) <= limit:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(left):
            os.close(taken.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in taken:
            os.close(number)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "unix:/nowhere/at/all"])
async def test_a_want_of_files_is_not_the_backends_fault(host: str) -> None:
    with without_files(), pytest.raises(Overloaded) as caught:
        await dial(backend(host, 0 if host.startswith("unix:") else 1))
    assert caught.value.side is Side.PROXY
    assert caught.value.retry_after == 1
    assert host not in caught.value.detail


async def test_a_want_of_files_for_tls_is_not_the_backends_fault(authority: Any) -> None:
    async with server(tls_echo(authority.issue("localhost"))) as port:
        with without_files(left=1), pytest.raises(Overloaded):  # the connection's, and none for the CA
            await dial(backend("127.0.0.1", port, tls={"ca_file": str(authority.ca)}))
