"""Second tries do not make a service's trouble worse."""

from __future__ import annotations

from pathlib import Path

import pytest
from forwarders import metric
from open_load import open_load
from services import TWO, three_services
from worker import running_worker

from trioproxy.policy.budget import FLOOR


@pytest.mark.parametrize(("failing", "mode"), [(1, "503"), (2, "resets"), (2, "503"), (3, "503")])
async def test_backends_that_fail_get_the_others_no_storm(tmp_path: Path, failing: int, mode: str) -> None:
    # No ejection: nothing but the budget holds tries back.
    rules = {"retry": {"statuses": "503"}, "passive": {"failures": 0}}
    async with three_services(tmp_path) as services, running_worker(tmp_path / "w", TWO) as worker:
        await worker.route("s", "v", *(service.port for service in services), **rules)
        async with open_load(worker, "/s/v/", rate=250) as load:
            await load.more(100)
            for service in services[:failing]:
                await service.become(mode)
            await load.more(400)
        denied = await metric(worker, "trioproxy_retries_denied_total")
    tries = sum(len(service.seen()) for service in services)
    assert len(load.shots) < tries <= 1.25 * len(load.shots) + FLOOR * 2
    assert denied > 0 or failing == 1
    for service in services[failing:]:
        fair = len(load.shots) / 3
        assert fair < len(service.seen()) <= fair + 0.25 * len(load.shots) + FLOOR * 2
