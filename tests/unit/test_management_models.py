from __future__ import annotations

import pytest
from pydantic import ValidationError

from trioproxy.management.mistakes import dotted, mistakes
from trioproxy.management.models import RoutePatch, parse_instant
from trioproxy.routing.route import Route


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("1200.5", 1200.5),
        (" 1200 ", 1200.0),
        ("1970-01-01T00:20:00Z", 1200.0),
        ("1970-01-01T00:20:00", 1200.0),
        ("1970-01-01T02:20:00+02:00", 1200.0),
        ("1970-01-01T02:20:00 02:00", 1200.0),
        ("1969-12-31T22:20:00-02:00", 1200.0),
        ("1970-01-01 00:20", 1200.0),
        ("1970-01-02", 86400.0),
        ("1970-01-01T00:20:00.250Z", 1200.25),
    ],
)
def test_a_point_in_time_is_iso_8601_or_epoch_seconds(text: str, seconds: float) -> None:
    assert parse_instant(text) == seconds


@pytest.mark.parametrize("text", ["", "now", "nan", "inf", "-inf", "1970-13-01", "1970-01-01T25:00:00Z", "1 2 3"])
def test_anything_else_is_no_point_in_time(text: str) -> None:
    with pytest.raises(ValueError, match="point in time"):
        parse_instant(text)


def test_a_path_is_written_as_a_person_would() -> None:
    assert dotted(()) == ""
    assert dotted(("routes", 3, "backends", 0, "port")) == "routes[3].backends[0].port"
    assert dotted((0, "x")) == "[0].x"


def test_names_of_union_members_are_no_part_of_a_path() -> None:
    data = {"session_id": "s", "service": "x", "backends": [], "sticky": {"cookie": "c", "max_age": "soon"}}
    with pytest.raises(ValidationError) as caught:
        Route.model_validate(data)
    (mistake,) = mistakes(caught.value, data, Route)
    assert mistake.field == "sticky.max_age"


def test_a_field_named_like_a_union_member_keeps_its_name() -> None:
    data = {"upsert": [{"session_id": "s", "service": "x", "backends": [{"host": "h", "port": 1, "tls": {"bool": 1}}]}]}
    with pytest.raises(ValidationError) as caught:
        RoutePatch.model_validate(data)
    assert [mistake.field for mistake in mistakes(caught.value, data, RoutePatch)] == ["upsert[0].backends[0].tls.bool"]
