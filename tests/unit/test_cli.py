from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from trioproxy import __version__
from trioproxy.cli import main
from trioproxy.commands.client import Address, address_of
from trioproxy.commands.errors import CommandError
from trioproxy.config.example import example_config


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration lies around, and no proxy setting of this machine counts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trioproxy.config.loader.SEARCHED", ())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"trioproxy {__version__}\n"


@pytest.mark.parametrize("argv", [[], ["fly"], ["routes"], ["run", "--nope"], ["routes", "add", "s"]])
def test_bad_usage_is_exit_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert "usage: trioproxy" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["run", "check", "routes", "status", "drain", "reload", "upgrade", "example-config"]
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: trioproxy {command}" in capsys.readouterr().out


def test_example_config_prints_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["example-config"]) == 0
    assert capsys.readouterr().out == example_config()


def test_check_prints_every_value_and_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my.toml"
    file.write_text(
        "[limits]\nhead_bytes = 131072\n[[routes]]\nsession_id='s'\nservice='v'\nbackends=[{host='h',port=1}]\n"
    )
    monkeypatch.setenv("TRIOPROXY__TIMEOUTS__HEAD", "90s")
    assert main(["check", "-c", str(file), "--set", "pool.queue=9"]) == 0
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    found = {key: " ".join(rest.split()) for key, rest in rows}
    assert found["KEY"] == "VALUE FROM"
    assert found["limits.head_bytes"] == f'"128KiB" file:{file}'
    assert found["timeouts.head"] == '"90s" env:TRIOPROXY__TIMEOUTS__HEAD'
    assert found["pool.queue"] == "9 flag"
    assert found["limits.connections"] == "20000 default"
    assert found["listeners.0.bind"] == '"0.0.0.0:5050" default'
    assert found["routes.0"] == f"s/v -> h:1 file:{file}"
    assert found["providers.file"] == "- default"


def test_check_shows_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    secrets = ["management.token=geheimgeheim", f"access.permit_secret={'geheim' * 9}"]
    assert main(["check", *(f"--set={secret}" for secret in secrets)]) == 0
    shown = capsys.readouterr().out
    assert "geheim" not in shown
    assert shown.count("(hidden)") == 2


def test_check_warns_of_what_is_legal_and_unwise(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--set", "management.bind=0.0.0.0:6040", "--set", "management.token=12345678"]) == 0
    assert capsys.readouterr().err.startswith("warning: the management API on 0.0.0.0:6040 is reachable")


@pytest.mark.parametrize("command", ["check", "run", "status", "drain"])
def test_a_wrong_configuration_is_exit_code_2_with_every_mistake(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my.toml"
    file.write_text("[limits]\nconnections = 0\n[pool]\nqueue = -1\n")
    assert main([command, "-c", str(file)]) == 2
    assert capsys.readouterr().err == (
        f"{file}: [limits].connections = 0: is too small; allowed: a whole number, at least 1\n"
        f"{file}: [pool].queue = -1: is too small; allowed: a whole number from 0 to 2147483647\n"
    )


def test_check_looks_into_certificates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pem = tmp_path / "x.pem"
    pem.write_text("this is no certificate")
    assert main(["check", "--set", f"tls.certificates=[{{cert='{pem}', key='{pem}'}}]"]) == 2
    assert str(pem) in capsys.readouterr().err


def test_check_looks_into_the_routes_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "routes.json"
    assert main(["check", "--set", f"providers.file.path={file}"]) == 2
    assert f"{file}: cannot be read" in capsys.readouterr().err
    file.write_text("[]")
    assert main(["check", "--set", f"providers.file.path={file}"]) == 2
    assert str(file) in capsys.readouterr().err
    file.write_text('{"routes": []}')
    assert main(["check", "--set", f"providers.file.path={file}"]) == 0


@pytest.mark.parametrize(
    ("bind", "address"),
    [
        ("127.0.0.1:6040", Address("http://127.0.0.1:6040")),
        ("0.0.0.0:6040", Address("http://127.0.0.1:6040")),
        (":6040", Address("http://127.0.0.1:6040")),
        ("[::]:6040", Address("http://[::1]:6040")),
        ("[::1]:6040", Address("http://[::1]:6040")),
        ("unix:/run/x.sock", Address("http://trioproxy", "/run/x.sock")),
    ],
)
def test_clients_find_the_worker_where_it_is_bound(bind: str, address: Address) -> None:
    assert address_of(bind) == address


@pytest.mark.parametrize("bind", ["fd:3", "127.0.0.1:0"])
def test_a_bind_that_tells_no_address_asks_for_a_url(bind: str) -> None:
    with pytest.raises(CommandError, match="give --management URL"):
        address_of(bind)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["status", "--management", "http://127.0.0.1:1"], "no token: "),
        (["status", "--management", "somewhere", "--token", "t"], "--management somewhere is not a URL"),
        (["status", "--management", "http://127.0.0.1:1", "--token", "t"], "no worker answers at http://127.0.0.1:1"),
        (["status", "--management", "unix:/nowhere", "--token", "t"], "no worker answers at /nowhere"),
        (["status", "--management", "http://127.0.0.1:1", "--token", "é"], "must be plain ASCII"),
        (["routes", "add", "s", "v", "host"], "host is not a backend; write HOST:PORT"),
        (["routes", "add", "s", "v", "h:99999"], "this is not a route: backends.0.port"),
        (["routes", "add", "s", "v", "--json", "{"], "--json: is not JSON"),
        (["routes", "add", "s", "v", "--json", "[]"], "--json: is not a JSON object"),
        (["routes", "import", "/nowhere.json"], "/nowhere.json: cannot be read: No such file"),
    ],
)
def test_a_command_that_fails_says_why_and_is_exit_code_1(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--set", f"worker.state_dir={tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("trioproxy: ")
    assert says in error


def test_an_empty_token_file_is_bad_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").touch()
    with pytest.raises(SystemExit) as ended:
        main(["status", "--token-file", str(tmp_path / "token")])
    assert ended.value.code == 2


def test_token_and_token_file_exclude_each_other(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    with pytest.raises(SystemExit):
        main(["status", "--token", "t", "--token-file", str(tmp_path / "token")])


def test_a_reader_who_has_had_enough_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Namespace) -> int:
        raise BrokenPipeError

    replaced: list[tuple[int, int]] = []
    monkeypatch.setattr("trioproxy.commands.config.print_example", broken)
    monkeypatch.setattr("os.dup2", lambda old, new: replaced.append((old, new)))
    monkeypatch.setattr("sys.stdout.fileno", lambda: 1, raising=False)
    assert main(["example-config"]) == 1
    assert replaced[0][1] == 1
