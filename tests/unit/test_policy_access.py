from __future__ import annotations

import pytest

from trioproxy.errors import Forbidden
from trioproxy.http1.forwarded import Origin
from trioproxy.policy.access import check_access
from trioproxy.routing.route import Access


def enters(client: str, *allowed: str) -> bool:
    try:
        check_access(Access(allowed_client_ips=allowed), Origin(client, (client,), "https", b"hub", 443))
    except Forbidden:
        return False
    return True


def test_who_may_not_in_is_told_no_more_than_that() -> None:
    origin = Origin("192.0.2.1", ("192.0.2.1",), "https", b"hub", 443)
    with pytest.raises(Forbidden, match="this service does not admit your address") as caught:
        check_access(Access(allowed_client_ips=("198.51.100.7",)), origin)
    assert (caught.value.status, caught.value.code) == (403, "forbidden")


@pytest.mark.parametrize("client", ["192.0.2.1", "2001:db8::1"])
def test_without_a_list_everyone_may_in(client: str) -> None:
    assert enters(client)


@pytest.mark.parametrize(
    ("client", "enters_"),
    [
        ("192.0.2.1", True),
        ("192.0.2.255", True),
        ("192.0.3.0", False),
        ("198.51.100.7", True),
        ("198.51.100.8", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("::ffff:192.0.2.1", True),
    ],
)
def test_with_a_list_only_its_addresses_and_networks_may_in(client: str, enters_: bool) -> None:
    assert enters(client, "192.0.2.9/24", "198.51.100.7", "2001:db8::/32") is enters_
