from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.control.codec import decode, encode, seal
from trioproxy.control.tables import TablePart
from trioproxy.errors import ControlError
from trioproxy.routing.assembly import Given
from trioproxy.routing.compact import compact
from trioproxy.routing.route import Backend, Route
from trioproxy.routing.rows import from_rows, to_rows

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "host": st.sampled_from([None, "a.b"]),
    "prefix": st.sampled_from([None, "/p", "/p/q"]),
    "path": st.sampled_from(["strip", "keep"]),
    "balance": st.sampled_from(["round_robin", "client_hash"]),
    "sticky": st.sampled_from([False, True, {"cookie": "c"}, {"max_age": "1h"}]),
    "websocket": st.sampled_from([None, "relay"]),
    "health": st.sampled_from([None, {"kind": "http", "path": "/x"}, {"interval": 1.5}]),
    "timeouts": st.sampled_from([{}, {"connect": "1s"}]),
    "retry": st.sampled_from([{}, {"attempts": 2}]),
    "access": st.sampled_from([{}, {"user": "u"}, {"allowed_client_ips": ["10.0.0.0/8"]}]),
    "metadata": st.dictionaries(
        st.sampled_from("xyz"), st.none() | st.integers() | st.lists(st.booleans()), max_size=2
    ),
}
backend = st.fixed_dictionaries(
    {"host": st.sampled_from(["h", "::1"]), "port": st.integers(1, 65535)},
    optional={
        "weight": st.integers(0, 1000),
        "tls": st.sampled_from([False, True, {"verify": False}, {"server_name": "n"}]),
        "id": st.sampled_from(["", "one"]),
    },
)
route = st.fixed_dictionaries(
    {
        "session_id": st.sampled_from("abc"),
        "service": st.just("v"),
        "backends": st.lists(backend, max_size=1) | st.just([{"host": "h", "port": 1}, {"host": "unix:/a", "id": "x"}]),
    },
    optional=FIELDS,
).map(Route.model_validate)


def same(one: Route, other: Route) -> bool:
    return one == other and one.model_dump_json(exclude_unset=True) == other.model_dump_json(exclude_unset=True)


@given(st.lists(route, max_size=5), st.booleans())
def test_routes_come_back_from_a_part_as_they_were(routes: list[Route], slim: bool) -> None:
    sent = tuple(map(compact, routes) if slim else routes)
    part = decode(encode(TablePart(None, 7, True, sent, (("gone", "v"),), last=False)), TablePart)
    assert (part.base, part.version, part.synced, part.remove, part.last) == (None, 7, True, (("gone", "v"),), False)
    assert len(part.upsert) == len(sent)
    assert all(map(same, part.upsert, sent))
    assert [one.model_dump_json() for one in part.upsert] == [one.model_dump_json() for one in sent]
    assert all(compact(one) is one for one in part.upsert)  # what is shared in one process is shared in the other


def test_what_a_part_has_many_times_it_carries_once() -> None:
    def size(count: int) -> int:
        routes = [
            Route(session_id=f"s{n:03}", service="v", backends=(Backend(host="h", port=1),)) for n in range(count)
        ]
        return len(encode(TablePart(None, 1, True, tuple(map(compact, routes)), (), last=True)))

    assert size(200) - size(100) < 100 * 120


def test_a_copied_route_does_not_share_what_was_given() -> None:
    one, other = (compact(Route(session_id=name, service="v", backends=())) for name in "ab")
    copied = one.model_copy(update={"path": "keep"})
    assert "path" in copied.model_fields_set
    assert other.model_fields_set == {"session_id", "service", "backends"}
    assert decode(encode(copied), Route).model_fields_set == {"session_id", "service", "backends", "path"}


def test_a_shared_set_is_the_shared_one_over_there() -> None:
    given_fields = Route(session_id="a", service="v", backends=()).model_fields_set
    shared = compact(Route(session_id="a", service="v", backends=())).model_fields_set
    assert type(shared) is Given
    assert decode(encode(shared), Given) is shared
    assert shared == given_fields


@pytest.mark.parametrize("place", [[], [3, 0]], ids=["route", "backend"])
@pytest.mark.parametrize("longer", [True, False])
def test_a_row_of_another_length_is_refused(place: list[int], longer: bool) -> None:
    rows = to_rows([Route(session_id="s", service="v", backends=(Backend(host="h", port=1),))])
    row = rows[0]
    for index in place:
        row = row[index]
    row[:] = [*row, None] if longer else row[:-1]
    with pytest.raises(ValueError, match=f"{len(row)} values for the"):
        from_rows(rows)


def test_a_damaged_row_is_a_control_error() -> None:
    good = TablePart(None, 1, True, (Route(session_id="s", service="v", backends=()),), (), last=True)
    make, (base, version, synced, rows, *rest) = good.__reduce__()
    rows[0].append(None)
    bad = seal(pickle.dumps(_Reduced(make, (base, version, synced, rows, *rest))))
    with pytest.raises(ControlError, match="no record"):
        decode(bad, TablePart)


class _Reduced:
    """Pickles as it is told."""

    def __init__(self, make: Any, arguments: tuple[Any, ...]) -> None:
        self._reduced = make, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced
