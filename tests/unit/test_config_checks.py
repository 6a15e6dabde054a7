from __future__ import annotations

from pathlib import Path

import pytest

from trioproxy.config.loader import load
from trioproxy.config.toml import to_toml
from trioproxy.errors import ConfigError


def problems(*flags: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(Path("/dev/null"), environ={}, overrides=list(flags))
    return caught.value.problems


def warnings(*flags: str) -> tuple[str, ...]:
    return load(Path("/dev/null"), environ={}, overrides=list(flags)).warnings


def two_listeners(first: str, second: str) -> list[str]:
    return [f"listeners.0.bind={first}", "listeners.1.name=other", f"listeners.1.bind={second}"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("127.0.0.1:80", "0.0.0.0:80"),
        (":80", "127.0.0.1:80"),
        ("localhost:80", "127.0.0.1:80"),
        ("[::]:80", "0.0.0.0:80"),
        ("[::]:80", "127.0.0.1:80"),
        ("[::1]:80", "[0:0::1]:80"),
        ("unix:/a", "unix:/a"),
        ("fd:3", "fd:3"),
    ],
)
def test_two_listeners_that_would_take_one_address_are_refused(first: str, second: str) -> None:
    (problem,) = problems(*two_listeners(first, second))
    assert problem == (
        f"--set listeners.1.bind: [[listeners]] #2.bind = \"{second}\": listener 'web' is at {first} already; "
        "allowed: an address of its own"
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("127.0.0.1:80", "127.0.0.1:81"),
        ("127.0.0.1:80", "127.0.0.2:80"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("0.0.0.0:80", "[::1]:80"),
        ("unix:/a", "unix:/b"),
        ("fd:3", "fd:4"),
        ("unix:/a", "127.0.0.1:80"),
    ],
)
def test_listeners_at_different_addresses_are_fine(first: str, second: str) -> None:
    assert warnings(*two_listeners(first, second)) == ()


def test_a_listener_cannot_have_the_address_of_the_management_api() -> None:
    (problem,) = problems("listeners.0.bind=0.0.0.0:6040")
    assert "the management API is at 127.0.0.1:6040 already" in problem


@pytest.mark.parametrize("bind", ["0.0.0.0:6040", "[::]:6040", "10.0.0.5:6040", "proxy.example.org:6040", ":6040"])
def test_an_open_management_api_is_refused_without_a_token_of_its_own(bind: str) -> None:
    (problem,) = problems(f"management.bind={bind}")
    assert problem.startswith(f'--set management.bind: [management].bind = "{bind}": the management API has no TLS')
    assert "management.token_file" in problem


def test_an_open_management_api_with_an_explicit_token_is_warned_about() -> None:
    (warning,) = warnings("management.bind=10.0.0.5:6040", "management.token=long enough")
    assert "reachable from other machines" in warning


@pytest.mark.parametrize("bind", ["127.0.0.1:1", "127.8.0.1:1", "[::1]:1", "localhost:1", "unix:/run/m", "fd:3"])
def test_a_private_management_api_needs_no_explicit_token(bind: str) -> None:
    assert warnings(f"management.bind={bind}") == ()


def test_a_certificate_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    good = tmp_path / "good.pem"
    good.touch()
    (problem,) = problems(f"tls.certificates=[{{cert='{good}', key='{tmp_path}/none.key'}}]")
    assert problem == (
        f'--set tls.certificates: [tls].certificates #1.key = "{tmp_path}/none.key": '
        "cannot be read: No such file or directory; allowed: a PEM file"
    )


def test_a_token_file_is_read_already_now(tmp_path: Path) -> None:
    file = tmp_path / "token"
    (problem,) = problems(f"management.token_file={file}")
    assert "cannot be read: No such file or directory" in problem
    file.write_text("short\n")
    (problem,) = problems(f"management.token_file={file}")
    assert "holds a token of 5 characters; allowed: 8 or more" in problem
    assert "short" not in problem
    file.write_text("long enough\n")
    assert warnings(f"management.token_file={file}") == ()


def test_token_and_token_file_together_are_refused(tmp_path: Path) -> None:
    (problem,) = problems(f"management.token_file={tmp_path}", "management.token=long enough")
    assert "management.token is given too; allowed: one of them" in problem


def a_route(session_id: str, **claims: str) -> dict[str, object]:
    return {"session_id": session_id, "service": "v", "backends": [], **claims}


@pytest.mark.parametrize(("key", "value"), [("host", "a.example"), ("prefix", "/a")])
def test_two_static_routes_that_claim_the_same_are_warned_about(tmp_path: Path, key: str, value: str) -> None:
    routes = [a_route("b", **{key: value}), a_route("a", **{key: value}), a_route("c")]
    path = tmp_path / "c.toml"
    path.write_text(f"routes = {to_toml(routes)}\n")
    (warning,) = load(path, environ={}, overrides=[]).warnings
    assert warning == f'two of [[routes]] have {key} = "{value}": a/v gets its requests, and b/v none of them'


def test_static_routes_with_claims_of_their_own_are_fine(tmp_path: Path) -> None:
    routes = [a_route("a", host="a.example", prefix="/a"), a_route("b", host="b.example", prefix="/b"), a_route("c")]
    path = tmp_path / "c.toml"
    path.write_text(f"routes = {to_toml(routes)}\n")
    assert load(path, environ={}, overrides=[]).warnings == ()


def test_a_sticky_secret_is_read_already_now(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    (problem,) = problems(f"sticky.secret_file={file}")
    assert "cannot be read: No such file or directory; allowed: a file that holds the secret" in problem
    file.write_text("too short\n")
    (problem,) = problems(f"sticky.secret_file={file}")
    assert "holds a secret of 9 characters; allowed: 16 or more" in problem
    file.write_text("sixteen letters.\n")
    assert warnings(f"sticky.secret_file={file}") == ()
    (problem,) = problems(f"sticky.secret_file={file}", "sticky.secret=sixteen letters.")
    assert "sticky.secret is given too; allowed: one of them" in problem
