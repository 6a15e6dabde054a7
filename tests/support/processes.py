"""Real programs as children of a test: their lines as they come, and an end they cannot escape."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess

import trio

MAX_LINES = 100_000
POLL_SECONDS = 0.02
KILL_SECONDS = 10.0
"""How long a killed program may take to be gone, and its output to end."""


async def eventually(condition: Callable[[], bool | Awaitable[bool]], *, seconds: float = 10.0) -> None:
    """Ask until the answer is yes. For what nobody announces: ports, files, /proc. Raises TooSlowError."""
    with trio.fail_after(seconds):
        while True:
            await trio.lowlevel.checkpoint()
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await trio.sleep(POLL_SECONDS)


async def listens(port: int) -> bool:
    """Whether something accepts connections on this port of the loopback address."""
    with suppress(OSError):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.aclose()
        return True
    await trio.lowlevel.checkpoint()
    return False


def free_port() -> int:
    """A port of the loopback address that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def refusing_port() -> Generator[int]:
    """A port of the loopback address that refuses connections, and that nobody else can take meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


class Output:
    """The lines that a program has written to one of its streams so far."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ended = False
        self._news = trio.Event()

    async def collect(self, stream: trio.abc.ReceiveStream) -> None:
        rest = b""
        async for data in stream:
            *whole, rest = (rest + data).split(b"\n")
            self.lines += (line.decode(errors="replace") for line in whole)
            assert len(self.lines) <= MAX_LINES, "the program writes without end"
            self._wake()
        self.lines += [rest.decode(errors="replace")] if rest else []
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def line(self, wanted: Callable[[str], bool], *, after: int = 0, seconds: float = 20.0) -> str:
        """The first line that fits, from number `after` on, once it is there. Raises EOFError, TooSlowError."""
        with trio.fail_after(seconds):
            while True:
                while after < len(self.lines):
                    if wanted(self.lines[after]):
                        return self.lines[after]
                    after += 1
                if self.ended:
                    raise EOFError("the program ended without saying it; it said:\n" + "\n".join(self.lines[-50:]))
                await self._news.wait()


class Program:
    """A running program. `code` is its exit code once it has ended."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.stdout, self.stderr = Output(), Output()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def code(self) -> int | None:
        return self.process.returncode

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, *, seconds: float = 20.0) -> int:
        """Its exit code, once it has ended by itself."""
        with trio.fail_after(seconds):
            return await self.process.wait()

    async def terminate(self, *, seconds: float = 20.0) -> int:
        """SIGTERM, and its exit code once it has ended. Raises TooSlowError."""
        self.signal(signal.SIGTERM)
        return await self.ended(seconds=seconds)

    async def end(self, *, grace: float) -> None:
        """SIGTERM; after `grace` seconds, or when it has ended and what it started has not, SIGKILL to all of them."""
        if self.code is None:
            self.signal(signal.SIGTERM)
        with trio.move_on_after(grace):
            await self.process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def running(
    command: Sequence[str | Path],
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    grace: float = 10.0,
    descriptors: Sequence[int] = (),
) -> AsyncGenerator[Program]:
    """Run a program in a session of its own until the block is left; then SIGTERM, and after `grace` s SIGKILL.

    It inherits these descriptors, under their numbers.
    """
    process = await trio.lowlevel.open_process(
        [str(part) for part in command],
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, **(environ or {})},
        cwd=cwd,
        start_new_session=True,
        pass_fds=descriptors,
    )
    program = Program(process)
    assert process.stdout is not None
    assert process.stderr is not None
    failure: Exception | None = None  # a value inside the nursery, so that it leaves as it came and not in a group
    async with trio.open_nursery() as nursery:
        nursery.start_soon(program.stdout.collect, process.stdout)
        nursery.start_soon(program.stderr.collect, process.stderr)
        try:
            yield program
        except Exception as error:  # noqa: BLE001
            failure = error
        finally:
            with trio.move_on_after(grace + KILL_SECONDS, shield=True):
                await program.end(grace=grace)
            nursery.cancel_scope.deadline = trio.current_time() + KILL_SECONDS
    if failure is not None:
        print(f"--- {command[0]} said last:", *program.stderr.lines[-30:], sep="\n", file=sys.stderr)
        raise failure


async def run(command: Sequence[str | Path], *, stdin: bytes = b"", seconds: float = 30.0) -> CompletedProcess[bytes]:
    """Run a program to its end, with its output, whatever its exit code."""
    with trio.fail_after(seconds):
        return await trio.run_process(
            [str(part) for part in command], stdin=stdin, capture_stdout=True, capture_stderr=True, check=False
        )
