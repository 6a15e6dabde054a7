"""The opening handshake of WebSockets and other upgrades: backend first, and its word counts."""

from __future__ import annotations

import pytest
from rules import both_ways, ending, get, heard, is_cut, ok, service, up

OWN = b"X-Request-Id: r1"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 §1.3
ASK = [b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", KEY]
SWITCH = b"HTTP/1.1 101 Switching Protocols"
# "hi" as a text frame: masked by zeros as from a client, unmasked as from a server.
FROM_CLIENT = b"\x81\x82\0\0\0\0hi"
FROM_BACKEND = b"\x81\x02hi"


@pytest.mark.parametrize("mode", ["message", "relay"])
@both_ways
async def test_the_backend_is_asked_first_with_all_that_it_may_judge_by(mode: str, bytewise: bool) -> None:
    fields = [
        b"Origin: https://hub",
        b"Cookie: a=b",
        b"Authorization: Bearer t",
        b"Sec-WebSocket-Protocol: v1.kernel.websocket.jupyter.org, other",
        b"Sec-WebSocket-Version: 13",
        KEY,
    ]
    async with service(bytewise=bytewise, websocket=mode) as one:
        client = await one.ask(
            get(b"Connection: keep-alive, Upgrade", b"upgrade: WebSocket", *fields, line=b"GET /s/v/ws?q HTTP/1.1")
        )
        kernel = await one.backend.accept()
        assert await heard(kernel) == up(
            *fields, b"Upgrade: WebSocket", b"Connection: Upgrade", line=b"GET /ws?q HTTP/1.1"
        )
        assert await heard(client) == b""
        await one.say(
            kernel,
            ok(
                b"Upgrade: websocket",
                b"Connection: Upgrade",
                ACCEPT,
                b"Set-Cookie: c=d; Path=/s/v/",
                b"Sec-WebSocket-Protocol: other",
                line=SWITCH,
            ),
        )
        expected = [
            ACCEPT,
            b"Set-Cookie: c=d; Path=/s/v/",
            b"Sec-WebSocket-Protocol: other",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            OWN,
        ]
        assert await heard(client) == ok(*expected, line=SWITCH)
        await one.say(kernel, FROM_BACKEND)
        assert await heard(client) == FROM_BACKEND
        await one.say(client, FROM_CLIENT)
        assert len(await heard(kernel)) == len(FROM_CLIENT)  # in mode "message" under a mask of its own
        assert await ending(client) == "open"


@pytest.mark.parametrize("mode", ["message", "relay"])
async def test_frames_that_come_with_the_handshake_are_not_lost(mode: str) -> None:
    async with service(websocket=mode) as one:
        client = await one.ask(get(*ASK) + FROM_CLIENT)
        kernel = await one.backend.accept()
        assert await heard(kernel) == up(
            b"Sec-WebSocket-Version: 13", KEY, b"Upgrade: websocket", b"Connection: Upgrade"
        )
        await one.say(kernel, ok(b"Upgrade: websocket", b"Connection: Upgrade", ACCEPT, line=SWITCH, body=FROM_BACKEND))
        assert (await heard(client)).endswith(b"\r\n\r\n" + FROM_BACKEND)
        assert len(await heard(kernel)) == len(FROM_CLIENT)


@pytest.mark.parametrize(("mode", "offered"), [("message", False), ("relay", True)])
@both_ways
async def test_extensions_are_offered_only_where_frames_pass_as_they_are(
    mode: str, offered: bool, bytewise: bool
) -> None:
    extension = b"Sec-WebSocket-Extensions: permessage-deflate"
    async with service(bytewise=bytewise, websocket=mode) as one:
        client = await one.ask(get(*ASK, extension))
        kernel = await one.backend.accept()
        assert (extension in await heard(kernel)) is offered
        await one.say(kernel, ok(b"Upgrade: websocket", b"Connection: Upgrade", ACCEPT, extension, line=SWITCH))
        answer = await heard(client)
        assert answer.startswith(SWITCH if offered else b"HTTP/1.1 502 ")


REFUSALS = [
    ("401", ok(b"WWW-Authenticate: Bearer", b"Content-Length: 4", line=b"HTTP/1.1 401 Unauthorized", body=b"who?")),
    ("403, in chunks", ok(b"Transfer-Encoding: chunked", line=b"HTTP/1.1 403 No", body=b"1\r\nN\r\n0\r\n\r\n")),
    ("404, without a body", ok(b"Content-Length: 0", line=b"HTTP/1.1 404 Nowhere")),
    ("426", ok(b"Sec-WebSocket-Version: 13, 8", b"Content-Length: 0", line=b"HTTP/1.1 426 Upgrade Required")),
    ("302", ok(b"Location: https://login/", b"Content-Length: 0", line=b"HTTP/1.1 302 Found")),
    ("200", ok(b"Content-Length: 4", body=b"page")),
]


@pytest.mark.parametrize("raw", [case[1] for case in REFUSALS], ids=[case[0] for case in REFUSALS])
@pytest.mark.parametrize("mode", ["message", "relay"])
@both_ways
async def test_a_refusal_is_passed_on_as_the_answer_it_was(raw: bytes, mode: str, bytewise: bool) -> None:
    async with service(bytewise=bytewise, websocket=mode) as one:
        client = await one.ask(get(*ASK))
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, raw)
        head, _, body = (await heard(client)).partition(b"\r\n\r\n")
        before, _, expected = raw.partition(b"\r\n\r\n")
        assert head.split(b"\r\n")[0] == before.split(b"\r\n")[0]
        assert set(before.split(b"\r\n")) < set(head.split(b"\r\n"))
        assert body == expected
        assert await ending(client) == "open"
        # Both connections are plain HTTP again.
        await one.say(client, get())
        assert await heard(kernel) == up()


@both_ways
async def test_early_hints_before_the_switch_are_passed_on(bytewise: bool) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(*ASK))
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, hint + ok(b"Upgrade: websocket", b"Connection: Upgrade", ACCEPT, line=SWITCH))
        assert (await heard(client)).startswith(hint + SWITCH)


BAD_SWITCHES = [
    ("no accept", [b"Upgrade: websocket", b"Connection: Upgrade"]),
    (
        "a wrong accept",
        [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA="],
    ),
    ("another protocol", [b"Upgrade: foo", b"Connection: Upgrade", ACCEPT]),
    ("HTTP/2", [b"Upgrade: h2c", b"Connection: Upgrade", ACCEPT]),
    ("two protocols", [b"Upgrade: websocket, foo", b"Connection: Upgrade", ACCEPT]),
    ("no protocol", [b"Connection: Upgrade", ACCEPT]),
    ("no Connection", [b"Upgrade: websocket", ACCEPT]),
    ("Connection without Upgrade", [b"Upgrade: websocket", b"Connection: keep-alive", ACCEPT]),
    (
        "length and coding",
        [b"Upgrade: websocket", b"Connection: Upgrade", ACCEPT, b"Content-Length: 0", b"Transfer-Encoding: chunked"],
    ),
]


@pytest.mark.parametrize("fields", [case[1] for case in BAD_SWITCHES], ids=[case[0] for case in BAD_SWITCHES])
@both_ways
async def test_a_switch_that_does_not_fit_the_question_is_502(fields: list[bytes], bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(*ASK))
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, ok(*fields, line=SWITCH))
        answer = await heard(client)
        assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert b'"upstream_protocol"' in answer
        assert await ending(client) == "open"
        assert is_cut(kernel)


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@both_ways
async def test_another_protocol_is_relayed_as_bytes_both_ways(method: bytes, bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(b"Connection: Upgrade", b"Upgrade: Foo/2, bar", line=method + b" /s/v/ HTTP/1.1"))
        kernel = await one.backend.accept()
        assert await heard(kernel) == up(b"Upgrade: Foo/2, bar", b"Connection: Upgrade", line=method + b" / HTTP/1.1")
        await one.say(kernel, ok(b"Connection: upgrade", b"Upgrade: FOO/2", b"X-Foo: 1", line=SWITCH))
        assert await heard(client) == ok(b"X-Foo: 1", b"Upgrade: FOO/2", b"Connection: Upgrade", OWN, line=SWITCH)
        for data in (b"\0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256))):
            await one.say(client, data)
            assert await heard(kernel) == data
            await one.say(kernel, data)
            assert await heard(client) == data
        await client.send_eof()
        assert await ending(kernel) == "closed"
        await one.say(kernel, b"last words")
        await kernel.aclose()
        assert await heard(client) == b"last words"
        assert await ending(client) == "closed"
        assert one.harness.network.leaked() == []


@pytest.mark.parametrize("offer", [b"h2c", b"H2C", b"h2", b"h2c, h2"])
@both_ways
async def test_http2_is_not_switched_to(offer: bytes, bytewise: bool) -> None:
    asked = get(
        b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + offer, b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"
    )
    async with service(bytewise=bytewise) as one:
        got, answer = await one.answered(asked, ok(b"Content-Length: 0"))
        assert got == up()
        assert answer == ok(b"Content-Length: 0", OWN)


@both_ways
async def test_of_several_protocols_only_those_are_offered_that_may_be_switched_to(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        got, answer = await one.answered(
            get(b"Connection: Upgrade", b"Upgrade: h2c, Foo", b"Upgrade: bar"),
            ok(b"Connection: Upgrade", b"Upgrade: h2c", line=SWITCH),
        )
        assert got == up(b"Upgrade: Foo, bar", b"Connection: Upgrade")
        assert answer.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    "fields",
    [
        [b"Upgrade: websocket", KEY],
        [b"Connection: Upgrade", KEY],
        [b"Connection: keep-alive", b"Upgrade: websocket", KEY],
        [b"Connection: Upgrade", b"Upgrade: ,", KEY],
    ],
)
@both_ways
async def test_half_a_question_is_none(fields: list[bytes], bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        got, answer = await one.answered(
            get(*fields), ok(b"Connection: Upgrade", b"Upgrade: websocket", ACCEPT, line=SWITCH)
        )
        assert got == up(KEY)
        assert answer.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    ("framing", "body"), [(b"Content-Length: 3", b"abc"), (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n")]
)
async def test_an_upgrade_with_a_body_is_served_without_the_upgrade(framing: bytes, body: bytes) -> None:
    async with service() as one:
        got, answer = await one.answered(
            get(*ASK[:2], framing, line=b"POST /s/v/ HTTP/1.1") + body, ok(b"Content-Length: 0")
        )
        assert got == up(framing, line=b"POST / HTTP/1.1") + body
        assert answer == ok(b"Content-Length: 0", OWN)


@both_ways
async def test_a_backend_that_goes_in_mid_handshake_is_502(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(*ASK))
        kernel = await one.backend.accept()
        await heard(kernel)
        await one.say(kernel, SWITCH + b"\r\nUpgrade: websocket\r\n")
        await kernel.aclose()
        assert (await heard(client)).startswith(b"HTTP/1.1 502 ")
        assert await ending(client) == "open"
