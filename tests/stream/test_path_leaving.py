"""A client that leaves before there is a connection for its request: the request is over at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from path_scene import GET, OK, answer, assert_all_over, failures_of, in_use, last_record, post, proxy, route_to, scene
from path_waits import near
from pool_scene import kept, pool_of
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.net.peer import Peer
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.proxy.client import Client
from trioproxy.proxy.presence import GRACE, acquire
from trioproxy.testing import Harness, Wire
from trioproxy.testing.pipe import open_pipe

Leave = Callable[[Wire], Awaitable[None]]
LEAVES = pytest.mark.parametrize("leave", [Wire.aclose, Wire.abort], ids=["closes", "resets"])
PEER = Peer(
    host="192.0.2.1", port=1, local_host="192.0.2.2", local_port=80, listener="web", tls=False, server_name=None
)
ONE = {"pool": {"max_per_backend": 1, "queue_timeout": "50s"}, "timeouts": {"connect": "50s"}}


async def gone(harness: Harness, leave: Leave, client: Wire, at: float) -> None:
    """Let the client leave at this time, and see its request end then."""
    await trio.sleep_until(at)
    await leave(client)
    await wait_all_tasks_blocked()
    record = harness.records[-1]
    assert (record.error, record.total_seconds) == ("client_gone", near(at))


@LEAVES
async def test_a_client_that_leaves_ends_its_dial(leave: Leave, autojump_clock: MockClock) -> None:
    async with scene(ONE) as (harness, backend):
        backend.answering = False
        await gone(harness, leave, await harness.send(GET), 2.0)
        await assert_all_over(harness)
        assert failures_of(harness) == {"kernel:8888": 0}


@LEAVES
async def test_a_client_that_leaves_gives_up_its_place_in_the_queue(leave: Leave, autojump_clock: MockClock) -> None:
    async with scene(ONE) as (harness, backend):
        first = await harness.send(GET)
        served = await backend.accept()
        waiting = await harness.send(GET)
        await wait_all_tasks_blocked()
        assert in_use(harness)["waiting"] == 1
        await gone(harness, leave, waiting, 2.0)
        assert in_use(harness)["waiting"] == 0
        await answer(served)
        assert (await first.read_response()).status == 200
        await first.aclose()
        await assert_all_over(harness)


@LEAVES
async def test_a_client_that_leaves_ends_its_pause_between_tries(leave: Leave, autojump_clock: MockClock) -> None:
    async with proxy({"retry": {"backoff": "10s"}}, rng=lambda: 1.0) as harness:
        first, second = route_to(harness, 2)
        client = await harness.send(GET)
        await (await first.accept()).aclose()
        await gone(harness, leave, client, 2.0)
        await assert_all_over(harness)
        assert second.dials == 0


async def test_a_client_is_not_looked_after_before_it_can_matter(autojump_clock: MockClock) -> None:
    async with scene(ONE) as (harness, backend):
        backend.answering = False
        client = await harness.send(GET)
        await client.send_eof()
        await trio.sleep(GRACE * 0.9)
        assert harness.records == []
        await trio.sleep(GRACE * 0.2)
        assert harness.records[-1].error == "client_gone"


async def test_a_client_that_has_half_closed_gets_its_answer_when_dialling_is_fast(autojump_clock: MockClock) -> None:
    async with scene(ONE) as (harness, backend):
        client = await harness.send(GET)
        await client.send_eof()
        await answer(await backend.accept())
        assert (await client.read_response()).body == b"ok"


async def test_what_the_client_sends_meanwhile_is_kept(autojump_clock: MockClock) -> None:
    async with scene(ONE) as (harness, backend):
        first = await harness.send(GET)
        served = await backend.accept()
        waiting = await harness.send(post(b"bo", length=4))
        await trio.sleep(1)
        await waiting.send(b"dy" + GET)
        await trio.sleep(1)
        await answer(served)
        await first.read_response()
        await served.read_head()
        assert await served.read_exactly(4) == b"body"
        await served.send(OK)
        await answer(served)
        assert [(await waiting.read_response()).status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("later", range(6))
async def test_a_connection_that_comes_as_its_request_is_cut_stays(later: int, autojump_clock: MockClock) -> None:
    theirs, _ours = open_pipe()
    client = Client(PrefixedStream(theirs), PEER)
    async with pool_of(max_per_backend=1) as scene:
        target = scene.backend.as_backend()

        async def ask(scope: trio.CancelScope) -> None:
            with scope:
                kept(scene, await acquire(client, scene.pool, target, connect_seconds=3))

        for _ in range(20):  # trio shuffles who of them runs first
            upstream = await scene.acquire()
            scope = trio.CancelScope()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, scope)
                await wait_all_tasks_blocked()
                kept(scene, upstream)
                for _ in range(later):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
            assert (scene.counts(), scene.backend.dials) == ({"idle": 1}, 1)


async def test_the_record_of_who_left_says_what_it_waited_for(autojump_clock: MockClock) -> None:
    async with scene(ONE) as (harness, backend):
        backend.answering = False
        client = await harness.send(GET)
        await trio.sleep(2)
        await client.aclose()
        record = await last_record(harness)
        assert (record.status, record.backend, record.wait_seconds) == (499, "kernel:8888", near(2))
