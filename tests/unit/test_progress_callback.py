# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""plugins/callback/progress.py in real runs of ansible-playbook, and what decides for it, as a table."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ansible.module_utils.qianjiang.progress import Bar, Progress, Row, first_line

from support import ROOT, load

PLAN = {
    "waves": [
        {"datacenters": ["hangzhou"], "batches": [["n1"], ["n2"]]},
        {"datacenters": ["suzhou"], "batches": [["n3"]]},
    ],
    "nodes": ["n1", "n2", "n3"],
    "steps": {node: [{"service": "webui", "release": 7, "replicas": []}] for node in ("n1", "n2", "n3")},
    "summary": ["webui r7"],
}
START, SWITCH, WATCH = "Start the candidates and prove them", "Switch at the gateway", "Watch the new release"

INVENTORY = """
[all]
n1
n2
n3
n4
[all:vars]
ansible_connection=local
ansible_python_interpreter={python}
"""

# set_fact runs on the controller, so that a task costs no process; `changed_when` makes it as loud as a module
ROLLOUT = """
- name: Look
  hosts: all
  gather_facts: false
  vars: {{progress_phase: look}}
  tasks:
    - name: Plan the rollout
      ansible.builtin.set_fact:
        rollout_plan: {plan}
      run_once: true
      delegate_to: localhost
      delegate_facts: true
    - name: Show the plan
      ansible.builtin.debug:
        msg: "{{{{ hostvars['localhost']['rollout_plan']['summary'] }}}}"
      run_once: true

- name: Pull
  hosts: n1:n2:n3
  gather_facts: false
  vars: {{progress_phase: pull}}
  tasks:
    - name: Pull what this node lacks
      ansible.builtin.set_fact:
        pulled: "{{{{ lookup('ansible.builtin.first_found', ['absent'], errors='warn') }}}}"
      changed_when: true

- name: Nobody
  hosts: all:!all
  gather_facts: false
  tasks: []

- name: Switch
  hosts: n1:n2:n3
  gather_facts: false
  serial: 1
  vars: {{progress_phase: switch}}
  tasks:
    - name: Switch the node
      block:
        - name: Start the candidates and prove them
          ansible.builtin.set_fact:
            started: true
          failed_when: inventory_hostname == "n3"
          changed_when: true
        - name: Switch at the gateway
          ansible.builtin.set_fact:
            switched: true
          loop: [one, two]
          changed_when: true
        - name: Watch the new release
          ansible.builtin.set_fact:
            watched: true
          changed_when: true
      rescue:
        - name: Remember why
          ansible.builtin.set_fact:
            service_failure: "its health check says no\\nits last log line"

- name: Record
  hosts: n1:n4
  gather_facts: false
  vars: {{progress_phase: record}}
  tasks:
    - name: Write the record
      ansible.builtin.copy:
        content: "release 7\\n"
        dest: "{folder}/{{{{ inventory_hostname }}}}.record"
        mode: "0600"
      when: inventory_hostname == "n1"
    - name: Try
      ansible.builtin.fail:
        msg: nobody cares
      ignore_errors: true
    - name: Lose a node
      ansible.builtin.ping:
      vars: {{ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}}
      when: inventory_hostname == "n4"

- name: Settle
  hosts: n1:n2
  gather_facts: false
  vars: {{progress_phase: settle}}
  tasks:
    - name: Settle
      block:
        - name: Fail
          ansible.builtin.fail:
            msg: first
      rescue:
        - name: Fail for good
          ansible.builtin.fail:
            msg: it does not settle
      when: inventory_hostname == breaks | default('')

- name: Report
  hosts: n1
  gather_facts: false
  tasks:
    - name: Say it
      ansible.builtin.set_fact:
        said: true
"""

OTHER = """
- name: Prepare
  hosts: n1:n2
  gather_facts: false
  tasks:
    - name: Change
      ansible.builtin.set_fact:
        fact: true
      loop: [one, two]
      changed_when: true
    - name: Skip
      ansible.builtin.debug:
      when: false
    - name: Say
      ansible.builtin.debug:
        msg: [one, two]
    - name: Try
      block:
        - name: Fail
          ansible.builtin.fail:
            msg: "no"
      rescue:
        - name: Go on
          ansible.builtin.debug:
            var: inventory_hostname
- name: Nobody
  hosts: all:!all
  gather_facts: false
  tasks: []
"""
MARKED = """
- name: Record
  hosts: n1
  gather_facts: false
  vars: {{progress_phase: record}}
  tasks:
    - name: Write the record
      ansible.builtin.set_fact:
        fact: true
"""


class Run(NamedTuple):
    """What a run of ansible-playbook wrote, the lines that are seen of it, and its exit code."""

    output: str
    lines: list[str]
    code: int


def play(
    folder: Path, text: str, *arguments: str, callback: str = "progress", run: Callable[..., Run] | None = None
) -> Run:
    """Run a playbook."""
    (folder / "hosts").write_text(INVENTORY.format(python=sys.executable))
    (folder / "play.yml").write_text(text.format(plan=PLAN, folder=folder))
    (folder / "ansible.cfg").write_text("")
    program = Path(sys.executable).with_name("ansible-playbook")
    command = [str(program), "-i", str(folder / "hosts"), *arguments, str(folder / "play.yml")]
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "COLUMNS", "LINES"))
    }
    environment = inherited | {
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "plugins" / "callback"),
        "ANSIBLE_STDOUT_CALLBACK": callback,
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_REMOTE_TEMP": str(folder / "tmp"),
        # One at a time: lines come in the same order in each run
        "ANSIBLE_FORKS": "1",
        "LC_ALL": "C.UTF-8",
        "TERM": "xterm-256color",
    }
    return (run or in_pipe)(command, environment)


def in_pipe(command: list[str], environment: dict[str, str]) -> Run:
    """Without a terminal, as in CI."""
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
    )
    return Run(done.stdout, [line.rstrip() for line in done.stdout.splitlines()], done.returncode)


def in_terminal(command: list[str], environment: dict[str, str]) -> Run:
    """In a terminal of 100 columns and 30 lines."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    with subprocess.Popen(
        command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        written = b""
        # At the end of the process, Linux says EIO
        with suppress(OSError):
            while part := os.read(ours, 65536):
                written += part
        os.close(ours)
        return Run(written.decode(), screen(written.decode()), process.wait(60))


def screen(written: str) -> list[str]:
    """The lines that a terminal shows in the end; fails on what it does not know."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|[\r\n]|[^\x1b\r\n]+|\x1b", written):
        if token == "\r":
            column = 0
        elif token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token == "\x1b[2K":
            lines[row] = ""
        elif token == "\x1b[1A":
            row -= 1
        elif not re.fullmatch(r"\x1b\[([0-9;]*m|\?25[lh])", token):
            assert token.isprintable(), token
            lines[row] = lines[row].ljust(column)[:column] + token + lines[row][column + len(token) :]
            column += len(token)
    return [line.rstrip() for line in lines]


def said(run: Run) -> list[str]:
    """The lines that begin with a time, without it."""
    return [line[9:] for line in run.lines if re.match(r"\d\d:\d\d:\d\d ", line)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """Each run is made once, for all tests that look at it."""
    breaks = ("-e", "breaks=n2")
    kinds: dict[str, Callable[[Path], Run]] = {
        "plain": lambda folder: play(folder, ROLLOUT, "--diff"),
        "terminal": lambda folder: play(folder, ROLLOUT, "--diff", *breaks, run=in_terminal),
        "check": lambda folder: play(folder, ROLLOUT, "--check", "--diff", "-l", "n1,n2"),
        "other": lambda folder: play(folder, OTHER),
        "other default": lambda folder: play(folder, OTHER, callback="default"),
        "verbose": lambda folder: play(folder, MARKED, "-v"),
        "verbose default": lambda folder: play(folder, MARKED, "-v", callback="default"),
    }
    return cache(lambda kind: kinds[kind](tmp_path_factory.mktemp(kind.replace(" ", "-"))))


NODES = ("n1", "n2", "n3")
BOTH = pytest.mark.parametrize("kind", ["plain", "terminal"])


def test_without_a_terminal_each_change_of_a_phase_is_a_line(runs: Callable[[str], Run]) -> None:
    lines = said(runs("plain"))
    assert lines == [
        "n1: looking",
        *[f"{node} webui r7: pulling" for node in NODES],
        *[f"n1 webui r7: {phase}" for phase in ("starting", "switching", "baking", "done")],
        *[f"n2 webui r7: {phase}" for phase in ("starting", "switching", "baking", "done")],
        "n3 webui r7: starting",
        "n3 webui r7: failed: its health check says no",
        "n1 webui r7: recording",
        lines[15],  # n4, in ssh's words
        "n1 webui r7: settling",
        "n2 webui r7: settling",
    ]
    assert "\x1b" not in runs("plain").output


@BOTH
def test_the_noise_of_tasks_is_not_shown_but_what_is_for_people_is(runs: Callable[[str], Run], kind: str) -> None:
    lines = runs(kind).lines
    shown = [re.sub(r" \*+$", "", line) for line in lines if line.startswith(("PLAY [", "TASK [", "ok: ", "changed: "))]
    expected = ["TASK [Show the plan]", "ok: [n1] =>", "TASK [Write the record]", "changed: [n1]", "TASK [Lose a node]"]
    failing = ["TASK [Fail for good]"] if kind == "terminal" else []
    assert shown == [*expected, *failing, "PLAY [Report]", "TASK [Say it]", "ok: [n1]"]
    assert lines[lines.index("ok: [n1] =>") + 1 :][:2] == ["    msg:", "    - webui r7"]
    assert sum(line.startswith("[WARNING]: An error occurred while running the lookup") for line in lines) == 1
    assert any(line.startswith("PLAY RECAP") for line in lines)


@BOTH
def test_a_diff_is_shown_with_the_host_it_is_of(runs: Callable[[str], Run], kind: str) -> None:
    lines = runs(kind).lines
    assert lines[lines.index("+release 7") + 1 :][:2] == ["", "changed: [n1]"]


@BOTH
def test_after_the_plan_a_play_without_hosts_is_not_shown(runs: Callable[[str], Run], kind: str) -> None:
    output = runs(kind).output
    assert "Nobody" not in output
    assert "no hosts matched" not in output


@BOTH
def test_a_node_that_failed_shows_why(runs: Callable[[str], Run], kind: str) -> None:
    run = runs(kind)
    assert "n3 webui r7: failed: its health check says no" in said(run)
    assert not any("its last log line" in line for line in run.lines)
    assert not any(line.startswith(("fatal: [n3]", "failed: [n3]")) for line in run.lines)


@BOTH
def test_failed_and_unreachable_hosts_are_shown_as_by_default(runs: Callable[[str], Run], kind: str) -> None:
    run = runs(kind)
    fatal = [line for line in run.lines if line.startswith("fatal: ")]
    assert fatal == ["fatal: [n4]: UNREACHABLE! =>"] + ["fatal: [n2]: FAILED! =>"] * (kind == "terminal")
    assert ("    msg: it does not settle" in run.lines) == (kind == "terminal")
    assert not {"    msg: nobody cares", "    msg: first", "...ignoring"} & set(run.lines)
    assert any(line.startswith("n4: failed: unreachable: ") for line in said(run))
    assert run.code != 0


def test_on_a_terminal_the_last_state_stays_and_nothing_garbles(runs: Callable[[str], Run]) -> None:
    lines = runs("terminal").lines
    first = next(index for index, line in enumerate(lines) if line.startswith("n1 "))
    assert [line.split() for line in lines[first : first + 3]] == [
        ["n1", "webui", "r7", "done"],
        ["n2", "webui", "r7", "failed", "it", "does", "not", "settle"],
        ["n3", "webui", "r7", "failed", "its", "health", "check", "says", "no"],
    ]
    assert lines[first + 3].startswith("n4            failed")
    assert [line.strip("*").split(maxsplit=4) for line in lines[first + 4 : first + 8]] == [
        ["wave", "1", "hangzhou", "━" * 15 + "╺" + "━" * 14, "1/2, 1 failed"],
        ["wave", "2", "suzhou", "━" * 30, "0/1, 1 failed"],
        [],
        ["PLAY", "[Report]"],
    ]
    assert sum("wave 1" in line for line in lines) == 1


def test_on_a_terminal_each_phase_and_the_end_of_the_bar_are_seen(runs: Callable[[str], Run]) -> None:
    output = runs("terminal").output
    for phase in ("looking", "pulling", "starting", "switching", "baking", "recording", "settling"):
        assert re.search(rf"{phase}\s.*\d s", output), phase
    counts = re.findall(r"hangzhou .*?(\d/2)", output)
    assert list(dict.fromkeys(counts)) == ["0/2", "1/2", "2/2"]
    assert not any(line.endswith(("looking", "pulling", "starting", "baking")) for line in said(runs("terminal")))


def test_a_killed_run_leaves_the_cursor(runs: Callable[[str], Run]) -> None:
    output = runs("terminal").output
    assert output.index("\x1b[?25l") < output.index("\x1b[?25h") < output.index("looking")


def test_check_mode_says_so_and_shows_what_would_change(runs: Callable[[str], Run]) -> None:
    run = runs("check")
    assert "n1 webui r7: recording (check)" in said(run)
    assert run.lines.count("+release 7") == 1
    assert run.lines.count("changed: [n2]") == 3


@pytest.mark.parametrize("kind", ["other", "verbose"])
def test_what_is_no_rollout_or_verbose_is_shown_as_by_default(runs: Callable[[str], Run], kind: str) -> None:
    # Where a task failed is told with the path of the playbook
    mine, default = (re.sub(r"/\S+/", "", runs(name).output) for name in (kind, f"{kind} default"))
    assert mine == default
    assert "PLAY RECAP" in mine


STORY: list[tuple[str, list[Any], list[str], list[Bar]]] = [
    (
        "a node is done when its batch has ended",
        [("begin", "switch"), ("started", "n1", START), ("end",)],
        ["n1 webui r7: starting", "n1 webui r7: done"],
        [Bar("wave 1 hangzhou", 1, 0, 2), Bar("wave 2 suzhou", 0, 0, 1)],
    ),
    (
        "a node is counted as soon as the gateway has switched, and its bake goes on",
        [
            ("begin", "switch"),
            ("started", "n1", SWITCH),
            ("succeeded", "n1", SWITCH),
            ("started", "n1", WATCH),
        ],
        ["n1 webui r7: switching", "n1 webui r7: baking"],
        [Bar("wave 1 hangzhou", 1, 0, 2), Bar("wave 2 suzhou", 0, 0, 1)],
    ),
    (
        "a batch that is refused at its gate has changed nothing",
        [("begin", "switch"), ("started", "n1", "Compare the lock"), ("begin", "switch"), ("end",)],
        [],
        [Bar("wave 1 hangzhou", 0, 0, 2), Bar("wave 2 suzhou", 0, 0, 1)],
    ),
    (
        "a failure stays, with its first reason, whatever runs on the node afterwards",
        [
            ("begin", "switch"),
            ("started", "n1", START),
            ("succeeded", "n1", SWITCH),
            ("started", "n1", WATCH),
            ("failed", "n1", "it answers 500\nlog"),
            ("failed", "n1", "another"),
            ("begin", "record"),
            ("started", "n1", "Write"),
            ("end",),
        ],
        ["n1 webui r7: starting", "n1 webui r7: baking", "n1 webui r7: failed: it answers 500"],
        [Bar("wave 1 hangzhou", 0, 1, 2), Bar("wave 2 suzhou", 0, 0, 1)],
    ),
    (
        "the same phase is said once, and a phase that has no word of its own is named",
        [
            ("begin", "pull"),
            ("started", "n3", "One"),
            ("started", "n3", "Two"),
            ("begin", "smoke"),
            ("started", "n3", ""),
        ],
        ["n3 webui r7: pulling", "n3 webui r7: smoke"],
        [Bar("wave 1 hangzhou", 0, 0, 2), Bar("wave 2 suzhou", 0, 0, 1)],
    ),
    (
        "a node that the plan does not name says nothing",
        [("begin", "record"), ("started", "n4", "Write")],
        [],
        [Bar("wave 1 hangzhou", 0, 0, 2), Bar("wave 2 suzhou", 0, 0, 1)],
    ),
    (
        "its failure is shown all the same",
        [("begin", "record"), ("failed", "n4", "disk full")],
        ["n4: failed: disk full"],
        [Bar("wave 1 hangzhou", 0, 0, 2), Bar("wave 2 suzhou", 0, 0, 1)],
    ),
]


@pytest.mark.parametrize(("events", "lines", "bars"), [row[1:] for row in STORY], ids=[row[0] for row in STORY])
def test_events(events: list[tuple[str, ...]], lines: list[str], bars: list[Bar]) -> None:
    progress = Progress()
    progress.plan(PLAN)
    assert [line for name, *arguments in events for line in getattr(progress, name)(*arguments) or []] == lines
    assert progress.bars() == bars


def test_between_plays_a_node_waits_or_is_done() -> None:
    progress = Progress()
    progress.plan(PLAN)
    seen = []
    for phase, task in (("pull", "Pull"), ("switch", START), ("record", "Write")):
        progress.begin(phase)
        progress.started("n1", task)
        progress.end()
        seen.append(progress.rows()[0].phase)
    assert seen == ["waiting", "done", "done"]


def test_a_node_of_two_stages_is_done_after_both() -> None:
    progress = Progress()
    progress.plan({**PLAN, "waves": [{"datacenters": ["a"], "batches": [["n1"]]}] * 2})
    lines = []
    seen = []
    for _ in range(2):
        progress.begin("switch")
        lines += progress.started("n1", START)
        progress.succeeded("n1", SWITCH)
        during = [bar.done for bar in progress.bars()]
        lines += progress.end()
        seen.append((during, [bar.done for bar in progress.bars()], progress.rows()[0].phase))
    assert lines == ["n1 webui r7: starting", "n1 webui r7: starting", "n1 webui r7: done"]
    assert seen == [([1, 0], [1, 0], "waiting"), ([1, 1], [1, 1], "done")]
    progress.begin("record")
    progress.failed("n1", "disk full")
    assert [(bar.done, bar.failed) for bar in progress.bars()] == [(1, 0), (0, 1)]


def test_a_node_that_starts_its_next_service_is_not_done() -> None:
    progress = Progress()
    progress.plan(PLAN)
    progress.begin("switch")
    progress.succeeded("n1", SWITCH)
    assert progress.bars()[0].done == 1
    progress.started("n1", START)
    assert progress.bars()[0].done == 0


def test_the_first_reason_of_a_node_is_the_one_shown() -> None:
    progress = Progress()
    progress.plan(PLAN)
    progress.begin("switch")
    progress.started("n1", WATCH)
    progress.succeeded("n1", SWITCH)
    progress.failed("n1", "it answers 500")
    progress.failed("n1", "another")
    assert progress.bars()[0] == Bar("wave 1 hangzhou", 0, 1, 2)
    assert progress.rows()[0] == Row("n1", "webui r7", "failed", "it answers 500")


def test_a_plan_without_a_change_has_no_rows_and_no_bars() -> None:
    progress = Progress()
    progress.begin("look")
    progress.started("n1", "Compare")
    assert progress.rows() == [Row("n1", "", "looking", "")]
    progress.plan({"waves": [], "nodes": [], "steps": {}, "summary": []})
    assert (progress.rows(), progress.bars(), progress.end()) == ([], [], [])


def test_a_node_lost_before_the_plan_is_shown_after_it() -> None:
    progress = Progress()
    progress.begin("look")
    progress.failed("n9", "unreachable: no route")
    progress.plan(PLAN)
    assert progress.rows()[-1] == Row("n9", "", "failed", "unreachable: no route")


@pytest.mark.parametrize(
    ("reason", "line"),
    [("one\ntwo", "one"), ("\n  two", "two"), ("", ""), ("\x1b[31mred\x07", "[31mred"), ("钱江\r\n", "钱江")],
)
def test_first_line(reason: str, line: str) -> None:
    assert first_line(reason) == line


@pytest.mark.parametrize(
    ("room", "nodes"),
    [(4, ["done", "waiting", "starting", "failed"]), (3, ["starting", "failed"]), (2, ["failed"]), (0, [])],
)
def test_a_low_terminal_shows_what_is_going_on(room: int, nodes: list[str]) -> None:
    rows = [Row(f"n{number}", "", phase, "") for number, phase in enumerate(["done", "waiting", "starting", "failed"])]
    assert [row.phase for row in load("plugins/callback/progress.py").fitting(rows, room)] == nodes
