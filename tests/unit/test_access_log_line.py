"""One line of the access log: JSON whatever the values are, and always the same keys."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.observe.access_log import RequestRecord

KEYS = [
    "time",
    "id",
    "client",
    "listener",
    "kind",
    "method",
    "host",
    "path",
    "status",
    "bytes_in",
    "bytes_out",
    "session_id",
    "service",
    "backend",
    "retries",
    "error",
    "detail",
    "close_code",
    "seconds",
]
NASTY = [
    '"',
    "\\",
    '","status":200,"x":"',
    "\n",
    "\r\n",
    "\x00\x1f\x7f",
    "é",
    "☃",
    "😀",
    "\u2028",
    "\ud800",
    "</script>",
]


def record(**values: object) -> RequestRecord:
    return RequestRecord(**{"id": "i", "client": "c", "listener": "l", "started_at": 0.0, "began": 0.0, **values})  # type: ignore[arg-type]


def test_a_line_has_every_key_in_its_order_and_ends_with_one_newline() -> None:
    line = record().line()
    assert list(json.loads(line)) == KEYS
    assert list(json.loads(line)["seconds"]) == ["wait", "upstream_head", "total"]
    assert (line.count(b"\n"), line[-1:]) == (1, b"\n")


def test_a_line_says_what_the_record_says() -> None:
    full = record(
        started_at=1_700_000_000.25,
        method="POST",
        path="/s/web/x",
        host="hub:5050",
        kind="websocket",
        status=101,
        bytes_in=3,
        bytes_out=4,
        session_id="s",
        service="web",
        backend="kernel:8888",
        retries=2,
        error="client_gone",
        detail="the client left",
        close_code=1006,
        wait_seconds=0.5,
        upstream_head_seconds=0.0000015,
        total_seconds=3600.0,
    )
    assert json.loads(full.line()) == {
        "time": "2023-11-14T22:13:20.250Z",
        "id": "i",
        "client": "c",
        "listener": "l",
        "kind": "websocket",
        "method": "POST",
        "host": "hub:5050",
        "path": "/s/web/x",
        "status": 101,
        "bytes_in": 3,
        "bytes_out": 4,
        "session_id": "s",
        "service": "web",
        "backend": "kernel:8888",
        "retries": 2,
        "error": "client_gone",
        "detail": "the client left",
        "close_code": 1006,
        "seconds": {"wait": 0.5, "upstream_head": 0.000002, "total": 3600.0},
    }


def test_what_did_not_happen_is_null() -> None:
    line = json.loads(record().line())
    names = ["session_id", "service", "backend", "error", "detail", "close_code"]
    assert [line[name] for name in names] == [None] * 6
    assert line["seconds"] == {"wait": None, "upstream_head": None, "total": 0.0}


@pytest.mark.parametrize("value", NASTY)
@pytest.mark.parametrize(
    "name",
    ["id", "client", "listener", "method", "path", "host", "session_id", "service", "backend", "error", "detail"],
)
def test_no_value_breaks_out_of_its_line(name: str, value: str) -> None:
    line = record(**{name: value}).line()
    assert (json.loads(line)[name], line.count(b"\n"), line.isascii()) == (value, 1, True)


@given(st.text(st.characters(codec=None)))
def test_any_text_comes_back_from_a_line(text: str) -> None:
    assert json.loads(record(path=text).line())["path"] == text


@given(st.floats(min_value=0, max_value=4e9))
def test_the_time_is_the_one_the_request_began_at_cut_to_milliseconds(at: float) -> None:
    shown = datetime.fromisoformat(json.loads(record(started_at=at).line())["time"])
    assert -1e-6 <= at - (shown - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() < 0.001 + 1e-6


def test_tries_that_another_one_followed_are_listed_and_short() -> None:
    record = RequestRecord("id", "192.0.2.1", "web", 0.0, 0.0)
    assert b'"tries"' not in record.line()
    record.note_retry("10.0.0.5:8888", "connect_failed")
    record.note_retry("x" * 255, "upstream_closed")
    found = json.loads(record.line())
    assert found["retries"] == 2
    assert found["tries"] == ["10.0.0.5:8888 connect_failed", "x" * 64 + "… upstream_closed"]
