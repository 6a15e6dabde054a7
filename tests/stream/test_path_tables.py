"""What a change of the table does to what is running, and what it leaves alone."""

from __future__ import annotations

import pytest
import trio
from path_scene import GET, answer, assert_all_over, begun, get, last_record, proxy, scene
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.config.schema import Config
from trioproxy.control.messages import Applied, Done, SetBackend, SetConfig, SetTable
from trioproxy.proxy.proxy import Proxy
from trioproxy.routing.route import Route
from trioproxy.routing.table import Table
from trioproxy.testing import Harness, MemoryBackend, Wire

GRACE = {"worker": {"drain_timeout": "10s"}, "timeouts": {"stall": 0}}
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Stream:
    """A response that goes on and on."""

    def __init__(self, client: Wire, served: Wire) -> None:
        self.client = client
        self.served = served

    async def goes_on(self) -> bool:
        """Whether a piece still arrives."""
        try:
            await self.served.send(b"1\r\nx\r\n")
            return await self.client.read_exactly(6) == b"1\r\nx\r\n"
        except (trio.BrokenResourceError, EOFError):
            return False

    async def finish(self) -> bool:
        """Whether it ends as it should."""
        await self.served.send(b"0\r\n\r\n")
        return await self.client.read_exactly(5) == b"0\r\n\r\n"


async def stream(harness: Harness, backend: MemoryBackend, path: str = "/s/web/") -> Stream:
    client = await harness.send(get(path))
    served = await backend.accept()
    await answer(served, STREAM_HEAD)
    await client.read_head()
    one = Stream(client, served)
    assert await one.goes_on()
    return one


async def status(harness: Harness, path: str) -> int:
    client = await harness.send(get(path))
    response = await client.read_response()
    await client.aclose()
    return response.status


# --- the rest goes on -------------------------------------------------------------------------------------


async def test_a_change_of_one_route_leaves_the_streams_of_others_alone(autojump_clock: MockClock) -> None:
    async with proxy(GRACE) as harness:
        a, b = harness.network.listen("a", 1), harness.network.listen("b", 1)
        harness.set_routes([a.route("s", "web"), b.route("t", "lab")])
        kept, changed = await stream(harness, a), await stream(harness, b, "/t/lab/")
        harness.set_routes([a.route("s", "web"), a.route("t", "lab")])
        await trio.sleep(9)
        assert await kept.goes_on()
        assert await changed.goes_on()
        await trio.sleep(2)
        assert await kept.goes_on()
        assert not await changed.goes_on()
        await trio.sleep(50)
        assert await kept.finish()


async def test_a_change_that_is_known_as_such_ends_what_it_removes_and_nothing_else(autojump_clock: MockClock) -> None:
    async with proxy(GRACE) as harness:
        a, b = harness.network.listen("a", 1), harness.network.listen("b", 1)
        table = Table.build([a.route("s", "web"), b.route("t", "lab")], version=1)
        harness.proxy.execute(SetTable(table))
        kept, removed = await stream(harness, a), await stream(harness, b, "/t/lab/")
        table = table.changed(upsert=[], remove=[("t", "lab")], version=2)
        assert table.changes_since(1) == {("t", "lab")}
        harness.proxy.execute(SetTable(table))
        harness.proxy.execute(SetTable(table.changed(upsert=[a.route("u", "web")], remove=[], version=3)))
        assert await removed.goes_on()
        await trio.sleep(11)
        assert await kept.goes_on()
        assert not await removed.goes_on()
        assert [stats.route.key for stats in harness.proxy.balancer.routes()] == [("s", "web")]
        assert await kept.finish()


async def test_a_stream_goes_on_when_its_route_changes_and_keeps_the_backend(autojump_clock: MockClock) -> None:
    async with proxy(GRACE) as harness:
        a, b = harness.network.listen("a", 1), harness.network.listen("b", 1)
        harness.set_routes([a.route("s", "web")])
        kept = await stream(harness, a)
        both = [b.as_backend(), a.as_backend(weight=3)]
        harness.set_routes([a.route("s", "web", backends=both, path="keep", metadata={"new": 1})])
        await trio.sleep(50)
        assert await kept.finish()


async def test_the_same_table_again_changes_nothing(autojump_clock: MockClock) -> None:
    async with scene(GRACE) as (harness, backend):
        kept = await stream(harness, backend)
        for _ in range(3):
            harness.set_routes([backend.route("s", "web")])
            await trio.sleep(20)
        assert await kept.finish()


# --- what is gone -----------------------------------------------------------------------------------------


async def test_a_removed_route_gets_no_new_requests(autojump_clock: MockClock) -> None:
    async with scene(GRACE) as (harness, backend):
        await stream(harness, backend)
        harness.set_routes([])
        assert await status(harness, "/s/web/") == 404


async def test_what_runs_on_a_removed_route_may_end_within_drain_timeout(autojump_clock: MockClock) -> None:
    async with scene(GRACE) as (harness, backend):
        running = await stream(harness, backend)
        harness.set_routes([])
        await trio.sleep(9)
        assert await running.goes_on()
        assert await running.finish()
        assert (await last_record(harness)).error is None
        await running.client.send(GET)
        assert (await running.client.read_response()).status == 404


async def test_what_runs_on_a_removed_route_is_cut_after_drain_timeout(autojump_clock: MockClock) -> None:
    async with scene(GRACE) as (harness, backend):
        running = await stream(harness, backend)
        harness.set_routes([])
        with pytest.raises(trio.BrokenResourceError):
            await running.client.read_all()
        assert trio.current_time() == 10
        assert (await last_record(harness)).error == "route_removed"
        await assert_all_over(harness)


async def test_a_request_that_waits_for_its_answer_is_cut_too(autojump_clock: MockClock) -> None:
    async with scene(GRACE) as (harness, backend):
        client = await harness.send(GET)
        await backend.accept()
        harness.set_routes([])
        assert await client.read_all() == b""
        assert trio.current_time() == 10
        record = await last_record(harness)
        assert (record.status, record.error) == (0, "route_removed")


async def test_what_runs_on_a_removed_backend_is_cut_after_drain_timeout(autojump_clock: MockClock) -> None:
    async with proxy(GRACE) as harness:
        a, b = harness.network.listen("a", 1), harness.network.listen("b", 1)
        both = [a.as_backend(), b.as_backend()]
        harness.set_routes([a.route("s", "web", backends=both)])
        on_a, on_b = await stream(harness, a), await stream(harness, b)
        harness.set_routes([b.route("s", "web")])
        await trio.sleep(9)
        assert await on_a.goes_on()
        await trio.sleep(2)
        assert not await on_a.goes_on()
        await trio.sleep(50)
        assert await on_b.finish()


async def test_a_backend_with_the_same_id_and_another_address_is_another_one(autojump_clock: MockClock) -> None:
    async with proxy(GRACE) as harness:
        a, b = harness.network.listen("a", 1), harness.network.listen("b", 1)
        harness.set_routes([a.route("s", "web", backends=[a.as_backend(id="one")])])
        running = await stream(harness, a)
        harness.set_routes([a.route("s", "web", backends=[b.as_backend(id="one")])])
        await stream(harness, b)
        await trio.sleep(11)
        assert not await running.goes_on()


async def test_nothing_is_remembered_of_a_removed_route_once_its_last_request_has_ended(
    autojump_clock: MockClock,
) -> None:
    async with scene(GRACE) as (harness, backend):
        running = await stream(harness, backend)
        harness.set_routes([])
        assert [info.session_id for info in harness.report().backends] == ["s"]
        await running.finish()
        await wait_all_tasks_blocked()
        assert (harness.report().backends, harness.report().activity) == ((), {})


async def test_nothing_is_remembered_of_a_removed_route_without_requests(autojump_clock: MockClock) -> None:
    async with scene(GRACE) as (harness, backend):
        await (await stream(harness, backend)).finish()
        await wait_all_tasks_blocked()
        harness.set_routes([])
        assert harness.report().backends == ()
        assert harness.proxy._retirement._deadlines == {}


# --- what comes back --------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["route", "backend"])
async def test_what_comes_back_in_time_is_left_alone(what: str, autojump_clock: MockClock) -> None:
    async with proxy(GRACE) as harness:
        a, b = harness.network.listen("a", 1), harness.network.listen("b", 1)
        harness.set_routes([a.route("s", "web")])
        running = await stream(harness, a)
        harness.set_routes([] if what == "route" else [b.route("s", "web")])
        await trio.sleep(9)
        harness.set_routes([a.route("s", "web")])
        await trio.sleep(50)
        assert await running.finish()


async def test_what_is_known_of_a_route_that_comes_back_while_in_use_stays(autojump_clock: MockClock) -> None:
    async with scene(GRACE) as (harness, backend):
        running = await stream(harness, backend)
        harness.proxy.execute(SetBackend(("s", "web"), "kernel:8888", "disabled"))
        harness.set_routes([])
        harness.set_routes([backend.route("s", "web")])
        await running.finish()
        await wait_all_tasks_blocked()
        [info] = harness.report().backends
        assert (info.state, info.requests) == ("disabled", 1)


@pytest.mark.parametrize("busy", [True, False])
async def test_a_route_that_was_gone_for_a_moment_is_not_cut_later(busy: bool, autojump_clock: MockClock) -> None:
    async with scene(GRACE) as (harness, backend):
        first = await stream(harness, backend)
        if not busy:
            assert await first.finish()
            await wait_all_tasks_blocked()
        harness.set_routes([])
        await trio.sleep(1)
        if busy:
            assert await first.finish()
            await wait_all_tasks_blocked()
        harness.set_routes([backend.route("s", "web")])
        second = await harness.send(GET)
        served = first.served
        await answer(served, STREAM_HEAD)
        await second.read_head()
        await trio.sleep(50)
        assert await Stream(second, served).finish()


async def test_a_backend_that_goes_a_second_time_is_cut_a_grace_after_that(autojump_clock: MockClock) -> None:
    async with proxy(GRACE) as harness:
        a, b = harness.network.listen("a", 1), harness.network.listen("b", 1)
        both = [a.as_backend(), b.as_backend()]
        harness.set_routes([a.route("s", "web", backends=both)])
        running = await stream(harness, a)
        harness.set_routes([b.route("s", "web")])
        await trio.sleep(5)
        harness.set_routes([a.route("s", "web", backends=both)])
        await trio.sleep(20)
        harness.set_routes([b.route("s", "web")])
        await trio.sleep(9)
        assert await running.goes_on()
        await trio.sleep(2)
        assert not await running.goes_on()


async def test_a_route_that_comes_back_without_its_backend_does_not_keep_that(autojump_clock: MockClock) -> None:
    async with proxy(GRACE) as harness:
        a, b = harness.network.listen("a", 1), harness.network.listen("b", 1)
        harness.set_routes([a.route("s", "web")])
        running = await stream(harness, a)
        harness.set_routes([])
        await trio.sleep(5)
        harness.set_routes([b.route("s", "web")])
        await trio.sleep(9)
        assert await running.goes_on()  # its grace began anew, with the table that names another backend
        await trio.sleep(2)
        assert not await running.goes_on()


async def test_an_exchange_of_a_route_while_a_request_queues_sends_it_to_the_new_backend_after_the_old_fails(
    autojump_clock: MockClock,
) -> None:
    async with proxy(GRACE) as harness:
        a, b = harness.network.listen("a", 1), harness.network.listen("b", 1)
        a.answering = False
        harness.set_routes([a.route("s", "web")])
        client = await harness.send(GET)
        await wait_all_tasks_blocked()
        harness.set_routes([b.route("s", "web")])
        await answer(await b.accept())
        assert (await client.read_response()).status == 200
        assert trio.current_time() == 3


# --- versions ---------------------------------------------------------------------------------------------


async def test_an_older_table_is_ignored(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        new = Table.build([backend.route("s", "new")], version=10)
        old = Table.build([backend.route("s", "old")], version=9)
        assert harness.proxy.execute(SetTable(new)) == Applied(10)
        assert harness.proxy.execute(SetTable(old)) == Applied(10)
        assert (harness.report().table_version, await status(harness, "/s/old/")) == (10, 404)


async def test_before_the_first_table_an_unknown_address_is_not_yet_known(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        harness.proxy = Proxy(harness.proxy._plane.config, dial=harness.network.dial)
        client = await harness.send(GET)
        response = await client.read_response()
        assert (response.status, response.values("retry-after")) == (503, [b"2"])
        assert b'"not_synced"' in response.body
        assert response.values("connection") == []


async def test_a_request_keeps_the_route_it_was_matched_with(autojump_clock: MockClock) -> None:
    async with proxy(GRACE) as harness:
        backend = harness.network.listen("a", 1)
        harness.set_routes([backend.route("s", "web", timeouts={"response_head": "5s"})])
        client = await harness.send(GET)
        await backend.accept()
        harness.set_routes([backend.route("s", "web", timeouts={"response_head": "50s"})])
        assert (await client.read_response()).status == 504
        assert trio.current_time() == pytest.approx(5, rel=0.05)


async def test_new_settings_hold_for_new_requests_only(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"response_head": "50s"}}) as (harness, backend):
        old = await harness.send(GET)
        await backend.accept()
        new_config = Config.model_validate({"timeouts": {"response_head": "5s"}})
        assert harness.proxy.execute(SetConfig(new_config)) == Done()
        new = await harness.send(GET)
        assert (await new.read_response()).status == 504
        assert trio.current_time() == pytest.approx(5, rel=0.05)
        assert (await old.read_response()).status == 504
        assert trio.current_time() == pytest.approx(50, rel=0.05)


async def test_routes_with_traffic_are_the_only_ones_reported(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        backend = harness.network.listen("a", 1)
        routes: list[Route] = [backend.route("s", f"web{number}") for number in range(5)]
        harness.set_routes(routes)
        client = await harness.send(get("/s/web3/"))
        served = await backend.accept()
        assert await begun(served, 0) == b""
        assert list(harness.report().activity) == [("s", "web3")]
        await client.aclose()
