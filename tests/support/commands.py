"""The command line, run the way a person would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import trio
from worker import Worker

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds that a command may take on a machine that is busy with other things."""


def environment(**more: str) -> dict[str, str]:
    """This environment without what configures a worker, and with this tree's trioproxy wherever it is run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRIOPROXY", "NOTIFY_"))}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


async def trioproxy(*arguments: str | Path, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    with trio.fail_after(PATIENCE):
        ended = await trio.run_process(
            [sys.executable, "-m", "trioproxy", *map(str, arguments)],
            cwd=cwd,
            env=environment(**environ),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return subprocess.CompletedProcess(ended.args, ended.returncode, ended.stdout.decode(), ended.stderr.decode())


async def command(worker: Worker, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command against this worker, with its configuration and where it is in fact."""
    return await trioproxy(*arguments, "-c", worker.config, "--management", worker.management, cwd=worker.folder)


async def said(worker: Worker, *arguments: str | Path) -> str:
    """What a command against this worker prints; it must succeed and not complain."""
    ended = await command(worker, *arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout
