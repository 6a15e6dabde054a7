"""One test and more for each key of [limits] that lives in the request path."""

from __future__ import annotations

import pytest
import trio
from path_scene import (
    CHUNKED,
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
)
from trio.testing import MockClock

from trioproxy.testing import MemoryBackend

BODY = {"limits": {"body_bytes": 10}}
CHUNKED_POST = get(fields=CHUNKED, method="POST")


def refused(backend: MemoryBackend) -> None:
    """Nothing was sent to the backend."""
    assert backend.dials == 0


async def test_body_bytes_refuses_a_length_beyond_it_before_any_byte_of_the_body(autojump_clock: MockClock) -> None:
    async with scene(BODY) as (harness, backend):
        client = await harness.send(post(length=11))
        response = await client.read_response()
        assert (response.status, response.values("connection")) == (413, [b"close"])
        assert (await last_record(harness)).error == "body_too_large"
        refused(backend)
        await client.aclose()
        await assert_all_over(harness)


async def test_body_bytes_admits_exactly_so_many(autojump_clock: MockClock) -> None:
    async with scene(BODY) as (harness, backend):
        for raw in (post(b"0123456789"), CHUNKED_POST + chunks(b"01234", b"56789") + b"0\r\n\r\n"):
            client = await harness.send(raw)
            await answer(served := await backend.accept())
            assert (await client.read_response()).status == 200
            await served.aclose()  # with the body unread: the next one is not served over it


async def test_body_bytes_refuses_chunks_beyond_it_that_come_with_the_head(autojump_clock: MockClock) -> None:
    async with scene(BODY) as (harness, backend):
        client = await harness.send(CHUNKED_POST + chunks(b"012345", b"6789a"))
        assert (await client.read_response()).status == 413
        refused(backend)


async def test_body_bytes_refuses_chunks_beyond_it_that_come_later(autojump_clock: MockClock) -> None:
    async with scene(BODY) as (harness, backend):
        client = await harness.send(CHUNKED_POST + chunks(b"012345"))
        served = await backend.accept()
        assert (await served.read_until(b"012345\r\n")).endswith(b"6\r\n012345\r\n")
        await client.send(chunks(b"6789a"))
        response = await client.read_response()
        assert (response.status, response.values("connection")) == (413, [b"close"])
        assert await served.read_all() == b""  # the upload ends without the end of its coding
        await client.aclose()
        await assert_all_over(harness)
        assert failures(harness) == 0


async def test_body_bytes_beyond_it_after_the_answer_has_begun_cut_it(autojump_clock: MockClock) -> None:
    async with scene(BODY) as (harness, backend):
        client = await harness.send(CHUNKED_POST)
        served = await backend.accept()
        await answer(served, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        assert await begun(client, 2) == b"ab"
        await client.send(chunks(b"0123456789a"))
        with pytest.raises(trio.BrokenResourceError):
            await client.read_all()
        assert ((await last_record(harness)).error, failures(harness)) == ("body_too_large", 0)


async def test_head_bytes_refuses_a_larger_head(autojump_clock: MockClock) -> None:
    async with scene({"limits": {"head_bytes": 1024}}) as (harness, backend):
        for filler, status in ((900, 200), (1100, 431)):
            client = await harness.send(get(fields=b"X: " + b"x" * filler + b"\r\n"))
            if status == 200:
                await answer(await backend.accept())
            response = await client.read_response()
            assert response.status == status
        assert response.values("connection") == [b"close"]
        assert (await last_record(harness)).error == "head_too_large"
        assert backend.dials == 1


async def test_head_bytes_refuses_a_head_without_end_as_soon_as_it_is_too_large(autojump_clock: MockClock) -> None:
    async with scene({"limits": {"head_bytes": 1024}}) as (harness, _):
        client = await harness.send(b"GET /s/web/ HTTP/1.1\r\nHost: hub\r\nX: " + b"x" * 1100)
        assert (await client.read_response()).status == 431
        assert trio.current_time() == 0


async def test_header_count_refuses_more_fields(autojump_clock: MockClock) -> None:
    async with scene({"limits": {"header_count": 10}}) as (harness, backend):
        await exchange(harness, backend, get(fields=b"X: x\r\n" * 9))  # Host is one, too
        client = await harness.send(get(fields=b"X: x\r\n" * 10))
        assert (await client.read_response()).status == 431
        assert (await last_record(harness)).error == "head_too_large"


@pytest.mark.parametrize("fields", [b"X: " + b"x" * 2000 + b"\r\n", b"X: x\r\n" * 11])
async def test_limits_of_heads_hold_for_backends_too(fields: bytes, autojump_clock: MockClock) -> None:
    async with scene({"limits": {"head_bytes": 1024, "header_count": 10}}) as (harness, backend):
        client = await harness.send(get())
        await answer(await backend.accept(), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + fields + b"\r\n")
        assert (await client.read_response()).status == 502
        assert ((await last_record(harness)).error, failures(harness)) == ("upstream_protocol", 1)


async def test_a_backend_cannot_keep_a_request_with_1xx_for_ever(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(get())
        served = await backend.accept()
        await served.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 1001 + OK)
        response = await client.read_response()
        while response.status == 102:
            response = await client.read_response()
        assert response.status == 502


async def test_what_a_client_sends_ahead_of_its_answer_is_bounded(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(get(), capacity=1000)
        served = await backend.accept()
        sent = 0
        with trio.move_on_after(50):
            while sent < 1_000_000:
                await client.send(get() * 20)
                sent += len(get() * 20)
        assert sent < 200_000
        await answer(served)
        assert (await client.read_response()).status == 200
