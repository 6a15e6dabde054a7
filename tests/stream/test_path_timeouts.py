"""One test and more for each key of [timeouts] that lives in the request path."""

from __future__ import annotations

from typing import Any

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
    exchange,
    failures,
    get,
    last_record,
    post,
    scene,
    send_into_reset,
)
from trio.testing import MockClock

NEAR = 0.05  # a deadline may be left where it is when it would move by less than 1/64


def near(seconds: float) -> Any:
    return pytest.approx(seconds, rel=NEAR)


def placed(where: str, **timeouts: str) -> dict[str, Any]:
    """The keys in the configuration, or on the route with the opposite in the configuration."""
    if where == "config":
        return {"config": {"timeouts": timeouts}}
    return {"config": {"timeouts": dict.fromkeys(timeouts, "1000s")}, "timeouts": timeouts}


WHERE = pytest.mark.parametrize("where", ["config", "route"])


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


async def test_response_head_of_0_is_for_ever(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"response_head": 0}}) as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        await trio.sleep(10_000)
        await answer(served)
        assert (await client.read_response()).status == 200


# --- stall -----------------------------------------------------------------------------------------------


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


async def test_close_lets_an_answer_arrive_although_the_client_pipelines_behind_its_last_request(
    autojump_clock: MockClock,
) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(get(fields=b"Connection: close\r\n") + GET + GET)
        await answer(await backend.accept())
        assert (await client.read_response()).body == b"ok"
        assert await client.read_all() == b""  # and no reset
        await client.aclose()
        await assert_all_over(harness)
        assert len(harness.records) == 1


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
