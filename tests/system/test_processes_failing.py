"""Forwarders that cannot live: they are tried again ever more slowly, the supervisor keeps its head, and says so."""

from __future__ import annotations

import json
import os
import resource
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

from backends import raw_backend
from forwarders import all_ready, forwarders, get_fresh, hurt, metric
from processes import eventually
from worker import Worker, running_worker

from trioproxy.process.slot import FIRST_PAUSE, LONGEST_PAUSE
from trioproxy.testing import Wire

TWO: dict[str, Any] = {"worker": {"processes": 2, "drain_timeout": 5}}


async def hello(wire: Wire) -> None:
    while True:
        await wire.read_head()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")


class Curse:
    """While it lasts, every new forwarder dies at once. `births` counts those that were started under it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._mark = folder / "cursed"
        self._births = folder / "births"
        self._births.touch()
        (folder / "sitecustomize.py").write_text(
            "import os, sys\n"
            f"if 'trioproxy.process.child' in sys.orig_argv and os.path.exists({str(self._mark)!r}):\n"
            f"    with open({str(self._births)!r}, 'ab', 0) as births:\n"
            "        births.write(b'.')\n"
            "    os._exit(7)\n"
        )

    @property
    def environ(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self._folder)}

    @property
    def births(self) -> int:
        return self._births.stat().st_size

    def begin(self) -> None:
        self._mark.touch()

    def end(self) -> None:
        self._mark.unlink()


def pauses(worker: Worker) -> dict[int, list[float]]:
    """What the log says of each forwarder that ended, in order."""
    found: dict[int, list[float]] = {}
    for line in worker.program.stderr.lines:
        if line.startswith("{") and "will be replaced" in line:
            entry = json.loads(line)
            found.setdefault(entry["forwarder"], []).append(entry["pause"])
    return found


async def test_forwarders_that_die_at_once_are_no_fork_storm(tmp_path: Path) -> None:
    curse = Curse(tmp_path / "curse")
    async with raw_backend(hello) as port, running_worker(tmp_path / "w", TWO, environ=curse.environ) as worker:
        await worker.route("s", "v", port)
        curse.begin()
        for pid in worker.forwarders():
            hurt(pid, signal.SIGKILL)

        def slow_enough() -> bool:
            return all(max(each) > 1.5 for each in pauses(worker).values()) and len(pauses(worker)) == 2

        await eventually(slow_enough, seconds=20)
        for each in pauses(worker).values():
            assert all(later > 1.3 * earlier for earlier, later in pairwise(each)), each  # doubled, and up to half more
            assert FIRST_PAUSE <= each[0] <= 1.5 * FIRST_PAUSE
            assert max(each) <= LONGEST_PAUSE
        assert curse.births <= sum(map(len, pauses(worker).values()))
        answer = await worker.call("GET", "/readyz")
        assert answer.status_code == 503
        assert "no forwarder serves the routes" in answer.text
        assert await metric(worker, "trioproxy_forwarder_restarts_total") >= 8
        assert {one["state"] for one in await forwarders(worker)} <= {"dead", "starting"}
        # What is written meanwhile is there for those that come.
        answer = await worker.call("PUT", "/v1/routes/s/w", json={"backends": [{"host": "127.0.0.1", "port": port}]})
        assert answer.status_code in (201, 202)
        curse.end()
        await eventually(worker.ready, seconds=20)
        assert (await get_fresh(worker, "/s/w/")).status == 200


async def test_a_supervisor_without_files_lives_and_replaces_a_dead_forwarder_later(tmp_path: Path) -> None:
    async with raw_backend(hello) as port, running_worker(tmp_path, TWO) as worker:
        await worker.route("s", "v", port)
        victim, other = worker.forwarders()
        soft, hard = resource.prlimit(worker.program.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(worker.program.pid, resource.RLIMIT_NOFILE, (3, hard))  # what is open stays open
        hurt(victim, signal.SIGKILL)
        assert "cannot be started: Too many open files" in await worker.logged("cannot be started")
        assert worker.forwarders() == [other]
        for _ in range(10):
            assert (await get_fresh(worker, "/s/v/")).status == 200
        resource.prlimit(worker.program.pid, resource.RLIMIT_NOFILE, (soft, hard))
        await eventually(lambda: len(worker.forwarders()) == 2, seconds=20)
        await eventually(worker.ready)


async def test_a_signal_without_a_name_costs_the_forwarder_and_nothing_else(tmp_path: Path) -> None:
    async with raw_backend(hello) as port, running_worker(tmp_path, TWO) as worker:
        await worker.route("s", "v", port)
        number = signal.SIGRTMIN + 3
        os.kill(worker.forwarders()[0], number)
        assert f"was killed by signal {number}" in await worker.logged("a forwarder ended and will be replaced")
        await all_ready(worker, restarts=1)
        assert (await get_fresh(worker, "/s/v/")).status == 200
