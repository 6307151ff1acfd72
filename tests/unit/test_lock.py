"""Who gets a datacenter's lock, who loses it, and what they are told."""

from __future__ import annotations

import calendar
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.qianjiang.lock import (
    Holder,
    Lock,
    LockDamagedError,
    LockError,
    LockHeldError,
    LockLostError,
    acquire,
    as_holder,
    look,
    read,
    release,
    renew,
)


def holder(name: str, controller: str = "control-1:boot:1") -> Holder:
    return {"id": name, "controller": controller, "user": "ops", "host": controller.split(":", maxsplit=1)[0]}


# The last number is when it began
A, B, FAR = holder("a:20"), holder("b:30"), holder("far:30", "control-2:boot:1")
NOW = calendar.timegm((2026, 11, 24, 10, 5, 11))


def at(seconds: float) -> dict[str, Any]:
    """The clock, so many seconds after A has taken the lock."""
    return {"clock": lambda: NOW + seconds}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "deployer/lock.json")


def take(path: str, who: Holder = A, alive: tuple[str, ...] = ("a:20", "b:30"), after: float = 0, **more: Any) -> Any:
    return acquire(path, who, "rollout of webui", 600, alive, **at(after), **more)


LOCK: Lock = {
    "holder": A,
    "reason": "rollout of webui",
    "acquired_at": "2026-11-24T10:05:11Z",
    "expires_at": "2026-11-24T10:15:11Z",
}


def test_a_free_lock_is_written_whole(path: str) -> None:
    assert read(path) is None
    assert take(path) == {"lock": LOCK, "taken_over": None}
    assert read(path) == LOCK == json.loads(Path(path).read_text())
    assert [file.name for file in Path(path).parent.iterdir()] == ["lock.json"]
    assert (Path(path).stat().st_mode & 0o777, Path(path).parent.stat().st_mode & 0o777) == (0o644, 0o755)


@pytest.mark.parametrize(
    ("who", "alive", "after", "why"),
    [
        pytest.param(B, ("a:20", "b:30"), 0, "held", id="alive on the same controller"),
        pytest.param(B, ("a:20", "b:30"), 599, "held", id="alive, to the last second"),
        pytest.param(B, ("a:20", "b:30"), 600, "expired", id="alive, but it did not renew"),
        pytest.param(B, ("b:30",), 1, "its process is gone", id="killed a moment ago"),
        pytest.param(B, ("b:30",), 900, "its process is gone", id="killed long ago"),
        pytest.param(B, ("b:20",), 1, "held", id="not listed, but it may have begun in the same instant"),
        pytest.param(B, ("b:19",), 1, "held", id="not listed, as it began after the list was made"),
        pytest.param(B, ("b:19",), 600, "expired", id="began after the list was made, but expired"),
        pytest.param(B, ("b",), 1, "held", id="a list that tells no times"),
        pytest.param(B, (), 1, "held", id="no list"),
        pytest.param(FAR, ("far:30",), 599, "held", id="of another controller: nobody here can tell whether it lives"),
        pytest.param(FAR, ("far:30",), 600, "expired", id="of another controller, expired"),
        pytest.param(B, ("a:20", "b:30"), -23 * 3600, "held", id="the clock was set back a little"),
        pytest.param(B, ("a:20", "b:30"), -25 * 3600, "expired", id="the clock was set back: no lock lasts that long"),
        pytest.param(A, ("a:20",), 60, "ours", id="ours"),
        pytest.param(A, (), 60, "ours", id="ours, and nobody says that we live"),
        pytest.param(A, ("a:20",), 900, "ours", id="ours, expired, and nobody came"),
    ],
)
def test_who_gets_it(path: str, who: Holder, alive: tuple[str, ...], after: float, why: str) -> None:
    take(path)
    found = look(path, who, alive, **at(after))
    assert found[0] == LOCK
    assert bool(found[1]) == (why == "held")
    if why == "held":
        with pytest.raises(LockHeldError) as error:
            take(path, who, alive, after)
        assert (error.value.lock, str(error.value), read(path)) == (LOCK, found[1], LOCK)
        return
    acquired = take(path, who, alive, after)
    assert acquired["taken_over"] == (None if why == "ours" else {"lock": LOCK, "why": why})
    assert acquired["lock"] == read(path)
    assert acquired["lock"]["holder"] == who
    assert (acquired["lock"]["acquired_at"] == LOCK["acquired_at"]) == (why == "ours")
    assert acquired["lock"]["expires_at"] != LOCK["expires_at"]


@pytest.mark.parametrize(("datacenter", "name"), [("hangzhou", "hangzhou"), ("", "this datacenter")])
def test_the_refused_one_is_told_who_since_when_and_why(path: str, datacenter: str, name: str) -> None:
    take(path)
    with pytest.raises(LockHeldError) as error:
        take(path, B, datacenter=datacenter)
    assert str(error.value) == (
        f'{name} is locked by ops@control-1 since 2026-11-24T10:05:11Z for "rollout of webui", until '
        "2026-11-24T10:15:11Z; wait for it, or if it is gone for good run playbooks/unlock.yml"
    )


def test_renewing(path: str) -> None:
    take(path)
    assert renew(path, "a:20", 600, **at(300)) == {**LOCK, "expires_at": "2026-11-24T10:20:11Z"}
    assert read(path) == {**LOCK, "expires_at": "2026-11-24T10:20:11Z"}
    # expired, but nobody came
    assert renew(path, "a:20", 600, **at(3600))["expires_at"] == "2026-11-24T11:15:11Z"


def test_a_paused_one_that_wakes_up_is_told_who_has_it(path: str) -> None:
    take(path)
    taken = take(path, FAR, ("far:30",), 700)["lock"]
    with pytest.raises(LockLostError) as error:
        renew(path, "a:20", 600, datacenter="hangzhou", **at(710))
    assert error.value.lock == taken == read(path)
    assert str(error.value) == (
        "the lock of hangzhou is lost: ops@control-2 has it since 2026-11-24T10:16:51Z "
        'for "rollout of webui"; start the rollout again when that is done'
    )


def test_a_paused_one_that_wakes_up_when_all_is_over(path: str) -> None:
    take(path)
    take(path, FAR, ("far:30",), 700)
    release(path, "far:30")
    with pytest.raises(LockLostError) as error:
        renew(path, "a:20", 600, **at(710))
    assert error.value.lock is None
    assert str(error.value) == (
        "the lock of this datacenter is lost: nobody has it any more, so someone took it over and has released it, "
        "or ran playbooks/unlock.yml; start the rollout again"
    )
    assert read(path) is None


def test_releasing(path: str) -> None:
    assert release(path, "a:20") == {"released": None, "removed": False, "note": "there is no lock"}
    take(path)
    note = "the lock is not ours: ops@control-1 has it since 2026-11-24T10:05:11Z"
    assert release(path, "b:30") == {"released": None, "removed": False, "note": note}
    assert read(path) == LOCK
    assert release(path, "a:20", pretend=True) == {"released": LOCK, "removed": True, "note": ""}
    assert read(path) == LOCK
    assert release(path, "a:20") == {"released": LOCK, "removed": True, "note": ""}
    assert list(Path(path).parent.iterdir()) == []


def test_releasing_whoever_has_it(path: str) -> None:
    take(path)
    assert release(path, None, pretend=True)["released"] == LOCK
    assert read(path) == LOCK
    assert release(path, None) == {"released": LOCK, "removed": True, "note": ""}
    assert release(path, None) == {"released": None, "removed": False, "note": "there is no lock"}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        json.dumps({**LOCK, "holder": "a"}).encode(),
        json.dumps({**LOCK, "holder": {**A, "host": ""}}).encode(),
        json.dumps({**LOCK, "reason": 3}).encode(),
        json.dumps({**LOCK, "expires_at": "soon"}).encode(),
        json.dumps({**LOCK, "acquired_at": 7}).encode(),
    ],
)
def test_a_damaged_lock_is_left_as_it_is_until_it_is_forced(path: str, text: bytes) -> None:
    Path(path).parent.mkdir()
    Path(path).write_bytes(text)
    message = rf"^{path} is damaged \(.*\), so nobody .*; when no rollout runs, remove it with playbooks/unlock\.yml$"
    for attempt in (
        lambda: read(path),
        lambda: look(path, A, ["a:20"]),
        lambda: take(path),
        lambda: renew(path, "a:20", 600),
        lambda: release(path, "a:20"),
    ):
        with pytest.raises(LockDamagedError, match=message):
            attempt()
    assert Path(path).read_bytes() == text
    forced = release(path, None)
    assert (forced["released"], forced["removed"]) == (None, True)
    assert forced["note"].startswith(f"{path} is damaged (")
    assert not Path(path).exists()


@pytest.mark.parametrize("ttl", [0, -1, 86401])
def test_a_senseless_time(path: str, ttl: int) -> None:
    for attempt in (lambda: acquire(path, A, "x", ttl, ["a:20"]), lambda: renew(path, "a:20", ttl)):
        with pytest.raises(LockError, match=rf"^ttl: expected 1 to 86400 seconds, got {ttl}$"):
            attempt()
    assert not Path(path).exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(LockError, match=rf"^cannot write {tmp_path}/taken/lock\.json: .*; is there space, "):
        take(str(tmp_path / "taken/lock.json"))


def test_the_holder_is_what_the_filter_gives() -> None:
    assert as_holder({**A, "alive": ["a:20"]}) == A
    with pytest.raises(LockError, match=r"^holder: expected id, controller, user, host, .*; id, host missing$"):
        as_holder({**A, "id": "", "host": None})


def _try(path: str, name: str, barrier: Any, results: Any) -> None:
    barrier.wait()
    try:
        acquire(path, holder(name), name, 600, [f"p{number}" for number in range(8)])
        results.put(name)
    except LockHeldError:
        results.put("")


def test_of_many_at_once_one_gets_it(path: str) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        barrier, results = context.Barrier(8), context.Queue()
        tries = [context.Process(target=_try, args=(path, f"p{number}", barrier, results)) for number in range(8)]
        for process in tries:
            process.start()
        winners = [name for name in (results.get(timeout=20) for _ in tries) if name]
        for process in tries:
            process.join()
        lock = read(path)
        assert lock is not None
        assert winners == [lock["holder"]["id"]]
        release(path, winners[0])
