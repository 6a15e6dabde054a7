from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trioproxy.control.messages import BackendInfo, BackendState, Report
from trioproxy.control.worker import Explanation
from trioproxy.observe.metrics import Metrics
from trioproxy.process.explain import explain_url
from trioproxy.routing.route import Route
from trioproxy.routing.table import Table


def route(**fields: Any) -> Route:
    return Route.model_validate(
        {"session_id": "s", "service": "v", "backends": [{"host": "10.0.0.5", "port": 80}]} | fields
    )


def backend(state: BackendState) -> BackendInfo:
    return BackendInfo("s", "v", "10.0.0.5:80", "10.0.0.5:80", 1, state, 2, 9, 0, "connect_failed: x", 1.0)


def explain(
    url: str, *routes: Route, backends: tuple[BackendInfo, ...] = (), synced: bool = True, panic: bool = False
) -> Explanation:
    table = Table.build(routes, version=4, synced=synced)
    return explain_url(url, table, Report(4, False, Metrics(), backends), header_count=100, panic=panic)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://worker/s/v/a%2Fb?c=d", "/a%2Fb?c=d"),
        ("http://worker:5050/s/v/", "/"),
        ("/s/v/x", "/x"),
        ("/s/v/x#fragment", "/x"),
    ],
)
def test_a_url_that_works_is_forwarded_to_the_backends_path(url: str, path: str) -> None:
    found = explain(url, route())
    assert (found.outcome, found.status, found.code) == ("forward", None, None)
    assert (found.session_id, found.service, found.backend_path) == ("s", "v", path)
    assert [item["id"] for item in found.backends] == ["10.0.0.5:80"]
    assert found.steps[-1] == "1 of 1 backends can serve this, by weighted round robin."


@pytest.mark.parametrize(
    ("url", "fields", "says"),
    [
        ("https://app.example.org/x", {"host": "app.example.org"}, "The host name app.example.org addresses s/v."),
        ("https://app.example.org:5050/x", {"host": "app.example.org"}, "The host name app.example.org addresses s/v."),
        ("/tools/lab/x", {"prefix": "/tools/lab"}, "The path below /tools/lab addresses s/v."),
        ("/s/v/x", {}, "The path below /s/v addresses s/v."),
    ],
)
def test_it_says_by_what_the_route_was_found(url: str, fields: dict[str, Any], says: str) -> None:
    assert says in explain(url, route(**fields)).steps


def test_a_missing_slash_is_a_redirect() -> None:
    found = explain("https://worker/s/v", route())
    assert (found.outcome, found.status, found.code) == ("redirect", 308, None)
    assert "sent to /s/v/" in found.steps[-1]


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("/other/v/", 404, "no_route"),
        ("/s/v/../x", 400, "bad_request"),
        ("https://worker/%zz/v/", 400, "bad_request"),
    ],
)
def test_what_would_be_refused_is_told_with_status_and_code(url: str, status: int, code: str) -> None:
    found = explain(url, route())
    assert (found.outcome, found.status, found.code) == ("refuse", status, code)
    assert found.steps[-1].endswith(".")


def test_before_the_first_table_nothing_is_known() -> None:
    found = explain("/s/v/", synced=False)
    assert (found.status, found.code) == (503, "not_synced")


def test_a_route_without_backends_is_refused() -> None:
    found = explain("/s/v/", route(backends=[]))
    assert (found.outcome, found.status, found.code) == ("refuse", 503, "no_backend")
    assert found.session_id == "s"


@pytest.mark.parametrize(
    ("state", "said", "reason"),
    [
        ("draining", None, "an operator is draining it, so it gets no new requests"),
        ("disabled", None, "an operator has disabled it"),
        ("unhealthy", "failed 3 checks in a row: answered 503", "failed 3 checks in a row: answered 503"),
        ("ejected", "3 failures in a row", "3 failures in a row"),
    ],
)
def test_backends_that_cannot_be_chosen_are_not_used_and_the_reason_is_told(
    state: BackendState, said: str | None, reason: str
) -> None:
    found = explain("/s/v/", route(), backends=(replace(backend(state), reason=said),))
    assert (found.outcome, found.code) == ("refuse", "no_backend")
    assert found.steps[-2:] == (f"Backend 10.0.0.5:80 is {state}: {reason}.", "No backend can serve this.")
    assert found.backends[0] | {"id": 0} == {
        "id": 0,
        "host": "10.0.0.5",
        "port": 80,
        "tls": False,
        "weight": 1,
        "state": state,
        "usable": False,
        "reason": reason,
        "in_flight": 2,
        "last_error": "connect_failed: x",
    }


@pytest.mark.parametrize("panic", [True, False])
@pytest.mark.parametrize("own", [True, False, None])
@pytest.mark.parametrize("state", ["unhealthy", "ejected", "draining", "disabled"])
def test_when_all_are_out_it_says_what_panic_makes_of_it(state: BackendState, own: bool | None, panic: bool) -> None:
    found = explain("/s/v/", route(panic=own), backends=(backend(state),), panic=panic)
    sent = state in ("unhealthy", "ejected") and (panic if own is None else own)
    assert found.outcome == ("forward" if sent else "refuse")
    assert ("As `panic` is on, requests are sent to 1 of 1 backends all the same." in found.steps) is sent


def test_of_very_many_unusable_backends_only_some_are_told_in_sentences() -> None:
    backends = [{"host": "10.0.0.5", "port": port} for port in range(1, 31)]
    known = tuple(
        BackendInfo("s", "v", f"10.0.0.5:{port}", f"10.0.0.5:{port}", 1, "disabled", 0, 0, 0, None, None)
        for port in range(2, 31)
    )
    found = explain("/s/v/", route(backends=backends), backends=known)
    assert found.steps[-2:] == (
        "So are 9 more.",
        "1 of 30 backends can serve this, by weighted round robin.",
    )


def test_a_route_for_some_clients_only_says_so() -> None:
    found = explain("/s/v/", route(access={"allowed_client_ips": ["10.0.0.0/8"]}))
    assert found.outcome == "forward"
    assert "Only clients in 10.0.0.0/8 are admitted; others get 403." in found.steps


@pytest.mark.parametrize(
    "url", ["", "ftp://x/", "s/v", "https:///x", "http://a/ b", "/\x00", "/é", "https://a/\r\nX: y"]
)
def test_what_is_no_url_is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match="is not an http"):
        explain(url, route())
