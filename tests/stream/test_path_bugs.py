"""A bug of ours costs one request and its connection, is answered, logged and counted, and nothing else."""

from __future__ import annotations

import logging

import pytest
import trio
from path_scene import GET, answer, chunks, exchange, get, in_use, last_record, scene
from trio.testing import MockClock

from trioproxy.http1.framing import ChunkedBody
from trioproxy.proxy.router import Router


async def test_a_bug_before_the_answer_is_a_500(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> object:
        raise ZeroDivisionError("secret detail")

    async with scene() as (harness, _):
        with monkeypatch.context() as patch:
            patch.setattr(Router, "match", broken)
            client = await harness.send(GET)
            response = await client.read_response()
            assert (response.status, response.values("connection")) == (500, [b"close"])
            assert b"secret" not in response.body
            assert await client.read_all() == b""
        record = await last_record(harness)
        assert (record.error, harness.proxy.metrics.errors["internal_error"]) == ("internal_error", 1)
        [entry] = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
        assert entry.exc_info is not None
        assert vars(entry)["request_id"] == record.id


@pytest.mark.parametrize("direction", ["down", "up"])
async def test_a_bug_inside_a_body_cuts_the_connection_and_gives_back_what_was_held(
    direction: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(get(method="POST", fields=b"Transfer-Encoding: chunked\r\n"))
        served = await backend.accept()
        await answer(served, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await client.read_head()

        def broken(*_: object) -> bytes:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(ChunkedBody, "split", broken)
            await (served if direction == "down" else client).send(chunks(b"x"))
            with pytest.raises(trio.BrokenResourceError):
                await client.read_all()
        record = await last_record(harness)
        assert (record.status, record.error) == (200, "internal_error")
        assert {name: count for name, count in in_use(harness).items() if count} == {"bugs": 1}
        await exchange(harness, backend)


async def test_a_bug_in_one_connection_leaves_the_others_alone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene() as (harness, backend):
        running = await harness.send(GET)
        served = await backend.accept()
        match = Router.match

        def sometimes(router: Router, head: object) -> object:
            if b"bug" in head.path:  # type: ignore[attr-defined]
                raise ZeroDivisionError
            return match(router, head)  # type: ignore[arg-type]

        monkeypatch.setattr(Router, "match", sometimes)
        assert (await (await harness.send(get("/bug"))).read_response()).status == 500
        await answer(served)
        assert (await running.read_response()).status == 200
