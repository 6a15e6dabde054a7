from __future__ import annotations

import signal
import socket
import ssl
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
from commands import command, environment, trioproxy
from processes import running
from worker import running_worker, write_config


async def get(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        return await client.get(url)


class SlowBackend:
    """Answers a request when `release` is set; `asked` is set when one came."""

    def __init__(self) -> None:
        self.asked, self.release = trio.Event(), trio.Event()
        self.port = 0

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, self._serve, 0, host="127.0.0.1"))
            self.port = listener.socket.getsockname()[1]
            task_status.started()

    async def _serve(self, stream: trio.SocketStream) -> None:
        await stream.receive_some()
        self.asked.set()
        await self.release.wait()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")


@pytest.fixture
async def backend(nursery: trio.Nursery) -> SlowBackend:
    slow = SlowBackend()
    await nursery.start(slow.run)
    return slow


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_where_it_is_serves_and_ends_with_0_when_told(tmp_path: Path, number: signal.Signals) -> None:
    async with running_worker(tmp_path) as worker:
        assert await worker.ready()
        assert (await get(f"{worker.http}/nobody/here/")).status_code == 404
        worker.program.signal(number)
        assert await worker.program.ended() == 0
    assert sum(line.startswith("trioproxy ready: ") for line in worker.program.stderr.lines) == 1


async def test_the_state_directory_and_all_in_it_is_for_its_owner_only(tmp_path: Path) -> None:
    async with running_worker(tmp_path):
        state = tmp_path / "state"
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (state, *state.rglob("*"))}
    assert modes[state] == 0o700
    assert modes[state / "management.token"] == 0o600
    for path, mode in modes.items():
        public = path.suffix == ".crt"
        assert mode & 0o077 == 0 or (public and mode & 0o133 == 0), path


async def test_a_wrong_configuration_is_exit_code_2_and_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "trioproxy.toml").write_text("[limits]\nconnections = 'many'\n")
    ended = await trioproxy("run", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr == (
        'trioproxy.toml: [limits].connections = "many": is of the wrong type; allowed: a whole number, at least 1\n'
    )


async def test_a_port_in_use_is_exit_code_1_and_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = [f"worker.state_dir={tmp_path / 'state'}", f"listeners.0.bind=127.0.0.1:{port}"]
        ended = await trioproxy("run", *(f"--set={flag}" for flag in flags), cwd=tmp_path)
    assert ended.returncode == 1
    problem = ended.stderr.splitlines()[-1]
    assert problem == f"trioproxy: listener 'web' cannot listen on 127.0.0.1:{port}: address already in use"
    assert "trioproxy ready" not in ended.stderr


async def test_a_state_directory_in_use_is_exit_code_1_and_a_sentence(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as worker:
        second = await trioproxy("run", f"--set=worker.state_dir={tmp_path / 'state'}", cwd=tmp_path)
        assert second.returncode == 1
        assert f"in use by another worker (process {worker.program.pid})" in second.stderr


async def test_an_access_log_that_cannot_be_written_is_exit_code_1_and_a_sentence(tmp_path: Path) -> None:
    flags = [f"--set=worker.state_dir={tmp_path / 'state'}", "--set=log.access=/proc/nowhere/access.log"]
    ended = await trioproxy("run", *flags, cwd=tmp_path)
    assert ended.returncode == 1
    assert "trioproxy: log.access /proc/nowhere/access.log cannot be written: No such file" in ended.stderr


async def test_the_service_manager_is_told_when_it_is_ready_and_when_it_ends(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        await manager.bind(path)
        async with running_worker(tmp_path, environ={"NOTIFY_SOCKET": path}) as worker:
            assert (await manager.recv(1000)).startswith(b"READY=1\n")
            worker.program.signal(signal.SIGHUP)
            assert (await manager.recv(1000)).startswith(b"RELOADING=1\n")
            assert (await manager.recv(1000)).startswith(b"READY=1\n")
            assert await worker.stop() == 0
            assert (await manager.recv(1000)).startswith(b"STOPPING=1\n")


async def test_sighup_reads_the_configuration_again_and_a_wrong_one_changes_nothing(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as worker:
        right = worker.config.read_text()
        worker.config.write_text(f"{right}[[routes]]\nsession_id = 's'\nservice = 'v'\nbackends = []\n")
        worker.program.signal(signal.SIGHUP)
        await worker.logged("reloaded")
        assert (await get(f"{worker.http}/s/v/")).json()["code"] == "no_backend"
        worker.config.write_text("[")
        worker.program.signal(signal.SIGHUP)
        assert "is not TOML" in await worker.logged("nothing was reloaded")
        assert (await get(f"{worker.http}/s/v/")).status_code == 503


async def test_a_request_in_flight_ends_well_in_a_drain(
    tmp_path: Path, backend: SlowBackend, nursery: trio.Nursery
) -> None:
    answers: list[httpx.Response] = []

    async def ask(url: str) -> None:
        answers.append(await get(url))

    async with running_worker(tmp_path, {"worker": {"drain_timeout": "60s"}}) as worker:
        await worker.route("s", "v", backend.port)
        nursery.start_soon(ask, f"{worker.http}/s/v/")
        await backend.asked.wait()
        worker.program.signal(signal.SIGTERM)
        await worker.logged("draining")
        readiness = await worker.call("GET", "/readyz")
        assert (readiness.status_code, readiness.json()["reasons"]) == (503, ["draining"])
        with pytest.raises(httpx.ConnectError):
            await get(f"{worker.http}/s/v/")
        backend.release.set()
        assert await worker.program.ended(seconds=30) == 0
    assert [answer.text for answer in answers] == ["ok"]


async def test_a_second_signal_cuts_what_runs_and_is_exit_code_1(
    tmp_path: Path, backend: SlowBackend, nursery: trio.Nursery
) -> None:
    cut = trio.Event()

    async def ask(url: str) -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            await get(url)
        cut.set()

    async with running_worker(tmp_path, {"worker": {"drain_timeout": "5m"}}) as worker:
        await worker.route("s", "v", backend.port)
        nursery.start_soon(ask, f"{worker.http}/s/v/")
        await backend.asked.wait()
        worker.program.signal(signal.SIGTERM)
        await worker.logged("draining")
        worker.program.signal(signal.SIGTERM)
        assert await worker.program.ended(seconds=30) == 1
        await cut.wait()


async def test_the_demo_works_without_any_configuration_and_leaves_nothing_behind(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    ports = ("--set=listeners.0.bind=127.0.0.1:0", "--set=management.bind=127.0.0.1:0")
    environ = environment(TMPDIR=str(temporary), HOME="/nonexistent")
    start = [sys.executable, "-m", "trioproxy", "run", "--demo", *ports]
    async with running(start, environ=environ, cwd=tmp_path) as demo:
        told = await demo.stderr.line(lambda line: line.startswith("trioproxy demo: open "), seconds=60)
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE  # as curl -k does
        async with httpx.AsyncClient(verify=trusting, trust_env=False, timeout=30) as client:
            answer = await client.get(told.split()[3])
        assert "Hello from the demo session" in answer.text
        assert "<th>X-Forwarded-Proto</th><td>https</td>" in answer.text
        tip = await demo.stderr.line(lambda line: line.startswith("trioproxy demo: try: trioproxy "))
        status = await trioproxy(*tip.partition("try: trioproxy ")[2].split(), cwd=tmp_path)
        assert "demo     hello" in status.stdout
        demo.signal(signal.SIGTERM)
        assert await demo.ended() == 0
    assert list(temporary.iterdir()) == []


async def test_the_demo_gives_way_to_nothing_but_its_own_name(tmp_path: Path) -> None:
    write_config(tmp_path / "routes.toml", {"routes": [{"session_id": "s", "service": "v", "backends": []}]})
    async with running_worker(
        tmp_path, {"providers": {"file": {"path": tmp_path / "routes.toml"}}}, arguments=["--demo"]
    ) as worker:
        assert "Hello from the demo session" in (await get(f"{worker.http}/demo/hello/")).text
        assert (await get(f"{worker.http}/s/v/")).json()["code"] == "no_backend"
        ended = await command(worker, "reload")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "Hello from the demo session" in (await get(f"{worker.http}/demo/hello/")).text


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_closed_standard_output_is_told_in_a_sentence(tmp_path: Path, command: str) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'[worker]\nstate_dir = "{tmp_path / "state"}"\n')
    shell = f'exec "{sys.executable}" -m trioproxy {command} -c "{config}" >&-'
    done = subprocess.run(["bash", "-c", shell], stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "standard output is closed" in done.stderr
    assert "Traceback" not in done.stderr
