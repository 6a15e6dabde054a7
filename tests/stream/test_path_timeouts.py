"""One test and more for each key of [timeouts] that lives in the request path; `stall` has its own file."""

from __future__ import annotations

import pytest
import trio
from path_scene import GET, answer, assert_all_over, exchange, get, last_record, post, scene
from path_waits import WHERE, near, placed
from trio.testing import MockClock

# --- head ------------------------------------------------------------------------------------------------


async def test_head_is_answered_with_408_when_a_byte_of_it_came(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"head": "7s"}}) as (harness, _):
        client = await harness.send(b"GET /s/web/ HTTP/1.1\r\nHo")
        response = await client.read_response()
        assert (response.status, trio.current_time()) == (408, 7)
        assert response.values("connection") == [b"close"]
        assert await client.read_all() == b""
        await client.aclose()
        await assert_all_over(harness)
        assert [(record.status, record.error) for record in harness.records] == [(408, "head_timeout")]


async def test_head_closes_silently_when_nothing_came(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"head": "7s", "keep_alive": "1h"}}) as (harness, _):
        client = await harness.connect()
        assert await client.read_all() == b""
        assert trio.current_time() == 7
        await assert_all_over(harness)
        assert harness.records == []


async def test_head_counts_from_the_first_byte_however_it_drips(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"head": "7s"}}) as (harness, _):
        client = await harness.connect()
        await trio.sleep(5)
        for byte in b"GET /":
            await client.send(bytes([byte]))
            await trio.sleep(1)
        assert (await client.read_response()).status == 408
        assert trio.current_time() == 12


async def test_head_of_a_later_request_has_its_own_time(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"head": "7s", "keep_alive": "100s"}}) as (harness, backend):
        client, _, _ = await exchange(harness, backend)
        await trio.sleep(50)
        await client.send(b"GET")
        assert (await client.read_response()).status == 408
        assert trio.current_time() == 57


async def test_an_empty_line_does_not_begin_a_head(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"head": "7s", "keep_alive": "100s"}}) as (harness, backend):
        client, _, _ = await exchange(harness, backend)
        await client.send(b"\r\n")
        await trio.sleep(50)
        await client.send(b"GET")
        assert (await client.read_response()).status == 408
        assert trio.current_time() == 57


async def test_empty_lines_without_end_do_not_keep_a_connection(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"head": "7s"}}) as (harness, _):
        client = await harness.connect()

        async def drip() -> None:
            while True:
                await client.send(b"\r\n")
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            await client.read_head()
            assert trio.current_time() <= 14
            nursery.cancel_scope.cancel()


# --- keep_alive ------------------------------------------------------------------------------------------


async def test_keep_alive_closes_silently_between_requests(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"keep_alive": "20s", "head": "3s"}}) as (harness, backend):
        client, served, _ = await exchange(harness, backend)
        await trio.sleep(19)
        await client.send(GET)
        await answer(served)
        assert (await client.read_response()).status == 200
        assert await client.read_all() == b""
        assert trio.current_time() == 39
        await assert_all_over(harness)
        assert len(harness.records) == 2


async def test_keep_alive_of_0_is_for_ever(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"keep_alive": 0}}) as (harness, backend):
        client, _, _ = await exchange(harness, backend)
        await trio.sleep(10_000)
        await client.send(GET)
        await answer(await backend.accept())
        assert (await client.read_response()).status == 200


# --- connect ---------------------------------------------------------------------------------------------


@WHERE
async def test_connect_is_answered_with_504(where: str, autojump_clock: MockClock) -> None:
    async with scene(**placed(where, connect="4s")) as (harness, backend):
        backend.answering = False
        client = await harness.send(GET)
        assert (await client.read_response()).status == 504
        assert trio.current_time() == 4
        assert (await last_record(harness)).error == "connect_timeout"
        assert harness.records[-1].wait_seconds == 4
        await client.aclose()
        await assert_all_over(harness)


# --- response_head ---------------------------------------------------------------------------------------


@WHERE
async def test_response_head_is_answered_with_504(where: str, autojump_clock: MockClock) -> None:
    async with scene(**placed(where, response_head="20s")) as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        assert (await client.read_response()).status == 504
        assert trio.current_time() == near(20)
        assert (await last_record(harness)).error == "response_timeout"
        await served.read_head()
        assert await served.read_all() == b""  # the backend is told, by the end of its connection
        await client.aclose()
        await assert_all_over(harness)


async def test_response_head_counts_from_the_end_of_the_request(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"response_head": "20s", "stall": "60s"}}) as (harness, backend):
        client = await harness.send(post(b"0", length=5))
        await backend.accept()
        for byte in b"1234":
            await trio.sleep(30)
            await client.send(bytes([byte]))
        assert (await client.read_response()).status == 504
        assert trio.current_time() == near(4 * 30 + 20)


async def test_response_head_begins_anew_with_every_1xx(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"response_head": "20s"}}) as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        for _ in range(5):
            await trio.sleep(15)
            await served.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            assert (await client.read_response()).status == 102
        assert (await client.read_response()).status == 504
        assert trio.current_time() == near(5 * 15 + 20)


async def test_response_head_holds_also_inside_a_head(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"response_head": "20s"}}) as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        await served.send(b"HTTP/1.1 200 OK\r\nContent-Le")
        assert (await client.read_response()).status == 504
        assert trio.current_time() == near(20)


async def test_response_head_is_the_backends_while_a_client_waits_for_100(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"response_head": "20s", "stall": "5s"}}) as (harness, backend):
        client = await harness.send(post(length=5, fields=b"Expect: 100-continue\r\n"))
        await backend.accept()
        assert (await client.read_response()).status == 504
        assert trio.current_time() == near(20)
        assert (await last_record(harness)).error == "response_timeout"


async def test_response_head_is_over_once_it_came_though_the_request_ends_later(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"response_head": "5s", "stall": "50s"}}) as (harness, backend):
        client = await harness.send(post(b"ab", length=4))
        served = await backend.accept()
        await answer(served, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nAB")
        await client.read_head()
        await client.send(b"cd")
        await trio.sleep(20)
        await served.send(b"CD")
        assert await client.read_exactly(4) == b"ABCD"


async def test_response_head_of_0_is_for_ever(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"response_head": 0}}) as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        await trio.sleep(10_000)
        await answer(served)
        assert (await client.read_response()).status == 200


# --- close -----------------------------------------------------------------------------------------------


async def test_close_bounds_the_wait_for_the_rest_of_a_refused_body(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"close": "4s"}}) as (harness, _):
        client = await harness.send(post(b"x", length=1000, path="/nobody/here"))
        response = await client.read_response()
        assert (response.status, trio.current_time()) == (404, 0)
        assert await client.read_all() == b""  # we have ended our side
        assert len(harness.records) == 1  # the request is over; only the connection lingers
        await harness.all_ended()
        assert trio.current_time() == 4


async def test_close_ends_early_when_the_client_does(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"close": "4s"}}) as (harness, _):
        client = await harness.send(post(b"x", length=1000, path="/nobody/here"))
        await client.read_response()
        await client.send(bytes(500))
        await client.send_eof()
        await harness.all_ended()
        assert trio.current_time() == 0


async def test_close_lets_an_early_answer_arrive_before_the_rest_of_the_upload_is_cut_off(
    autojump_clock: MockClock,
) -> None:
    async with scene({"timeouts": {"close": "4s"}}) as (harness, backend):
        client = await harness.send(post(b"x", length=1000))
        served = await backend.accept()
        await answer(served, b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!")
        response = await client.read_response()
        assert (response.status, response.body, response.values("connection")) == (413, b"no!", [b"close"])
        await client.send(bytes(500))
        assert await client.read_all() == b""
        await harness.all_ended()
        assert trio.current_time() == 4
        assert (harness.records[0].status, harness.records[0].total_seconds) == (413, 0)


@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
async def test_close_lets_an_answer_arrive_although_the_client_pipelines_behind_its_last_request(
    read: bool, autojump_clock: MockClock
) -> None:
    async with scene() as (harness, backend):
        last = get(fields=b"Connection: close\r\n")
        client = await harness.send(last + GET if read else last)
        served = await backend.accept()
        await client.send(GET)
        await answer(served)
        assert (await client.read_response()).body == b"ok"
        assert await client.read_all() == b""  # and no reset
        await client.aclose()
        await assert_all_over(harness)
        assert len(harness.records) == 1
