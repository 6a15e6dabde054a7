from __future__ import annotations

import trio

from trioproxy.control.messages import BackendChange, BackendState
from trioproxy.health.outbox import BATCH, PAUSE, Outbox


def change(name: str, state: BackendState = "unhealthy") -> BackendChange:
    return BackendChange(("s", "v"), name, state, "healthy", "because", 1.0)


async def test_a_report_comes_soon_and_stays_until_it_is_taken(autojump_clock: trio.abc.Clock) -> None:
    outbox = Outbox()
    with trio.move_on_after(100) as limit:
        await outbox.next_report()
    assert limit.cancelled_caught  # nothing to tell
    outbox.add([change("a"), change("b")])
    begun = trio.current_time()
    report = await outbox.next_report()
    assert trio.current_time() - begun <= PAUSE
    assert [one.backend_id for one in report.changes] == ["a", "b"]
    assert await outbox.next_report() == report
    outbox.taken(report)
    assert len(outbox) == 0


async def test_what_changed_while_it_was_sent_is_told_again(autojump_clock: trio.abc.Clock) -> None:
    outbox = Outbox()
    outbox.add([change("a"), change("b")])
    report = await outbox.next_report()
    outbox.add([change("a", "healthy")])
    outbox.taken(report)
    (again,) = (await outbox.next_report()).changes
    assert (again.backend_id, again.state) == ("a", "healthy")


async def test_it_is_bounded_and_counts_what_it_loses(autojump_clock: trio.abc.Clock) -> None:
    outbox = Outbox(kept=BATCH + 10)
    outbox.add(change(str(number)) for number in range(BATCH + 30))
    report = await outbox.next_report()
    assert (len(outbox), outbox.lost) == (BATCH + 10, 20)
    assert [report.changes[0].backend_id, len(report.changes)] == ["20", BATCH]
