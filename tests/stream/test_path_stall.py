"""`timeouts.stall`: who is to blame when a body does not move, and that nothing else ends one."""

from __future__ import annotations

import pytest
import trio
from path_scene import (
    CHUNKED,
    GET,
    OK,
    answer,
    assert_all_over,
    begun,
    chunks,
    failures,
    get,
    last_record,
    post,
    scene,
    send_into_reset,
)
from path_waits import WHERE, near, placed
from trio.testing import MockClock


@WHERE
async def test_stall_of_a_client_inside_its_upload_is_answered_with_408(where: str, autojump_clock: MockClock) -> None:
    async with scene(**placed(where, stall="20s")) as (harness, backend):
        client = await harness.send(post(b"some", length=100))
        await backend.accept()
        await trio.sleep(15)
        await client.send(b"more")
        assert (await client.read_response()).status == 408
        assert trio.current_time() == near(35)
        assert (await last_record(harness)).error == "body_timeout"
        assert failures(harness) == 0
        await client.aclose()
        await assert_all_over(harness)


async def test_stall_of_a_client_that_sent_nothing_after_100_is_answered_with_408(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"stall": "20s"}}) as (harness, backend):
        client = await harness.send(post(length=5, fields=b"Expect: 100-continue\r\n"))
        served = await backend.accept()
        await served.read_head()
        await trio.sleep(10)
        await served.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert (await client.read_response()).status == 100
        assert (await client.read_response()).status == 408
        assert trio.current_time() == near(30)


async def test_stall_is_the_clients_when_it_has_begun_its_body_without_waiting_for_100(
    autojump_clock: MockClock,
) -> None:
    async with scene({"timeouts": {"stall": "20s", "response_head": "50s"}}) as (harness, backend):
        client = await harness.send(post(b"ab", length=5, fields=b"Expect: 100-continue\r\n"))
        await backend.accept()
        assert (await client.read_response()).status == 408
        assert trio.current_time() == near(20)


@WHERE
async def test_stall_of_a_backend_that_stops_taking_the_upload_is_answered_with_504(
    where: str, autojump_clock: MockClock
) -> None:
    async with scene(**placed(where, stall="20s")) as (harness, backend):
        client = await harness.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_into_reset, client, post(bytes(2_000_000)))  # more than the pipes hold
            await backend.accept()
            response = await client.read_response()
            assert (response.status, trio.current_time()) == (504, near(20))
            assert (await last_record(harness)).error == "response_timeout"
            assert failures(harness) == 1


@WHERE
async def test_stall_of_a_backend_inside_its_response_is_a_visible_cut(where: str, autojump_clock: MockClock) -> None:
    async with scene(**placed(where, stall="20s")) as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        await answer(served, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        assert await begun(client, 2) == b"ab"
        with pytest.raises(trio.BrokenResourceError):
            await client.read_all()
        assert trio.current_time() == near(20)
        assert ((await last_record(harness)).error, failures(harness)) == ("body_truncated", 1)
        await assert_all_over(harness)


@WHERE
async def test_stall_of_a_client_that_does_not_read_is_a_cut(where: str, autojump_clock: MockClock) -> None:
    async with scene(**placed(where, stall="20s")) as (harness, backend):
        client = await harness.send(GET, capacity=1000)
        served = await backend.accept()
        await served.read_head()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                send_into_reset, served, b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + bytes(5_000_000)
            )
            await assert_all_over(harness)
        assert trio.current_time() == near(20)
        assert ((await last_record(harness)).error, failures(harness)) == ("client_gone", 0)
        with pytest.raises(trio.BrokenResourceError):
            await client.read_all()


async def test_stall_of_a_client_that_does_not_read_1xx_is_its_own_fault(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"stall": "20s"}}) as (harness, backend):
        await harness.send(GET, capacity=60)
        served = await backend.accept()
        await served.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" * 5)
        await assert_all_over(harness)
        assert trio.current_time() == near(20)
        assert ((await last_record(harness)).error, failures(harness)) == ("client_gone", 0)


async def test_stall_is_reset_by_a_byte_in_either_direction(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"stall": "20s"}}) as (harness, backend):
        client = await harness.send(post(length=1000))
        served = await backend.accept()
        await answer(served, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await client.read_head()
        for _ in range(10):  # only the client sends
            await trio.sleep(15)
            await client.send(b"u")
            assert await served.read_exactly(1) == b"u"
        for _ in range(10):  # only the backend sends
            await trio.sleep(15)
            await served.send(chunks(b"d"))
            assert await client.read_exactly(6) == chunks(b"d")
        assert trio.current_time() == 300
        with pytest.raises(trio.BrokenResourceError):
            await client.read_all()
        assert trio.current_time() == near(320)


async def test_stall_is_not_the_backends_while_the_client_owes_it_the_rest_of_the_request(
    autojump_clock: MockClock,
) -> None:
    async with scene({"timeouts": {"stall": "20s"}}) as (harness, backend):
        client = await harness.send(post(b"a", length=10))
        served = await backend.accept()
        await answer(served, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nA")
        assert await begun(client, 1) == b"A"
        with pytest.raises(trio.BrokenResourceError):
            await client.read_all()
        assert ((await last_record(harness)).error, failures(harness)) == ("body_timeout", 0)


async def test_stall_is_the_backends_when_it_neither_takes_nor_gives(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"stall": "20s"}}) as (harness, backend):
        client = await harness.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_into_reset, client, post(bytes(2_000_000)))
            served = await backend.accept()
            await answer(served, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nA")
            assert await begun(client, 1) == b"A"
            with pytest.raises(trio.BrokenResourceError):
                await client.read_all()
        assert ((await last_record(harness)).error, failures(harness)) == ("body_truncated", 1)


@WHERE
async def test_stall_of_0_lets_an_event_stream_be_silent_for_an_hour(where: str, autojump_clock: MockClock) -> None:
    stall = {"config": {"timeouts": {"stall": 0}}} if where == "config" else {"timeouts": {"stall": 0}}
    async with scene(**stall) as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        await answer(served, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        assert b"data: 1" in await client.read_until(b"\n\n\r\n")
        await trio.sleep(3600)
        await served.send(b"data: 2\n\n")
        assert b"data: 2" in await client.read_until(b"\n\n\r\n")


# --- none is a total -------------------------------------------------------------------------------------


async def test_a_download_may_drip_for_two_hours(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        await answer(served, b"HTTP/1.1 200 OK\r\nContent-Length: 240\r\n\r\n")
        for _ in range(240):
            await trio.sleep(30)
            await served.send(b"d")
        assert (await client.read_response()).body == b"d" * 240
        assert trio.current_time() == 7200


@pytest.mark.parametrize("coding", ["length", "chunked"])
async def test_an_upload_may_drip_for_two_hours(coding: str, autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        chunked = coding == "chunked"
        client = await harness.send(get(fields=CHUNKED, method="POST") if chunked else post(length=240))
        served = await backend.accept()
        await served.read_head()
        for _ in range(240):
            await trio.sleep(30)
            await client.send(chunks(b"u") if chunked else b"u")
        if chunked:
            await client.send(b"0\r\n\r\n")
            assert await served.read_chunked() == (b"u" * 240, b"")
        else:
            assert await served.read_exactly(240) == b"u" * 240
        await served.send(OK)
        assert (await client.read_response()).status == 200
        assert ((await last_record(harness)).bytes_in, trio.current_time()) == (240, 7200)
