"""One listening socket for all forwarders, or one with SO_REUSEPORT for each? Measures what either costs.

    .venv/bin/python scripts/bench/sockets.py

Two processes accept with the program's own listener and answer a byte with a byte. Printed are how many of the
connections each of them got, and how long new connections wait while one of the two dies or hangs.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from statistics import median

import trio

from trioproxy.config.schema import ListenerConfig, TimeoutsConfig
from trioproxy.net.limiter import ConnectionLimiter
from trioproxy.net.listener import Listener
from trioproxy.net.loads import Loads
from trioproxy.net.peer import Peer
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.observe.metrics import Metrics

WORK = 60e-6  # seconds of computing per answer: what a small request costs a forwarder
KINDS = {"shared": "one socket", "polite": "one socket, giving way", "reuseport": "SO_REUSEPORT"}
PATTERNS = ((32, 0.0, 50), (200, 0.0, 20), (200, 0.002, 20), (200, 0.02, 20))
ROUNDS = 5
ARRIVAL = 0.005  # seconds between two connections while one of the processes dies


async def serve(descriptor: int, loads_descriptor: int, place: int) -> None:
    """One of the two processes."""
    loads = Loads(loads_descriptor, 2, mine=place) if loads_descriptor >= 0 else None
    tell = loads.tell if loads else lambda _: None
    tell(0)

    async def answer(stream: PrefixedStream, _: Peer) -> None:
        try:
            while await stream.receive_some(1):
                begun = time.perf_counter()
                while time.perf_counter() - begun < WORK:
                    pass
                await stream.send_all(bytes([place]))
        except trio.BrokenResourceError:
            return

    listener = Listener(
        ListenerConfig(tls="off"),
        socket.socket(fileno=descriptor),
        handler=answer,
        certificates=None,
        limiter=ConnectionLimiter(10_000, tell=tell),
        metrics=Metrics(),
        timeouts=TimeoutsConfig,
        trusted=tuple,
        loads=loads,
    )
    async with trio.open_nursery() as nursery:
        await listener.serve(nursery)


class Pair:
    """Both processes and their sockets."""

    def __init__(self, kind: str) -> None:
        self.loads = Loads.create(2) if kind == "polite" else -1
        first = self._bind(0, reuse=kind == "reuseport")
        self.port: int = first.getsockname()[1]
        self.sockets = [first, self._bind(self.port, reuse=True) if kind == "reuseport" else first]
        self.processes = [self._start(0), self._start(1)]

    def _bind(self, port: int, *, reuse: bool) -> socket.socket:
        sock = socket.socket()
        if reuse:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen(4096)
        return sock

    def _start(self, place: int) -> subprocess.Popen[bytes]:
        descriptor = self.sockets[place].fileno()
        passed = (descriptor, self.loads) if self.loads >= 0 else (descriptor,)
        arguments = [str(descriptor), str(self.loads), str(place)]
        return subprocess.Popen([sys.executable, __file__, *arguments], pass_fds=passed)

    def kill(self, place: int) -> None:
        self.processes[place].kill()
        self.processes[place].wait()
        if self.loads >= 0:
            Loads(self.loads, 2).clear(place)

    def replace(self, place: int) -> None:
        self.kill(place)
        self.processes[place] = self._start(place)

    def close(self) -> None:
        self.kill(0)
        self.kill(1)
        for sock in self.sockets:
            sock.close()
        if self.loads >= 0:
            os.close(self.loads)


async def ask(stream: trio.SocketStream) -> int:
    await stream.send_all(b"?")
    answer = await stream.receive_some(1)
    if not answer:
        raise OSError("it hung up")
    return answer[0]


async def balance(port: int, connections: int, gap: float, requests: int) -> int:
    """How many of the connections the less lucky process got."""
    streams: list[trio.SocketStream] = []
    got: Counter[int] = Counter({0: 0, 1: 0})

    async def client() -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        streams.append(stream)
        got[await ask(stream)] += 1
        for _ in range(requests):
            await trio.sleep(0.01)
            await ask(stream)

    async with trio.open_nursery() as nursery:
        for _ in range(connections):
            nursery.start_soon(client)
            await trio.sleep(gap)
    for stream in streams:
        await stream.aclose()
    return min(got.values())


async def rate(port: int) -> float:
    """Connections per second with one request each, 16 at a time."""
    done = 0

    async def client() -> None:
        nonlocal done
        while True:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await ask(stream)
                done += 1

    with trio.move_on_after(2):
        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(client)
    return done / 2


async def death(pair: Pair, number: signal.Signals, after: float, seconds: float) -> tuple[list[float], int]:
    """Waits of new connections for their first answer, and how many failed. The victim is replaced `after` seconds."""
    waits: list[float] = []
    failed = 0

    async def client() -> None:
        nonlocal failed
        begun = trio.current_time()
        try:
            async with await trio.open_tcp_stream("127.0.0.1", pair.port) as stream:
                await ask(stream)
        except (OSError, trio.BrokenResourceError):
            failed += 1
        else:
            waits.append(trio.current_time() - begun)

    async def kill() -> None:
        await trio.sleep(0.5)
        pair.processes[0].send_signal(number)
        await trio.sleep(after)
        pair.replace(0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        for _ in range(int(seconds / ARRIVAL)):
            nursery.start_soon(client)
            await trio.sleep(ARRIVAL)
    return sorted(waits), failed


def told(waits: list[float], failed: int) -> str:
    slow = sum(wait > 0.1 for wait in waits)
    middle, last = median(waits) * 1000, waits[-1] * 1000
    return f"median {middle:.1f} ms, longest {last:.0f} ms, {slow} of {len(waits)} above 100 ms, {failed} failed"


async def main() -> None:
    for kind, name in KINDS.items():
        print(name)
        pair = Pair(kind)
        try:
            await balance(pair.port, 4, 1.0, 0)  # until both are there
            for connections, gap, requests in PATTERNS:
                got = [await balance(pair.port, connections, gap, requests) for _ in range(ROUNDS)]
                print(f"  {connections} connections, {gap * 1000:g} ms apart: the lesser half {got}")
            print(f"  one request per connection: {await rate(pair.port):.0f}/s")
            print("  SIGKILL:", told(*await death(pair, signal.SIGKILL, 0.1, 4)))
            print("  SIGSTOP, replaced after 5 s:", told(*await death(pair, signal.SIGSTOP, 5, 8)))
        finally:
            pair.close()


if __name__ == "__main__":
    if len(sys.argv) == 4:
        trio.run(serve, *(int(argument) for argument in sys.argv[1:]))
    else:
        trio.run(main)
