"""What stands in the cookie of a sticky route."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy.sticky import pin_for
from trioproxy.routing.route import Backend

SECRET, ROUTE = b"a secret of some length", ("s", "web")
A = Backend(host="10.0.0.5", port=8888)


def test_it_is_the_same_everywhere_and_always() -> None:
    # Written down: clients come with what an earlier version, or another worker, has told them.
    assert pin_for(SECRET, ROUTE, A) == pin_for(bytes(SECRET), ("s", "web"), Backend(host="10.0.0.5", port=8888))
    assert pin_for(SECRET, ROUTE, A) == "alsp1Dq4hM9ZuAWP-CyRQw"


def test_another_secret_route_backend_or_address_is_another_one() -> None:
    pins = [
        pin_for(SECRET, ROUTE, A),
        pin_for(SECRET + b".", ROUTE, A),
        pin_for(SECRET, ("s", "api"), A),
        pin_for(SECRET, ("sweb", ""), A),
        pin_for(SECRET, ROUTE, Backend(host="10.0.0.6", port=8888)),
        pin_for(SECRET, ROUTE, Backend(host="10.0.0.5", port=8888, id="one")),
        pin_for(SECRET, ROUTE, Backend(host="10.0.0.5", port=8889, id="one")),
        pin_for(SECRET, ROUTE, Backend(host="10.0.0.5", port=8888, tls=True)),
    ]
    assert len(set(pins)) == len(pins)


def test_a_weight_makes_no_difference() -> None:
    assert pin_for(SECRET, ROUTE, A) == pin_for(SECRET, ROUTE, Backend(host="10.0.0.5", port=8888, weight=9))


@given(st.binary(min_size=1, max_size=200), st.from_regex(r"[a-z0-9.]{1,100}", fullmatch=True))
def test_it_is_a_cookie_value_and_tells_nothing(secret: bytes, host: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", pin_for(secret, ROUTE, Backend(host=host, port=1)))
