"""Children that a program forks from itself: what they keep of it, and how they end. Each in a program of its own."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from forwarders import all_ready, get_fresh, hurt
from processes import eventually, run
from worker import running_worker

from trioproxy.providers.store import RouteStore
from trioproxy.routing.route import Route

HEAD = """
import atexit, json, os, signal, socket, sys
from pathlib import Path
import trio
from trioproxy.process.forked import SHIELDED, fork

"""


async def program(text: str) -> CompletedProcess[bytes]:
    return await run([sys.executable, "-c", HEAD + text])


async def test_its_exit_code_is_what_its_work_returned() -> None:
    done = await program("print([trio.run(fork(work, ()).wait) for work in (lambda: 0, lambda: 7)])")
    assert done.stdout == b"[0, 7]\n"


async def test_it_keeps_the_descriptors_it_was_given_and_no_others() -> None:
    text = """
ours, theirs = socket.socketpair()
kept, other = open("/etc/passwd"), open("/etc/group")

def work():
    found = {n: f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd") if n not in "12"}
    # The one by which they were listed is closed.
    theirs.send(json.dumps({n: os.readlink(name) for n, name in found.items() if os.path.lexists(name)}).encode())
    return 0

child = fork(work, (theirs.fileno(), kept.fileno()))
theirs.close()
print(ours.recv(10_000).decode(), json.dumps([trio.run(child.wait), kept.fileno()]), sep="\\n")
"""
    files, rest = map(json.loads, (await program(text)).stdout.splitlines())
    code, kept = rest
    assert code == 0
    assert files["0"] == "/dev/null"
    assert files[str(kept)] == "/etc/passwd"
    assert sorted(name.partition(":")[0] for name in files.values()) == ["/dev/null", "/etc/passwd", "socket"]


async def test_signals_to_the_group_are_not_for_it_and_the_parent_has_its_own_back() -> None:
    text = """
def work():
    return 0 if all(signal.getsignal(n) == signal.SIG_IGN for n in SHIELDED) and not blocked() else 5

def blocked():
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())

child = fork(work, ())
print(trio.run(child.wait), len(blocked()), signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    assert (await program(text)).stdout == b"0 0 True\n"


async def test_a_bug_in_it_is_told_and_undoes_nothing_of_the_parent() -> None:
    text = """
atexit.register(print, "at exit")

def work():
    raise RuntimeError("a bug")

print("before")
try:
    child = fork(work, ())
    print(trio.run(child.wait))
finally:
    print("undone")
"""
    done = await program(text)
    assert done.stdout == b"before\n1\nundone\nat exit\n"
    assert done.stderr.count(b"RuntimeError: a bug") == 1


async def test_it_can_be_killed_with_and_without_an_event_loop() -> None:
    text = """
def work():
    signal.pause()

async def killed(child):
    child.kill()
    return await child.wait()

one, other = fork(work, ()), fork(work, ())
print(trio.run(killed, one))
other.end(10)
print(other.returncode)
for child in (one, other):
    child.kill()
    child.end(10)
    assert not Path(f"/proc/{child.pid}").exists()
"""
    done = await program(text)
    assert (done.stdout, done.stderr) == (b"-9\n-9\n", b"")


# --- as a worker's forwarders --------------------------------------------------------------------------


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def test_forwarders_are_forked_and_know_the_stored_routes(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    async with await RouteStore.open(state / "routes.sqlite3") as store:
        gone = [{"host": "127.0.0.1", "port": 9}]
        await store.replace(
            [Route.model_validate({"session_id": f"s{n}", "service": "v", "backends": gone}) for n in range(50)],
            version=7,
        )
    two: dict[str, Any] = {"worker": {"processes": 2, "state_dir": str(state)}}
    async with running_worker(tmp_path, two) as worker:
        first = worker.forwarders()
        assert {command_of(pid) for pid in first} == {command_of(worker.program.pid)}
        assert (await get_fresh(worker, "/s49/v/")).status == 502
        assert (await get_fresh(worker, "/s50/v/")).status == 404

        # Those that take their places are started, and are sent what they knew.
        for pid in first:
            hurt(pid, signal.SIGKILL)
        await all_ready(worker, restarts=2)
        assert all(b"trioproxy.process.child" in command_of(pid) for pid in worker.forwarders())
        assert (await get_fresh(worker, "/s49/v/")).status == 502
        assert (await get_fresh(worker, "/s50/v/")).status == 404


async def test_when_nothing_can_be_forked_forwarders_are_started(tmp_path: Path) -> None:
    hindered = tmp_path / "hindered"
    hindered.mkdir()
    (hindered / "sitecustomize.py").write_text("import os\ndef fork(): raise OSError(38, 'not here')\nos.fork = fork\n")
    two: dict[str, Any] = {"worker": {"processes": 2}}
    async with running_worker(tmp_path / "w", two, environ={"PYTHONPATH": str(hindered)}) as worker:
        assert "not here" in await worker.logged("forwarders are started instead of forked")
        await eventually(worker.ready)
        assert all(b"trioproxy.process.child" in command_of(pid) for pid in worker.forwarders())
