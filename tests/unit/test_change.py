"""What a module changes, as Ansible shows it."""

from __future__ import annotations

from ansible.module_utils.qianjiang.change import Change, difference


def test_what_comes_and_what_goes() -> None:
    changes: list[Change] = [
        {"name": "env.TITLE", "before": None, "after": "x"},
        {"name": "image", "before": "old", "after": None},
    ]
    shown = {"before": {"env.TITLE": None, "image": "old"}, "after": {"env.TITLE": "x", "image": None}}
    assert difference(changes) == shown
    assert difference(iter(changes)) == shown
    assert difference([]) == {"before": {}, "after": {}}
