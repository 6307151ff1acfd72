# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of a datacenter: one deployer at a time, and none that needs a human when its holder dies.

It is a file on one host of the datacenter, `{holder, reason, acquired_at, expires_at}`, read and replaced as one step
among the modules of that host, and by that host's clock alone. Its holder renews it. Another deployer takes it over
when it has expired, or at once when its holder ran on the same controller and is gone from there.

So a holder that was paused may wake up without its lock: `renew` tells it so, and the fence on every node
(`service_state`) refuses its release.
"""

from __future__ import annotations

import calendar
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from ansible.module_utils.qianjiang import durable
from ansible.module_utils.qianjiang.deployer import may_be_newer

LOCK_PATH = "/var/lib/qianjiang/deployer/lock.json"
HOLDER = ("id", "controller", "user", "host")
# Longer than this no lock may last: one that says so was written by a clock that has been set back since
LONGEST = 24 * 3600
# Well below the shortest time that a lock is sensibly given
RENEW_EVERY = 30.0
EXPIRED, GONE, REMOVED = "expired", "its process is gone", "removed by unlock.yml"
_FORMAT = "%Y-%m-%dT%H:%M:%SZ"

Clock = Callable[[], float]
# Told of a lock that its run has left behind, and why it counts no more, before it goes
Remember = Callable[["Lock", str], object]
T = TypeVar("T")


class LockError(Exception):
    """The lock cannot be read or written, or its parameters are wrong."""


class LockDamagedError(LockError):
    """The file is there, but is no lock."""


class Holder(TypedDict):
    """A run of ansible-playbook, as deployer.identity() names it."""

    id: str
    controller: str
    user: str
    host: str


class Lock(TypedDict):
    """The file. Times are of the host that keeps it, in UTC."""

    holder: Holder
    reason: str
    acquired_at: str
    expires_at: str


class TakenOver(TypedDict):
    """Whose lock it was, and why it counts no more."""

    lock: Lock
    why: str


class Acquired(TypedDict):
    """What acquire did; `taken_over` is None unless it was someone else's lock."""

    lock: Lock
    taken_over: TakenOver | None


class Released(TypedDict):
    """What release did; `note` says why it did nothing, or what was wrong with the file that it removed."""

    released: Lock | None
    removed: bool
    note: str


class LockHeldError(LockError):
    """Someone else has the lock."""

    def __init__(self, message: str, lock: Lock) -> None:
        super().__init__(message)
        self.lock = lock


class LockLostError(LockError):
    """We do not have the lock any more."""

    def __init__(self, message: str, lock: Lock | None) -> None:
        super().__init__(message)
        self.lock = lock


def shown_holder(lock: Lock) -> str:
    """`ops@control-1`."""
    return f"{lock['holder']['user']}@{lock['holder']['host']}"


def refusal(lock: Lock, datacenter: str) -> str:
    """What a deployer is told that cannot have the lock."""
    return (
        f"{datacenter or 'this datacenter'} is locked by {shown_holder(lock)} since {lock['acquired_at']} "
        f'for "{lock["reason"]}", until {lock["expires_at"]}; wait for it, or if it is gone for good run '
        "playbooks/unlock.yml"
    )


def is_gone(holder: Holder, alive: Iterable[str], controller: str) -> bool:
    """Whether a holder ran on this controller, and runs there no more."""
    there = set(alive)
    # One that began after the list was made is not in it, and lives
    return holder["controller"] == controller and holder["id"] not in there and not may_be_newer(holder["id"], there)


def obsolete(lock: Lock, alive: Iterable[str], controller: str, now: float) -> str | None:
    """Why someone else's lock counts no more, or None."""
    if is_gone(lock["holder"], alive, controller):
        return GONE
    return None if now < _seconds(lock["expires_at"]) <= now + LONGEST else EXPIRED


def read(path: str) -> Lock | None:
    """The lock, or None where there is none. Raises LockDamagedError for what is no lock."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LockError(f"cannot read {path}: {error.strerror}; the modules run as root") from error
    try:
        return _lock(json.loads(data))
    except (ValueError, TypeError, KeyError) as error:
        raise LockDamagedError(
            f"{path} is damaged ({error}), so nobody knows who has the lock; "
            "when no rollout runs, remove it with playbooks/unlock.yml"
        ) from error


def look(
    path: str, holder: Holder, alive: Iterable[str], *, datacenter: str = "", clock: Clock = time.time
) -> tuple[Lock | None, str]:
    """The lock, and why acquire would refuse; "" when it would not."""
    lock = read(path)
    if lock is None or lock["holder"]["id"] == holder["id"] or obsolete(lock, alive, holder["controller"], clock()):
        return lock, ""
    return lock, refusal(lock, datacenter)


def acquire(
    path: str,
    holder: Holder,
    reason: str,
    ttl: int,
    alive: Iterable[str],
    *,
    datacenter: str = "",
    remember: Remember | None = None,
    clock: Clock = time.time,
) -> Acquired:
    """Take the lock, for `ttl` seconds from now. Ours already: prolong it. Raises LockHeldError."""
    check_ttl(ttl)

    def change() -> Acquired:
        now, found = clock(), read(path)
        since, taken_over = _stamp(now), None
        if found and found["holder"]["id"] == holder["id"]:
            since = found["acquired_at"]
        elif found:
            why = obsolete(found, alive, holder["controller"], now)
            if why is None:
                raise LockHeldError(refusal(found, datacenter), found)
            taken_over = TakenOver(lock=found, why=why)
            if remember:
                remember(found, why)
        lock = Lock(holder=holder, reason=reason, acquired_at=since, expires_at=_stamp(now + ttl))
        _write(path, lock)
        return {"lock": lock, "taken_over": taken_over}

    return _alone(path, change)


def renew(path: str, holder_id: str, ttl: int, *, datacenter: str = "", clock: Clock = time.time) -> Lock:
    """Prolong our lock to `ttl` seconds from now, also when it expired and nobody came. Raises LockLostError."""
    check_ttl(ttl)
    where = datacenter or "this datacenter"

    def change() -> Lock:
        found = read(path)
        if found is None:
            raise LockLostError(
                f"the lock of {where} is lost: nobody has it any more, so someone took it over and has released it, "
                "or ran playbooks/unlock.yml; start the rollout again",
                None,
            )
        if found["holder"]["id"] != holder_id:
            raise LockLostError(
                f"the lock of {where} is lost: {shown_holder(found)} has it since {found['acquired_at']} "
                f'for "{found["reason"]}"; start the rollout again when that is done',
                found,
            )
        lock = Lock(**{**found, "expires_at": _stamp(clock() + ttl)})
        _write(path, lock)
        return lock

    return _alone(path, change)


def renew_given(lock: Mapping[str, Any] | None) -> None:
    """Prolong the lock that a module was given as its option `lock`; without one, nothing. Raises LockError."""
    if lock:
        renew(lock["path"], lock["holder_id"], lock["ttl"])


def paced(renewal: Callable[[], object], clock: Clock = time.monotonic) -> Callable[[], None]:
    """To be called as often as one likes while something is waited for: the `renewal` at first, and every 30 s."""
    due = clock()

    def keep() -> None:
        nonlocal due
        if clock() >= due:
            renewal()
            due = clock() + RENEW_EVERY

    return keep


def release(path: str, holder_id: str | None, *, pretend: bool = False, remember: Remember | None = None) -> Released:
    """Give the lock of `holder_id` back, and nobody else's: `note` says whose it is. None means whoever has it, and a
    damaged file too. `pretend` tells what would be removed. `remember`: another run than the holder's gives it back."""

    def change() -> Released:
        found, note = None, ""
        try:
            found = read(path)
        except LockDamagedError as error:
            if holder_id is not None:
                raise
            note = str(error)
        if not found and not note:
            return {"released": None, "removed": False, "note": "there is no lock"}
        if found and holder_id not in (None, found["holder"]["id"]):
            note = f"the lock is not ours: {shown_holder(found)} has it since {found['acquired_at']}"
            return {"released": None, "removed": False, "note": note}
        if found and remember and not pretend:
            remember(found, GONE if holder_id else REMOVED)
        if not pretend:
            durable.remove(Path(path))
        return {"released": found, "removed": True, "note": note}

    return change() if pretend else _alone(path, change)


def _alone(path: str, change: Callable[[], T]) -> T:
    try:
        with durable.exclusive(Path(path)):
            return change()
    except OSError as error:
        raise LockError(
            f"cannot write {path}: {error.strerror}; is there space, and does the module run as root?"
        ) from error


def _write(path: str, lock: Lock) -> None:
    durable.replace(Path(path), json.dumps(lock, sort_keys=True) + "\n")


def check_ttl(ttl: int) -> None:
    """Raise LockError for a time that no lock may last."""
    if not 0 < ttl <= LONGEST:
        raise LockError(f"ttl: expected 1 to {LONGEST} seconds, got {ttl}")


def _stamp(now: float) -> str:
    return time.strftime(_FORMAT, time.gmtime(now))


def _seconds(stamp: str) -> int:
    return calendar.timegm(time.strptime(stamp, _FORMAT))


def as_holder(values: Mapping[str, Any]) -> Holder:
    """The holder out of what the filter `deployer` gives."""
    missing = [key for key in HOLDER if not isinstance(values.get(key), str) or not values[key]]
    if missing:
        raise LockError(
            f"holder: expected {', '.join(HOLDER)}, as the filter deployer gives them; {', '.join(missing)} missing"
        )
    return {"id": values["id"], "controller": values["controller"], "user": values["user"], "host": values["host"]}


def _lock(data: Any) -> Lock:
    for key in ("acquired_at", "expires_at"):
        _seconds(data[key])
    if not isinstance(data["reason"], str):
        raise TypeError("reason is no text")
    try:
        holder = as_holder(data["holder"])
    except (AttributeError, LockError):
        raise ValueError("holder is incomplete") from None
    return {
        "holder": holder,
        "reason": data["reason"],
        "acquired_at": data["acquired_at"],
        "expires_at": data["expires_at"],
    }
