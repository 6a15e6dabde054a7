"""A backend is killed under load, and comes back."""

from __future__ import annotations

from pathlib import Path

import trio
from open_load import open_load, share
from services import TWO, seen_by, three_services
from worker import running_worker

SLOW_START = 3.0


async def test_a_killed_backend_costs_no_idempotent_request_and_comes_back_slowly(tmp_path: Path) -> None:
    async with three_services(tmp_path) as services, running_worker(tmp_path / "w", TWO) as worker:
        ports = [service.port for service in services]
        victim = services[1]
        await worker.route("s", "v", *ports, slow_start=SLOW_START, passive={"eject_for": 0.5})
        async with open_load(worker, "/s/v/") as load:
            before = await load.more(300)
            assert all(0.2 < share(before, port) < 0.5 for port in ports)
            await victim.end()
            dead_from = trio.current_time()
            await load.more(150)
            assert share(load.shots[-100:], victim.port) == 0

            start = len(load.shots)
            await victim.start()
            await load.until(lambda last: last[0].port == victim.port)
            first = next(shot for shot in load.shots[start:] if shot.port == victim.port)
            await load.until(lambda last: share(last, victim.port) > 0.25, last=100)
            early = [shot for shot in load.shots if first.ended <= shot.ended < first.ended + SLOW_START / 3]
            # A third of the traffic at once would be twice as many, and more.
            assert sum(shot.port == victim.port for shot in early) <= 5 + 0.2 * len(early)
            await load.more(100)
        assert load.failures("GET") == []
        for shot in load.failures("POST"):
            assert (shot.status, shot.code) == (502, "upstream_closed")
            assert shot.began < dead_from, "nothing of it had been sent"
        assert set(seen_by(services, "POST").values()) == {1}


async def test_two_of_three_that_are_killed_together_cost_no_idempotent_request(tmp_path: Path) -> None:
    async with three_services(tmp_path) as services, running_worker(tmp_path / "w", TWO) as worker:
        await worker.route("s", "v", *(service.port for service in services))
        async with open_load(worker, "/s/v/") as load:
            await load.more(200)
            async with trio.open_nursery() as nursery:
                for service in services[:2]:
                    nursery.start_soon(service.end)
            dead_from = trio.current_time()
            await load.more(300)
        assert load.failures("GET") == []
        for shot in load.failures("POST"):
            assert (shot.status, shot.code, shot.began < dead_from) == (502, "upstream_closed", True)
        assert set(seen_by(services, "POST").values()) == {1}
