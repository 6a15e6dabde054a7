"""The short way from a stored row to a route: it declines, or agrees with pydantic in everything."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from trioproxy.routing.compact import compact
from trioproxy.routing.plain import read_plain
from trioproxy.routing.route import Backend, Route

FORM = '{"session_id":"%s","service":"%s","backends":[{"host":"%s","port":%s,"id":"%s"}]}'
names = st.sampled_from(
    ["s", "a.b~c_d-e", ".", "..", "...", ".a", "x" * 128, "x" * 129, "", "é", "a b", r"\u0041", 'q"']
)
hosts = st.sampled_from(
    ["h", "10.0.0.1", "::1", "unix:a", "unix:/a", "unix", "Unix:a", "h" * 255, "h" * 256, "", "a/b", "a@b", "a%b", "é"]
)
ports = st.sampled_from(["1", "80", "65535", "65536", "99999", "0", "080", "-1", "1.0", "1e3", "true", '"80"', "null"])
ids = st.sampled_from(["h:1", "::1:80", "i" * 255, "i" * 256, "", "a/b", "é"])
texts = st.builds(lambda *parts: (FORM % parts).encode(), names, names, hosts, ports, ids)


def mutate(text: bytes, at: int, length: int, instead: bytes) -> bytes:
    at %= len(text)
    return text[:at] + instead + text[at + length :]


mutated = st.builds(mutate, texts, st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3))


def by_pydantic(text: bytes) -> Route | None:
    try:
        return compact(Route.model_validate_json(text))
    except ValidationError:
        return None


def parts(model: Route | Backend) -> list[object]:
    return [*vars(model).items(), *sorted(model.__pydantic_fields_set__), model.__pydantic_extra__]


@given(texts | mutated)
@example((FORM % ("s", "v", "h", "80", "h:80")).encode() + b"\n")
@example((FORM % ("s\n", "v", "h", "80", "h:80")).encode())
def test_what_it_reads_is_what_pydantic_reads(text: bytes) -> None:
    plain = read_plain(text)
    if plain is None:
        return
    route = by_pydantic(text)
    assert route is not None
    assert plain == route
    assert parts(plain) == parts(route)
    assert [*map(parts, plain.backends)] == [*map(parts, route.backends)]
    assert plain.model_dump_json(exclude_unset=True).encode() == text


@pytest.mark.parametrize("host", ["10.0.0.7", "node-1.example", "::1"])
def test_it_reads_what_is_written_for_a_route_of_one_address(host: str) -> None:
    route = Route.model_validate({"session_id": "s", "service": "v", "backends": [{"host": host, "port": 8888}]})
    plain = read_plain(route.model_dump_json(exclude_unset=True).encode())
    assert plain == route
    assert plain is not None
    assert (plain.backends[0].key, plain.backends[0].authority) == (route.backends[0].key, route.backends[0].authority)


@pytest.mark.parametrize(
    "more", [{"metadata": {"a": 1}}, {"health": {"kind": "off"}}, {"backends": []}, {"path": "keep"}], ids=str
)
def test_it_leaves_other_routes_to_pydantic(more: dict[str, object]) -> None:
    route = Route.model_validate({"session_id": "s", "service": "v", "backends": [{"host": "h", "port": 1}], **more})
    assert read_plain(route.model_dump_json(exclude_unset=True).encode()) is None


def test_plain_routes_share_what_compact_ones_share() -> None:
    text = (FORM % ("s", "v", "h", "80", "h:80")).encode()
    plain, other = read_plain(text), by_pydantic(text)
    assert plain is not None
    assert other is not None
    assert plain.__pydantic_fields_set__ is other.__pydantic_fields_set__
    assert plain.backends[0].__pydantic_fields_set__ is other.backends[0].__pydantic_fields_set__
    assert plain.metadata is other.metadata
    assert compact(plain) is plain
