from __future__ import annotations

from trioproxy.control.messages import BackendChange
from trioproxy.health.states import Ejection, States

KEY = ("s", "v")
EJECTION = Ejection(KEY, "b", "h:1", 50.0, "3 failures in a row")


def said(change: BackendChange | None) -> tuple[str, str, str] | None:
    return None if change is None else (change.previous, change.state, change.reason)


def test_an_operators_word_counts_more_than_checks_and_those_more_than_ejections() -> None:
    states = States()
    assert said(states.set_ejected(EJECTION, 1.0)) == ("healthy", "ejected", "3 failures in a row")
    assert said(states.set_checked(KEY, "b", "refused", "failed", 2.0)) == ("ejected", "unhealthy", "failed")
    assert said(states.set_admin(KEY, "b", "draining", 3.0)) == ("unhealthy", "draining", "an operator is draining it")
    assert states.set_checked(KEY, "b", None, "passed", 4.0) is None
    assert said(states.set_admin(KEY, "b", "enabled", 5.0)) == ("draining", "ejected", "an operator has enabled it")
    assert said(states.set_returned(KEY, "b", "went well", 6.0)) == ("ejected", "healthy", "went well")
    assert list(states.unwell()) == []


def test_what_says_nothing_new_is_no_change() -> None:
    states = States()
    assert states.set_admin(KEY, "b", "enabled", 1.0) is None
    assert states.set_returned(KEY, "b", "went well", 1.0) is None
    states.set_admin(KEY, "b", "disabled", 1.0)
    assert states.set_admin(KEY, "b", "disabled", 2.0) is None
    assert [change.at for change in states.unwell()] == [1.0]


def test_backends_that_leave_are_forgotten_and_new_addresses_are_not_ejected() -> None:
    states = States()
    states.set_admin(KEY, "a", "draining", 1.0)
    states.set_ejected(EJECTION, 1.0)
    assert states.keep(KEY, {"a": "h:2", "b": "h:1"}, 2.0) == []
    (change,) = states.keep(KEY, {"b": "h:9"}, 3.0)
    assert said(change) == ("ejected", "healthy", "is at another address now")
    assert (list(states.unwell()), states.ejections()) == ([], [])


def test_ejections_are_kept_until_they_are_over() -> None:
    states = States()
    states.set_ejected(EJECTION, 1.0)
    assert states.ejections() == [EJECTION]
    states.set_returned(KEY, "b", "went well", 2.0)
    assert states.ejections() == []
