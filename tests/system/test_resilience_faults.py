"""One backend of three goes wrong under load, without being gone."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from forwarders import metric
from open_load import OpenLoad, open_load, share
from services import TWO, Service, seen_by, three_services
from worker import Worker, running_worker

EJECT_FOR = 0.5


@asynccontextmanager
async def loaded(folder: Path, **fields: Any) -> AsyncGenerator[tuple[Worker, OpenLoad, list[Service]]]:
    """A worker, and load on its route to three services that are well, all of which have been used."""
    async with three_services(folder) as services, running_worker(folder / "w", TWO) as worker:
        await worker.route("s", "v", *(service.port for service in services), **fields)
        async with open_load(worker, "/s/v/") as load:
            before = await load.more(200)
            assert all(0.2 < share(before, service.port) < 0.5 for service in services)
            yield worker, load, services


async def test_a_backend_that_never_answers_holds_up_no_idempotent_request(tmp_path: Path) -> None:
    rules = {"retry": {"per_try": 0.3}, "timeouts": {"response_head": 1}, "passive": {"eject_for": EJECT_FOR}}
    async with loaded(tmp_path, **rules) as (_, load, services):
        victim = services[0]
        await victim.become("silent")
        await load.until(lambda last: victim.port not in {shot.port for shot in last}, last=200)
        await load.more(100)
        asked = len(victim.seen())
        await load.more(200)
        # What it still gets are trials: one at a time from each forwarder, and fewer and fewer.
        assert len(victim.seen()) - asked <= 10
        await victim.become("well")
        await load.until(lambda last: share(last, victim.port) > 0.2, last=100)
    assert load.failures("GET") == []
    assert {(shot.status, shot.code) for shot in load.failures()} <= {(504, "response_timeout")}
    assert set(seen_by(services, "POST").values()) == {1}


async def test_a_500_is_the_service_s_own_answer(tmp_path: Path) -> None:
    async with loaded(tmp_path) as (worker, load, services):
        victim = services[0]
        await victim.become("500")
        start = len(load.shots)
        await load.until(lambda last: sum(shot.status == 500 for shot in last) > 20, last=100)
        await load.until(lambda last: sum(shot.status == 500 for shot in last) > 20, last=100)
        assert {shot.status for shot in load.shots[start:]} == {200, 500}
        assert {(shot.status, shot.code) for shot in load.failures()} == {(500, "")}
        listed = (await worker.call("GET", "/v1/backends")).json()["backends"]
        assert {one["state"] for one in listed} == {"healthy"}
        assert await metric(worker, "trioproxy_retries_total") == 0
    for method in ("GET", "POST"):
        assert set(seen_by(services, method).values()) == {1}


async def test_a_backend_that_answers_500_is_left_alone_and_hidden_where_the_route_says_so(tmp_path: Path) -> None:
    rules = {"retry": {"statuses": "500"}, "passive": {"failure_rate": 0.2, "eject_for": 60}}
    async with loaded(tmp_path, **rules) as (worker, load, services):
        victim = services[0]
        await victim.become("500")
        await load.until(lambda last: victim.port not in {shot.port for shot in last}, last=100)
        await worker.logged("a backend is ejected")
        await load.more(100)  # the other forwarder has heard of it, or soon finds out
        failed = len(load.failures())
        await load.more(200)
        assert len(load.failures()) == failed
    assert load.failures("GET") == []
    assert {(shot.status, shot.code) for shot in load.failures()} == {(500, "")}
    assert set(seen_by(services, "POST").values()) == {1}


async def test_half_an_answer_is_never_passed_on_as_a_whole_one(tmp_path: Path) -> None:
    async with loaded(tmp_path, passive={"eject_for": 60}) as (worker, load, services):
        await services[0].become("breaks")
        await worker.logged("a backend is ejected")
        await load.more(100)
        failed = len(load.failures())
        await load.more(200)
        assert len(load.failures()) == failed > 0
    # The client's connection was cut: no request of these has an answer.
    assert {shot.status for shot in load.failures()} == {0}
    for method in ("GET", "POST"):
        assert set(seen_by(services, method).values()) == {1}


@pytest.mark.parametrize("balance", ["least_connections", "random_two"])
async def test_a_backend_that_is_slow_gets_less(tmp_path: Path, balance: str) -> None:
    async with loaded(tmp_path, balance=balance) as (_, load, services):
        await services[0].become("slow")
        await load.until(lambda last: share(last, services[0].port) < 0.2, last=200)
    assert load.failures() == []
    for method in ("GET", "POST"):
        assert set(seen_by(services, method).values()) == {1}


async def test_a_backend_that_flaps_is_left_alone_twice_as_long_each_time(tmp_path: Path) -> None:
    async with loaded(tmp_path, passive={"eject_for": EJECT_FOR}) as (worker, load, services):
        victim = services[0]
        await victim.become("flaps")
        asked, start = len(victim.seen()), len(load.shots)
        after, times = 0, list[float]()
        for _ in range(4):
            line = await worker.logged("a backend is ejected", after=after)
            after = worker.program.stderr.lines.index(line) + 1
            times.append(datetime.fromisoformat(json.loads(line)["time"]).timestamp())
            assert json.loads(line)["backend_id"] == victim.id
        reached = len(victim.seen()) - asked
        assert reached < 0.2 * (len(load.shots) - start)
    for number, (earlier, later) in enumerate(pairwise(times)):
        assert later - earlier > 0.8 * EJECT_FOR * 2**number
    assert load.failures("GET") == []
    assert {(shot.status, shot.code) for shot in load.failures()} <= {(502, "upstream_closed")}
    assert set(seen_by(services, "POST").values()) == {1}
