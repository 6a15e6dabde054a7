"""Connections to backends: who waits for one, in which order, and how long."""

from __future__ import annotations

import pytest
import trio
from pool_scene import Queue, kept, pool_of
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.config.schema import PoolConfig
from trioproxy.errors import ConnectFailed, ConnectTimeout, Overloaded
from trioproxy.proxy.pool import Pool
from trioproxy.routing.route import Backend

# --- queue -----------------------------------------------------------------------------------------------


async def test_at_max_per_backend_requests_wait_and_are_served_in_their_order(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        for number in (1, 2, 3):
            await queue.ask(number)
        assert scene.counts() == {"active": 1, "waiting": 3}
        for number in (1, 2, 3):
            kept(scene, upstream)
            await wait_all_tasks_blocked()
            assert queue.served[-1] == number
            assert queue.upstreams[number] is upstream
        assert (queue.served, scene.backend.dials) == ([1, 2, 3], 1)


async def test_whoever_comes_later_does_not_overtake(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        nursery.start_soon(queue.ask, 2)
        kept(scene, upstream)
        await wait_all_tasks_blocked()
        assert queue.served == [1]
        nursery.cancel_scope.cancel()


async def test_a_discarded_connection_makes_room_for_a_dial(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        await scene.pool.discard(upstream)
        await wait_all_tasks_blocked()
        assert queue.served == [1]
        assert not queue.upstreams[1].kept
        assert scene.counts() == {"active": 1}


async def test_a_connection_that_ended_right_behind_its_answer_is_not_handed_on(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        await scene.backend.open[0].send_eof()
        kept(scene, upstream)
        await wait_all_tasks_blocked()
        assert not queue.upstreams[1].kept
        assert (scene.counts(), scene.open()) == ({"active": 1}, 1)


async def test_the_queue_is_bounded(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1, queue=2) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        await queue.ask(2)
        with pytest.raises(Overloaded):
            await scene.acquire()
        assert scene.counts() == {"active": 1, "waiting": 2}
        kept(scene, upstream)
        await wait_all_tasks_blocked()
        await queue.ask(3)  # there is a place again
        assert scene.counts() == {"active": 1, "waiting": 2}
        nursery.cancel_scope.cancel()


async def test_queue_timeout_is_the_longest_wait(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1, queue_timeout="5s") as scene:
        await scene.acquire()
        with pytest.raises(Overloaded):
            await scene.acquire()
        assert trio.current_time() == 5
        assert scene.counts() == {"active": 1}


async def test_a_waiter_that_leaves_is_forgotten(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        await queue.ask(2)
        queue.scopes[1].cancel()
        await wait_all_tasks_blocked()
        kept(scene, upstream)
        await wait_all_tasks_blocked()
        assert queue.served == [2]


async def test_a_waiter_cancelled_as_it_is_granted_a_connection_passes_it_on(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        await queue.ask(2)
        queue.scopes[1].cancel()
        kept(scene, upstream)
        await wait_all_tasks_blocked()
        assert (queue.served, queue.upstreams[2]) == ([2], upstream)
        assert scene.counts() == {"active": 1}


async def test_the_last_waiter_cancelled_as_it_is_granted_a_connection_leaves_it_idle(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        queue.scopes[1].cancel()
        kept(scene, upstream)
        await wait_all_tasks_blocked()
        assert (queue.served, scene.counts()) == ([], {"idle": 1})


async def test_a_waiter_cancelled_as_it_may_dial_passes_that_on(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        await queue.ask(2)
        queue.scopes[1].cancel()
        await scene.pool.discard(upstream)
        await wait_all_tasks_blocked()
        assert queue.served == [2]
        assert scene.counts() == {"active": 1}


async def test_a_connection_that_comes_at_a_waiters_deadline_goes_to_it_or_stays(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1, queue_timeout="5s") as scene:
        for _ in range(20):  # trio shuffles who of the two runs first
            async with trio.open_nursery() as nursery:
                upstream = await scene.acquire()
                queue = Queue(scene, nursery)
                deadline = trio.current_time() + 5
                await queue.ask(1)
                await trio.sleep_until(deadline)
                kept(scene, upstream)
            assert len(queue.served) + len(queue.refused) == 1
            assert scene.counts() == ({"active": 1} if queue.served else {"idle": 1})
            for granted in queue.upstreams.values():
                kept(scene, granted)


# --- dials -----------------------------------------------------------------------------------------------


async def test_dials_per_backend_bounds_attempts_at_a_time(autojump_clock: MockClock) -> None:
    async with pool_of(dials_per_backend=2, queue_timeout="100s") as scene, trio.open_nursery() as nursery:
        scene.backend.answering = False
        failures: list[str] = []

        async def ask() -> None:
            try:
                await scene.acquire()
            except ConnectTimeout:
                failures.append("timeout")

        for _ in range(5):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        assert scene.counts() == {"dialing": 2, "waiting": 3}
        await trio.sleep(3.5)
        assert (scene.counts(), failures) == ({"dialing": 2, "waiting": 1}, ["timeout"] * 2)
        await trio.sleep(6)
        assert (scene.counts(), failures) == ({}, ["timeout"] * 5)


async def test_a_refused_dial_gives_its_place_to_the_next(autojump_clock: MockClock) -> None:
    async with pool_of(dials_per_backend=1) as scene, trio.open_nursery() as nursery:
        scene.backend.accepting = False
        refused: list[int] = []

        async def ask(number: int) -> None:
            with pytest.raises(ConnectFailed):
                await scene.acquire()
            refused.append(number)

        for number in range(3):
            nursery.start_soon(ask, number)
        await wait_all_tasks_blocked()
        assert (sorted(refused), scene.counts()) == ([0, 1, 2], {})


async def test_a_cancelled_dial_gives_its_place_to_the_next(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        scene.backend.answering = False
        queue = Queue(scene, nursery)
        await queue.ask(1)
        await queue.ask(2)
        assert scene.counts() == {"dialing": 1, "waiting": 1}
        scene.backend.answering = True
        queue.scopes[1].cancel()
        await wait_all_tasks_blocked()
        assert (queue.served, scene.counts()) == ([2], {"active": 1})


async def test_a_bug_in_the_dialer_costs_no_place(autojump_clock: MockClock) -> None:
    async def broken(backend: Backend) -> trio.abc.HalfCloseableStream:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    pool = Pool(broken, PoolConfig)
    with pytest.raises(ZeroDivisionError):
        await pool.acquire(Backend(host="kernel", port=1), connect_seconds=3)
    assert pool.statistics().total() == 0


async def test_connections_of_different_backends_do_not_mix(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene:
        other = scene.network.listen("other", 8888)
        kept(scene, await scene.acquire())
        upstream = await scene.acquire(other)
        assert (upstream.kept, upstream.key) == (False, "other:8888")


async def test_a_waiter_cancelled_as_the_pool_closes_does_not_leave_its_connection_open(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        queue.scopes[1].cancel()
        kept(scene, upstream)
        await scene.pool.aclose()
        await wait_all_tasks_blocked()
        assert (queue.served, scene.open(), scene.counts()) == ([], 0, {})


async def test_a_reload_takes_effect_at_once(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        upstream = await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        await queue.ask(2)
        scene.config = PoolConfig(max_per_backend=3)
        await scene.pool.discard(upstream)
        await wait_all_tasks_blocked()
        assert sorted(queue.served) == [1, 2]


async def test_after_a_reload_those_who_wait_come_before_a_newcomer(autojump_clock: MockClock) -> None:
    async with pool_of(max_per_backend=1) as scene, trio.open_nursery() as nursery:
        await scene.acquire()
        queue = Queue(scene, nursery)
        await queue.ask(1)
        scene.config = PoolConfig(max_per_backend=2)
        await queue.ask(2)
        assert queue.served == [1]
        scene.config = PoolConfig(max_per_backend=4)
        await queue.ask(3)
        assert sorted(queue.served) == [1, 2, 3]
