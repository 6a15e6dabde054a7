from __future__ import annotations

import trio

from trioproxy.control.worker import Event
from trioproxy.process.events import EventLog


async def read(log: EventLog, count: int, *, after: int | None = None) -> list[int]:
    ids: list[int] = []
    async with log.subscribe(after=after) as events:
        async for event in events:
            ids.append(event.id)
            if len(ids) == count:
                break
    return ids


async def test_an_event_has_id_time_kind_and_detail() -> None:
    log = EventLog(clock=lambda: 12.5)
    log.add("route", session_id="s")
    async with log.subscribe(after=0) as events:
        assert await anext(events) == Event(1, 12.5, "route", {"session_id": "s"})


async def test_a_subscriber_gets_what_happens_from_now_on() -> None:
    log = EventLog()
    log.add("route")
    seen: list[int] = []

    async def watch() -> None:
        seen.extend(await read(log, 2))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        log.add("route")
        log.add("route")
    assert seen == [2, 3]


async def test_a_subscriber_who_was_here_before_gets_what_it_missed() -> None:
    log = EventLog()
    for _ in range(5):
        log.add("route")
    assert await read(log, 3, after=2) == [3, 4, 5]


async def test_a_slow_subscriber_loses_the_oldest_events() -> None:
    log = EventLog(kept=10)
    async with log.subscribe() as events:
        for _ in range(25):
            log.add("route")
        assert [(await anext(events)).id for _ in range(10)] == list(range(16, 26))


async def test_a_position_from_before_a_restart_gets_all_that_is_kept() -> None:
    log = EventLog()
    log.add("route")
    assert await read(log, 1, after=4711) == [1]


async def test_every_subscriber_gets_every_event() -> None:
    log = EventLog()
    seen: list[list[int]] = []

    async def watch() -> None:
        seen.append(await read(log, 3))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            log.add("route")
    assert seen == [[1, 2, 3]] * 3
