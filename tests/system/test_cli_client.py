from __future__ import annotations

import json
import sys
from pathlib import Path

from commands import command, environment, said, trioproxy
from processes import running
from worker import running_worker


async def test_a_route_is_added_shown_and_removed(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as worker:
        assert await said(worker, "routes", "add", "s", "v", "10.0.0.5:80", "[::1]:81", "--path", "keep") == ""
        assert (await said(worker, "routes", "list")).splitlines() == [
            "SESSION  SERVICE  BACKENDS               ALSO AT",
            "s        v        10.0.0.5:80, [::1]:81",
        ]
        route = json.loads(await said(worker, "routes", "get", "s", "v"))
        assert route["path"] == "keep"
        assert [(item["host"], item["port"]) for item in route["backends"]] == [("10.0.0.5", 80), ("::1", 81)]
        assert await said(worker, "routes", "remove", "s", "v") == ""
        assert json.loads(await said(worker, "routes", "list", "--json"))["routes"] == []


async def test_the_other_keys_of_a_route_are_given_as_json(tmp_path: Path) -> None:
    extra = {"host": "app.example.org", "metadata": {"a": 1}, "backends": [{"host": "unix:/x"}]}
    async with running_worker(tmp_path) as worker:
        await said(worker, "routes", "add", "s", "v", "--json", json.dumps(extra))
        listed = (await said(worker, "routes", "list")).splitlines()[1]
        assert listed.split() == ["s", "v", "unix:/x", "app.example.org"]
        assert json.loads(await said(worker, "routes", "get", "s", "v"))["metadata"] == {"a": 1}


async def test_what_is_exported_can_be_imported(tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    async with running_worker(tmp_path) as worker:
        await said(worker, "routes", "add", "s", "a", "h:1")
        await said(worker, "routes", "add", "s", "b", "h:2")
        exported = await said(worker, "routes", "export")
        file.write_text(exported)
        await said(worker, "routes", "remove", "s")
        assert json.loads(await said(worker, "routes", "export")) == {"routes": []}
        await said(worker, "routes", "import", file)
        assert json.loads(await said(worker, "routes", "export")) == json.loads(exported)


async def test_an_import_adds_and_only_with_replace_takes_away(tmp_path: Path) -> None:
    file = tmp_path / "routes.toml"
    file.write_text('[[routes]]\nsession_id = "new"\nservice = "v"\nbackends = []\n')
    async with running_worker(tmp_path) as worker:
        await said(worker, "routes", "add", "old", "v")
        for arguments, sessions in ((["import"], ["new", "old"]), (["import", "--replace"], ["new"])):
            await said(worker, "routes", *arguments, file)
            routes = json.loads(await said(worker, "routes", "export"))["routes"]
            assert [item["session_id"] for item in routes] == sessions


async def test_what_the_worker_refuses_is_said_with_exit_code_1(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as worker:
        for arguments, says in (
            (("routes", "get", "s", "v"), "no route s/v"),
            (("routes", "remove", "s", "v"), "no route s/v"),
            (("routes", "remove", "s"), "no route of session s"),
            (("routes", "get", "a/b", "v"), "no name in a path has a slash"),
            (("status", "--token", "wrong-token"), "refused the token"),
        ):
            ended = await command(worker, *arguments)
            assert ended.returncode == 1
            assert ended.stderr.startswith("trioproxy: ")
            assert says in ended.stderr


async def test_status_shows_the_worker_for_people_and_for_programs(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as worker:
        shown = await said(worker, "status")
        assert ", ready\n" in shown
        for part in ("listener tls", "listener plain", "forwarder 0", "certificate", "provider store"):
            assert part in shown
        found = json.loads(await said(worker, "status", "--json"))
        assert found["worker"]["ready"] is True
        assert found["forwarders"][0]["state"] == "ready"
        assert found["connections"] == 0


async def test_reload_names_what_needs_a_restart_and_what_is_wrong(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as worker:
        assert await said(worker, "reload") == ""
        right = worker.config.read_text()
        worker.config.write_text(right.replace("worker = {", 'worker = {id = "another", '))
        ended = await command(worker, "reload")
        assert ended.returncode == 0
        assert ended.stderr == "worker.id has changed: it takes effect after a restart\n"
        worker.config.write_text(right + "pool = {queue = -1}\n")
        # With where and the token given, the command itself needs no configuration.
        token = tmp_path / "state" / "management.token"
        ended = await trioproxy("reload", "--management", worker.management, "--token-file", token, cwd=tmp_path)
        assert ended.returncode == 1
        assert f"  {worker.config}: [pool].queue = -1: is too small; allowed:" in ended.stderr


async def test_drain_ends_the_worker_in_good_order(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as worker:
        assert await said(worker, "drain") == ""
        assert await worker.program.ended() == 0


async def test_everything_works_over_unix_sockets_named_in_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "trioproxy.toml").write_text(
        f'[worker]\nstate_dir = "{tmp_path}/state"\n'
        f'[[listeners]]\nbind = "unix:{tmp_path}/web.sock"\ntls = "off"\n'
        f'[management]\nbind = "unix:{tmp_path}/management.sock"\n'
    )
    async with running([sys.executable, "-m", "trioproxy", "run"], environ=environment(), cwd=tmp_path) as worker:
        ready = await worker.stderr.line(lambda line: line.startswith("trioproxy ready: "), seconds=60)
        assert ready == f"trioproxy ready: unix:{tmp_path}/web.sock (management unix:{tmp_path}/management.sock)"
        ended = await trioproxy("routes", "add", "s", "v", cwd=tmp_path)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "s        v" in (await trioproxy("routes", "list", cwd=tmp_path)).stdout
        assert await worker.terminate(seconds=30) == 0


async def test_a_worker_that_does_not_run_is_said_so(tmp_path: Path) -> None:
    ended = await trioproxy("status", f"--set=worker.state_dir={tmp_path / 'state'}", cwd=tmp_path)
    assert ended.returncode == 1
    assert "management.token cannot be read (No such file or directory). Is the worker running" in ended.stderr
