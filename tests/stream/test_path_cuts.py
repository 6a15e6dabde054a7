"""Whatever is cut, and whenever: connections are given back or closed, counters are even, every request is logged once.

Each scenario is played once to count the steps of the client connection's tasks, and then once for each step.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
from path_cuts import CUTS, Cut, Scenario, Stage, drain, late, nothing, operator, play
from path_scene import CHUNKED, GET, OK, answer, begun, chunks, get, post
from trio.testing import MockClock

from trioproxy.testing import Wire

LENGTH_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def a_get(stage: Stage) -> None:
    await stage.client.send(GET)
    await answer(await stage.backend.accept())
    assert (await stage.client.read_response()).body == b"ok"


async def two_gets_on_kept_connections(stage: Stage) -> None:
    await stage.client.send(GET)
    served = await stage.backend.accept()
    await answer(served)
    await stage.client.read_response()
    stage.backends[1].accepting = False  # it is its turn
    await stage.client.send(GET)
    await answer(served)
    await stage.client.read_response()


async def an_upload_in_pieces(stage: Stage) -> None:
    await stage.client.send(post(b"ab", length=6))
    served = await stage.backend.accept()
    assert await begun(served, 2) == b"ab"
    for piece in (b"cd", b"ef"):
        await stage.client.send(piece)
        assert await served.read_exactly(2) == piece
    await served.send(OK)
    assert (await stage.client.read_response()).body == b"ok"


async def chunks_both_ways(stage: Stage) -> None:
    await stage.client.send(get(fields=CHUNKED, method="POST"))
    served = await stage.backend.accept()
    await answer(served, CHUNKED_HEAD)
    await stage.client.read_head()
    for piece in (chunks(b"one"), chunks(b"two"), b"0\r\n\r\n"):
        await stage.client.send(piece)
        await served.read_until(piece)
        await served.send(piece)
        assert await stage.client.read_exactly(len(piece)) == piece


async def an_early_answer(stage: Stage) -> None:
    await stage.client.send(post(b"ab", length=1000))
    served = await stage.backend.accept()
    assert await begun(served, 2) == b"ab"
    await stage.client.send(bytes(100))
    await served.send(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
    assert (await stage.client.read_response()).status == 413
    await stage.client.send(bytes(100))
    await stage.client.read_all()


async def a_slow_answer(stage: Stage) -> None:
    await stage.client.send(GET)
    served = await stage.backend.accept()
    await trio.sleep(3)
    await answer(served, LENGTH_HEAD)
    await stage.client.read_head()
    for piece in (b"abc", b"def"):
        await trio.sleep(3)
        await served.send(piece)
        assert await stage.client.read_exactly(3) == piece


async def a_slow_answer_to_an_upload(stage: Stage) -> None:
    await stage.client.send(post(b"ab", length=4))
    served = await stage.backend.accept()
    await stage.client.send(b"cd")
    assert await begun(served, 4) == b"abcd"
    await trio.sleep(3)
    await served.send(LENGTH_HEAD)
    await trio.sleep(3)
    await served.send(b"abcdef")
    assert (await stage.client.read_response()).body == b"abcdef"


async def continue_is_awaited(stage: Stage) -> None:
    await stage.client.send(post(length=4, fields=b"Expect: 100-continue\r\n"))
    served = await stage.backend.accept()
    await answer(served, b"HTTP/1.1 100 Continue\r\n\r\n")
    assert (await stage.client.read_response()).status == 100
    await stage.client.send(b"abcd")
    assert await served.read_exactly(4) == b"abcd"
    await served.send(OK)
    assert (await stage.client.read_response()).status == 200


async def a_retry_elsewhere(stage: Stage) -> None:
    stage.backend.accepting = False
    await stage.client.send(post(b"ab"))
    await answer(await stage.backends[1].accept())
    assert (await stage.client.read_response()).status == 200


async def a_stale_connection(stage: Stage) -> None:
    await a_get(stage)
    served = stage.backend.open[-1]
    stage.backends[1].accepting = False
    await stage.client.send(GET)  # the other one's turn: it refuses, and the kept connection gets the request
    await served.receive_some()
    await served.aclose()
    await answer(await stage.backend.accept())
    assert (await stage.client.read_response()).status == 200


async def a_hanging_dial(stage: Stage) -> None:
    for backend in stage.backends:
        backend.answering = False
    await stage.client.send(GET)
    assert (await stage.client.read_response()).status == 504


async def a_queue(stage: Stage) -> None:
    others = [await stage.harness.send(GET, host="192.0.2.9") for _ in stage.backends]
    served = [await backend.accept() for backend in stage.backends]
    await stage.client.send(GET)
    await trio.sleep(2)
    await answer(served[0])
    await answer(served[0])
    assert (await stage.client.read_response()).status == 200
    await answer(served[1])
    for other in others:
        await other.read_response()
        await other.aclose()


async def a_refusal(stage: Stage) -> None:
    await stage.client.send(post(b"ab", length=100, path="/no/body"))
    assert (await stage.client.read_response()).status == 404
    await stage.client.send(b"cd")
    await stage.client.read_all()


async def a_redirect(stage: Stage) -> None:
    await stage.client.send(get("/s/web"))
    assert (await stage.client.read_response()).status == 308


async def pipelined_requests(stage: Stage) -> None:
    await stage.client.send(GET + GET)
    served = await stage.backend.accept()
    await trio.sleep(2)
    await answer(served)
    await answer(await stage.backends[1].accept())
    assert (await stage.client.read_response()).status == 200
    assert (await stage.client.read_response()).status == 200


async def a_slow_reader(stage: Stage) -> None:
    await stage.client.send(GET)
    served = await stage.backend.accept()
    await answer(served, b"HTTP/1.0 200 OK\r\nContent-Length: 900000\r\n\r\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_and_close, served, bytes(900_000))
        await trio.sleep(5)
        assert len((await stage.client.read_response()).body) == 900_000


async def _send_and_close(wire: Wire, data: bytes) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await wire.send(data)
        await wire.aclose()


SCENARIOS: list[tuple[Scenario, dict[str, Any]]] = [
    (a_get, {}),
    (two_gets_on_kept_connections, {}),
    (an_upload_in_pieces, {}),
    (chunks_both_ways, {}),
    (an_early_answer, {}),
    (a_slow_answer, {}),
    (a_slow_answer_to_an_upload, {}),
    (continue_is_awaited, {}),
    (a_retry_elsewhere, {}),
    (a_stale_connection, {}),
    (a_hanging_dial, {}),
    (a_queue, {"max_per_backend": 1}),
    (a_refusal, {}),
    (a_redirect, {}),
    (pipelined_requests, {}),
    (a_slow_reader, {}),
]
WITH_SCENARIOS = pytest.mark.parametrize(("scenario", "pool"), SCENARIOS, ids=[one.__name__ for one, _ in SCENARIOS])


@WITH_SCENARIOS
async def test_the_scenario_plays_to_its_end_when_nothing_is_cut(
    scenario: Scenario, pool: dict[str, Any], autojump_clock: MockClock
) -> None:
    reached = False

    async def whole(stage: Stage) -> None:
        nonlocal reached
        await scenario(stage)
        reached = True

    assert await play(whole, nothing, 0, early=False, pool=pool) >= 3
    assert reached


@WITH_SCENARIOS
@pytest.mark.parametrize("cut", CUTS)
async def test_a_cut_at_any_step_leaves_nothing_behind(
    scenario: Scenario, pool: dict[str, Any], cut: Cut, autojump_clock: MockClock
) -> None:
    await at_every_step(scenario, pool, cut, early=False)


@WITH_SCENARIOS
@pytest.mark.parametrize("cut", [operator, drain, late])
async def test_a_cut_in_the_instant_in_which_what_was_awaited_comes_leaves_nothing_behind(
    scenario: Scenario, pool: dict[str, Any], cut: Cut, autojump_clock: MockClock
) -> None:
    await at_every_step(scenario, pool, cut, early=True)


async def at_every_step(scenario: Scenario, pool: dict[str, Any], cut: Cut, *, early: bool) -> None:
    steps = await play(scenario, nothing, 0, early=early, pool=pool)
    for at in range(1, steps + 1):
        try:
            await play(scenario, cut, at, early=early, pool=pool)
        except BaseException as error:
            error.add_note(f"cut by {cut.__name__} at step {at} of {steps}")
            raise
