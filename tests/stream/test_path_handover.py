"""What begins the short way and ends on the long one: nothing is lost, answered twice or left behind."""

from __future__ import annotations

import pytest
import trio
from path_scene import GET, OK, answer, assert_all_over, exchange, last_record, scene
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.control.messages import StartDrain

LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 50000\r\n\r\n" + bytes(50_000)


@pytest.mark.parametrize("at", [10, len(OK) - 2, len(OK) - 1])
async def test_a_client_that_ended_its_side_gets_an_answer_that_comes_in_pieces(
    at: int, autojump_clock: MockClock
) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        await client.send_eof()
        served = await backend.accept()
        await answer(served, OK[:at])
        await trio.sleep(0.5)
        await served.send(OK[at:])
        assert (await client.read_response()).body == b"ok"
        assert (await last_record(harness)).error is None
        await assert_all_over(harness)


async def test_a_client_that_does_not_take_the_last_answer_of_a_backend_keeps_nothing_open(
    autojump_clock: MockClock,
) -> None:
    async with scene({"timeouts": {"stall": "10s"}}) as (harness, backend):
        client = await harness.connect(capacity=1000)
        await client.send(GET)
        await answer(await backend.accept(), LAST)
        await trio.sleep(11)
        assert (await last_record(harness)).error == "client_gone"
        await assert_all_over(harness)


async def test_a_client_that_leaves_during_the_last_answer_of_a_backend_keeps_nothing_open(
    autojump_clock: MockClock,
) -> None:
    async with scene() as (harness, backend):
        client = await harness.connect(capacity=1000)
        await client.send(GET)
        await answer(await backend.accept(), LAST)
        await wait_all_tasks_blocked()
        await client.abort()
        assert (await last_record(harness)).error == "client_gone"
        await assert_all_over(harness)


async def test_a_drain_during_an_answer_does_not_cut_it_for_a_request_that_was_sent_ahead(
    autojump_clock: MockClock,
) -> None:
    async with scene() as (harness, backend):
        first, served, _ = await exchange(harness, backend)
        await first.aclose()
        client = await harness.connect(capacity=50)
        await client.send(GET)
        await answer(served)
        await wait_all_tasks_blocked()
        await client.send(GET)  # nobody reads it
        harness.proxy.execute(StartDrain(30))
        assert (await client.read_response()).body == b"ok"
        assert await client.read_all() == b""
        await assert_all_over(harness)
