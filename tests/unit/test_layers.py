"""The architecture, as a test: a room imports only from rooms above it, and no file grows out of hand."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "trioproxy"
MAX_LINES = {"trioproxy": 400, "scripts": 400, "tests": 500}

LAYERS = (
    ("errors", "units", "__init__"),
    ("routing",),
    ("config",),
    ("http1",),
    ("policy",),
    ("observe",),
    ("net",),
    ("control",),
    ("proxy",),
    ("providers", "health"),
    ("management",),
    ("process",),
    ("cli", "commands", "__main__"),
    ("testing",),
)
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
PURE = frozenset({"routing", "http1", "policy"})
IMPURE_MODULES = frozenset({"trio", "time", "socket", "ssl", "os", "threading", "asyncio", "subprocess", "random"})

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            assert node.module is not None
            if node.module == "trioproxy":
                for alias in node.names:
                    yield node.lineno, f"trioproxy.{alias.name}"
            else:
                yield node.lineno, node.module


def looks_down(room: str, source: str) -> list[str]:
    found: list[str] = []
    for line, module in imports_of(source):
        parts = module.split(".")
        if parts[0] != "trioproxy" or len(parts) < 2 or parts[1].startswith("__"):
            continue
        other = parts[1]
        assert other in RANK, f"{other} is not a room: add it to LAYERS"
        if RANK[other] > RANK[room]:
            found.append(f"line {line}: {room} imports {module}, which is below it")
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_room_imports_only_from_rooms_above_it(path: Path) -> None:
    assert looks_down(room_of(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(path) in PURE], ids=name_of)
def test_a_pure_room_has_no_clock_and_does_no_io(path: Path) -> None:
    used = {module.split(".")[0] for _, module in imports_of(path.read_text(encoding="utf-8"))}
    assert used & IMPURE_MODULES == set()


@pytest.mark.parametrize("path", [path for folder in MAX_LINES for path in (ROOT / folder).rglob("*.py")], ids=name_of)
def test_no_file_grows_out_of_hand(path: Path) -> None:
    limit = MAX_LINES[path.relative_to(ROOT).parts[0]]
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit


@pytest.mark.parametrize(
    ("room", "source", "problems"),
    [
        ("net", "from trioproxy.proxy.pool import Pool", 1),
        ("net", "import trioproxy.management.app", 1),
        ("routing", "from trioproxy import config", 1),
        ("routing", "def f():\n    from trioproxy.http1 import head", 1),
        ("proxy", "from trioproxy.net.dialer import dial\nfrom trioproxy import __version__", 0),
        ("cli", "from trioproxy.commands import run", 0),
    ],
)
def test_this_test_sees_who_looks_down(room: str, source: str, problems: int) -> None:
    assert len(looks_down(room, source)) == problems
