"""A configuration alone is a release: what the check lists is what the run does."""

from __future__ import annotations

from platform_lab import ADDRESSES, NODES, configured, digests, release, rollout, running
from visitors import Visitors

import lab


def test_a_variable_comes_and_goes_as_checked() -> None:
    number, image = release(), digests()
    change = configured(env={"TITLE": "Qianjiangyuan"})
    checked = rollout("--check", "--diff", *change)
    assert checked.returncode == 0, checked.stdout
    for node in NODES:
        assert f"{node}: webui.0: r{number} " in checked.stdout
    assert "(env.TITLE)" in checked.stdout
    assert release() == number

    with Visitors(ADDRESSES) as visitors:
        done = rollout(*change)
    assert done.returncode == 0, done.stdout
    assert visitors.failures == []
    assert release() > number
    assert digests() == image
    assert "TITLE=Qianjiangyuan" in running(NODES[0])["Config"]["Env"]

    back = rollout()
    assert back.returncode == 0, back.stdout
    assert "(env.TITLE)" in back.stdout
    assert not [value for value in running(NODES[0])["Config"]["Env"] if value.startswith("TITLE=")]
    assert set(lab.changes(rollout()).values()) == {0}
