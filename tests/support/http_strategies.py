"""What the fuzz tests feed to parsers: heads of every make, mutations of them, and cuts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies as st

TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCXYZabcxyz"
TEXT = bytes([9, *range(32, 127), *range(128, 256)])
TARGET = bytes(range(33, 127))


def of(alphabet: bytes, *, min_size: int = 0, max_size: int = 8) -> st.SearchStrategy[bytes]:
    """Byte strings over an alphabet."""
    letters = alphabet.decode("latin-1")
    return st.text(letters, min_size=min_size, max_size=max_size).map(lambda text: text.encode("latin-1"))


NAMES = [
    b"Host", b"Connection", b"Content-Length", b"Transfer-Encoding", b"TE", b"Trailer", b"Upgrade", b"Expect",
    b"Keep-Alive", b"Proxy-Connection", b"Proxy-Authorization", b"Cookie", b"Set-Cookie", b"Authorization",
    b"Forwarded", b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host", b"X-Forwarded-Port",
    b"X-Forwarded-Prefix", b"X-Forwarded-User", b"X-Request-Id", b"Accept", b"Location",
]  # fmt: skip
VALUES = [
    b"", b"hub", b"hub:80", b"other", b"close", b"keep-alive", b"upgrade", b"Upgrade, TE", b"Host, X-A, Cookie",
    b"0", b"3", b"3, 3", b"3 ", b"+3", b"0x3", b"chunked", b"CHUNKED", b",chunked", b"gzip, chunked", b"identity",
    b"trailers", b"gzip;q=1, trailers", b"websocket", b"h2c", b"h2c, Foo/1", b"100-continue", b"100-Continue, x",
    b"192.0.2.1", b"for=192.0.2.1;proto=https", b"a=b; Path=/", b"/login", b"x-a",
]  # fmt: skip

names = st.sampled_from(NAMES) | st.sampled_from(NAMES).map(bytes.lower) | of(TOKEN, min_size=1, max_size=4)
values = st.sampled_from(VALUES) | of(TEXT)
blanks = st.sampled_from([b"", b" ", b"\t", b"  "])
field_lines = st.builds(
    lambda name, before, value, after: name + b":" + before + value + after, names, blanks, values, blanks
)


def _lines(first: bytes, fields: list[bytes]) -> bytes:
    return b"\r\n".join([first, *fields]) + b"\r\n\r\n"


_methods = st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS", b"PURGE", b"CONNECT", b"TRACE"]) | of(
    TOKEN, min_size=1
)
_targets = st.sampled_from(
    [b"/", b"/s/v/", b"/s/v/%2F;x//../?q=%zz", b"*", b"http://hub/s/v/", b"http://other/", b"https://hub?q"]
)
_versions = st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1"])
_request_lines = st.builds(
    lambda method, target, version: b" ".join((method, target, version)),
    _methods,
    _targets | of(TARGET).map(lambda tail: b"/" + tail),
    _versions,
)
request_heads = st.builds(
    lambda line, host, fields: _lines(line, [*host, *fields]),
    _request_lines,
    st.sampled_from([[b"Host: hub"]] * 4 + [[]]),
    st.lists(field_lines, max_size=6),
)
"""Request heads with the right line ends; about half of them may be forwarded."""

sound_requests = st.builds(
    lambda method, target, fields: _lines(b" ".join((method, target, b"HTTP/1.1")), [b"Host: hub", *fields]),
    st.sampled_from([b"GET", b"HEAD", b"POST", b"PURGE"])
    | of(TOKEN, min_size=1, max_size=4).map(lambda one: b"X" + one),
    of(TARGET.replace(b"#", b"")).map(lambda tail: b"/" + tail),
    st.lists(
        field_lines.filter(
            lambda line: (
                line.partition(b":")[0].lower() not in (b"host", b"content-length", b"transfer-encoding", b"expect")
            )
        ),
        max_size=8,
    ).flatmap(
        lambda lines: st.sampled_from([[], [b"Content-Length: 3"], [b"Transfer-Encoding: chunked"]]).map(
            lambda framing: [*lines[:2], *framing, *lines[2:]]
        )
    ),
)
"""Request heads that may be forwarded."""

_statuses = st.sampled_from([b"200", b"100", b"101", b"103", b"204", b"304", b"404", b"599", b"999", b"099", b"20"])
_reasons = st.sampled_from([b"", b" ", b" OK", b" \xfc\t!"]) | of(TEXT).map(lambda text: b" " + text)
_folds = st.sampled_from([b"", b"", b"", b"\r\n more", b"\r\n\t"])
response_heads = st.builds(
    lambda version, status, reason, fields: _lines(version + b" " + status + reason, fields),
    _versions,
    _statuses,
    _reasons,
    st.lists(st.builds(lambda line, fold: line + fold, field_lines, _folds), max_size=6),
)
"""Response heads with the right line ends, some of them folded; about half may be passed on."""

_plain_values = of(TEXT, min_size=1, max_size=12).map(bytes.strip).filter(bool)
_plain_lines = st.builds(
    lambda name, value: name + b": " + value,
    st.sampled_from([b"Accept", b"cookie", b"Authorization", b"X-Forwarded-User", b"Sec-Fetch-Mode", b"Hostile"])
    | of(TOKEN, min_size=1, max_size=4).map(lambda name: b"X" + name),
    _plain_values,
)


def _mixed(*special: list[bytes]) -> st.SearchStrategy[list[bytes]]:
    """Plain lines and of each group of others at most one, in any order."""
    chosen = st.tuples(*(st.sampled_from([b"", b"", *group]) for group in special))
    return st.builds(
        lambda plain, some: [*plain, *filter(None, some)], st.lists(_plain_lines, max_size=6), chosen
    ).flatmap(st.permutations)


canonical_requests = st.builds(
    lambda method, target, host, fields: _lines(b"%b %b HTTP/1.1" % (method, target), [host, *fields]),
    st.sampled_from([b"GET", b"HEAD", b"POST", b"PURGE"]),
    of(TARGET.replace(b"#", b"")).map(lambda tail: b"/" + tail),
    st.sampled_from([b"Host: hub", b"host: hub:80", b"HOST: [::1]:80"]),
    _mixed(
        [b"Connection: keep-alive", b"connection: Close"],
        [b"Content-Length: 3", b"content-length: 0"],
        [b"X-Forwarded-For: 192.0.2.7, x", b"x-forwarded-for: 10.0.0.1"],
        [b"X-Forwarded-Proto: https"],
        [b"Forwarded: for=192.0.2.7"],
        [b"X-Request-Id: abc"],
    ),
)
"""Request heads of the shape that nearly all have."""

canonical_responses = st.builds(
    lambda status, reason, fields: _lines(b"HTTP/1.1 " + status + reason, fields),
    st.sampled_from([b"200", b"206", b"304", b"404", b"599"]),
    st.sampled_from([b"", b" ", b" OK", b" Not \xfc"]),
    _mixed(
        [b"Connection: Keep-Alive", b"connection: close"],
        [b"Content-Length: 3", b"content-length: 0", b"Transfer-Encoding: chunked"],
        [b"Keep-Alive: timeout=5"],
        [b"X-Request-Id: abc"],
        [b"Location: /login", b"location: http://kernel:8888/x"],
        [b"Set-Cookie: a=b; Path=/"],
        [b"set-cookie: c=d; path=/x"],
        [b"Refresh: 3; url=/y"],
    ),
)
"""Response heads of the shape that nearly all have."""

_junk = st.sampled_from([
    b"", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b"\0", b"\x0b", b"\x1c", b"\x7f", b"\x80", b"\xff",
    b",", b"#", b";", b"0",
])  # fmt: skip
edits = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), _junk), max_size=3)
Edits = Sequence[tuple[int, int, bytes]]


def mutate(raw: bytes, edits: Edits) -> bytes:
    """Replace a few bytes here and there with something else, or nothing."""
    for at, length, junk in edits:
        start = at % (len(raw) + 1)
        raw = raw[:start] + junk + raw[start + length :]
    return raw


cuts = st.lists(st.integers(0, 2000), max_size=8) | st.just(list(range(2000)))


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The bytes, cut at these places; no piece is empty."""
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[start:end] for start, end in pairwise(places)]


_sizes = st.sampled_from(
    [b"3", b"03", b"A", b"a", b"3;x=y", b"3 ", b"3 ;x", b" 3", b"0x3", b"+3", b"4", b"2", b"", b"3;a\0"]
)
_chunks = st.builds(
    lambda size, data: size + b"\r\n" + data + b"\r\n",
    _sizes,
    st.sampled_from([b"abc", b"abc", b"abc", b"\r\n0", b"0123456789", b"ab"]),
)
_sound_chunks = of(bytes(range(256)), min_size=1, max_size=20).map(lambda data: b"%x\r\n%b\r\n" % (len(data), data))
chunked_bodies = st.builds(
    lambda chunks, last, trailers, rest: b"".join(chunks) + last + b"\r\n" + b"".join(trailers) + b"\r\n" + rest,
    st.lists(_sound_chunks, max_size=4) | st.lists(_chunks, max_size=3),
    st.sampled_from([b"0", b"0", b"000", b"0;x"]),
    st.lists(field_lines.map(lambda line: line + b"\r\n"), max_size=3),
    st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"\r\n"]),
)
"""Chunked bodies and what follows them; most are sound."""
