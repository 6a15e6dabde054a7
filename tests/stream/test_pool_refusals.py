"""A backend that refused a connection is left alone for a while, and one request at a time finds out more."""

from __future__ import annotations

import pytest
import trio
from path_scene import GET, OK, answer, failures_of, last_record, proxy, route_to
from path_scene import scene as path
from pool_scene import Queue, Scene, kept, pool_of
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.control.messages import SetHealth, TargetHealth
from trioproxy.errors import ConnectFailed, ConnectTimeout, Overloaded, RefusedBefore
from trioproxy.routing.route import Health


async def refuse(scene: Scene) -> None:
    """Ask once, with a dial, and be refused."""
    scene.backend.accepting = False
    before = scene.tried
    with pytest.raises(ConnectFailed) as caught:
        await scene.acquire()
    assert not isinstance(caught.value, RefusedBefore)
    assert scene.tried == before + 1


async def left_alone(scene: Scene) -> float:
    """How long the backend is not dialled from now on, in seconds, to a hundredth."""
    began = trio.current_time()
    while True:
        before = scene.tried
        try:
            kept(scene, await scene.acquire())
            return trio.current_time() - began
        except ConnectFailed:
            if scene.tried > before:
                return trio.current_time() - began
        await trio.sleep(0.01)


async def test_it_is_not_dialled_again_at_once_and_the_answer_is_the_same(autojump_clock: MockClock) -> None:
    async with pool_of(refused_for="250ms") as scene:
        await refuse(scene)
        for _ in range(10):
            with pytest.raises(RefusedBefore, match="kernel:8888 refused the connection") as caught:
                await scene.acquire()
            assert (caught.value.status, caught.value.code, caught.value.retry_after) == (502, "connect_failed", 1)
        assert scene.tried == 1


async def test_refused_for_doubles_up_to_eightfold_and_is_never_shorter(autojump_clock: MockClock) -> None:
    async with pool_of(refused_for="1s") as scene:
        scene.draw = 0.0
        await refuse(scene)
        pauses = [await left_alone(scene) for _ in range(6)]
        assert pauses == pytest.approx([1, 2, 4, 8, 8, 8], abs=0.02)


async def test_pauses_differ_by_chance(autojump_clock: MockClock) -> None:
    async with pool_of(refused_for="1s") as scene:
        scene.draw = 0.5
        await refuse(scene)
        assert await left_alone(scene) == pytest.approx(1.25, abs=0.02)


async def test_refused_for_of_zero_remembers_nothing(autojump_clock: MockClock) -> None:
    async with pool_of(refused_for=0) as scene:
        for _ in range(5):
            await refuse(scene)


async def test_the_first_success_makes_it_as_if_nothing_had_been(autojump_clock: MockClock) -> None:
    async with pool_of(refused_for="1s") as scene:
        scene.draw = 0.0
        for _ in range(3):
            await refuse(scene)
            await trio.sleep(8)
        scene.backend.accepting = True
        await scene.pool.discard(await scene.acquire())
        await refuse(scene)
        assert await left_alone(scene) == pytest.approx(1, abs=0.02)


async def test_long_after_a_refusal_the_next_one_is_the_first(autojump_clock: MockClock) -> None:
    async with pool_of(refused_for="1s") as scene:
        scene.draw = 0.0
        for _ in range(2):
            await refuse(scene)
            await trio.sleep(4)
        await trio.sleep(20)
        await refuse(scene)
        assert await left_alone(scene) == pytest.approx(1, abs=0.02)


async def test_a_connection_that_comes_back_sound_clears_it(autojump_clock: MockClock) -> None:
    async with pool_of() as scene:
        first, second = await scene.acquire(), await scene.acquire()
        await refuse(scene)
        kept(scene, first)
        assert await scene.acquire() is first
        await refuse(scene)  # dialled: it is not left alone
        kept(scene, second)


async def test_a_kept_connection_serves_while_dials_are_refused(autojump_clock: MockClock) -> None:
    async with pool_of() as scene:
        first = await scene.acquire()
        kept(scene, first)
        assert await scene.acquire() is first
        await refuse(scene)
        with pytest.raises(RefusedBefore):
            await scene.acquire()


async def test_a_good_probe_clears_it(autojump_clock: MockClock) -> None:
    async with pool_of() as scene:
        await refuse(scene)
        scene.backend.accepting = True
        scene.pool.forgive("kernel:8888")
        await scene.acquire()
        scene.pool.forgive("elsewhere:1")


async def test_a_timeout_is_no_refusal(autojump_clock: MockClock) -> None:
    async with pool_of() as scene:
        scene.backend.answering = False
        for _ in range(2):
            with pytest.raises(ConnectTimeout):
                await scene.acquire()
        assert scene.backend.dials == 2


# --- one request finds out --------------------------------------------------------------------------------


async def test_afterwards_one_request_dials_and_the_others_wait_how_that_goes(autojump_clock: MockClock) -> None:
    async with pool_of() as scene, trio.open_nursery() as nursery:
        await refuse(scene)
        await trio.sleep(0.5)
        scene.backend.accepting, scene.backend.answering = True, False
        queue = Queue(scene, nursery)
        for number in range(4):
            await queue.ask(number)
        assert (scene.counts(), scene.backend.dials) == ({"dialing": 1, "waiting": 3}, 1)
        scene.backend.answering = True
        queue.scopes[0].cancel()  # the next one dials, and is let in
        await wait_all_tasks_blocked()
        assert (sorted(queue.served), scene.counts()) == ([1, 2, 3], {"active": 3})


async def test_all_who_wait_are_let_go_when_that_one_is_refused(autojump_clock: MockClock) -> None:
    refused: list[int] = []
    async with pool_of(dials_per_backend=1, queue_timeout="100s") as scene, trio.open_nursery() as nursery:
        scene.slow = 2.0
        scene.backend.accepting = False

        async def ask(number: int) -> None:
            with pytest.raises(ConnectFailed):
                await scene.acquire()
            refused.append(number)

        for number in range(5):
            nursery.start_soon(ask, number)
        await trio.sleep(1.9)
        assert refused == []
        await trio.sleep(0.2)
        assert (len(refused), scene.tried, scene.counts()) == (5, 1, {})


async def test_a_waiter_cancelled_as_it_is_let_go_leaves_the_counts_right(autojump_clock: MockClock) -> None:
    for _ in range(20):  # trio shuffles who of them runs first
        async with pool_of(dials_per_backend=1) as scene, trio.open_nursery() as nursery:
            scene.slow = 1.0
            scene.backend.accepting = False

            async def dial(scene: Scene = scene) -> None:
                with pytest.raises(ConnectFailed):
                    await scene.acquire()

            nursery.start_soon(dial)
            await wait_all_tasks_blocked()
            queue = Queue(scene, nursery, also=ConnectFailed)
            await queue.ask(1)
            await trio.sleep(1.0)
            queue.scopes[1].cancel()
            await wait_all_tasks_blocked()
            assert scene.counts() == {}


async def test_dials_that_were_refused_together_count_as_one(autojump_clock: MockClock) -> None:
    async with pool_of(refused_for="1s") as scene:
        scene.draw, scene.slow = 0.0, 0.1
        scene.backend.accepting = False

        async def ask() -> None:
            with pytest.raises(ConnectFailed):
                await scene.acquire()

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(ask)
        assert scene.tried == 8
        scene.slow = 0.0
        assert await left_alone(scene) == pytest.approx(1, abs=0.02)


async def test_a_worker_without_files_has_not_been_refused(autojump_clock: MockClock) -> None:
    async with pool_of() as scene:
        scene.exhausted = True
        with pytest.raises(Overloaded):
            await scene.acquire()
        scene.exhausted = False
        await scene.acquire()


async def test_what_is_remembered_of_an_address_is_forgotten(autojump_clock: MockClock) -> None:
    async with pool_of() as scene:
        await refuse(scene)
        await trio.sleep(5)
        assert scene.remembers("kernel:8888")
        await trio.sleep(15)
        assert not scene.remembers("kernel:8888")


# --- on the path ------------------------------------------------------------------------------------------


async def test_a_tab_that_polls_a_stopped_server_costs_no_socket(autojump_clock: MockClock) -> None:
    async with path() as (harness, backend):
        backend.accepting = False
        client = await harness.send(GET)
        assert (await client.read_response()).status == 502
        backend.accepting = True
        await client.send(GET)
        response = await client.read_response()
        assert (response.status, response.values("retry-after"), backend.dials) == (502, [b"1"], 0)
        assert b'"connect_failed"' in response.body
        assert failures_of(harness) == {"kernel:8888": 1}  # what was not tried tells nothing new
        await trio.sleep(1)
        await client.send(GET)
        await answer(await backend.accept())
        assert (await client.read_response()).status == 200


async def test_requests_meanwhile_go_to_another_backend_at_once(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        first, second = route_to(harness, 2, (1, 0))
        first.accepting = False
        client = await harness.send(GET)
        await answer(served := await second.accept())
        await client.read_response()
        await client.send(GET)
        await answer(served, OK)
        assert (await client.read_response()).status == 200
        last = await last_record(harness)
        assert [record.tries for record in harness.records] == [["a:1 connect_failed"], None]  # nobody was asked again
        assert (last.backend, trio.current_time()) == ("b:1", 0)


async def test_a_good_probe_of_the_supervisor_ends_it(autojump_clock: MockClock) -> None:
    async with path() as (harness, backend):
        backend.accepting = False
        client = await harness.send(GET)
        await client.read_response()
        backend.accepting = True
        health = Health()
        harness.proxy.execute(SetHealth((TargetHealth("kernel:8888", health, True, "", 0.0, 0.0),), whole=False))
        await client.send(GET)
        await answer(await backend.accept())
        assert (await client.read_response()).status == 200


async def test_websockets_and_requests_count_against_max_per_backend_alike(autojump_clock: MockClock) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: tunnel\r\n"
    async with path({"pool": {"max_per_backend": 1, "queue_timeout": "2s"}}) as (harness, backend):
        stream = await harness.send(GET[:-2] + upgrade + b"\r\n")
        served = await backend.accept()
        await answer(served, b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade + b"\r\n")
        await stream.read_head()
        client = await harness.send(GET)
        response = await client.read_response()
        assert (response.status, response.values("retry-after")) == (503, [b"1"])
        assert trio.current_time() == 2
        await stream.aclose()
        await served.aclose()
        await client.send(GET)
        await answer(await backend.accept())
        assert (await client.read_response()).status == 200
