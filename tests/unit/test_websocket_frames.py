"""Where frames begin and end, for any frames cut in any way; and the one frame we write ourselves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection

from trioproxy.proxy.frames import FrameTracker, close_frame

KEY = b"\x01\x02\x03\x04"


def frame(opcode: int, length: int, *, fin: bool, masked: bool) -> bytes:
    mask = 0x80 if masked else 0
    if length < 126:
        size = bytes([mask | length])
    elif length < 2**16:
        size = bytes([mask | 126]) + length.to_bytes(2, "big")
    else:
        size = bytes([mask | 127]) + length.to_bytes(8, "big")
    # A payload of 0x88 looks like close frames to whoever loses count.
    return bytes([0x80 * fin | opcode]) + size + (KEY if masked else b"") + b"\x88" * length


lengths = st.one_of(st.integers(0, 130), st.sampled_from([65535, 65536, 70000]))
frames = st.builds(frame, st.sampled_from([0, 1, 2, 9, 10]), lengths, fin=st.booleans(), masked=st.booleans())


@st.composite
def cut_frames(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    whole = draw(st.lists(frames, min_size=1, max_size=6))
    data = b"".join(whole)
    cuts = sorted(draw(st.sets(st.integers(1, len(data)), max_size=12)) | {len(data)})
    return whole, [data[start:end] for start, end in zip([0, *cuts], cuts, strict=False) if end > start]


@given(cut_frames())
def test_boundaries_are_found_however_the_bytes_are_cut(case: tuple[list[bytes], list[bytes]]) -> None:
    whole, pieces = case
    boundaries, position = {0}, 0
    for one in whole:
        position += len(one)
        boundaries.add(position)
    tracker, passed = FrameTracker(), 0
    for piece in pieces:
        tracker.follow(piece)
        passed += len(piece)
        assert tracker.between is (passed in boundaries)
    assert not tracker.closing


@given(cut_frames())
def test_advance_stops_at_the_end_of_each_frame(case: tuple[list[bytes], list[bytes]]) -> None:
    whole, pieces = case
    tracker, ends, passed = FrameTracker(), [], 0
    for piece in pieces:
        position = 0
        while position < len(piece):
            position = tracker.advance(piece, position)
            if tracker.between:
                ends.append(passed + position)
        passed += len(piece)
    expected, total = [], 0
    for one in whole:
        total += len(one)
        expected.append(total)
    assert ends == expected


@given(st.lists(st.integers(0, 70000), min_size=1, max_size=4), st.integers(1, 40), st.booleans())
def test_a_message_is_the_sum_of_its_fragments_without_the_control_frames(
    parts: list[int], step: int, masked: bool
) -> None:
    data = frame(2, 999, fin=True, masked=masked)
    for index, part in enumerate(parts):
        data += frame(0 if index else 1, part, fin=index == len(parts) - 1, masked=masked)
        data += frame(9, 7, fin=True, masked=masked)
    tracker = FrameTracker()
    for start in range(0, len(data), step * 1000):
        tracker.follow(data[start : start + step * 1000])
    assert tracker.message == sum(parts)


def test_a_close_frame_is_noticed_with_its_first_header_and_not_in_payload() -> None:
    tracker = FrameTracker()
    tracker.follow(frame(2, 300, fin=True, masked=False))
    assert not tracker.closing
    tracker.follow(b"\x88")
    assert not tracker.closing
    tracker.follow(b"\x02")
    assert tracker.closing
    assert not tracker.between


@given(st.sampled_from([1000, 1001, 1012, 4999]), st.text(max_size=130), st.booleans())
def test_a_close_frame_reads_as_what_was_meant(code: int, reason: str, masked: bool) -> None:
    reader = Connection(ConnectionType.SERVER if masked else ConnectionType.CLIENT)
    writer = Connection(ConnectionType.CLIENT if masked else ConnectionType.SERVER)
    reader.receive_data(writer.send(BytesMessage(data=b"before")))
    reader.receive_data(close_frame(code, reason, key=KEY if masked else None))
    _, close = reader.events()
    assert isinstance(close, CloseConnection)
    assert close.code == code
    assert close.reason is not None
    assert reason.startswith(close.reason)
    assert len(close.reason.encode()) > 119 or close.reason == reason
