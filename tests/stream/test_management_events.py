from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from management_client import Client
from management_fake import TOKEN, FakeWorker
from quart.typing import TestHTTPConnectionProtocol

from trioproxy.management import events
from trioproxy.management.app import STREAMS

AUTH = {"Authorization": f"Bearer {TOKEN}"}


class Reader:
    """Reads one event stream of the app, in memory."""

    def __init__(self, connection: TestHTTPConnectionProtocol) -> None:
        self.connection = connection

    async def next(self) -> dict[str, Any]:
        text = (await self.connection.receive()).decode()
        assert text.endswith("\n\n")
        return dict(line.split(": ", 1) for line in text.strip().split("\n"))


def opened(client: Client, headers: dict[str, str] | None = None) -> TestHTTPConnectionProtocol:
    return client.app.test_client().request("/v1/events", headers={**AUTH, **(headers or {})})


async def started(connection: TestHTTPConnectionProtocol) -> Reader:
    await connection.send_complete()
    reader = Reader(connection)
    assert await reader.next() == {"retry": "3000"}
    assert connection.status_code == 200
    assert connection.headers is not None
    assert connection.headers["Content-Type"] == "text/event-stream"
    return reader


async def test_events_come_as_they_happen(autojump_clock: trio.testing.MockClock) -> None:
    worker = FakeWorker()
    async with opened(Client(worker)) as connection:
        reader = await started(connection)
        worker.tell("route", session_id="s1", text="line\nbreak")
        worker.tell("drain")
        first, second = await reader.next(), await reader.next()
        assert (first["id"], first["event"]) == ("1", "route")
        assert json.loads(first["data"]) == {
            "id": 1,
            "at": 1000.5,
            "kind": "route",
            "detail": {"session_id": "s1", "text": "line\nbreak"},
        }
        assert (second["id"], second["event"]) == ("2", "drain")
        await connection.disconnect()


async def test_events_after_the_last_one_seen_are_told_again(autojump_clock: trio.testing.MockClock) -> None:
    worker = FakeWorker()
    for number in range(5):
        worker.tell("route", number=number)
    async with opened(Client(worker), {"Last-Event-ID": "3"}) as connection:
        reader = await started(connection)
        assert [(await reader.next())["id"] for _ in range(2)] == ["4", "5"]
        await connection.disconnect()


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 30, "\u00b2"])
async def test_an_event_id_that_is_none_is_400(last: str) -> None:
    response = await Client(FakeWorker()).get("/v1/events", headers={"Last-Event-ID": last})
    assert response.status_code == 400


async def test_a_silent_stream_says_something_every_15_seconds(autojump_clock: trio.testing.MockClock) -> None:
    worker = FakeWorker()
    async with opened(Client(worker)) as connection:
        reader = await started(connection)
        for _ in range(3):
            began = trio.current_time()
            assert await reader.next() == {"": "still here"}
            assert trio.current_time() - began == pytest.approx(events.HEARTBEAT_SECONDS)
        worker.tell("route")
        assert (await reader.next())["id"] == "1"
        await connection.disconnect()


async def test_a_stream_outlives_every_response_timeout(autojump_clock: trio.testing.MockClock) -> None:
    worker = FakeWorker()
    async with opened(Client(worker)) as connection:
        reader = await started(connection)
        for _ in range(100):
            await reader.next()
        await connection.disconnect()


async def test_streams_end_cleanly_when_the_server_stops(autojump_clock: trio.testing.MockClock) -> None:
    worker = FakeWorker()
    client = Client(worker)
    streams: events.Streams = client.app.extensions[STREAMS]
    async with opened(client) as connection:
        await started(connection)
        await trio.testing.wait_all_tasks_blocked()
        streams.end()
        with trio.fail_after(1):
            assert await connection.receive() == b""
    assert worker.watchers == []
    async with opened(client) as connection:
        await started(connection)
        assert await connection.receive() == b""


async def test_a_stream_ends_when_the_worker_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    worker = FakeWorker()
    async with opened(Client(worker)) as connection:
        await started(connection)
        await trio.testing.wait_all_tasks_blocked()
        worker.watchers[0].close()
        assert await connection.receive() == b""


async def test_a_reader_that_left_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    worker = FakeWorker()
    async with opened(Client(worker)) as connection:
        await started(connection)
        assert len(worker.watchers) == 1
        await connection.disconnect()
    assert worker.watchers == []


async def test_streams_beyond_the_bound_are_503_and_a_place_is_free_again_when_one_ends(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_STREAMS", 1)
    client = Client(FakeWorker())
    async with opened(client) as connection:
        await started(connection)
        assert (await client.get("/v1/events")).status_code == 503
        await connection.disconnect()
    async with opened(client) as connection:
        await started(connection)
        await connection.disconnect()
