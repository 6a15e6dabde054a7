"""Requests that arrive when they arrive, however long the answers take: for latency under a given load.

    python -m bench.load.arrivals --connect PORT --path PATH --rate R --seconds S --headers FILE --answer TEXT

Arrivals are random and independent (exponential gaps), the same ones at each run. A request is sent on a kept
connection that is free; while none is, it waits. Its latency counts from its arrival and not from the moment it could
be sent: a proxy that stands still for a while is charged for all who came meanwhile. Without that, what is known as
coordinated omission would hide it.
Prints figures in seconds as JSON; `late` is how long after an arrival this program itself got to send it.
"""

from __future__ import annotations

import argparse
import json
import random
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError

CONNECTIONS = 32
WAITING_MOST = 100_000
GIVE_UP_SECONDS = 5.0
SEED = 3


class Lane:
    """One kept connection, with at most one request on its way."""

    def __init__(self, port: int, request: bytes, answer: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.arrived = 0.0
        self._request = request
        self._answer = answer
        self._received = b""

    def send(self, arrived: float) -> None:
        """Send the request that came at that time."""
        self.arrived = arrived
        self._received = b""
        if self.socket.send(self._request) != len(self._request):
            raise BenchError("a request did not fit into an empty socket")

    def complete(self) -> bool:
        """Take what has come; whether it is the whole answer. Raises BenchError when that is another one."""
        data = self.socket.recv(65536)
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not data or len(body) > len(self._answer) or (separator and not head.startswith(b"HTTP/1.1 200 ")):
            raise BenchError(f"a wrong answer, or a closed connection: {self._received!r}")
        if len(body) < len(self._answer):
            return False
        if body != self._answer:
            raise BenchError(f"a wrong body: {body!r}")
        return True


class Generator:
    """Sends what arrives over the lanes and keeps the times."""

    def __init__(self, lanes: Sequence[Lane], rate: float) -> None:
        self._epoll = select.epoll()
        self._lanes = {lane.socket.fileno(): lane for lane in lanes}
        for descriptor in self._lanes:
            self._epoll.register(descriptor, select.EPOLLIN)
        self._free = deque(lanes)
        self._gaps = random.Random(SEED)
        self._rate = rate
        self._waiting: deque[float] = deque()
        self.latencies: list[float] = []
        self.late: list[float] = []
        self.waited = 0

    def run(self, seconds: float) -> None:
        """Until all that arrives in so many seconds is answered. Raises BenchError when that never comes to an end."""
        now = time.perf_counter()
        end = now + seconds
        due = now + self._gaps.expovariate(self._rate)
        while due < end or len(self._free) < len(self._lanes) or self._waiting:
            while due <= now and due < end:
                self._arrive(due, now)
                due += self._gaps.expovariate(self._rate)
            self._wait(max(0.0, due - now) if due < end else GIVE_UP_SECONDS)
            now = time.perf_counter()
            if now > end + GIVE_UP_SECONDS or len(self._waiting) > WAITING_MOST:
                raise BenchError(f"{self._rate:.0f} requests/s are more than it can answer")

    def _arrive(self, due: float, now: float) -> None:
        if self._free:
            self.late.append(now - due)
            self._free.popleft().send(due)
        else:
            self.waited += 1
            self._waiting.append(due)

    def _wait(self, seconds: float) -> None:
        # epoll's own timeout is a whole number of milliseconds; select's is not, and an epoll can be waited for.
        select.select([self._epoll], [], [], seconds)
        for descriptor, _ in self._epoll.poll(0):
            lane = self._lanes[descriptor]
            if lane.complete():
                self.latencies.append(time.perf_counter() - lane.arrived)
                if self._waiting:
                    lane.send(self._waiting.popleft())
                else:
                    self._free.append(lane)


def percentile(ordered: Sequence[float], part: float) -> float:
    """The smallest value that so much of the ordered values do not exceed."""
    return ordered[max(0, -int(-part * len(ordered) // 1) - 1)]


def main() -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--connect", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--headers", type=Path, required=True)
    parser.add_argument("--answer", required=True)
    arguments = parser.parse_args()
    # By default the kernel wakes a sleeper up to 50 µs late, to save wake-ups.
    Path("/proc/self/timerslack_ns").write_text("1", encoding="ascii")
    lines = arguments.headers.read_text(encoding="ascii").splitlines()
    head = [f"GET {arguments.path} HTTP/1.1", f"Host: 127.0.0.1:{arguments.connect}", *lines]
    request = ("\r\n".join(head) + "\r\n\r\n").encode()
    answer = arguments.answer.encode()
    generator = Generator([Lane(arguments.connect, request, answer) for _ in range(CONNECTIONS)], arguments.rate)
    began = time.perf_counter()
    generator.run(arguments.seconds)
    seconds = time.perf_counter() - began
    latencies, late = sorted(generator.latencies), sorted(generator.late)
    figures = {
        "requests": len(latencies),
        "seconds": seconds,
        "p50": percentile(latencies, 0.50),
        "p99": percentile(latencies, 0.99),
        "late_p50": percentile(late, 0.50),
        "late_p99": percentile(late, 0.99),
        "waited": generator.waited,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
