from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from management_client import Client
from management_fake import TOKEN, FakeWorker

from trioproxy.management import events
from trioproxy.management.app import STREAMS

PERIOD = events.HEARTBEAT_SECONDS


class Stream:
    """One call of /v1/events, in memory; quart's own test connection waits for ever when a client leaves."""

    def __init__(self, messages: trio.MemoryReceiveChannel[dict[str, Any]]) -> None:
        self._messages = messages

    async def next(self) -> dict[str, str]:
        """The fields of the next event or comment; {} at the clean end."""
        with trio.fail_after(10 * PERIOD):
            message = await self._messages.receive()
        if not message.get("more_body"):
            assert message["body"] == b""
            return {}
        text: str = message["body"].decode()
        assert text.endswith("\n\n")
        return dict(line.split(": ", 1) for line in text.strip().split("\n"))

    async def begin(self) -> None:
        with trio.fail_after(PERIOD):
            head = await self._messages.receive()
        assert head["status"] == 200
        assert (b"content-type", b"text/event-stream") in head["headers"]
        assert await self.next() == {"retry": "3000"}


@asynccontextmanager
async def opened(client: Client, *headers: tuple[bytes, bytes]) -> AsyncIterator[Stream]:
    scope: Any = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/v1/events",
        "raw_path": b"/v1/events",
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer " + TOKEN.encode()), *headers],
    }
    to_app, from_client = trio.open_memory_channel[Any](10)
    to_client, from_app = trio.open_memory_channel[dict[str, Any]](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.app, scope, from_client.receive, to_client.send)
        await to_app.send({"type": "http.request", "body": b"", "more_body": False})
        stream = Stream(from_app)
        await stream.begin()
        yield stream
        await to_app.send({"type": "http.disconnect"})


async def test_events_come_as_they_happen(autojump_clock: trio.testing.MockClock) -> None:
    worker = FakeWorker()
    async with opened(Client(worker)) as stream:
        worker.tell("route", session_id="s1", text="line\nbreak")
        worker.tell("drain")
        first, second = await stream.next(), await stream.next()
        assert (first["id"], first["event"]) == ("1", "route")
        assert json.loads(first["data"]) == {
            "id": 1,
            "at": 1000.5,
            "kind": "route",
            "detail": {"session_id": "s1", "text": "line\nbreak"},
        }
        assert (second["id"], second["event"]) == ("2", "drain")


async def test_events_after_the_last_one_seen_are_told_again(autojump_clock: trio.testing.MockClock) -> None:
    worker = FakeWorker()
    for number in range(5):
        worker.tell("route", number=number)
    async with opened(Client(worker), (b"last-event-id", b"3")) as stream:
        assert [(await stream.next())["id"] for _ in range(2)] == ["4", "5"]


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 30, "\u00b2"])
async def test_an_event_id_that_is_none_is_400(last: str) -> None:
    response = await Client(FakeWorker()).get("/v1/events", headers={"Last-Event-ID": last})
    assert response.status_code == 400


async def test_a_silent_stream_says_something_every_15_seconds(autojump_clock: trio.testing.MockClock) -> None:
    worker = FakeWorker()
    async with opened(Client(worker)) as stream:
        for _ in range(3):
            began = trio.current_time()
            assert await stream.next() == {"": "still here"}
            assert trio.current_time() - began == pytest.approx(PERIOD)
        worker.tell("route")
        assert (await stream.next())["id"] == "1"


async def test_a_stream_outlives_every_response_timeout(autojump_clock: trio.testing.MockClock) -> None:
    worker = FakeWorker()
    async with opened(Client(worker)) as stream:
        for _ in range(100):
            await stream.next()


async def test_streams_end_cleanly_when_the_server_stops(autojump_clock: trio.testing.MockClock) -> None:
    worker = FakeWorker()
    client = Client(worker)
    streams: events.Streams = client.app.extensions[STREAMS]
    async with opened(client) as stream:
        await trio.testing.wait_all_tasks_blocked()
        streams.end()
        with trio.fail_after(1):
            assert await stream.next() == {}
    assert worker.watchers == []
    async with opened(client) as stream:
        assert await stream.next() == {}


async def test_a_stream_ends_when_the_worker_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    worker = FakeWorker()
    async with opened(Client(worker)) as stream:
        await trio.testing.wait_all_tasks_blocked()
        worker.watchers[0].close()
        assert await stream.next() == {}


async def test_a_reader_that_left_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    worker = FakeWorker()
    async with opened(Client(worker)):
        assert len(worker.watchers) == 1
    assert worker.watchers == []


async def test_streams_beyond_the_bound_are_503_and_a_place_is_free_again_when_one_ends(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_STREAMS", 1)
    worker = FakeWorker()
    client = Client(worker)
    async with opened(client):
        assert (await client.get("/v1/events")).status_code == 503
    async with opened(client):
        assert len(worker.watchers) == 1
