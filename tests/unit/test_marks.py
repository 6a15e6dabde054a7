from __future__ import annotations

from trioproxy.control.messages import SetBackend
from trioproxy.process.marks import Marks
from trioproxy.routing.route import Backend, Route
from trioproxy.routing.table import Table

KEY = ("s", "v")


def table(*ports: int) -> Table:
    backends = tuple(Backend(host="h", port=port) for port in ports)
    return Table.build([Route(session_id="s", service="v", backends=backends)], version=1)


def test_marks_are_told_until_the_backend_is_enabled() -> None:
    marks = Marks()
    marks.set(KEY, "h:1", "draining")
    marks.set(KEY, "h:2", "disabled")
    marks.set(KEY, "h:1", "disabled")
    assert set(marks.commands()) == {SetBackend(KEY, "h:1", "disabled"), SetBackend(KEY, "h:2", "disabled")}
    marks.set(KEY, "h:1", "enabled")
    marks.set(KEY, "h:2", "enabled")
    assert marks.commands() == ()


def test_a_mark_goes_with_its_backend_and_does_not_come_back_with_it() -> None:
    marks = Marks()
    marks.set(KEY, "h:1", "draining")
    marks.set(KEY, "h:2", "draining")
    marks.routes_changed([KEY, ("other", "v")], table(2, 3))
    assert marks.commands() == (SetBackend(KEY, "h:2", "draining"),)
    marks.routes_changed([KEY], table(1, 2, 3))
    assert marks.commands() == (SetBackend(KEY, "h:2", "draining"),)


def test_marks_go_with_their_route() -> None:
    marks = Marks()
    marks.set(KEY, "h:1", "draining")
    marks.routes_changed([KEY], Table.build((), version=2))
    assert marks.commands() == ()


def test_marks_of_routes_that_did_not_change_stay() -> None:
    marks = Marks()
    marks.set(KEY, "h:1", "draining")
    marks.routes_changed([("other", "v")], Table.build((), version=2))
    assert len(marks.commands()) == 1
