"""Requests that must be refused: a status, the end of the connection, and nothing for a backend."""

from __future__ import annotations

import json

import pytest
import trio
from refusals import CHUNKS, HEADS, OWN_SEGMENTS, Refusal
from rules import both_ways, ending, get, heard, is_cut, service
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.http1.framing import ChunkedBody

SECOND = b"GET /s/v/second HTTP/1.1\r\nHost: hub\r\n\r\n"


def check_refusal(answer: bytes, status: int, code: str = "bad_request") -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in lines
    assert b"Content-Type: application/problem+json" in lines
    assert b"Content-Length: %d" % len(body) in lines  # and so nothing else was answered
    assert any(line.startswith(b"X-Request-Id: ") for line in lines)
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (status, code)


@pytest.mark.parametrize("refusal", [*HEADS, *OWN_SEGMENTS], ids=lambda one: one.name)
@both_ways
async def test_a_request_that_may_not_go_on_ends_its_connection(refusal: Refusal, bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(refusal.raw + SECOND)
        check_refusal(await heard(client), refusal.status)
        assert await ending(client) == "closed"
        assert one.backend.dials == 0
        assert [record.status for record in one.harness.records] in ([], [refusal.status])
        await client.aclose()
        await wait_all_tasks_blocked()
        assert [record.status for record in one.harness.records] == [refusal.status]


@pytest.mark.parametrize("refusal", CHUNKS, ids=lambda one: one.name)
async def test_a_malformed_body_that_comes_with_its_head_reaches_no_backend(refusal: Refusal) -> None:
    async with service() as one:
        client = await one.ask(refusal.raw + SECOND)
        check_refusal(await heard(client), refusal.status)
        assert await ending(client) == "closed"
        assert one.backend.dials == 0


@pytest.mark.parametrize("refusal", CHUNKS, ids=lambda one: one.name)
async def test_a_malformed_body_that_comes_later_is_never_complete_for_the_backend(refusal: Refusal) -> None:
    async with service(bytewise=True) as one:
        client = await one.ask(refusal.raw + SECOND)
        check_refusal(await heard(client), refusal.status)
        assert await ending(client) == "closed"
        kernel = await one.backend.accept()
        body = ChunkedBody()
        body.feed((await heard(kernel)).partition(b"\r\n\r\n")[2])
        assert not body.done
        assert is_cut(kernel)
        assert one.backend.dials == 1


@both_ways
async def test_a_malformed_body_cuts_an_answer_that_has_begun(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(b"Transfer-Encoding: chunked", line=b"POST /s/v/ HTTP/1.1"))
        kernel = await one.backend.accept()
        await one.say(kernel, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
        assert (await heard(client)).endswith(b"begun")
        await one.say(client, b"nonsense\r\n")
        assert await heard(client) == b""
        assert await ending(client) == "reset"
        assert is_cut(kernel)


LIMITS = {"limits": {"head_bytes": 2048, "header_count": 10, "body_bytes": 100}}


@pytest.mark.parametrize(
    "raw",
    [
        get(b"X: " + b"a" * 2048),
        get(line=b"GET /s/v/" + b"a" * 2048 + b" HTTP/1.1"),
        get(*[b"X-%d: " % at + b"a" * 300 for at in range(7)]),
        b"GET /s/v/" + b"a" * 2048,  # and never an end
        get(*[b"X: y"] * 9),
    ],
    ids=["one large field", "a large target", "many large fields", "no end", "many fields"],
)
@both_ways
async def test_a_head_over_a_limit_is_431(raw: bytes, bytewise: bool) -> None:
    async with service(config=LIMITS, bytewise=bytewise) as one:
        client = await one.ask(raw)
        check_refusal(await heard(client), 431, "head_too_large")
        assert await ending(client) == "closed"
        assert one.backend.dials == 0


@both_ways
async def test_a_head_of_just_the_limits_is_served(bytewise: bool) -> None:
    fields = [b"X: " + b"a" * 200] * 8
    fill = 2048 - len(get(*fields[:-1], b"X: "))
    raw = get(*fields[:-1], b"X: " + b"a" * fill)
    assert len(raw) == 2048
    async with service(config=LIMITS, bytewise=bytewise) as one:
        _, answer = await one.answered(raw, b"HTTP/1.1 204 No Content\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 204 ")


@both_ways
async def test_a_body_that_announces_more_than_the_limit_is_413_at_once(bytewise: bool) -> None:
    async with service(config=LIMITS, bytewise=bytewise) as one:
        client = await one.ask(get(b"Content-Length: 101", line=b"POST /s/v/ HTTP/1.1"))
        check_refusal(await heard(client), 413, "body_too_large")
        assert await ending(client) == "closed"
        assert one.backend.dials == 0


@both_ways
async def test_a_chunked_body_that_grows_over_the_limit_is_413(bytewise: bool) -> None:
    async with service(config=LIMITS, bytewise=bytewise) as one:
        chunks = b"64\r\n" + b"a" * 100 + b"\r\n1\r\nb\r\n0\r\n\r\n"
        client = await one.ask(get(b"Transfer-Encoding: chunked", line=b"POST /s/v/ HTTP/1.1") + chunks + SECOND)
        check_refusal(await heard(client), 413, "body_too_large")
        assert await ending(client) == "closed"
        assert one.backend.dials == int(bytewise)


async def test_a_refused_client_that_goes_on_sending_is_read_for_a_while_and_then_cut(
    autojump_clock: MockClock,
) -> None:
    async with service(config={"timeouts": {"close": "3s"}}) as one:
        client = await one.ask(b"nonsense\r\n\r\n")
        check_refusal(await heard(client), 400)
        for _ in range(5):  # a reset by unread bytes might overtake the answer
            await client.send(b"x" * 1000)
            await trio.sleep(0.5)
        assert not is_cut(client)
        await trio.sleep(1)
        assert is_cut(client)


async def test_a_refused_client_that_floods_is_cut_early(autojump_clock: MockClock) -> None:
    async with service() as one:
        client = await one.ask(b"nonsense\r\n\r\n")
        began = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            await client.send(b"x" * 10_000_000)
        assert trio.current_time() == began


@both_ways
async def test_one_empty_line_before_a_request_is_no_fault(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        got, _ = await one.answered(b"\r\n" + get(), b"HTTP/1.1 204 No Content\r\n\r\n")
        assert got.startswith(b"GET / HTTP/1.1\r\n")


async def test_empty_lines_do_not_hold_a_connection(autojump_clock: MockClock) -> None:
    async with service() as one:
        client = await one.ask(b"\r\n")
        await trio.sleep(5)
        await client.send(b"\r\n")
        check_refusal(await heard(client), 400)
