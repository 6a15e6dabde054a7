from __future__ import annotations

import os
from pathlib import Path

import pytest

from trioproxy.config.schema import ManagementConfig, StickyConfig
from trioproxy.errors import StartError
from trioproxy.process.state import Held, management_token, note_holder, read_token, state_directory, sticky_secret


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.fixture(autouse=True)
def a_generous_umask() -> None:
    os.umask(0o022)


def test_a_missing_directory_is_made_for_us_alone(tmp_path: Path) -> None:
    with state_directory(tmp_path / "a" / "b") as held:
        assert mode(held.path) == 0o700


def test_a_strict_umask_does_not_take_our_own_rights(tmp_path: Path) -> None:
    os.umask(0o777)
    try:
        with state_directory(tmp_path / "state") as held:
            assert mode(held.path) == 0o700
    finally:
        os.umask(0o022)


def test_an_empty_directory_of_a_service_manager_is_tightened(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    with state_directory(tmp_path / "state") as held:
        assert mode(held.path) == 0o700


def test_our_own_directory_is_tightened_again(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with state_directory(path):
        pass
    path.chmod(0o755)
    with state_directory(path):
        assert mode(path) == 0o700


def test_a_directory_with_other_things_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(StartError, match=r"open to other users \(mode 0755\).*chmod 700"), state_directory(tmp_path):
        pytest.fail("it was taken")
    assert mode(tmp_path) == 0o755
    assert [item.name for item in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_private_directory_with_other_things_in_it_is_taken(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "tls.pem").touch()
    with state_directory(tmp_path) as held:
        assert held.path == tmp_path


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(StartError, match="is not a directory"), state_directory(tmp_path / "state"):
        pytest.fail("it was taken")


def test_a_place_where_nothing_can_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="cannot be used: Not a directory"), state_directory(tmp_path / "file" / "x"):
        pytest.fail("it was taken")


def test_a_second_worker_is_refused_and_told_which_process_is_the_first(tmp_path: Path) -> None:
    with (
        state_directory(tmp_path / "state") as held,
        pytest.raises(StartError, match=rf"in use by another worker \(process {os.getpid()}\)"),
        state_directory(held.path),
    ):
        pytest.fail("it was taken")


def test_the_directory_is_free_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with state_directory(tmp_path / "state"):
            pass


def test_a_token_is_made_once_and_for_us_alone(tmp_path: Path) -> None:
    first = management_token(ManagementConfig(), tmp_path)
    assert len(first) >= 40
    assert mode(tmp_path / "management.token") == 0o600
    assert management_token(ManagementConfig(), tmp_path) == first
    assert read_token(ManagementConfig(), tmp_path) == first
    assert [item.name for item in tmp_path.iterdir()] == ["management.token"]


def test_a_token_others_can_read_is_tightened(tmp_path: Path) -> None:
    token = management_token(ManagementConfig(), tmp_path)
    (tmp_path / "management.token").chmod(0o644)
    assert management_token(ManagementConfig(), tmp_path) == token
    assert mode(tmp_path / "management.token") == 0o600


def test_a_configured_token_is_used_and_none_is_made(tmp_path: Path) -> None:
    assert management_token(ManagementConfig(token="configured"), tmp_path) == "configured"
    file = tmp_path / "token"
    file.write_text("from a file\n")
    assert management_token(ManagementConfig(token_file=file), tmp_path) == "from a file"
    assert not (tmp_path / "management.token").exists()


def test_an_empty_token_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "management.token").write_text("\n")
    with pytest.raises(StartError, match="holds no token"):
        management_token(ManagementConfig(), tmp_path)


def test_a_token_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"gone cannot be used: No such file"):
        management_token(ManagementConfig(token_file=tmp_path / "gone"), tmp_path)


def test_a_sticky_secret_is_made_once_and_for_us_alone(tmp_path: Path) -> None:
    first = sticky_secret(StickyConfig(), tmp_path)
    assert len(first) >= 40
    assert mode(tmp_path / "sticky.secret") == 0o600
    assert sticky_secret(StickyConfig(), tmp_path) == first
    assert [item.name for item in tmp_path.iterdir()] == ["sticky.secret"]


def test_a_configured_sticky_secret_is_used_and_none_is_made(tmp_path: Path) -> None:
    assert sticky_secret(StickyConfig(secret="sixteen letters."), tmp_path) == "sixteen letters."
    file = tmp_path / "secret"
    file.write_text("from a file, which is longer\n")
    assert sticky_secret(StickyConfig(secret_file=file), tmp_path) == "from a file, which is longer"
    assert not (tmp_path / "sticky.secret").exists()


def test_a_sticky_secret_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"the sticky secret .*gone cannot be used: No such file"):
        sticky_secret(StickyConfig(secret_file=tmp_path / "gone"), tmp_path)
    (tmp_path / "sticky.secret").write_text("short")
    with pytest.raises(StartError, match="holds a secret of 5 characters; allowed: 16 or more"):
        sticky_secret(StickyConfig(), tmp_path)


def test_an_inherited_lock_holds_for_both_and_until_the_last_one_goes(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with state_directory(path) as first:
        inherited = Held(path, os.dup(first.lock))
        with state_directory(path, inherited) as second:
            assert second.lock == inherited.lock
            os.ftruncate(first.lock, 0)
            note_holder(second)
            assert (path / "lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(StartError, match="in use"), state_directory(path):
            pytest.fail("it was taken")
    with state_directory(path):
        pass


def test_an_inherited_lock_of_another_directory_is_let_go(tmp_path: Path) -> None:
    with state_directory(tmp_path / "old") as old:
        inherited = Held(old.path, os.dup(old.lock))
        with state_directory(tmp_path / "new", inherited) as new:
            assert new.lock != inherited.lock
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(inherited.lock)
            with pytest.raises(StartError, match="in use"), state_directory(tmp_path / "new"):
                pytest.fail("it was taken")
