from __future__ import annotations

import pytest

from trioproxy.errors import Forbidden
from trioproxy.http1.forwarded import Origin
from trioproxy.policy.access import check_access
from trioproxy.routing.route import Access


def enters(client: str, *allowed: str) -> bool:
    origin = Origin(client, (client,), "https", b"hub", 443)
    try:
        check_access(Access(allowed_client_ips=allowed), origin)
    except Forbidden as error:
        assert (error.status, error.code) == (403, "forbidden")
        assert client not in error.detail
        return False
    return True


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
