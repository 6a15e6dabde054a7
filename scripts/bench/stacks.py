"""Sampled stacks, summed up by where the time went."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_PYTHON = re.compile(r"(?P<function>.+) \((?P<file>[^()]+\.py):\d+\)")
_NATIVE = re.compile(r"(?P<function>.+) \((?P<library>[^()]+)\)")
_PACKAGE = re.compile(r".*/(?:site-packages/)?(?P<file>(?:trioproxy|trio|h11|trio_websocket|wsproto)/.+)")
_SYSTEM_CALLS = re.compile(
    r"_*(?:libc_)?(?P<name>send|recv|sendto|recvfrom|sendmsg|recvmsg|writev?|read|epoll_(?:p?wait|ctl)|accept4?|connect|close)"
    r"(?:64|_nocancel)?"
)
_WAITING = "trio/_core/_thread_cache.py WorkerThread._work"
"""A thread of trio's that has nothing to do; for py-spy it seems to be busy with the lock it waits for."""
COLLECTION = "garbage collection"
ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class Shares:
    """Samples by part (a file, the kernel, garbage collection) and by function. Each sample counts once in either."""

    samples: int
    parts: Counter[str]
    functions: Counter[str]


def sum_up(lines: Iterable[str]) -> Shares:
    """Of stacks as py-spy writes them: `outermost;…;innermost count`, a frame being `function (file:line)`.

    A sample belongs to the innermost frame of trioproxy or of a package it is made of, so what the standard library
    and C code do belongs to whoever called them; except for system calls and garbage collection. Threads that wait
    for work are left out.
    """
    parts: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    total = 0
    for line in lines:
        stack, _, count = line.rpartition(" ")
        part, function = _owner(stack.split(";"))
        if function == _WAITING:
            continue
        parts[part] += int(count)
        functions[function] += int(count)
        total += int(count)
    return Shares(total, parts, functions)


def _owner(frames: list[str]) -> tuple[str, str]:
    for frame in reversed(frames):
        if python := _PYTHON.fullmatch(frame):
            if package := _PACKAGE.fullmatch(python["file"]):
                return package["file"], f"{package['file']} {python['function']}"
        elif native := _NATIVE.fullmatch(frame):
            if call := _SYSTEM_CALLS.fullmatch(native["function"]):
                return (name := f"kernel: {call['name']}"), name
            if native["function"].startswith("gc_collect"):
                return COLLECTION, COLLECTION
    return ELSEWHERE, ELSEWHERE
