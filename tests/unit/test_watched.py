"""A command that copies is watched: one that stands still is ended, one that is slow is not."""

from __future__ import annotations

import sys

import pytest
from ansible.module_utils.qianjiang.watched import STALLED, moved_bytes, run_watched

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
SLOW = [sys.executable, "-c", "import time\nfor _ in range(8): print(1, flush=True); time.sleep(0.25)"]


def test_exit_code_output_and_errors() -> None:
    argv = [sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"]
    assert run_watched(argv, 60) == (3, "out\n", "err\n")


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "no_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_host_is_left_out(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://proxy.lab:3128")
    monkeypatch.setenv("KEPT", "yes")
    code = f"import os; print(os.environ.get({name!r}), os.environ['KEPT'])"
    assert run_watched([sys.executable, "-c", code], 60)[:2] == (0, "None yes\n")


def test_one_that_stands_still_is_ended() -> None:
    code, _, err = run_watched(SLEEP, 0.6)
    assert code == STALLED
    assert err.endswith("not a byte moved for 0.6 s: is the link cut?")


def test_one_that_is_slow_is_not() -> None:
    assert run_watched(SLOW, 1.2) == (0, "1\n" * 8, "")


def test_where_the_kernel_does_not_tell_nothing_is_ended() -> None:
    argv = [sys.executable, "-c", "import time; time.sleep(1.5)"]
    assert run_watched(argv, 0.1, moved=lambda _pid: None)[0] == 0


def test_a_process_that_is_gone_tells_nothing() -> None:
    assert moved_bytes(2**22 + 1) is None
