from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.control.codec import decode, encode
from trioproxy.routing import assembly as module
from trioproxy.routing.assembly import assemble, take_apart
from trioproxy.routing.compact import compact
from trioproxy.routing.route import Backend, Route

backends = st.lists(
    st.builds(
        lambda port, given: Backend.model_validate({"host": "h", "port": port, **given}),
        st.integers(1, 65535),
        st.sampled_from([{}, {"weight": 1}, {"weight": 3, "tls": True}, {"tls": {"verify": False}}]),
    ),
    max_size=3,
    unique_by=lambda backend: backend.id,
)
routes = st.builds(
    lambda backends, given: Route.model_validate({"session_id": "s", "service": "v", "backends": backends, **given}),
    backends,
    st.sampled_from(
        [
            {},
            {"path": "strip"},  # a default, but given
            {"host": "a.b", "prefix": "/p"},
            {"metadata": {"user": {"name": ["x", 1]}}},
            {"timeouts": {"connect": "1s"}, "access": {"allowed_client_ips": ["10.0.0.0/8"]}},
            {"health": {"kind": "http"}, "sticky": {"max_age": "1h"}, "retry": {"attempts": 2}},
        ]
    ),
)


@given(routes)
def test_a_compact_route_is_the_same_route(route: Route) -> None:
    made = compact(route)
    assert made == route
    assert made.model_dump_json() == route.model_dump_json()
    assert made.model_dump_json(exclude_unset=True) == route.model_dump_json(exclude_unset=True)
    assert [(one.key, one.authority) for one in made.backends] == [(one.key, one.authority) for one in route.backends]
    assert made.model_copy(update={"path": "keep"}) == route.model_copy(update={"path": "keep"})
    assert compact(made) is made


@given(routes)
def test_a_compact_route_comes_through_the_control_channel_as_it_was(route: Route) -> None:
    revived = decode(encode(compact(route)), Route)
    assert revived == route
    assert revived.model_fields_set == route.model_fields_set
    assert compact(revived) is revived


def test_what_was_worked_out_from_the_fields_is_left_behind() -> None:
    route = Route(session_id="s", service="v", backends=(Backend(host="h", port=1),))
    assert route.backends[0].key == "h:1"  # kept with the fields from now on
    assert compact(route) == route
    assert compact(route).backends[0].key == route.backends[0].key


def test_routes_share_what_they_have_in_common() -> None:
    one, other = (compact(Route(session_id=name, service="v", backends=(Backend(host="h", port=1),))) for name in "ab")
    assert one.model_fields_set is other.model_fields_set
    assert one.backends[0].model_fields_set is other.backends[0].model_fields_set
    assert one.metadata is other.metadata
    assert one.timeouts is other.timeouts


def test_what_is_kept_for_sharing_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_shared", {})
    monkeypatch.setattr(module, "MAX_SHARED", 2)
    route = Route.model_validate({"session_id": "s", "service": "v", "backends": [], "path": "keep", "host": "h"})
    for fields in ({"session_id"}, {"service"}, {"path"}):
        assert assemble(Route, take_apart(route), fields).model_fields_set == fields
    assert len(module._shared) == 2


def test_values_that_are_not_those_of_the_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="2 values for the 18 fields of a Route"):
        assemble(Route, ("a", "b"), set())
