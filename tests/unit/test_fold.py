from __future__ import annotations

from dataclasses import replace

import pytest

from trioproxy.control.messages import Activity, BackendInfo, BackendState
from trioproxy.process.fold import fold_activity, fold_backends

INFO = BackendInfo("s", "v", "b", "h:1", 2, "healthy", 1, 10, 0, None, None)


def test_what_only_one_forwarder_knows_stays_as_it_is() -> None:
    other = replace(INFO, backend_id="c")
    assert fold_backends([[INFO], [], [other]]) == (INFO, other)


def test_figures_of_a_backend_add_up_and_failures_in_a_row_do_not() -> None:
    (folded,) = fold_backends(
        [[INFO], [replace(INFO, in_flight=2, requests=5, failures=3)], [replace(INFO, failures=1)]]
    )
    assert (folded.in_flight, folded.requests, folded.failures, folded.weight) == (4, 25, 3, 2)


def test_of_several_errors_the_latest_is_told() -> None:
    one = replace(INFO, last_error="connect_failed: one", last_error_at=10.0)
    two = replace(INFO, last_error="connect_failed: two", last_error_at=20.0)
    for reports in ([[one], [two], [INFO]], [[INFO], [two], [one]]):
        (folded,) = fold_backends(reports)
        assert (folded.last_error, folded.last_error_at) == ("connect_failed: two", 20.0)


def test_the_latest_check_is_told() -> None:
    (folded,) = fold_backends([[replace(INFO, last_check_at=3.0)], [INFO], [replace(INFO, last_check_at=2.0)]])
    assert folded.last_check_at == 3.0


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ("healthy", "ejected", "ejected"),
        ("ejected", "healthy", "ejected"),
        ("draining", "ejected", "draining"),
        ("draining", "disabled", "disabled"),
    ],
)
def test_where_forwarders_differ_the_graver_state_is_told(
    one: BackendState, other: BackendState, told: BackendState
) -> None:
    (folded,) = fold_backends([[replace(INFO, state=state, reason=f"why {state}")] for state in (one, other)])
    assert (folded.state, folded.reason) == (told, f"why {told}")


def test_activity_of_a_route_adds_up_and_the_latest_counts() -> None:
    one, two = (
        {("s", "v"): Activity(5.0, 1, 100, 2)},
        {("s", "v"): Activity(3.0, 2, 50, 1), ("t", "v"): Activity(1, 1, 1, 1)},
    )
    assert fold_activity([one, two]) == {("s", "v"): Activity(5.0, 3, 150, 3), ("t", "v"): Activity(1, 1, 1, 1)}
