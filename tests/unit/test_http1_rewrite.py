from __future__ import annotations

import pytest

from trioproxy.http1.fields import Field, make_field
from trioproxy.http1.rewrite import Mapping

STRIPPED = Mapping(b"/s/v", b"hub:5050", b"10.0.0.5:8888")
BY_HOST = Mapping(b"", b"app.example", b"10.0.0.5:8888")


@pytest.mark.parametrize(
    ("value", "mapped"),
    [
        (b"/", b"/s/v/"),
        (b"/login", b"/s/v/login"),
        (b"/login?next=/a#b", b"/s/v/login?next=/a#b"),
        (b"/a//b/%2F/;x", b"/s/v/a//b/%2F/;x"),
        (b"/s/v", b"/s/v"),
        (b"/s/v/login", b"/s/v/login"),
        (b"/s/v?x", b"/s/v?x"),
        (b"/s/v#x", b"/s/v#x"),
        (b"/s/vx", b"/s/v/s/vx"),
        (b"/s", b"/s/v/s"),
        (b"", b""),
        (b"login", b"login"),
        (b"../login", b"../login"),
        (b"?x", b"?x"),
        (b"#x", b"#x"),
        (b"http://hub:5050/login", b"http://hub:5050/s/v/login"),
        (b"HTTPS://Hub:5050/login", b"HTTPS://Hub:5050/s/v/login"),
        (b"//hub:5050/login", b"//hub:5050/s/v/login"),
        (b"http://hub:5050", b"http://hub:5050/s/v/"),
        (b"http://hub:5050?x", b"http://hub:5050/s/v/?x"),
        (b"http://hub:5050/s/v/login", b"http://hub:5050/s/v/login"),
        (b"http://10.0.0.5:8888/login?a", b"/s/v/login?a"),
        (b"//10.0.0.5:8888", b"/s/v/"),
        (b"http://10.0.0.5:8888#x", b"/s/v/#x"),
        (b"http://hub:8888/login", b"/s/v/login"),
        (b"http://Hub:8888", b"/s/v/"),
        (b"http://hub:88880/login", b"http://hub:88880/login"),
        (b"http://hub/login", b"http://hub/login"),
        (b"http://hub:5050.evil/login", b"http://hub:5050.evil/login"),
        (b"http://user@hub:5050/", b"http://user@hub:5050/"),
        (b"https://elsewhere.org/", b"https://elsewhere.org/"),
        (b"ftp://hub:5050/", b"ftp://hub:5050/"),
        (b"mailto:a@b", b"mailto:a@b"),
        (b"javascript:alert(1)", b"javascript:alert(1)"),
    ],
)
def test_a_url_of_the_backends_own_root_is_mapped_and_no_other(value: bytes, mapped: bytes) -> None:
    assert STRIPPED.url(value) == mapped
    assert STRIPPED.url(mapped) == mapped


@pytest.mark.parametrize(
    ("value", "mapped"),
    [
        (b"/login", b"/login"),
        (b"http://app.example/login", b"http://app.example/login"),
        (b"http://10.0.0.5:8888/login", b"/login"),
        (b"http://10.0.0.5:8888//evil.org/", b"//app.example//evil.org/"),
    ],
)
def test_a_route_addressed_by_host_has_nothing_to_add_but_hides_the_backends_address(
    value: bytes, mapped: bytes
) -> None:
    assert BY_HOST.url(value) == mapped
    assert BY_HOST.cookie(b"a=b; Path=/x") == b"a=b; Path=/x"


@pytest.mark.parametrize(
    ("value", "mapped"),
    [
        (b"5", b"5"),
        (b"5; url=/login", b"5; url=/s/v/login"),
        (b"5;URL=/login", b"5;URL=/s/v/login"),
        (b"0.5 , url = /login", b"0.5 , url = /s/v/login"),
        (b"5 url=/login", b"5 url=/s/v/login"),
        (b"5; /login", b"5; /s/v/login"),
        (b";url=/login", b";url=/s/v/login"),
        (b"5; url='/login' ", b"5; url='/s/v/login' "),
        (b'5; url="/login"; junk', b'5; url="/s/v/login"; junk'),
        (b'5; url="/login', b'5; url="/s/v/login'),
        (b"5; url=http://10.0.0.5:8888/a", b"5; url=/s/v/a"),
        (b"5; url=https://elsewhere.org/", b"5; url=https://elsewhere.org/"),
        (b"5; url=next", b"5; url=next"),
        (b"5; url", b"5; url"),
        (b"5; url=", b"5; url="),
        (b"5; url=''", b"5; url=''"),
        (b"", b""),
        (b"soon; url=/login", b"soon; url=/login"),
    ],
)
def test_the_url_in_refresh_is_mapped(value: bytes, mapped: bytes) -> None:
    assert STRIPPED.refresh(value) == mapped


@pytest.mark.parametrize(
    "value", [b"1;a" + b" " * 60_000 + b"a", b"1" + b" " * 60_000 + b"a", b"1; url" + b" " * 60_000, b"1" * 60_000]
)
def test_refresh_is_read_in_linear_time(value: bytes) -> None:
    # Backends belong to users: a field that took half a minute to match would stop everybody's traffic.
    assert STRIPPED.refresh(value) == value


@pytest.mark.parametrize(
    ("value", "mapped"),
    [
        (b"a=b", b"a=b"),
        (b"a=b; Path=/", b"a=b; Path=/s/v/"),
        (b"a=b;path=/x;HttpOnly", b"a=b;path=/s/v/x;HttpOnly"),
        (b"a=b; PATH = /x; Secure", b"a=b; PATH = /s/v/x; Secure"),
        (b"a=b; Path=/x; Path=/y", b"a=b; Path=/s/v/x; Path=/s/v/y"),
        (b"a=b; Path=/s/v", b"a=b; Path=/s/v"),
        (b"a=b; Path=/s/v/x", b"a=b; Path=/s/v/x"),
        (b"a=b; Path=/s/vx", b"a=b; Path=/s/v/s/vx"),
        (b"a=b; Path=", b"a=b; Path="),
        (b"a=b; Path", b"a=b; Path"),
        (b"a=b; Path=x", b"a=b; Path=x"),
        (b"a=b; xpath=/", b"a=b; xpath=/"),
        (b"path=/; HttpOnly", b"path=/; HttpOnly"),
        (b"__Secure-a=b; Path=/", b"__Secure-a=b; Path=/s/v/"),
        (b"__Host-a=b; Path=/; Secure", b"__Host-a=b; Path=/; Secure"),
        (b"__HOST-a=b; Path=/; Secure", b"__HOST-a=b; Path=/; Secure"),
    ],
)
def test_the_path_of_a_cookie_is_mapped(value: bytes, mapped: bytes) -> None:
    assert STRIPPED.cookie(value) == mapped


def test_four_fields_are_mapped_and_the_others_left_alone() -> None:
    fields: list[Field] = [
        make_field(b"LOCATION", b"/a"),
        make_field(b"content-location", b"/b"),
        make_field(b"Refresh", b"0;url=/c"),
        make_field(b"Set-Cookie", b"d=e; Path=/"),
        make_field(b"Set-Cookie", b"f=g; Path=/h"),
        make_field(b"Link", b"</i>; rel=next"),
        make_field(b"X-Location", b"/j"),
    ]
    assert STRIPPED.fields(fields) == [
        make_field(b"LOCATION", b"/s/v/a"),
        make_field(b"content-location", b"/s/v/b"),
        make_field(b"Refresh", b"0;url=/s/v/c"),
        make_field(b"Set-Cookie", b"d=e; Path=/s/v/"),
        make_field(b"Set-Cookie", b"f=g; Path=/s/v/h"),
        *fields[5:],
    ]
