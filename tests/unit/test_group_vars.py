# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/group_vars: who does what for whom, where a host has failed in an earlier play of the same run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from running import play
from support import ROOT

PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.fail:
      when: inventory_hostname in broken

- hosts: nodes:gateways
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: >-
          {{ inventory_hostname }}:
          {{ {'leads': rollout_leads, 'resolves': rollout_resolves, 'records': rollout_records_for_all}
             | dict2items | selectattr('value') | map(attribute='key') | join(' ') }}.
"""
EDGES, SECOND = ["hangzhou-edge", "shanghai-edge"], "hangzhou-node2"


def duties(folder: Path, *broken: str) -> dict[str, str]:
    """What each host of the lab's inventory has to do, where those have failed; hosts with nothing are left out."""
    (folder / "group_vars").symlink_to(ROOT / "playbooks" / "group_vars")
    (folder / "play.yml").write_text(PLAYBOOK)
    done = play(folder / "play.yml", ROOT / "inventories/lab/hosts.yml", "--connection", "local", broken=list(broken))
    found = dict(re.findall(r"([a-z]+-[a-z0-9]+): +([a-z ]+)\.", done.stdout))
    assert found, done.stdout[-2000:]
    return found


RECORDS = {"hangzhou-node1": "records", "shanghai-node1": "records"}


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        pytest.param([], {EDGES[0]: "leads", EDGES[1]: "leads resolves"} | RECORDS, id="all are well"),
        pytest.param(
            [EDGES[1]],
            {EDGES[0]: "leads", "hangzhou-node1": "resolves records", "shanghai-node1": "leads records"},
            id="a gateway failed before",
        ),
        pytest.param(
            ["hangzhou-node1"],
            {EDGES[0]: "leads", EDGES[1]: "leads resolves", SECOND: "records", "shanghai-node1": "records"},
            id="a node did",
        ),
    ],
)
def test_who_does_what_for_all(tmp_path: Path, broken: list[str], expected: dict[str, str]) -> None:
    assert duties(tmp_path, *broken) == expected


@pytest.mark.parametrize("playbook", ["apply.yml", "revert.yml"])
def test_who_looks_again_looks_for_the_verb_of_the_plan(playbook: str) -> None:
    """For a rollout it would ask the origin, which a rollback does not need."""
    plays = yaml.safe_load((ROOT / "playbooks" / playbook).read_text())
    roles = {
        play["name"]: [task.get("ansible.builtin.import_role", {}) for task in play.get("tasks", [])] for play in plays
    }
    looks = [play for play in plays if {"name": "rollout", "tasks_from": "look"} in roles[play["name"]]]
    assert [play["vars"].get("rollout_verb") for play in looks] == [
        "{{ hostvars['localhost']['rollout_plan']['verb'] }}"
    ]


RECORD = """
- hosts: localhost
  gather_facts: false
  ignore_unreachable: true
  tasks:
    - ansible.builtin.import_role:
        name: rollout
        tasks_from: record
"""
# Of the datacenter's, the disk is full
APPEND = """
from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule({name: {"type": "raw"} for name in ("records", "path", "lock_path", "holder_id")})
if module.params["lock_path"]:
    module.fail_json(msg="no space left on device")
open(module.params["path"], "w").write("recorded")
module.exit_json()
"""


def test_the_controller_has_the_record_that_a_datacenter_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library/record_append.py").write_text(APPEND)
    (tmp_path / "play.yml").write_text(RECORD)
    there = tmp_path / "rollouts.jsonl"
    variables = {
        "rollout_records": [{"kind": "rollout"}],
        "rollout_record_path": str(there),
        "rollout_records_for_all": True,
        "rollout_plan": {"leads": ["localhost"]},
        "rollout_lock": {"path": "/nowhere/lock.json", "holder_id": "a"},
        "rollout_lock_host": "localhost",
    }
    done = play(tmp_path / "play.yml", ROOT / "inventories/lab/hosts.yml", **variables)
    assert done.returncode != 0
    assert "no space left on device" in done.stdout
    assert there.read_text() == "recorded"


def test_a_plan_is_saved_and_read_where_the_command_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "play").mkdir()
    (tmp_path / "play/group_vars").symlink_to(ROOT / "playbooks" / "group_vars")
    (tmp_path / "play/play.yml").write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.copy: {content: '{}', dest: '{{ rollout_plan_file }}', mode: '0600'}\n"
        "    - ansible.builtin.debug: {msg: 'saved: {{ {} | same_as_saved(rollout_saved_plan) }}'}\n"
    )
    monkeypatch.chdir(tmp_path)
    done = play(Path("play/play.yml"), ROOT / "inventories/lab/hosts.yml", plan_file="plan.json", plan="./plan.json")
    assert re.search(r"saved: +\{\}", done.stdout), done.stdout
    assert (tmp_path / "plan.json").read_text() == "{}"


def test_a_release_is_of_its_service_whatever_is_around_the_name(tmp_path: Path) -> None:
    (tmp_path / "group_vars").symlink_to(ROOT / "playbooks" / "group_vars")
    (tmp_path / "play.yml").write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n    - ansible.builtin.debug: {var: rollout_release}\n"
    )
    done = play(tmp_path / "play.yml", ROOT / "inventories/lab/hosts.yml", service=" webui", release="v1")
    assert re.search(r"^ +webui: v1$", done.stdout, re.MULTILINE), done.stdout


# Every gateway has seen errors; it says that it was asked
WATCH = """
from ansible.module_utils.basic import AnsibleModule

names = ("backend", "new", "old", "seconds", "max_errors", "max_latency", "lock")
module = AnsibleModule({name: {"type": "raw"} for name in names})
with open(module.params["backend"], "a") as asked:
    asked.write("asked ")
module.fail_json(msg="8 of 68 requests failed")
"""


def test_a_bake_that_failed_at_one_gateway_is_not_watched_at_the_next(tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library/gateway_watch.py").write_text(WATCH)
    asked = tmp_path / "asked"
    switch = yaml.safe_load((ROOT / "roles/service/tasks/switch.yml").read_text())[1]["block"]
    (watch,) = [task for task in switch if "gateway_watch" in task]
    keys = ("new", "old", "seconds", "max_errors", "max_latency")
    bake = {"backend": str(asked)} | dict.fromkeys(keys, "")
    # As it is written, but for what it watches
    task = watch | {"loop": [[bake, "localhost"], [bake, "localhost"]], "when": True}
    named = {"service_lock": {}, "service_lock_host": "another"}
    plays = [{"hosts": "localhost", "gather_facts": False, "vars": named, "tasks": [task]}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(plays))
    done = play(tmp_path / "play.yml", ROOT / "inventories/lab/hosts.yml")
    assert done.returncode != 0
    assert asked.read_text() == "asked ", done.stdout
