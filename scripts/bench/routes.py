"""How much a large table costs: `python scripts/bench/routes.py [--routes 100000] [--json FILE]`, in about a minute.

Prints the look-up with many routes against ten, a change from PUT until every forwarder serves it, the start with
none and with many stored routes, the memory of each process, and how long anybody waits while all routes are replaced.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import trio

from trioproxy.http1.parse import parse_request
from trioproxy.providers.store import RouteStore
from trioproxy.proxy.router import Router
from trioproxy.routing.route import Route
from trioproxy.routing.table import Table

FEW = 10
LOOKUPS = 20_000
ROUNDS = 9
PUTS = 300
STARTS = 3
READY = re.compile(r"ready: http://[^:]+:(\d+) .*http://[^:]+:(\d+)\)")


def route(number: int, *, port: int = 8888) -> dict[str, Any]:
    """A route as a coordinator would set it."""
    host = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return {"session_id": f"session-{number:06d}", "service": "jupyter", "backends": [{"host": host, "port": port}]}


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


# --- look-up --------------------------------------------------------------------------------------------


def measure_lookup(many: int) -> dict[str, float]:
    """Nanoseconds per Router.match, as every request calls it; the ratios are medians over rounds side by side."""
    routes = [Route.model_validate(route(number)) for number in range(many)]
    chosen = random.Random(1)
    contenders = {
        "few": (Router(Table.build(routes[:FEW], version=1)), range(FEW)),
        "many_same": (Router(Table.build(routes, version=1)), range(FEW)),
        "many_any": (Router(Table.build(routes, version=1)), range(many)),
    }
    heads = {
        name: [
            parse_request(
                f"GET /session-{n:06d}/jupyter/lab/tree HTTP/1.1\r\nHost: worker\r\n\r\n".encode(), header_count=100
            )
            for n in chosen.choices(asked, k=LOOKUPS)
        ]
        for name, (_, asked) in contenders.items()
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, (router, _) in contenders.items():
            begun = time.perf_counter()
            for head in heads[name]:
                router.match(head)
            times[name].append((time.perf_counter() - begun) / LOOKUPS * 1e9)
    found = {f"lookup_{name}_ns": median(values) for name, values in times.items()}
    for name in ("many_same", "many_any"):
        found[f"lookup_{name}_ratio"] = median(one / few for one, few in zip(times[name], times["few"], strict=True))
    return found


# --- a worker -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Worker:
    """A running worker with two forwarders."""

    pid: int
    port: int
    management: int
    token: str
    seconds: float  # from its start until it was ready

    def call(self, method: str, path: str, body: Any = None) -> http.client.HTTPResponse:
        """One call of the management API; raises when it is refused."""
        connection = http.client.HTTPConnection("127.0.0.1", self.management, timeout=60)
        answer = ask(connection, method, path, body, self.token)
        connection.close()
        return answer

    def memory(self) -> dict[str, float]:
        """MiB of its own per process (proportional set size: pages shared with others count in parts)."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        children = [pid for task in tasks for pid in (task / "children").read_text(encoding="ascii").split()]
        names = ["supervisor", *(f"forwarder_{index}" for index in range(len(children)))]
        return {name: _pss(pid) for name, pid in zip(names, [self.pid, *map(int, children)], strict=True)}


def _pss(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return int(re.findall(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)[0]) / 1024


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, token: str = ""
) -> http.client.HTTPResponse:
    """One request on a kept connection."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if data else {}
    connection.request(method, path, data, headers | ({"Authorization": f"Bearer {token}"} if token else {}))
    answer = connection.getresponse()
    text = answer.read()
    if token and answer.status >= 300:
        raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]!r}")
    return answer


@contextmanager
def worker(folder: Path) -> Generator[Worker]:
    """A worker with its state in `folder`."""
    config = folder / "config.toml"
    config.write_text(
        f'worker = {{state_dir = "{folder}/state", processes = 2, drain_timeout = "1s"}}\n'
        'management = {bind = "127.0.0.1:0"}\nlog = {access = "off", level = "warning"}\n'
        'listeners = [{bind = "127.0.0.1:0", tls = "off"}]\n',
        encoding="utf-8",
    )
    begun = time.perf_counter()
    argv = [sys.executable, "-m", "trioproxy", "run", "-c", str(config)]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    try:
        said: list[str] = []
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if found := READY.search(line):
                break
        else:
            raise RuntimeError(f"the worker did not start:\n{''.join(said)}")
        seconds = time.perf_counter() - begun
        token = (folder / "state" / "management.token").read_text(encoding="ascii").strip()
        yield Worker(process.pid, int(found[1]), int(found[2]), token, seconds)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def fill(folder: Path, routes: Iterable[dict[str, Any]]) -> None:
    """Store routes where a worker finds them at its start."""

    async def write() -> None:
        async with await RouteStore.open(folder / "state" / "routes.sqlite3") as store:
            await store.replace([Route.model_validate(item) for item in routes], version=1)

    (folder / "state").mkdir(mode=0o700)
    trio.run(write)


# --- a change, and what others notice of it --------------------------------------------------------------


def measure_puts(running: Worker, many: int) -> dict[str, float]:
    """Milliseconds from PUT to its answer, which says that every forwarder serves the route; each one is looked up."""
    management = http.client.HTTPConnection("127.0.0.1", running.management, timeout=20)
    clients = [http.client.HTTPConnection("127.0.0.1", running.port, timeout=20) for _ in range(4)]
    times: list[float] = []
    for number in range(PUTS + 10):
        body = route(many + number)
        path = f"/{body['session_id']}/jupyter"
        begun = time.perf_counter()
        ask(management, "PUT", f"/v1/routes{path}", body, running.token)
        times.append((time.perf_counter() - begun) * 1e3)
        for client in clients:
            # Without its final slash a path form is redirected, and nothing is asked of the backend.
            if (status := ask(client, "GET", path).status) != 308:
                raise RuntimeError(f"a route that is said to be served is answered with {status}")
    return {"put_p50_ms": median(times[10:]), "put_p99_ms": percentile(times[10:], 0.99)}


class Probe(threading.Thread):
    """Asks again and again on one kept connection, and remembers the longest wait."""

    def __init__(self, port: int, path: str, expected: int, token: str = "") -> None:
        super().__init__(daemon=True)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._path, self._expected, self._token = path, expected, token
        self.waits: list[float] = []
        self.failures = 0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.01):
            begun = time.perf_counter()
            answer = ask(self._connection, "GET", self._path, token=self._token)
            self.waits.append((time.perf_counter() - begun) * 1e3)
            self.failures += answer.status != self._expected


def measure_replacing(running: Worker, many: int) -> dict[str, float]:
    """Replace all routes by others of the same names, while clients go on asking."""
    body = json.dumps([route(number, port=9999) for number in range(many)]).encode()
    proxied = [Probe(running.port, "/session-000001/jupyter", 308) for _ in range(4)]
    managed = Probe(running.management, "/v1/routes/session-000001/jupyter", 200, running.token)
    for probe in (*proxied, managed):
        probe.start()
    begun = time.perf_counter()
    status = running.call("PUT", "/v1/routes", body).status
    seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    running.call("GET", "/v1/routes")
    listed = time.perf_counter() - begun
    for probe in (*proxied, managed):
        probe.done.set()
        probe.join()
    return {
        "replace_status": status,
        "replace_s": seconds,
        "list_s": listed,
        "replace_failures": sum(probe.failures for probe in (*proxied, managed)),
        "replace_proxied_worst_ms": max(max(probe.waits) for probe in proxied),
        "replace_managed_worst_ms": max(managed.waits),
    }


def main() -> int:
    """Measure, print, and write JSON if wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--routes", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    many: int = arguments.routes
    figures: dict[str, float] = measure_lookup(many)
    with tempfile.TemporaryDirectory(prefix="trioproxy-routes-") as name:
        none, stored = Path(name) / "none", Path(name) / "stored"
        none.mkdir()
        stored.mkdir()
        fill(stored, map(route, range(many)))
        for label, folder in (("none", none), ("many", stored)):
            starts: list[float] = []
            memory: dict[str, float] = {}
            for _ in range(STARTS):
                with worker(folder) as running:
                    starts.append(running.seconds)
                    memory = running.memory()
            figures[f"start_{label}_s"] = median(starts)
            figures |= {f"memory_{label}_{process}_mib": size for process, size in memory.items()}
        with worker(none) as running:
            figures |= {f"few_{name}": value for name, value in measure_puts(running, 0).items()}
        with worker(stored) as running:
            figures |= measure_puts(running, many)
            figures |= measure_replacing(running, many)
            figures |= {f"memory_replaced_{process}_mib": size for process, size in running.memory().items()}
    for label, value in figures.items():
        print(f"{label:36} {value:10.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
