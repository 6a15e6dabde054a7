"""The state directory: what outlives a restart, readable by nobody else."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trioproxy.config.schema import MIN_SECRET, ManagementConfig, StickyConfig
from trioproxy.errors import StartError

TOKEN_FILE = "management.token"  # noqa: S105 - a file name
SECRET_FILE = "sticky.secret"  # noqa: S105 - a file name
LOCK_FILE = "lock"
_OURS = (TOKEN_FILE, SECRET_FILE, LOCK_FILE)
"""Files by which a state directory of trioproxy is known."""


@dataclass(frozen=True, slots=True)
class Held:
    """A state directory, and the descriptor of the lock by which it is held."""

    path: Path
    lock: int


@contextmanager
def state_directory(path: Path, inherited: Held | None = None) -> Generator[Held]:
    """Make the directory if need be (mode 0700) and hold it: one worker at a time.

    The lock is flock(2) on a file in it, which the kernel drops with the last process that has it; the file stays.
    One that is `inherited` from another generation of the worker holds for both, and is closed if it is not this one.

    Raises:
        StartError: it cannot be made, is not private, or another worker holds it.
    """
    try:
        _make_private(path)
        descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"worker.state_dir {path} cannot be used: {error.strerror}") from None
    if inherited is not None:
        if os.path.sameopenfile(inherited.lock, descriptor):
            os.close(descriptor)
            descriptor = inherited.lock
        else:
            os.close(inherited.lock)
            inherited = None
    held = Held(path, descriptor)
    try:
        if inherited is None:
            _lock(held)
        yield held
    finally:
        os.close(descriptor)


def note_holder(held: Held) -> None:
    """Write down who holds the lock, for whoever wonders."""
    os.ftruncate(held.lock, 0)
    os.pwrite(held.lock, b"%d\n" % os.getpid(), 0)


def _lock(held: Held) -> None:
    try:
        fcntl.flock(held.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(held.lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
        raise StartError(
            f"worker.state_dir {held.path} is in use by another worker (process {holder}); give each one its own"
        ) from None
    note_holder(held)


def _make_private(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        pass
    else:
        path.chmod(0o700)  # whatever the umask
        return
    found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise StartError(f"worker.state_dir {path} is not a directory")
    if not stat.S_IMODE(found.st_mode) & 0o077:
        return
    # Service managers and container volumes hand over 0755. Tightening somebody's home or /tmp would be a nasty
    # surprise, so only a directory that is empty or already ours is tightened.
    ours = found.st_uid == os.geteuid() and (not any(path.iterdir()) or any((path / name).exists() for name in _OURS))
    if not ours:
        raise StartError(
            f"worker.state_dir {path} is open to other users (mode {stat.S_IMODE(found.st_mode):04o}) and holds other "
            f"things; give trioproxy a directory of its own, or run: chmod 700 {path}"
        )
    path.chmod(0o700)


def management_token(config: ManagementConfig, state_dir: Path) -> str:
    """The token of the management API: from the configuration, or generated once into the state directory.

    Raises:
        StartError: its file cannot be read or made, or holds no token.
    """
    if config.token is not None:
        return config.token
    try:
        if config.token_file is None:
            _generate(state_dir / TOKEN_FILE)
        return read_token(config, state_dir)
    except OSError as error:
        raise StartError(f"the management token {error.filename} cannot be used: {error.strerror}") from None


def read_token(config: ManagementConfig, state_dir: Path) -> str:
    """The token as it is now, for clients. Raises OSError when its file cannot be read, StartError when empty."""
    if config.token is not None:
        return config.token
    path = config.token_file or state_dir / TOKEN_FILE
    token = path.read_text(encoding="utf-8", errors="replace").strip()
    if not token:
        raise StartError(f"{path} holds no token")
    return token


def sticky_secret(config: StickyConfig, state_dir: Path) -> str:
    """The secret of sticky cookies: from the configuration, or generated once into the state directory.

    Raises:
        StartError: its file cannot be read or made, or holds less than a secret.
    """
    if config.secret is not None:
        return config.secret
    path = config.secret_file or state_dir / SECRET_FILE
    try:
        if config.secret_file is None:
            _generate(path)
        secret = path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        raise StartError(f"the sticky secret {error.filename} cannot be used: {error.strerror}") from None
    if len(secret) < MIN_SECRET:
        raise StartError(f"{path} holds a secret of {len(secret)} characters; allowed: {MIN_SECRET} or more")
    return secret


def _generate(path: Path) -> None:
    if path.exists():
        path.chmod(0o600)
        return
    # Written beside and renamed: a crash leaves a whole token or none.
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        os.fchmod(descriptor, 0o600)
        file.write(secrets.token_hex(32) + "\n")
        file.flush()
        os.fsync(descriptor)
    fresh.rename(path)
