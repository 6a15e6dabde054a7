from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trioproxy.routing.route import (
    MAX_BACKENDS,
    MAX_METADATA_BYTES,
    MAX_METADATA_DEPTH,
    MAX_PREFIX_BYTES,
    Access,
    Backend,
    BackendTls,
    Health,
    Route,
    RouteTimeouts,
    Sticky,
)


def make(**changes: Any) -> Route:
    return Route.model_validate({"session_id": "s", "service": "v", "backends": [{"host": "h", "port": 1}], **changes})


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ValidationError) as caught:
        call()
    return caught.value.errors()[0]["msg"]


def test_only_names_and_backends_are_required() -> None:
    route = Route.model_validate({"session_id": "abc123", "service": "jupyter", "backends": []})
    assert route.key == ("abc123", "jupyter")
    assert (route.protocol, route.path, route.balance, route.host, route.prefix) == (
        "http",
        "strip",
        "round_robin",
        None,
        None,
    )
    for missing in ("session_id", "service", "backends"):
        fields = {"session_id": "a", "service": "b", "backends": []}
        del fields[missing]
        assert refusal(lambda fields=fields: Route.model_validate(fields)) == "Field required"


@pytest.mark.parametrize("name", ["a", "A-z0.9_~", "...", "x" * 128])
def test_a_name_is_made_of_unreserved_characters(name: str) -> None:
    assert make(session_id=name, service=name).key == (name, name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "a%41", "a\n", "x" * 129, 5])
def test_a_name_that_is_no_plain_segment_is_refused(name: object) -> None:
    refusal(lambda: make(session_id=name))
    refusal(lambda: make(service=name))


def test_unknown_keys_are_refused() -> None:
    assert "Extra inputs" in refusal(lambda: make(sevrice="x"))


def test_a_route_cannot_be_altered() -> None:
    with pytest.raises(ValidationError):
        make().host = "other"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(("field", "value"), [("protocol", "tcp"), ("access", {"mode": "permit"})])
def test_what_this_version_does_not_offer_is_refused_instead_of_ignored(field: str, value: object) -> None:
    assert "not offered" in refusal(lambda: make(**{field: value}))


def test_http_and_public_may_be_written_out() -> None:
    route = make(protocol="http", access={"mode": "public"})
    assert (route.protocol, route.access.mode) == ("http", "public")


# --- backends ------------------------------------------------------------------------------------------


def test_a_backend_without_id_is_named_by_its_address() -> None:
    assert Backend(host="10.0.0.5", port=8888).id == "10.0.0.5:8888"
    assert Backend(host="unix:/run/app/a.sock").id == "run~app~a.sock"
    assert Backend(host="10.0.0.5", port=8888, id="mine").id == "mine"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"host": "h"}, "port is missing"),
        ({"host": "h", "port": 0}, "port is missing"),
        ({"host": "h", "port": 65536}, "less than or equal to 65535"),
        ({"host": "h", "port": 1, "weight": -1}, "greater than or equal to 0"),
        ({"host": "", "port": 1}, "at least 1 character"),
        ({"port": 1}, "Field required"),
        ({"host": 5, "port": 1}, "valid string"),
        ({"host": "[::1]", "port": 1, "id": "x"}, "IPv6 without brackets"),
        ({"host": "http://h", "port": 1, "id": "x"}, "host must be"),
        ({"host": "unix:run/a.sock"}, "unix:/absolute/path"),
        ({"host": "unix:/run/a.sock", "port": 1}, "no port"),
        ({"host": "h", "port": 1, "id": "a/b"}, "match pattern"),
        ({"host": "h", "port": 1, "color": "red"}, "Extra inputs"),
    ],
)
def test_a_backend_that_is_no_address_is_refused(fields: dict[str, object], reason: str) -> None:
    assert reason in refusal(lambda: Backend.model_validate(fields))


def test_something_that_is_no_backend_at_all_is_refused() -> None:
    refusal(lambda: Backend.model_validate("10.0.0.5:80"))


def test_a_backend_object_is_taken_as_it_is() -> None:
    backend = Backend(host="h", port=1)
    assert make(backends=[backend]).backends[0] is backend


def test_two_backends_of_a_route_cannot_share_an_id() -> None:
    twice = [{"host": "h", "port": 1}, {"host": "h", "port": 1}]
    assert "two backends have the id 'h:1'" in refusal(lambda: make(backends=twice))
    twice[1]["id"] = "second"
    assert [backend.id for backend in make(backends=twice).backends] == ["h:1", "second"]


def test_the_number_of_backends_is_bounded() -> None:
    many = [{"host": "h", "port": 1, "id": str(n)} for n in range(MAX_BACKENDS + 1)]
    assert "at most" in refusal(lambda: make(backends=many))
    assert len(make(backends=many[1:]).backends) == MAX_BACKENDS


def test_a_backend_key_tells_addresses_and_tls_apart_but_not_ids_and_weights() -> None:
    plain = Backend(host="h", port=1)
    assert plain.key == Backend(host="h", port=1, weight=7, id="other").key
    keys = {
        plain.key,
        Backend(host="h", port=2).key,
        Backend(host="h", port=1, tls=True).key,
        Backend(host="h", port=1, tls=BackendTls(verify=False)).key,
        Backend(host="h", port=1, tls=BackendTls(server_name="other")).key,
        Backend(host="h", port=1, tls=BackendTls(ca_file="/ca.pem")).key,
    }
    assert len(keys) == 6
    assert Backend(host="h", port=1, tls=True).key == Backend(host="h", port=1, tls=BackendTls()).key


def test_a_route_stays_equal_to_its_twin_once_its_cached_values_are_read() -> None:
    used, fresh = make(), make()
    assert used.backends[0].key
    assert used.access.networks == ()
    assert used == fresh


# --- addresses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "normal"), [("App.Example.COM", "app.example.com"), ("a.b.", "a.b"), ("x_1-2", "x_1-2")]
)
def test_a_host_is_kept_in_lower_case_without_final_dot(host: str, normal: str) -> None:
    assert make(host=host).host == normal


@pytest.mark.parametrize(
    "host", ["", ".", "a..b", "*.example.com", "a:80", "a b", "bücher.example", "x" * 64, ".".join(["x" * 60] * 5)]
)
def test_what_is_no_host_name_is_refused(host: str) -> None:
    assert "is not a host name" in refusal(lambda: make(host=host))


@pytest.mark.parametrize(
    ("prefix", "normal"),
    [("/a", "/a"), ("/a/b/", "/a/b"), ("/a//", "/a"), ("/%C3%A4/~x", "/%C3%A4/~x"), ("/a;b=c", "/a;b=c")],
)
def test_a_prefix_is_kept_without_final_slash(prefix: str, normal: str) -> None:
    assert make(prefix=prefix).prefix == normal


@pytest.mark.parametrize(
    "prefix", ["", "/", "//", "a/b", "/a//b", "/./a", "/a/..", "/a b", "/ä", "/a?b", "/a#b", "/a\n"]
)
def test_what_is_no_encoded_path_is_refused_as_prefix(prefix: str) -> None:
    assert "must" in refusal(lambda: make(prefix=prefix))


def test_the_length_of_a_prefix_is_bounded() -> None:
    longest = "/" + "a" * (MAX_PREFIX_BYTES - 1)
    assert make(prefix=longest).prefix == longest
    assert "longer than" in refusal(lambda: make(prefix=longest + "a"))


# --- the rest ------------------------------------------------------------------------------------------


def test_client_networks_are_parsed() -> None:
    access = Access(allowed_client_ips=("10.0.0.1/8", "::1"))
    assert [str(network) for network in access.networks] == ["10.0.0.0/8", "::1/128"]
    assert "does not appear to be" in refusal(lambda: Access(allowed_client_ips=("everyone",)))


def test_durations_are_written_the_way_people_do() -> None:
    route = make(
        health={"kind": "http", "interval": "5s", "timeout": "500ms"},
        timeouts={"stall": "1h"},
        sticky={"cookie": "c", "max_age": "2m"},
    )
    assert route.health == Health(kind="http", interval=5.0, timeout=0.5)
    assert route.timeouts == RouteTimeouts(stall=3600.0)
    assert route.sticky == Sticky(cookie="c", max_age=120.0)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"day": datetime.date(2024, 1, 1)}, "date is not"),
        ({"pair": (1, 2)}, "tuple is not"),
        ({"x": float("inf")}, "infinite"),
        ({"x": [float("nan")]}, "NaN"),
        ({"x": "\ud800"}, "surrogates"),
        ({"x": {"\udfff": 1}}, "surrogates"),
        ({"x": {1: 2}}, "text as its keys"),
        ({"x": nested(MAX_METADATA_DEPTH)}, "nested deeper"),
        ({"x": nested(100_000)}, "nested deeper"),
        ({"x": "y" * MAX_METADATA_BYTES}, "is larger than"),
    ],
)
def test_metadata_that_would_not_come_back_from_json_as_it_was_is_refused(metadata: object, reason: str) -> None:
    assert reason in refusal(lambda: make(metadata=metadata))


def test_metadata_up_to_its_bounds_is_kept() -> None:
    assert make(metadata={"x": nested(MAX_METADATA_DEPTH - 1)}).metadata["x"] == nested(MAX_METADATA_DEPTH - 1)
    largest = {"x": "y" * (MAX_METADATA_BYTES - len('{"x": ""}'))}
    assert make(metadata=largest).metadata == largest


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
seconds = st.none() | st.floats(0, 10**6)
routes = st.fixed_dictionaries(
    {
        "session_id": st.from_regex(r"[A-Za-z0-9_~-]{1,20}", fullmatch=True),
        "service": st.from_regex(r"[A-Za-z0-9_~-]{1,20}", fullmatch=True),
        "backends": st.lists(
            st.fixed_dictionaries(
                {"host": st.sampled_from(["h", "10.0.0.1", "::1"]), "port": st.integers(1, 65535)},
                optional={"weight": st.integers(0, 1000), "tls": st.booleans() | st.just({"verify": False})},
            ),
            max_size=3,
            unique_by=lambda backend: (backend["host"], backend["port"]),
        ),
    },
    optional={
        "host": st.sampled_from([None, "App.example.com"]),
        "prefix": st.sampled_from([None, "/a/b/"]),
        "sticky": st.booleans() | st.fixed_dictionaries({"max_age": st.floats(0, 10**6)}),
        "websocket": st.sampled_from([None, "message", "relay"]),
        "timeouts": st.fixed_dictionaries({}, optional={"connect": seconds, "stall": seconds}),
        "retry": st.fixed_dictionaries({}, optional={"attempts": st.integers(0, 10), "budget": st.floats(0, 1)}),
        "access": st.just({"allowed_client_ips": ["10.0.0.0/8"]}),
        "metadata": st.dictionaries(st.text(max_size=5), json_values, max_size=3),
    },
)


@given(routes)
def test_a_route_comes_back_from_json_as_it_was(fields: dict[str, Any]) -> None:
    route = Route.model_validate(fields)
    assert Route.model_validate_json(route.model_dump_json()) == route
    assert Route.model_validate_json(route.model_dump_json(exclude_unset=True)) == route
    assert Route.model_validate(json.loads(json.dumps(fields))) == route


@pytest.mark.parametrize(
    "change",
    [
        {"backends": [{"host": "h", "port": True}]},
        {"backends": [{"host": "h", "port": "80"}]},
        {"backends": [{"host": "h", "port": 80, "weight": True}]},
        {"backends": [{"host": "h", "port": 80, "tls": "yes"}]},
        {"retry": {"budget": False}},
        {"retry": {"attempts": "1"}},
        {"sticky": 1},
        {"health": {"statuses": "500-100"}},
        {"health": {"statuses": "999"}},
        {"prefix": "/%zz"},
        {"sticky": {"cookie": "__Host-app"}},
        {"sticky": {"cookie": "__HOST-app"}},
    ],
)
def test_a_value_that_only_resembles_what_is_meant_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Route.model_validate({"session_id": "s", "service": "v", "backends": [], **change})
