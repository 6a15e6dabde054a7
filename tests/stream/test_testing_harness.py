"""What `trioproxy.testing` offers to other projects, besides carrying our own tests."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy import testing
from trioproxy.errors import ConnectFailed
from trioproxy.testing import MemoryNetwork, Response, Wire, open_proxy
from trioproxy.testing.network import MAX_BACKLOG
from trioproxy.testing.pipe import open_pipe

GET = b"GET /alice/jupyter/api HTTP/1.1\r\nHost: hub\r\n\r\n"


async def test_the_example_of_the_package_works(autojump_clock: MockClock) -> None:
    assert testing.__doc__ is not None
    lines = testing.__doc__.partition("    async def ")[2].partition("\n`open_proxy`")[0].splitlines()
    scope: dict[str, object] = {"open_proxy": open_proxy}
    exec("async def " + "\n".join(line.removeprefix("    ") for line in lines), scope)
    example = scope["test_a_backend_that_is_slow_to_answer"]
    await example(autojump_clock)  # type: ignore[operator]


async def test_everything_in_the_list_of_names_is_there() -> None:
    assert [name for name in testing.__all__ if not hasattr(testing, name)] == []


async def test_connections_still_open_at_the_end_of_the_block_are_cut(autojump_clock: MockClock) -> None:
    async with open_proxy() as harness:
        backend = harness.network.listen("kernel", 8888)
        harness.set_routes([backend.route("alice", "jupyter")])
        client = await harness.send(GET)
        kernel = await backend.accept()
        await kernel.read_head()
    assert await client.read_all() == b""
    assert await kernel.read_all() == b""
    assert harness.network.leaked() == []


async def test_an_exception_of_the_block_leaves_it_as_it_is(autojump_clock: MockClock) -> None:
    async def block() -> None:
        async with open_proxy() as harness:
            await harness.connect()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await block()


async def test_a_cancellation_of_the_block_is_one(autojump_clock: MockClock) -> None:
    with trio.move_on_after(5) as scope:
        async with open_proxy() as harness:
            await harness.connect()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_routes_and_config_can_be_given_at_once(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    backend = network.listen("kernel", 8888)
    routes = [backend.route("alice", "jupyter", timeouts={"response_head": "2s"})]
    async with open_proxy(routes, config={"timeouts": {"connect": "1s"}}, network=network) as harness:
        backend.answering = False
        client = await harness.send(GET)
        assert (await client.read_response()).status == 504
        assert trio.current_time() == 1


async def test_the_address_of_a_client_can_be_chosen(autojump_clock: MockClock) -> None:
    async with open_proxy() as harness:
        backend = harness.network.listen("kernel", 8888)
        harness.set_routes([backend.route("alice", "jupyter")])
        await harness.send(GET, host="2001:db8::1", tls=True)
        head = await (await backend.accept()).read_head()
        assert b"X-Forwarded-For: 2001:db8::1\r\nX-Forwarded-Proto: https\r\n" in head


async def test_all_ended_waits_for_the_last_connection(autojump_clock: MockClock) -> None:
    async with open_proxy() as harness:
        await harness.all_ended()
        clients = [await harness.connect() for _ in range(3)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(harness.all_ended)
            for number, client in enumerate(clients):
                await wait_all_tasks_blocked()
                assert len(harness.proxy.live) == 3 - number
                assert nursery.child_tasks
                await client.aclose()


# --- the network ------------------------------------------------------------------------------------------


async def test_where_nobody_listens_a_dial_is_refused() -> None:
    network = MemoryNetwork()
    backend = network.listen("kernel", 1)
    with pytest.raises(ConnectFailed):
        await network.dial(backend.as_backend().model_copy(update={"port": 2}))
    backend.accepting = False
    with pytest.raises(ConnectFailed):
        await network.dial(backend.as_backend())
    assert backend.dials == 0


async def test_a_host_that_drops_packets_lets_a_dial_hang(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    backend = network.listen("kernel", 1)
    backend.answering = False
    with trio.move_on_after(1000) as scope:
        await network.dial(backend.as_backend())
    assert (scope.cancelled_caught, backend.dials, backend.open) == (True, 1, [])


async def test_a_full_backlog_refuses() -> None:
    network = MemoryNetwork()
    backend = network.listen("kernel", 1)
    for _ in range(MAX_BACKLOG):
        await network.dial(backend.as_backend())
    with pytest.raises(ConnectFailed):
        await network.dial(backend.as_backend())
    await backend.accept()
    await network.dial(backend.as_backend())


async def test_leaked_names_every_connection_that_is_still_held() -> None:
    network = MemoryNetwork()
    one, two = network.listen("one", 1), network.listen("two", 2)
    streams = [await network.dial(backend.as_backend()) for backend in (one, one, two)]
    assert network.leaked() == ["one:1", "one:1", "two:2"]
    for stream in streams:
        await stream.aclose()
    assert network.leaked() == []


# --- a test's own end -------------------------------------------------------------------------------------


async def wire_with(data: bytes, *, end: bool = True) -> Wire:
    theirs, ours = open_pipe()
    await theirs.send_all(data)
    if end:
        await theirs.send_eof()
    return Wire(ours)


RESPONSES = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcX", "GET", b"abc", b"X"),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n1\r\nc\r\n0\r\n\r\nX",
        "GET",
        b"abc",
        b"X",
    ),
    "close": (b"HTTP/1.1 200 OK\r\n\r\nabc", "GET", b"abc", b""),
    "head": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nX", "HEAD", b"", b"X"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\nX", "GET", b"", b"X"),
    "informational": (b"HTTP/1.1 103 Early Hints\r\n\r\nX", "GET", b"", b"X"),
}


@pytest.mark.parametrize(("raw", "method", "body", "rest"), RESPONSES.values(), ids=RESPONSES)
async def test_a_response_is_read_to_its_end_and_no_further(raw: bytes, method: str, body: bytes, rest: bytes) -> None:
    wire = await wire_with(raw)
    response = await wire.read_response(method=method)
    assert (response.status, response.body) == (int(raw[9:12]), body)
    assert await wire.read_all() == rest


async def test_trailers_are_told_apart() -> None:
    wire = await wire_with(b"1\r\nx\r\n0\r\nA: 1\r\nB: 2\r\n\r\n")
    assert await wire.read_chunked() == (b"x", b"A: 1\r\nB: 2\r\n")


async def test_all_values_of_a_field_come_in_order_whatever_its_case() -> None:
    response = Response(b"HTTP/1.1 200 OK\r\nX: 1\r\ny: 2\r\nx:3 \r\n\r\n", b"")
    assert (response.values("X"), response.values("Y"), response.values("z")) == ([b"1", b"3"], [b"2"], [])


async def test_a_stream_that_ends_too_early_is_an_error_that_says_what_came() -> None:
    for reading in ("read_head", "read_response"):
        wire = await wire_with(b"HTTP/1.1 200")
        with pytest.raises(EOFError, match=r"HTTP/1\.1 200"):
            await getattr(wire, reading)()
    with pytest.raises(EOFError):
        await (await wire_with(b"ab")).read_exactly(3)


async def test_pieces_come_as_they_are_and_then_the_end() -> None:
    wire = await wire_with(b"one two")
    assert await wire.read_until(b" ") == b"one "
    assert (await wire.receive(), await wire.receive()) == (b"two", b"")


async def test_an_aborted_wire_is_a_reset_for_the_other_end() -> None:
    theirs, ours = open_pipe()
    await Wire(ours).abort()
    with pytest.raises(trio.BrokenResourceError):
        await Wire(theirs).read_all()
