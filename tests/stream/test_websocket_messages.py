"""Mode "message": what a side says reaches the other as it was said."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, wait_all_tasks_blocked
from websocket_peer import BytesMessage, Peer, Ping, Pong, TextMessage, forwarding

from trioproxy.net.prefixed import PrefixedStream
from trioproxy.proxy.leg import QUEUE

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 200_000]


async def echo(backend: Peer, count: int) -> None:
    for _ in range(count):
        event = await backend.receive()
        assert event is not None
        await backend.send(event)


async def test_kind_boundaries_and_payload_are_the_same_both_ways_at_every_size(autojump_clock: MockClock) -> None:
    said: list[str | bytes] = [random.Random(size).randbytes(size) for size in SIZES]
    said += ["é" * size for size in SIZES]
    async with forwarding() as between, trio.open_nursery() as nursery:
        nursery.start_soon(echo, between.backend, len(said))
        for one in said:
            await between.client.send(TextMessage(data=one) if isinstance(one, str) else BytesMessage(data=one))
            assert await between.client.message() == one
    total = sum(len(one.encode() if isinstance(one, str) else one) for one in said)
    assert (between.traffic.bytes_in, between.traffic.bytes_out) == (total, total)


@pytest.mark.parametrize("kind", [TextMessage, BytesMessage])
async def test_a_message_of_16_mib_passes_both_ways(
    kind: type[TextMessage | BytesMessage], autojump_clock: MockClock
) -> None:
    data = "x" * 2**24 if kind is TextMessage else bytes(2**24)
    async with forwarding() as between, trio.open_nursery() as nursery:
        nursery.start_soon(echo, between.backend, 1)
        await between.client.send(kind(data=data))  # type: ignore[arg-type]
        assert await between.client.message() == data


async def test_fragments_with_pings_between_them_arrive_as_one_message(autojump_clock: MockClock) -> None:
    async with forwarding() as between:
        for sender, receiver in ((between.client, between.backend), (between.backend, between.client)):
            await sender.send(TextMessage(data="one ", message_finished=False))
            await sender.send(Ping(payload=b"p" * 125))
            await sender.send(TextMessage(data="", message_finished=False), Ping(payload=b""))
            await sender.send(TextMessage(data="message"))
            assert await receiver.message() == "one message"
            assert await sender.receive() == Pong(payload=bytearray(b"p" * 125))
            assert await sender.receive() == Pong(payload=bytearray())


async def test_a_character_split_over_two_fragments_is_whole_again(autojump_clock: MockClock) -> None:
    async with forwarding() as between:
        # "é" is C3 A9; an unfinished text frame, then a continuation, both unmasked as from a server.
        await between.backend.stream.send_all(b"\x01\x01\xc3" + b"\x80\x01\xa9")
        assert await between.client.message() == "é"


async def test_pongs_that_nobody_waits_for_are_ignored(autojump_clock: MockClock) -> None:
    async with forwarding() as between:
        await between.client.send(Pong(payload=b"unasked"), TextMessage(data="on"))
        assert await between.backend.message() == "on"


async def test_frames_cut_into_single_bytes_make_the_same_messages(autojump_clock: MockClock) -> None:
    said = ["", "ab", "z" * 130]
    async with forwarding() as between:
        for one in said:
            for byte in between.client.frames.send(TextMessage(data=one)):
                await between.client.stream.send_all(bytes([byte]))
                await wait_all_tasks_blocked()
        assert [await between.backend.message() for _ in said] == said


async def test_frames_that_came_right_behind_the_handshake_are_not_lost(autojump_clock: MockClock) -> None:
    async with forwarding(start=False) as between:
        early_in = between.client.frames.send(TextMessage(data="in"))
        early_out = between.backend.frames.send(TextMessage(data="out"))
        front, back = between.proxy_streams
        between.proxy_streams = PrefixedStream(front, early_in), PrefixedStream(back, early_out)
        async with between.running():
            assert await between.backend.message() == "in"
            assert await between.client.message() == "out"


async def test_frames_to_a_backend_are_masked_and_frames_to_a_client_are_not(autojump_clock: MockClock) -> None:
    async with forwarding() as between:
        await between.client.send(BytesMessage(data=b"in"))
        await between.backend.send(BytesMessage(data=b"out"))
        to_backend = await between.backend.stream.receive_some()
        assert to_backend[:2] == b"\x82\x82"
        assert bytes(byte ^ key for byte, key in zip(to_backend[6:], to_backend[2:4], strict=True)) == b"in"
        assert await between.client.stream.receive_some() == b"\x82\x03out"


@pytest.mark.parametrize("slow", ["client", "backend"])
async def test_a_side_that_does_not_read_stops_the_other(slow: str, autojump_clock: MockClock) -> None:
    accepted = 0

    async def talk(peer: Peer) -> None:
        nonlocal accepted
        while True:
            await peer.send(BytesMessage(data=bytes(1000)))
            accepted += 1

    async with forwarding(client_pair=lockstep_stream_pair, backend_pair=lockstep_stream_pair) as between:
        reader, talker = (between.client, between.backend) if slow == "client" else (between.backend, between.client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk, talker)
            await trio.sleep(60)
            # In the pump, in the queue, in the reader's hand.
            assert accepted <= QUEUE + 2
            for _ in range(10):
                await reader.message()
            await trio.sleep(60)
            assert 10 < accepted <= 10 + QUEUE + 2
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("sender", ["client", "backend"])
async def test_a_message_of_exactly_max_message_bytes_passes(sender: str, autojump_clock: MockClock) -> None:
    async with forwarding(max_message=1000) as between:
        speaker, hearer = getattr(between, sender), between.backend if sender == "client" else between.client
        for data in ("é" * 500, "x" * 1000, ""):
            await speaker.send(TextMessage(data=data[:3], message_finished=False), Ping(payload=b"x" * 100))
            await speaker.send(TextMessage(data=data[3:]))
            assert await hearer.message() == data
