from __future__ import annotations

import json
from pathlib import Path

import pytest

from trioproxy.errors import ProviderError
from trioproxy.providers.routes_file import MAX_PROBLEMS, parse_routes

TOML = Path("/etc/routes.toml")
JSON = Path("/etc/routes.json")

ROUTE = {"session_id": "s", "service": "v", "backends": [{"host": "h", "port": 1}]}


def refusal(path: Path, data: bytes) -> str:
    with pytest.raises(ProviderError) as caught:
        parse_routes(path, data)
    return str(caught.value)


def test_json_and_toml_say_the_same() -> None:
    text = b"""
        [[routes]]
        session_id = "s"
        service = "v"
        backends = [{ host = "h", port = 1 }]
    """
    (route,) = parse_routes(TOML, text)
    assert route.key == ("s", "v")
    assert parse_routes(JSON, json.dumps({"routes": [ROUTE]}).encode()) == [route]
    assert parse_routes(Path("ROUTES.JSON"), json.dumps({"routes": [ROUTE]}).encode()) == [route]


def test_a_list_of_no_routes_is_written_out() -> None:
    assert parse_routes(TOML, b"routes = []") == []
    assert parse_routes(JSON, b'{"routes": []}') == []


@pytest.mark.parametrize(
    ("path", "data", "reason"),
    [
        (TOML, b"", 'must hold one key, "routes", a list; it holds nothing'),
        (TOML, b"routes = 5", 'it holds "routes"'),
        (TOML, b"routes = []\nruotes = []", '"routes", "ruotes"'),
        (TOML, b"[[routes]", "is not TOML: "),
        (TOML, b"\n\nroutes = [", "at end of document"),
        (TOML, b"a = 1\nb ~ 2", "at line 2"),
        (TOML, b'routes = "\xff"', "is not UTF-8, at byte 10"),
        (TOML, b"x=" + b"[" * 100_000, "is nested too deeply"),
        (JSON, b"", "is not JSON: "),
        (JSON, b'{"routes": [}', "is not JSON: expected value at line 1 column 13"),
        (JSON, b'{"routes": ["\xff"]}', "is not JSON: "),
        (JSON, b"[" * 100_000, "is not JSON: recursion limit"),
        (JSON, b"[]", 'must be an object with the key "routes"'),
        (Path("/etc/routes.yaml"), b"routes: []", 'ends in ".toml" or ".json"'),
    ],
)
def test_what_is_no_routes_file_is_refused_with_file_and_place(path: Path, data: bytes, reason: str) -> None:
    told = refusal(path, data)
    assert told.startswith(f"{path}: ")
    assert reason in told


def test_each_mistake_is_told_with_route_key_value_and_reason() -> None:
    broken = {**ROUTE, "service": "b", "backends": [{"host": "h", "port": 70000}], "colour": "red"}
    told = refusal(JSON, json.dumps({"routes": [ROUTE, broken]}).encode()).splitlines()
    assert len(told) == 2
    for line in told:
        assert line.startswith(f"{JSON}: [[routes]] #2")
    assert "70000" in "".join(told)
    assert "colour" in "".join(told)


def test_something_else_than_a_route_is_told() -> None:
    assert f"{JSON}: [[routes]] #1 = 5" in refusal(JSON, b'{"routes": [5]}')


def test_two_routes_of_one_name_are_told() -> None:
    told = refusal(JSON, json.dumps({"routes": [ROUTE, {**ROUTE, "path": "keep"}]}).encode())
    assert told == f"{JSON}: [[routes]] #2: s/v is there already"


def test_a_value_json_could_not_keep_is_told() -> None:
    text = b'[[routes]]\nsession_id = "s"\nservice = "v"\nbackends = []\nmetadata = { day = 2024-01-01 }'
    assert "metadata" in refusal(TOML, text)


def test_the_number_of_mistakes_told_is_bounded() -> None:
    told = refusal(JSON, json.dumps({"routes": [{}] * 1000}).encode())
    assert MAX_PROBLEMS <= len(told.splitlines()) < MAX_PROBLEMS + 5
