"""The operator's hooks: asked before, told after."""

from __future__ import annotations

import json
from pathlib import Path

import story

import lab

NOTE = """
- name: Note what is told
  ansible.builtin.copy:
    content: "{{ rollout_told | to_json }}"
    dest: FILE
    mode: "0600"
"""
VETO = """
- name: Say no
  ansible.builtin.fail:
    msg: the freeze is on
"""


DRAIN = """
- name: Wait for a word, while somebody drains a node
  ansible.builtin.command:
    argv: ARGV
    chdir: PROJECT
  changed_when: true
"""


def hooks(folder: Path, **tasks: str) -> list[str]:
    for name, text in tasks.items():
        (folder / f"{name}.yml").write_text(f"---{text.replace('FILE', str(folder / name))}")
    return ["--extra-vars", json.dumps({"hooks": {name: {"tasks": str(folder / f"{name}.yml")} for name in tasks}})]


def test_a_veto_changes_nothing_and_a_success_is_told(tmp_path: Path) -> None:
    number, change = story.release(), story.catalogue(env={"VERSION": "hooked"})
    told = story.refused("rollout", *change, *hooks(tmp_path, pre_rollout=VETO, on_failure=NOTE))
    assert "the freeze is on" in told
    assert story.release() == number
    assert not any(story.locks().values())
    story.done("rollout", *change, *hooks(tmp_path, pre_rollout=NOTE, post_rollout=NOTE, on_failure=NOTE))
    before, after = (json.loads((tmp_path / name).read_text()) for name in ("pre_rollout", "post_rollout"))
    assert before["verb"] == after["verb"] == "rollout"
    assert after["services"]["echo"]["release"] == story.release()
    assert after["nodes"] == list(story.NODES)
    assert not (tmp_path / "on_failure").exists()


def test_each_verb_asks_and_a_check_run_has_not_failed(tmp_path: Path) -> None:
    asked = hooks(tmp_path, pre_rollout=NOTE, on_failure=VETO)
    change = story.catalogue(env={"VERSION": "to be gone back from"})
    story.done("rollout", "--check", *change, *asked)
    story.done("rollout", *change, *asked)
    story.done("rollback", *change, *asked, "--extra-vars", "service=echo")
    assert json.loads((tmp_path / "pre_rollout").read_text())["verb"] == "rollback"
    for verb in ("drain", "undrain"):
        story.done(verb, *change, *asked, "--extra-vars", f"target={story.NODES[1]}")
        assert json.loads((tmp_path / "pre_rollout").read_text())["verb"] == verb


def test_what_changes_while_it_is_asked_is_not_undone(tmp_path: Path) -> None:
    number, change, node = story.release(), story.catalogue(env={"VERSION": "asked for long"}), story.NODES[1]
    argv = story.command("drain", [*story.catalogue(), "--extra-vars", f"target={node}"])
    drain = DRAIN.replace("ARGV", json.dumps(argv)).replace("PROJECT", str(lab.PROJECT))
    told = story.refused("rollout", *change, *hooks(tmp_path, pre_rollout=drain))
    assert "has changed while pre_rollout was asked" in told
    assert story.release() == number
    assert not any(story.locks().values())
    story.done("undrain", *story.catalogue(), "--extra-vars", f"target={node}")


def test_a_failure_is_told(tmp_path: Path) -> None:
    bad = story.catalogue(env={"ECHO_BEHAVIOUR": "exits"})
    story.refused("rollout", *bad, *hooks(tmp_path, post_rollout=NOTE, on_failure=NOTE))
    told = json.loads((tmp_path / "on_failure").read_text())
    assert "exit code 3" in told["failures"][story.NODES[0]]["reason"]
    assert not (tmp_path / "post_rollout").exists()
