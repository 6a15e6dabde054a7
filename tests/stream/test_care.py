from __future__ import annotations

import trio
from care_scene import KEY, CareScene, ejected

from trioproxy.control.messages import SetBackend, SetEjected, SetHealth
from trioproxy.process.bequest import take_over, write_down

NOTHING = SetHealth((), whole=True)
ONE = {"host": "h", "port": 1}


async def test_results_of_checks_reach_forwarders_and_events_and_those_who_come_late(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    scene = CareScene()
    scene.errors[1] = "refused"
    scene.route(ONE, health={"unhealthy_after": 1})
    await nursery.start(scene.care.run)
    (command,) = await scene.told()
    assert isinstance(command, SetHealth)
    assert [(one.address, one.up, one.reason) for one in command.states] == [("h:1", False, "failed a check: refused")]
    assert scene.said() == [("h:1", "unhealthy")]
    assert scene.care.commands() == (SetHealth(command.states, whole=True),)
    outbox = scene.care.outbox()
    assert [one.state for one in (await outbox.next_report()).changes] == ["unhealthy"]
    (info,) = scene.care.complete(())
    assert (info.state, info.reason) == ("unhealthy", "failed a check: refused")
    scene.route()
    (command,) = await scene.told()
    assert isinstance(command, SetHealth)
    assert [one.up for one in command.states] == [None]
    assert scene.care.commands() == (NOTHING,)


async def test_what_one_forwarder_ejects_only_the_others_are_told(autojump_clock: trio.abc.Clock) -> None:
    scene = CareScene()
    scene.route(ONE)
    scene.care.heard(0, ejected(until=60.0))
    assert await scene.told() == []
    scene.care.heard(1, ejected(until=70.0))
    assert await scene.told() == [SetEjected(KEY, "h:1", 70.0, "3 failures in a row")]
    assert scene.said() == [("h:1", "ejected")]
    assert scene.care.commands() == (
        NOTHING,
        SetEjected(KEY, "h:1", 70.0, "3 failures in a row"),
    )
    scene.care.heard(1, ejected(0.0, "healthy", "ejected"))
    assert await scene.told() == [SetEjected(KEY, "h:1", 0.0, "3 failures in a row")]
    assert scene.said() == [("h:1", "ejected"), ("h:1", "healthy")]
    assert (scene.care.figures().ejections, scene.care.commands()) == (2, (NOTHING,))


async def test_an_ejection_ends_with_its_time_also_when_no_forwarder_says_so(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    scene = CareScene()
    scene.route(ONE)
    await nursery.start(scene.care.run)
    for seconds in (10, 40):
        scene.care.heard(1, ejected(trio.current_time() + seconds))
        await trio.sleep(seconds + 1)
        assert [info.state for info in scene.care.complete(())] == ["ejected"]  # a trial that failed may be on its way
        assert scene.said()[-1] == ("h:1", "ejected")
        await trio.sleep(2)
        assert scene.said()[-1] == ("h:1", "healthy")
        assert scene.care.complete(()) == ()
        assert scene.care.commands() == (NOTHING,)


async def test_an_ejection_that_is_made_longer_ends_later(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    scene = CareScene()
    scene.route(ONE)
    await nursery.start(scene.care.run)
    scene.care.heard(1, ejected(trio.current_time() + 10))
    await trio.sleep(11)
    scene.care.heard(0, ejected(trio.current_time() + 20))
    await trio.sleep(20)
    assert scene.said() == [("h:1", "ejected")]
    await trio.sleep(3)
    assert scene.said() == [("h:1", "ejected"), ("h:1", "healthy")]


async def test_a_word_that_holds_no_longer_is_undone_in_forwarders(autojump_clock: trio.abc.Clock) -> None:
    scene = CareScene()
    scene.route(ONE)
    scene.care.set_admin(KEY, "h:1", "draining")
    assert await scene.told() == [SetBackend(KEY, "h:1", "draining")]
    scene.route({"host": "h", "port": 2})
    assert await scene.told() == [SetBackend(KEY, "h:1", "enabled")]
    assert scene.care.marks == ()


async def test_the_next_generation_knows_what_this_one_does(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    old, new = CareScene(), CareScene()
    old.errors[1] = "refused"
    for scene in (old, new):
        scene.route(ONE, {"host": "h", "port": 2}, health={"unhealthy_after": 1, "interval": 60})
    await nursery.start(old.care.run)
    await trio.sleep(1)
    old.care.set_admin(KEY, "h:2", "draining")
    old.care.heard(1, ejected(until=trio.current_time() + 60))
    take_over(new.care, write_down(old.care))
    await new.care.catch_up()
    assert set(new.said()) == {("h:1", "unhealthy"), ("h:2", "draining"), ("h:1", "ejected")}
    assert new.care.commands() == old.care.commands()


async def test_what_makes_no_sense_of_another_generation_is_left_out(autojump_clock: trio.abc.Clock) -> None:
    scene = CareScene()
    take_over(scene.care, {"checked": [["h:1", {"kind": "new"}, True, "", 1.0, 1.0]], "ejected": [[1]]})
    assert scene.care.commands() == (NOTHING,)
