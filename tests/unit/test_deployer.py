"""Which run a process belongs to, and which runs are alive: with real processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.qianjiang import deployer
from ansible.module_utils.qianjiang.deployer import (
    Process,
    alive,
    hides_processes,
    identity,
    may_be_newer,
    read_process,
    run_of,
)

from support import ROOT, load

FILTER = load("plugins/filter/deployer.py").FilterModule().filters()

# Says who it is, in its first process, in one that multiprocessing forked, and in a fork of a fork; then waits
RUN = f"""#!{sys.executable}
import json, multiprocessing, os, sys
from ansible.module_utils.qianjiang.deployer import alive, identity

def tell():
    print(json.dumps({{**identity(), "pid": os.getpid(), "alive": alive()}}), flush=True)

def forked():
    if os.fork() == 0:
        tell()
        os._exit(0)
    os.wait()
    tell()

if __name__ == "__main__":
    tell()
    worker = multiprocessing.get_context("fork").Process(target=forked)
    worker.start()
    worker.join()
    print("done", flush=True)
    sys.stdin.read()
"""
Start = Callable[..., tuple["subprocess.Popen[str]", list[dict[str, Any]]]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a run of the given name: the process, and what each of its processes said."""
    started: list[subprocess.Popen[str]] = []

    def run(name: str = "ansible-playbook", *before: str) -> tuple[subprocess.Popen[str], list[dict[str, Any]]]:
        script = tmp_path / name
        script.write_text(RUN)
        script.chmod(0o755)
        process = subprocess.Popen([*before, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        said = [json.loads(line) for line in iter(process.stdout.readline, "done\n")]
        assert len({item["pid"] for item in said}) == 3
        return process, said

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", ["ansible-playbook", "another.py"])
def test_every_process_of_a_run_says_the_same(start: Start, name: str) -> None:
    process, said = start(name)
    assert len({item["id"] for item in said}) == 1
    there = read_process(process.pid, Path("/proc"))
    assert there is not None
    assert said[0]["id"].split(":")[2:] == [str(process.pid), str(there.started)]
    assert all(item["id"] in item["alive"] for item in said)


def test_two_runs_see_each_other(start: Start) -> None:
    (_, first), (_, second) = start(), start()
    assert first[0]["id"] != second[0]["id"]
    assert first[0]["controller"] == second[0]["controller"] == identity()["controller"]
    assert first[0]["id"] in second[0]["alive"]
    (_, embedded) = start("another.py")
    assert {first[0]["id"], second[0]["id"], embedded[0]["id"], identity()["id"]} <= set(alive())


def test_this_run_is_alive_whatever_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Process, "may_deploy", False)
    assert [run for run in alive() if run.split(":")[2] != "0"] == [identity()["id"]]


def test_a_paused_run_is_alive_and_a_killed_one_is_not(start: Start) -> None:
    process, said = start()
    process.send_signal(signal.SIGSTOP)
    assert said[0]["id"] in alive()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{process.pid}").exists(), "it has been waited for, so this tests nothing"
    assert said[0]["id"] not in alive()
    process.wait()
    time.sleep(0.02)
    now = alive()
    assert said[0]["id"] not in now
    assert not may_be_newer(said[0]["id"], now)


def test_the_absence_of_a_run_that_began_later_says_nothing(start: Start) -> None:
    before = alive()
    _, said = start()
    assert said[0]["id"] not in before
    assert may_be_newer(said[0]["id"], before)
    assert may_be_newer(said[0]["id"], [])


def test_a_run_that_another_run_started_is_one_of_its_own(start: Start, tmp_path: Path) -> None:
    outer = tmp_path / "outer" / "ansible-playbook"
    outer.parent.mkdir()
    outer.write_text(
        "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1], sys.argv[2]]))"
    )
    between = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
    process, said = start("ansible-playbook", sys.executable, str(outer), between)
    assert {item["id"] for item in said} == {said[0]["id"]}
    assert said[0]["id"].split(":")[2] == str(said[0]["pid"]) != str(process.pid)


def test_in_ansible_itself(tmp_path: Path) -> None:
    playbook = tmp_path / "play.yml"
    playbook.write_text(
        """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug: {msg: "<{{ ({} | deployer).id }}> {{ (({} | deployer).id in ({} | deployer).alive) }}"}
    - ansible.builtin.debug: {msg: "<{{ ({} | deployer).id }}> {{ ({'a': 1} | deployer).a == 1 }}"}
"""
    )
    command = [Path(sys.executable).with_name("ansible-playbook"), "-i", "a,b,c,", "-c", "local", playbook]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    output = process.communicate()[0]
    found = re.findall(r"<(\S+)> (\w+)", output)
    assert len(found) == 6, output
    assert set(found) == {(found[0][0], "True")}
    assert found[0][0].split(":")[2] == str(process.pid)


def _put_identity(queue: Any) -> None:
    queue.put((identity(), alive()))


def test_without_proc_a_run_has_a_controller_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(deployer, "PROC", tmp_path)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=_put_identity, args=(queue,))
    worker.start()
    there = queue.get(timeout=10)
    worker.join()
    own = identity()
    assert own["id"] == own["controller"]
    assert re.fullmatch(rf"{re.escape(own['host'])}:{os.getpid()}:[0-9a-f-]{{36}}", own["id"])
    assert there == (own, alive()) == (own, [own["id"]])


def test_a_foreign_proc_counts_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("boot\n")
    (tmp_path / "mounts").touch()
    (tmp_path / "self").symlink_to("1")
    (tmp_path / "1/ns").mkdir(parents=True)
    (tmp_path / "1/ns/pid").symlink_to("pid:[4026531836]")
    (tmp_path / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    monkeypatch.setattr(deployer, "PROC", tmp_path)
    assert identity()["id"] == identity()["controller"]


@pytest.mark.parametrize(("options", "suffix"), [("rw,relatime", ""), ("rw,hidepid=invisible", f":user{os.geteuid()}")])
def test_users_who_do_not_see_each_other_have_controllers_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: str, suffix: str
) -> None:
    for name in (str(os.getpid()), "sys"):
        (tmp_path / name).symlink_to(f"/proc/{name}")
    (tmp_path / "self").symlink_to(str(os.getpid()))
    (tmp_path / "mounts").write_text(f"proc /proc proc {options} 0 0\n")
    seen = identity()
    monkeypatch.setattr(deployer, "PROC", tmp_path)
    assert identity() == {**seen, "controller": f"{seen['controller']}{suffix}"}


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ("proc /proc proc rw,nosuid 0 0\n", False),
        ("proc /proc proc rw,hidepid=0 0 0\n", False),
        ("proc /proc proc rw,hidepid=off 0 0\n", False),
        ("proc /proc proc rw,hidepid=2,gid=4 0 0\n", True),
        ("proc /proc proc rw,hidepid=invisible 0 0\n", True),
        ("proc /other/proc proc rw,hidepid=2 0 0\n", False),
    ],
)
def test_hidden_processes(mounts: str, expected: bool) -> None:
    assert hides_processes(mounts) is expected


@pytest.mark.parametrize(
    ("arguments", "is_playbook", "may_deploy"),
    [
        ("ansible-playbook site.yml", True, True),
        ("/work/.venv/bin/python3.11 /work/.venv/bin/ansible-playbook site.yml", True, True),
        ("python3 -I /usr/bin/ansible-playbook site.yml", True, True),
        ("python3 -m ansible playbook site.yml", False, True),
        ("python3 run.py ansible-playbook", False, True),
        ("xargs ansible-playbook", False, True),
        ("sudo ansible-playbook site.yml", False, True),
        ("bash deploy.sh", False, False),
        ("", False, False),
    ],
)
def test_what_is_a_run(arguments: str, is_playbook: bool, may_deploy: bool) -> None:
    process = Process(7, 1, 99, tuple(arguments.split()))
    assert (process.is_playbook, process.may_deploy) == (is_playbook, may_deploy)


def fake(proc: Path, pid: int, parent: int, command: str, *, name: str = "x", state: str = "S") -> None:
    folder = proc / str(pid)
    folder.mkdir()
    zeros = " ".join(["0"] * 17)
    (folder / "stat").write_text(f"{pid} ({name}) {state} {parent} {zeros} {pid}00 0 0\n")
    (folder / "cmdline").write_bytes("".join(f"{word}\0" for word in command.split()).encode())


def test_the_outermost_without_a_gap(tmp_path: Path) -> None:
    fake(tmp_path, 1, 0, "init")
    fake(tmp_path, 10, 1, "ansible-playbook molecule.yml")
    fake(tmp_path, 11, 10, "python3 /tmp/AnsiballZ_command.py")
    fake(tmp_path, 12, 11, "python3 /bin/ansible-playbook rollout.yml", name="ansible) S 1 (x")
    fake(tmp_path, 13, 12, "python3 /bin/ansible-playbook rollout.yml")
    fake(tmp_path, 14, 13, "python3 /bin/ansible-playbook rollout.yml")
    fake(tmp_path, 15, 1, "ansible-playbook", state="Z")
    fake(tmp_path, 16, 15, "python3 worker")
    assert {pid: run_of(pid, tmp_path).pid for pid in (1, 10, 11, 12, 13, 14, 16)} == {
        1: 1,
        10: 10,
        11: 10,
        12: 12,
        13: 12,
        14: 12,
        16: 16,
    }
    assert read_process(12, tmp_path) == Process(12, 11, 1200, ("python3", "/bin/ansible-playbook", "rollout.yml"))
    assert read_process(15, tmp_path) is None
    assert read_process(99, tmp_path) is None


@pytest.mark.parametrize(("sudo", "expected"), [("ops", "ops"), ("", "someone")])
def test_the_user_is_who_typed_the_command(monkeypatch: pytest.MonkeyPatch, sudo: str, expected: str) -> None:
    monkeypatch.setenv("SUDO_USER", sudo)
    monkeypatch.setenv("LOGNAME", "someone")
    assert identity()["user"] == expected


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(deployer.getpass, "getuser", unknown)
    assert identity()["user"] == str(os.getuid())


def test_the_report_of_locks() -> None:
    lock = {
        "holder": {"id": "1", "controller": "c", "user": "ops", "host": "control-1"},
        "reason": "rollout of webui",
        "acquired_at": "2026-11-24T10:05:11Z",
        "expires_at": "2026-11-24T10:15:11Z",
    }
    released = {"h": {"released": lock, "note": ""}, "s": {"released": None, "note": "there is no lock"}}
    assert FILTER["lock_report"](released, "Held until now") == {
        "title": "Held until now",
        "columns": ["gateway", "holder", "since", "until", "reason"],
        "rows": [["h", "ops@control-1", "2026-11-24T10:05:11Z", "2026-11-24T10:15:11Z", "rollout of webui"]],
        "notes": ["s: there is no lock"],
    }


def test_how_long_ago_a_rollout_began() -> None:
    older_than = load("plugins/filter/deployer.py").FilterModule().filters()["older_than"]
    stamp = (datetime.now(UTC) - timedelta(seconds=100)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (older_than(stamp, 90), older_than(stamp, 110)) == (True, False)
