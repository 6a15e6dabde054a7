from __future__ import annotations

from pathlib import Path

import pytest

from trioproxy.config.loader import Loaded, load
from trioproxy.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "trioproxy.toml"
    path.write_text(text, encoding="utf-8")
    return path


def given(
    folder: Path, text: str = "", *, environ: dict[str, str] | None = None, flags: list[str] | None = None
) -> Loaded:
    return load(write(folder, text), environ=environ or {}, overrides=flags or [])


def problems(folder: Path, text: str = "", **more: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        given(folder, text, **more)  # pyright: ignore[reportArgumentType]
    return caught.value.problems


def test_with_nothing_given_everything_has_its_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trioproxy.config.loader.SEARCHED", (Path("trioproxy.toml"),))
    loaded = load(None, environ={}, overrides=[])
    assert loaded.path is None
    assert loaded.config.listeners[0].bind == "0.0.0.0:5050"
    assert set(loaded.origins.values()) == {"default"}


def test_a_file_in_the_working_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "[limits]\nconnections = 7")
    loaded = load(None, environ={}, overrides=[])
    assert loaded.config.limits.connections == 7
    assert loaded.path == Path("trioproxy.toml")


def test_flags_win_over_environment_over_file_over_default(tmp_path: Path) -> None:
    loaded = given(
        tmp_path,
        "[pool]\nqueue = 1\nidle_per_backend = 1\nmax_per_backend = 1",
        environ={"TRIOPROXY__POOL__QUEUE": "2", "TRIOPROXY__POOL__IDLE_PER_BACKEND": "2"},
        flags=["pool.queue=3"],
    )
    pool = loaded.config.pool
    assert (pool.queue, pool.idle_per_backend, pool.max_per_backend) == (3, 2, 1)
    assert loaded.origins["pool.queue"] == "flag"
    assert loaded.origins["pool.idle_per_backend"] == "env:TRIOPROXY__POOL__IDLE_PER_BACKEND"
    assert loaded.origins["pool.max_per_backend"] == f"file:{tmp_path / 'trioproxy.toml'}"
    assert loaded.origins["pool.idle_timeout"] == "default"


def test_the_last_of_two_flags_counts(tmp_path: Path) -> None:
    assert given(tmp_path, flags=["pool.queue=3", "pool.queue=4"]).config.pool.queue == 4


@pytest.mark.parametrize(
    ("flag", "key", "value"),
    [
        ("limits.body_bytes=1MiB", "limits.body_bytes", 1048576),
        ('limits.body_bytes="1MiB"', "limits.body_bytes", 1048576),
        ("timeouts.head=1m30s", "timeouts.head", 90.0),
        ("worker.id=123", "worker.id", "123"),
        ("tls.min_version=1.3", "tls.min_version", "1.3"),
        ("management.public_metrics=false", "management.public_metrics", False),
        ('access.trusted_proxies=["10.0.0.0/8", "::1"]', "access.trusted_proxies", ("10.0.0.0/8", "::1")),
        ("listeners.0.bind=127.0.0.1:0", "listeners.0.bind", "127.0.0.1:0"),
        ("health.passive.failures=9", "health.passive.failures", 9),
        ("log.access=/tmp/a = b", "log.access", "/tmp/a = b"),
    ],
)
def test_a_value_is_read_as_toml_where_that_fits_and_as_text_where_not(
    tmp_path: Path, flag: str, key: str, value: object
) -> None:
    loaded = given(tmp_path, flags=[flag])
    found: object = loaded.config
    for part in key.split("."):
        found = found[int(part)] if isinstance(found, tuple) else getattr(found, part)
    assert found == value
    assert loaded.origins[key] == "flag"


def test_a_flag_can_add_a_listener_to_the_default_one(tmp_path: Path) -> None:
    flags = ["listeners.1.name=plain", "listeners.1.bind=127.0.0.1:8080", "listeners.1.tls=off"]
    listeners = given(tmp_path, flags=flags).config.listeners
    assert [(item.name, item.tls) for item in listeners] == [("web", "auto"), ("plain", "off")]


def test_every_mistake_is_reported_at_once_with_its_own_source(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "[limits]\nconnections = 0\n[timeouts]\nheed = 3",
        environ={"TRIOPROXY__LOG__LEVEL": "loud"},
        flags=["pool.queue=-1"],
    )
    file = tmp_path / "trioproxy.toml"
    assert found == [
        (
            f"{file}: [timeouts].heed: unknown key; did you mean head? allowed: head, keep_alive, connect, "
            "response_head, stall, websocket_idle, tls_handshake, close"
        ),
        f"{file}: [limits].connections = 0: is too small; allowed: a whole number, at least 1",
        "--set pool.queue: [pool].queue = -1: is too small; allowed: a whole number from 0 to 2147483647",
        (
            'TRIOPROXY__LOG__LEVEL: [log].level = "loud": is not one of the choices; '
            'allowed: "debug", "info", "warning", "error"'
        ),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[timeouts]\nhead = 'ten'", '[timeouts].head = "ten": is not a duration; write "250ms"'),
        ("[worker]\nprocesses = 'many'", '[worker].processes = "many": is not one of the choices; allowed: "auto" or'),
        ("[worker]\nid = 3", "[worker].id = 3: is of the wrong type; allowed: text matching"),
        ("[[listeners]]\nbind = 'x'", '[[listeners]] #1.bind = "x": is not an address; write "0.0.0.0:5050"'),
        ("listeners = []", "[[listeners]] = []: has too few items"),
        ("pool = 3", "[pool] = 3: is of the wrong type; allowed: a table"),
        ("[[listeners]]\nredirect_to_https = true", '[[listeners]] #1: redirect_to_https needs tls = "off"'),
        ("[[tls.certificates]]\ncert = 'a'", "[tls].certificates #1.key: is missing; allowed: a path"),
        ("[[routes]]\nsession_id = 'a'\nbackends = []", "[[routes]] #1.service: is missing"),
        (
            "[[routes]]\nsession_id='a'\nservice='b'\nbackends=[{host='h'}]",
            "[[routes]] #1.backends #1: port is missing",
        ),
        ("[access]\ntrusted_proxies = ['x']", "[access].trusted_proxies = [\"x\"]: 'x' does not appear to be"),
        ("[health.active]\nkind = 'smtp'", '[health.active].kind = "smtp": is not one of the choices'),
        ("[frobnicate]\na = 1", "frobnicate: unknown key; allowed: worker, listeners"),
        ("[worker]\nID = 'x'", "[worker].ID: unknown key; did you mean id?"),
    ],
)
def test_a_mistake_is_told_with_place_value_reason_and_what_is_allowed(tmp_path: Path, text: str, says: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.startswith(f"{tmp_path / 'trioproxy.toml'}: {says}")


@pytest.mark.parametrize(
    "text",
    [
        "[tls.acme]\nemail = 'x'",
        "[providers.coordinator]\nurl = 'x'",
        "[providers.etcd]\nendpoints = []",
        "[providers.backendai]\nurl = 'x'",
        "[[listeners]]\nclient_auth = 'required'",
    ],
)
def test_what_only_other_versions_have_is_refused_and_said_so(tmp_path: Path, text: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.endswith(": is not offered by this version")


@pytest.mark.parametrize("text", ["[worker\n", "a = \n", "[worker]\nid = 'a'\nid = 'b'\n"])
def test_a_file_that_is_not_toml_is_told_with_line_and_column(tmp_path: Path, text: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.startswith(f"{tmp_path / 'trioproxy.toml'}: is not TOML: ")
    assert "line" in problem
    assert "column" in problem


def test_a_file_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.toml: is not UTF-8 \(byte 5\)"):
        load(path, environ={}, overrides=[])


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read: No such file"):
        load(tmp_path / "nowhere.toml", environ={}, overrides=[])


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("pool.queue", "--set pool.queue: write --set section.key=value"),
        ("=3", "--set : write --set section.key=value"),
        ("listeners.7.bind=x", "--set listeners.7.bind: listeners.7.bind does not name a key"),
        ("listeners.0=x", "--set listeners.0: listeners.0 does not name a key"),
        ("worker.id.x=1", "--set worker.id.x: [worker].id"),
        ("nothing=1", "--set nothing: nothing: unknown key"),
    ],
)
def test_a_flag_that_names_no_key_is_told(tmp_path: Path, flag: str, says: str) -> None:
    assert problems(tmp_path, flags=[flag])[0].startswith(says)


def test_an_environment_variable_that_names_no_key_is_told(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, environ={"TRIOPROXY__POOL__QUEU": "1", "TRIOPROXY_OTHER": "ignored"})
    assert problem.startswith("TRIOPROXY__POOL__QUEU: [pool].queu: unknown key; did you mean queue?")


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("[management]\ntoken = 'geheim'", []),
        ("[access]\npermit_secret = 'geheim'", []),
        ("management = 'geheim'", []),
        ("[management]\ntokn = 'geheim'", []),
        ("", ["management.token=geheim"]),
        ("", ["management.tokn=geheim"]),
        ("", ["management={token='geheim'}"]),
        ("", ["management.token:geheim"]),
    ],
)
def test_a_secret_is_never_part_of_a_message(tmp_path: Path, text: str, flags: list[str]) -> None:
    found = problems(tmp_path, text, flags=flags)
    if flags != ["management.token:geheim"]:  # there the whole of it is the key's name
        assert "geheim" not in "\n".join(found)


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, f"[log]\nlevel = '{'x' * 5000}'")
    assert len(problem) < 400


def test_a_folder_that_may_not_be_searched_is_told_and_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidden(type(Path())):
        def is_file(self) -> bool:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("trioproxy.config.loader.SEARCHED", (Forbidden("/etc/trioproxy/config.toml"),))
    with pytest.raises(ConfigError, match=r"/etc/trioproxy/config\.toml: cannot be read: Permission denied"):
        load(None, environ={}, overrides=[])


@pytest.mark.parametrize(
    "text", ["[limits]\nconnections = true\n", '[limits]\nconnections = "5"\n', '[worker]\nstate_dir = ""\n']
)
def test_a_value_of_the_wrong_kind_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load(path, environ={})


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(b"\xef\xbb\xbf[limits]\nconnections = 5\n")
    assert load(path, environ={}).config.limits.connections == 5
