from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from trioproxy.config.schema import ListenerConfig, TimeoutsConfig
from trioproxy.net.limiter import ConnectionLimiter
from trioproxy.net.listener import ACCEPT_PAUSE, Handler, Listener
from trioproxy.net.peer import Peer
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.observe.metrics import Metrics


class FakeListener(trio.abc.Listener[trio.abc.Stream]):
    """Hands out memory streams, and raises what it is told to instead."""

    def __init__(self) -> None:
        self.closed = False
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream | Exception](10_000)

    def connect(self) -> trio.StapledStream[Any, Any]:
        ours, theirs = trio.testing.memory_stream_pair()
        self._send.send_nowait(ours)
        return theirs

    def hand_out(self, item: trio.abc.Stream | Exception) -> None:
        self._send.send_nowait(item)

    async def accept(self) -> trio.abc.Stream:
        item = await self._receive.receive()
        if isinstance(item, Exception):
            raise item
        return item

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


class Stage:
    """A plain listener over a fake one, ready to be served."""

    def __init__(self, handler: Handler, *, connections: int = 100, per_client: int = 0) -> None:
        self.fake = FakeListener()
        self.limiter = ConnectionLimiter(connections, per_client)
        self.metrics = Metrics()
        self.listener = self.another(self.fake, handler)

    def another(self, fake: FakeListener, handler: Handler) -> Listener:
        return Listener(
            ListenerConfig(tls="off"),
            fake,
            handler=handler,
            certificates=None,
            limiter=self.limiter,
            metrics=self.metrics,
            timeouts=lambda: TimeoutsConfig(close=3.0),
            trusted=lambda: (),
        )


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


async def echo(stream: PrefixedStream, peer: Peer) -> None:
    async for data in stream:
        await stream.send_all(data)


async def test_each_connection_is_served_and_counted_while_it_lasts(nursery: trio.Nursery) -> None:
    stage = Stage(echo)
    await nursery.start(stage.listener.serve, nursery)
    first, second = stage.fake.connect(), stage.fake.connect()
    await first.send_all(b"1")
    await second.send_all(b"2")
    assert (await first.receive_some(), await second.receive_some()) == (b"1", b"2")
    assert stage.metrics.connections["web"] == 2
    assert stage.limiter.open == 2
    await first.send_eof()
    assert await first.receive_some() == b""
    await trio.testing.wait_all_tasks_blocked()
    assert stage.metrics.connections["web"] == 1
    assert stage.limiter.open == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
async def test_when_files_or_memory_run_out_accepting_pauses_and_goes_on(
    number: int, autojump_clock: Any, caplog: pytest.LogCaptureFixture, nursery: trio.Nursery
) -> None:
    stage = Stage(echo)
    for _ in range(25):
        stage.fake.hand_out(os_error(number))
    client = stage.fake.connect()
    await nursery.start(stage.listener.serve, nursery)
    await client.send_all(b"hello")
    assert await client.receive_some() == b"hello"
    assert trio.current_time() == pytest.approx(25 * ACCEPT_PAUSE)
    assert stage.metrics.accept_pauses == 25
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 3  # 2.5 s, one line a second


async def test_an_error_of_accept_that_will_not_pass_is_raised(nursery: trio.Nursery) -> None:
    stage = Stage(echo)
    stage.fake.hand_out(os_error(errno.EINVAL))
    with pytest.raises(OSError, match="Invalid argument"):
        await stage.listener.serve(nursery)
    assert stage.fake.closed


async def test_a_listener_whose_socket_was_closed_ends(nursery: trio.Nursery) -> None:
    stage = Stage(echo)
    stage.fake.hand_out(trio.ClosedResourceError())
    await stage.listener.serve(nursery)
    assert stage.fake.closed


async def test_cancelling_serve_closes_the_listener_and_leaves_connections_alone(nursery: trio.Nursery) -> None:
    stage = Stage(echo)
    client = stage.fake.connect()
    async with trio.open_nursery() as accepting:
        await accepting.start(stage.listener.serve, nursery)
        await client.send_all(b"1")
        assert await client.receive_some() == b"1"
        accepting.cancel_scope.cancel()
    assert stage.fake.closed
    await client.send_all(b"2")
    assert await client.receive_some() == b"2"


# --- limits ---------------------------------------------------------------------------------------------


async def test_at_limits_connections_accepting_waits_for_room(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(echo, connections=2)
    await nursery.start(stage.listener.serve, nursery)
    clients = [stage.fake.connect() for _ in range(3)]
    for client in clients:
        await client.send_all(b"x")
    await trio.testing.wait_all_tasks_blocked()
    assert stage.metrics.connections["web"] == 2
    assert stage.metrics.accept_pauses == 1
    assert "limits.connections is reached" in caplog.text
    await clients[0].aclose()
    assert await clients[2].receive_some() == b"x"


async def test_the_limit_holds_over_all_listeners_together(nursery: trio.Nursery) -> None:
    stage = Stage(echo, connections=1)
    other = FakeListener()
    await nursery.start(stage.listener.serve, nursery)
    await nursery.start(stage.another(other, echo).serve, nursery)
    await trio.testing.wait_all_tasks_blocked()  # both wait in accept, each seeing room for one
    first = stage.fake.connect()
    await first.send_all(b"x")
    assert await first.receive_some() == b"x"
    second = other.connect()
    await second.send_all(b"y")
    await trio.testing.wait_all_tasks_blocked()
    assert stage.limiter.open == 1
    await first.aclose()
    assert await second.receive_some() == b"y"


async def test_a_connection_that_waits_for_room_is_closed_when_accepting_is_cancelled(nursery: trio.Nursery) -> None:
    stage = Stage(echo, connections=1)
    async with trio.open_nursery() as accepting:
        await accepting.start(stage.listener.serve, nursery)
        await trio.testing.wait_all_tasks_blocked()
        assert stage.limiter.acquire()  # another listener was quicker
        client = stage.fake.connect()
        await trio.testing.wait_all_tasks_blocked()
        accepting.cancel_scope.cancel()
    assert await client.receive_some() == b""
    assert stage.limiter.open == 1


async def test_raising_the_limit_lets_waiting_connections_in(nursery: trio.Nursery) -> None:
    stage = Stage(echo, connections=1)
    await nursery.start(stage.listener.serve, nursery)
    clients = [stage.fake.connect(), stage.fake.connect()]
    await trio.testing.wait_all_tasks_blocked()
    assert stage.limiter.open == 1
    stage.limiter.set_limits(2, 0)
    await clients[1].send_all(b"x")
    assert await clients[1].receive_some() == b"x"


def test_a_lowered_limit_lets_nobody_in_until_enough_have_left() -> None:
    limiter = ConnectionLimiter(3)
    assert all(limiter.acquire() for _ in range(3))
    limiter.set_limits(2, 0)
    limiter.release()
    assert not limiter.acquire()
    limiter.release()
    assert limiter.acquire()


def test_a_client_may_have_as_many_connections_as_it_may_and_others_are_not_affected() -> None:
    limiter = ConnectionLimiter(100, per_client=2)
    assert [limiter.acquire_client("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert limiter.acquire_client("192.0.2.2")
    limiter.release_client("192.0.2.1")
    assert limiter.acquire_client("192.0.2.1")
    limiter.set_limits(100, 0)
    assert all(limiter.acquire_client("192.0.2.1") for _ in range(10))


def test_clients_of_a_unix_socket_are_not_limited_per_client() -> None:
    limiter = ConnectionLimiter(100, per_client=1)
    assert all(limiter.acquire_client("unix") for _ in range(3))


# --- whatever a handler does ----------------------------------------------------------------------------


async def fails(stream: PrefixedStream, peer: Peer) -> None:
    await trio.lowlevel.checkpoint()
    raise RuntimeError("a bug")


async def fails_while_cancelled(stream: PrefixedStream, peer: Peer) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            await trio.sleep_forever()
        finally:
            raise RuntimeError("a bug")


async def test_a_handler_that_raises_costs_its_own_connection_only(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(fails)
    await nursery.start(stage.listener.serve, nursery)
    for _ in range(2):
        assert await stage.fake.connect().receive_some() == b""
    await trio.testing.wait_all_tasks_blocked()
    assert stage.limiter.open == 0
    assert stage.metrics.connections["web"] == 0
    assert caplog.text.count("RuntimeError: a bug") == 2


async def test_a_handler_that_raises_while_it_is_cancelled_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(fails_while_cancelled)
    async with trio.open_nursery() as nursery:
        await nursery.start(stage.listener.serve, nursery)
        client = stage.fake.connect()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert await client.receive_some() == b""
    assert "RuntimeError: a bug" in caplog.text


@pytest.mark.parametrize("handler", [echo, trio.sleep_forever])
async def test_a_cancelled_connection_is_closed(handler: Callable[..., Awaitable[None]]) -> None:
    async def handle(stream: PrefixedStream, peer: Peer) -> None:
        await (handler(stream, peer) if handler is echo else handler())

    stage = Stage(handle)
    async with trio.open_nursery() as nursery:
        await nursery.start(stage.listener.serve, nursery)
        client = stage.fake.connect()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert await client.receive_some() == b""
    assert stage.limiter.open == 0


async def test_timeouts_close_bounds_the_end_of_a_connection(autojump_clock: Any, nursery: trio.Nursery) -> None:
    class Stuck(PrefixedStream):
        closed_at: float | None = None

        async def aclose(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                self.closed_at = trio.current_time()

    async def leaves(stream: PrefixedStream, peer: Peer) -> None:
        await trio.lowlevel.checkpoint()

    pair, _ = trio.testing.memory_stream_pair()
    stuck = Stuck(pair)
    stage = Stage(leaves)
    await nursery.start(stage.listener.serve, nursery)
    stage.fake.hand_out(stuck)
    await trio.sleep(2.9)
    assert stuck.closed_at is None
    await trio.sleep(1)
    assert stuck.closed_at == pytest.approx(3.0)
    assert stage.limiter.open == 0
