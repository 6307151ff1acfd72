"""One process of this host at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible.module_utils.qianjiang import host_lock as module
from ansible.module_utils.qianjiang.host_lock import HostLockError, host_lock

HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def file() -> Path:
    return module.FOLDER / "qianjiang-copies_to_r.lab_5000"


def test_another_one_is_waited_for_so_long_and_told(file: Path) -> None:
    copies = "copies to r.lab:5000"
    with host_lock(copies, 1), pytest.raises(HostLockError) as error, host_lock(copies, 0.2):
        pass
    assert str(error.value) == (
        "copies to r.lab:5000: another run on this host has not ended within 0.2 s. "
        f"lslocks shows which process has {file}. Run this again when it has ended."
    )
    with host_lock(copies, 0.2), host_lock("copies to s.lab:5000", 0.2):
        pass


def test_another_users_file_is_not_created(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.touch()
    known = os.open

    def protected(path: Path, flags: int, mode: int = 0o777) -> int:
        """As fs.protected_regular has it in a folder that all may write to."""
        if flags & os.O_CREAT and path.exists():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return known(path, flags, mode)

    monkeypatch.setattr(os, "open", protected)
    with host_lock("copies to r.lab:5000", 0.2):
        pass


def test_every_user_may_read_the_file(file: Path) -> None:
    before = os.umask(0o077)
    try:
        with host_lock("copies to r.lab:5000", 0.2):
            assert file.stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


def test_one_that_was_killed_holds_nothing(file: Path) -> None:
    file.touch()
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(file)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(HostLockError), host_lock("copies to r.lab:5000", 0.2):
            pass
        holder.kill()
        holder.wait()
        with host_lock("copies to r.lab:5000", 0.2):
            pass


def test_without_a_limit_it_is_waited_for(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    with file.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                fcntl.flock(other, fcntl.LOCK_UN)

        monkeypatch.setattr(time, "sleep", sleep)
        with host_lock("copies to r.lab:5000", 0):
            assert len(waits) == 3


def test_a_place_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FOLDER", Path("/nonexistent/lock"))
    with pytest.raises(HostLockError) as error, host_lock("x", 1):
        pass
    assert str(error.value) == "cannot open /nonexistent/lock/qianjiang-x: No such file or directory"
