"""All backends are restarted one by one under load, and those with a cookie stay where they are."""

from __future__ import annotations

import signal
from pathlib import Path

import trio
from open_load import OpenLoad, Person, open_load
from processes import eventually
from services import TWO, Service, seen_by, three_services
from worker import Worker, running_worker


async def command(worker: Worker, service: Service, word: str, *, of: str) -> None:
    """An operator's word about a backend of the route."""
    answer = await worker.call("POST", f"/v1/backends/s/{of}/{service.id}/{word}")
    assert answer.status_code == 200, answer.text


async def is_free(worker: Worker, service: Service) -> bool:
    """Whether no route has a request under way there."""
    listed = (await worker.call("GET", "/v1/backends")).json()["backends"]
    return all(one["in_flight"] == 0 for one in listed if one["backend_id"] == service.id)


async def restart(worker: Worker, service: Service) -> None:
    """SIGTERM as soon as nobody uses it, and a new process in its place."""
    await eventually(lambda: is_free(worker, service))
    before = len(service.seen())
    await service.end(signal.SIGTERM)
    await service.start()
    assert len(service.seen()) == before


def homes(load: OpenLoad) -> dict[int, list[int]]:
    """By person, which backends have answered: each of them once for every stay there."""
    found: dict[int, list[int]] = {}
    for shot in load.shots:
        if shot.port:
            stays = found.setdefault(id(shot.person), [])
            if stays[-1:] != [shot.port]:
                stays.append(shot.port)
    return found


async def test_a_rolling_restart_with_draining_costs_nobody_anything(tmp_path: Path) -> None:
    async with three_services(tmp_path) as services, running_worker(tmp_path / "w", TWO) as worker:
        await worker.route("s", "v", *(service.port for service in services))
        async with open_load(worker, "/s/v/") as load:
            await load.more(100)
            for service in services:
                await command(worker, service, "drain", of="v")
                await restart(worker, service)
                await command(worker, service, "enable", of="v")
                await load.until(lambda last, port=service.port: port in {shot.port for shot in last}, last=30)
    assert load.failures() == []
    for method in ("GET", "POST"):
        assert set(seen_by(services, method).values()) == {1}


async def everybody_asks(load: OpenLoad, times: int = 2) -> None:
    """Wait until each person has been answered so often more."""
    start = len(load.shots)

    def all_did() -> bool:
        asked = [id(shot.person) for shot in load.shots[start:] if shot.port]
        return all(asked.count(id(person)) >= times for person in load.people)

    await eventually(all_did, seconds=40)


def at_home(load: OpenLoad, people: list[Person]) -> dict[int, int]:
    """By person, where they were answered last."""
    stays = homes(load)
    return {id(person): stays[id(person)][-1] for person in people}


async def test_a_rolling_restart_moves_only_who_has_to(tmp_path: Path) -> None:
    async with three_services(tmp_path) as services, running_worker(tmp_path / "w", TWO) as worker:
        await worker.route("s", "w", *(service.port for service in services), sticky=True)
        async with open_load(worker, "/s/w/", people=15) as load:
            people = list(load.people)
            await everybody_asks(load)
            for service in services:
                lived = at_home(load, people)
                assert service.port in lived.values()
                await command(worker, service, "drain", of="w")
                await everybody_asks(load)
                assert at_home(load, people) == lived
                await command(worker, service, "disable", of="w")
                await everybody_asks(load)
                moved = at_home(load, people)
                assert all(moved[one] != service.port for one in moved)
                assert all(moved[one] == home for one, home in lived.items() if home != service.port)
                await restart(worker, service)
                await command(worker, service, "enable", of="w")
                await everybody_asks(load)
                assert at_home(load, people) == moved
            # A cookie for everybody, and one more for each move.
            for one in people:
                assert len(one.pins) == len(homes(load)[id(one)])
    assert load.failures() == []
    for method in ("GET", "POST"):
        assert set(seen_by(services, method).values()) == {1}


async def test_a_killed_backend_moves_those_who_were_on_it_once(tmp_path: Path) -> None:
    async with three_services(tmp_path) as services, running_worker(tmp_path / "w", TWO) as worker:
        victim = services[2]
        ports = [service.port for service in services]
        await worker.route("s", "w", *ports, sticky=True, passive={"eject_for": 0.5})
        async with open_load(worker, "/s/w/", people=15) as load:
            people = list(load.people)
            await everybody_asks(load)
            lived = at_home(load, people)
            assert victim.port in lived.values()
            await victim.end()
            dead_from = trio.current_time()
            await everybody_asks(load, 5)
            await victim.start()
            await everybody_asks(load, 5)
            await load.more(200)
        stays = homes(load)
    for one in people:
        if lived[id(one)] == victim.port:
            assert len(stays[id(one)]) == len(one.pins) == 2
        else:
            assert stays[id(one)] == [lived[id(one)]]
            assert len(one.pins) == 1
    assert load.failures("GET") == []
    for shot in load.failures("POST"):
        assert (shot.status, shot.code, shot.began < dead_from) == (502, "upstream_closed", True)
    assert set(seen_by(services, "POST").values()) == {1}
