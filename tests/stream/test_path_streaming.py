"""Bodies on their way: every piece as it comes, no more held than must be, both directions at once."""

from __future__ import annotations

import pytest
import trio
from path_scene import CHUNKED, GET, OK, answer, assert_all_over, begun, chunks, failures, get, last_record, post, scene
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.proxy.relay import READ_LARGE
from trioproxy.testing import Wire
from trioproxy.testing.pipe import PipeEnd

MEGABYTE = 1_000_000
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Pusher:
    """Sends without end, and counts what was taken."""

    def __init__(self, wire: Wire) -> None:
        self.taken = 0
        self._wire = wire

    async def run(self) -> None:
        while True:
            await self._wire.send(bytes(1000))
            self.taken += 1000


def unread(wire: Wire) -> int:
    assert isinstance(wire.stream, PipeEnd)
    return wire.stream.unread


# --- backpressure ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_a_fast_backend_waits_for_a_slow_client(head: bytes, autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"stall": 0}}) as (harness, backend):
        client = await harness.send(GET, capacity=1000)
        served = await backend.accept()
        await answer(served, head)
        pusher = Pusher(served)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pusher.run)
            await wait_all_tasks_blocked()
            # one relay buffer, and what the two pipes hold
            assert pusher.taken <= READ_LARGE + 256 * 1024 + 2000
            before = pusher.taken
            await trio.sleep(3600)
            assert pusher.taken == before
            await client.read_head()
            await client.read_exactly(MEGABYTE)
            await wait_all_tasks_blocked()
            assert MEGABYTE < pusher.taken <= MEGABYTE + READ_LARGE + 256 * 1024 + 2000
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("coding", ["length", "chunked"])
async def test_a_fast_client_waits_for_a_slow_backend(coding: str, autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"stall": 0}}) as (harness, backend):
        raw = post(length=9_000_000_000) if coding == "length" else get(fields=CHUNKED, method="POST") + b"fffffff\r\n"
        client = await harness.send(raw, capacity=1000)
        served = await backend.accept()
        pusher = Pusher(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pusher.run)
            await wait_all_tasks_blocked()
            assert pusher.taken <= READ_LARGE + 256 * 1024 + 2000
            before = pusher.taken
            await trio.sleep(3600)
            assert pusher.taken == before
            await served.read_head()
            await served.read_exactly(MEGABYTE)
            await wait_all_tasks_blocked()
            assert MEGABYTE * 0.9 < pusher.taken <= MEGABYTE + READ_LARGE + 256 * 1024 + 2000
            nursery.cancel_scope.cancel()


async def test_a_slow_client_does_not_hold_up_another_one(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"stall": 0}}) as (harness, backend):
        await harness.send(GET, capacity=1000)
        served = await backend.accept()
        await answer(served, b"HTTP/1.1 200 OK\r\n\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Pusher(served).run)
            await wait_all_tasks_blocked()
            other = await harness.send(GET)
            await answer(await backend.accept())
            assert (await other.read_response()).status == 200
            nursery.cancel_scope.cancel()


# --- as it comes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["length", "chunked", "close"])
async def test_every_piece_of_a_response_goes_on_at_once(coding: str, autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        heads = {"length": b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n", "chunked": CHUNKED_HEAD}
        await answer(served, heads.get(coding, b"HTTP/1.1 200 OK\r\n\r\n"))
        await client.read_head()  # before any byte of the body
        for number in range(10):
            piece = b"%03d" % number
            await served.send(chunks(piece) if coding == "chunked" else piece)
            expected = piece if coding == "length" else chunks(piece)
            assert await client.read_exactly(len(expected)) == expected
            await trio.sleep(0.5)


@pytest.mark.parametrize("coding", ["length", "chunked"])
async def test_every_piece_of_an_upload_goes_on_at_once(coding: str, autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        chunked = coding == "chunked"
        client = await harness.send(get(fields=CHUNKED, method="POST") if chunked else post(length=30))
        served = await backend.accept()
        await served.read_head()
        for number in range(10):
            piece = chunks(b"%03d" % number) if chunked else b"%03d" % number
            await client.send(piece)
            assert await served.read_exactly(len(piece)) == piece
            await trio.sleep(0.5)


async def test_request_and_response_run_at_the_same_time(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(get(fields=CHUNKED, method="POST"))
        served = await backend.accept()
        await answer(served, CHUNKED_HEAD)
        assert (await client.read_head()).startswith(b"HTTP/1.1 200 OK")

        async def echo() -> None:
            while data := await served.receive():
                await served.send(data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)
            for number in range(100):
                piece = chunks(b"%d" % number * 50)
                await client.send(piece)
                assert await client.read_exactly(len(piece)) == piece
                await trio.sleep(30)
            await client.send(b"0\r\nX-Sum: 1\r\n\r\n")
            assert await client.read_exactly(15) == b"0\r\nX-Sum: 1\r\n\r\n"
            nursery.cancel_scope.cancel()
        record = await last_record(harness)
        assert (record.bytes_in, record.bytes_out, record.error) == (9500, 9500, None)


async def test_an_early_answer_does_not_wait_for_the_rest_of_the_upload(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(post(b"x", length=1000))
        served = await backend.accept()
        await answer(served, b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno")
        response = await client.read_response()
        assert (response.status, response.body, response.values("connection")) == (409, b"no", [b"close"])
        assert trio.current_time() == 0
        record = await last_record(harness)
        assert (record.status, record.error, failures(harness)) == (409, None, 0)
        assert harness.proxy.pool.statistics()["idle"] == 0  # it waits for a body that never comes


async def test_an_early_answer_arrives_though_the_backend_closes_behind_it(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_what_is_taken, client, post(bytes(900_000)))
            served = await backend.accept()
            await served.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            await served.aclose()  # resets: it has not read the body
            response = await client.read_response()
            assert (response.status, response.body) == (413, b"no")
            nursery.cancel_scope.cancel()


async def send_what_is_taken(wire: Wire, data: bytes) -> None:
    try:
        await wire.send(data)
    except trio.BrokenResourceError:
        return


async def test_1xx_go_on_in_their_order_before_the_answer(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        for status in (b"102 Processing", b"103 Early Hints", b"103 Early Hints"):
            await served.send(b"HTTP/1.1 " + status + b"\r\nX-N: 1\r\n\r\n")
            assert await client.read_head() == b"HTTP/1.1 " + status + b"\r\nX-N: 1\r\n\r\n"
        await answer(served)
        assert (await client.read_response()).body == b"ok"


# --- the client that leaves ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["reset", "close", "half-close"])
@pytest.mark.parametrize("when", ["head", "body"])
@pytest.mark.parametrize("request_kind", ["get", "upload"])
async def test_a_client_that_leaves_during_a_slow_answer_frees_the_backend_within_a_second(
    how: str, when: str, request_kind: str, autojump_clock: MockClock
) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET if request_kind == "get" else post(b"ab", length=4))
        served = await backend.accept()
        if request_kind == "upload":
            await client.send(b"cd")
            assert await begun(served, 4) == b"abcd"
        else:
            await served.read_head()
        if when == "body":
            await served.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
            await client.read_head()
        await trio.sleep(0.1)
        await {"reset": client.abort, "close": client.aclose, "half-close": client.send_eof}[how]()
        await assert_all_over(harness)
        assert trio.current_time() <= 1.1
        assert await served.read_all() == b""
        record = await last_record(harness)
        assert (record.status, record.error) == (499 if when == "head" else 200, "client_gone")
        assert failures(harness) == 0


async def test_a_client_that_leaves_long_after_the_answer_became_slow_is_noticed_at_once(
    autojump_clock: MockClock,
) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        await backend.accept()
        await trio.sleep(20)
        await client.aclose()
        await assert_all_over(harness)
        assert trio.current_time() == 20


async def test_a_client_that_leaves_inside_its_upload_ends_it_without_its_end(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(get(fields=CHUNKED, method="POST") + chunks(b"one"))
        served = await backend.accept()
        await client.send_eof()
        await assert_all_over(harness)
        await served.read_head()
        assert await served.read_all() == chunks(b"one")
        record = await last_record(harness)
        assert (record.status, record.error, failures(harness)) == (499, "client_gone", 0)


async def test_a_client_may_end_its_side_behind_a_request_that_is_answered_soon(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(post(b"ab"))
        await client.send_eof()
        served = await backend.accept()
        await trio.sleep(0.5)
        await answer(served)
        assert (await client.read_response()).status == 200
        assert await client.read_all() == b""


@pytest.mark.parametrize("request_kind", ["get", "upload"])
async def test_requests_sent_during_the_wait_are_kept_and_served(request_kind: str, autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET if request_kind == "get" else post(b"ab", length=4))
        served = await backend.accept()
        if request_kind == "upload":
            await client.send(b"cd")
        await trio.sleep(5)  # the client is being watched
        for number in range(10):
            await client.send(get(f"/s/web/{number}"))
            await trio.sleep(1)
        await served.send(OK)
        await served.read_head()
        if request_kind == "upload":
            await served.read_exactly(4)
        assert (await client.read_response()).status == 200
        for number in range(10):
            assert (await answer(served)).startswith(b"GET /%d " % number)
            assert (await client.read_response()).status == 200
        assert (await last_record(harness)).status == 200
        assert len(harness.records) == 11


async def test_a_client_that_leaves_is_noticed_when_the_answer_is_sent_though_it_sent_much_ahead(
    autojump_clock: MockClock,
) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        await trio.sleep(2)
        await client.send(bytes(100_000))  # more than is read ahead
        await trio.sleep(1)
        await client.abort()
        await trio.sleep(5)
        assert len(harness.proxy.live) == 1
        await answer(served)
        await assert_all_over(harness)
        record = await last_record(harness)
        assert (record.error, failures(harness)) == ("client_gone", 0)


# --- truncation ------------------------------------------------------------------------------------------

TRUNCATED = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
    "chunk": CHUNKED_HEAD + b"a\r\nshort",
    "between chunks": CHUNKED_HEAD + b"5\r\nshort\r\n",
    "malformed chunk": CHUNKED_HEAD + b"5\r\nshort\r\nxyz\r\n",
}


@pytest.mark.parametrize("http", ["1.0", "1.1"])
@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("response", TRUNCATED.values(), ids=TRUNCATED)
async def test_a_response_that_breaks_off_never_ends_cleanly(
    http: str, how: str, response: bytes, autojump_clock: MockClock
) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET if http == "1.1" else b"GET /s/web/ HTTP/1.0\r\n\r\n")
        served = await backend.accept()
        await served.read_head()
        head, rest = response.split(b"\r\n\r\n", 1)
        await served.send(head + b"\r\n\r\n")
        await client.read_head()
        await served.send(rest)
        await wait_all_tasks_blocked()
        await (served.aclose() if how == "closes" else served.abort())
        with pytest.raises(trio.BrokenResourceError):
            await client.read_all()
        record = await last_record(harness)
        assert (record.status, record.error) == (200, "body_truncated")
        assert failures(harness) == 1
        await assert_all_over(harness)


@pytest.mark.parametrize("response", [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", CHUNKED_HEAD])
async def test_no_byte_of_a_body_is_a_truncation_too(response: bytes, autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        await answer(served, response)
        await client.read_head()
        await served.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await client.read_all()


async def test_a_body_that_is_malformed_from_its_first_byte_is_a_502(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        await answer(await backend.accept(), CHUNKED_HEAD + b"xyz\r\n")
        assert (await client.read_response()).status == 502
        assert (await last_record(harness)).error == "upstream_protocol"
