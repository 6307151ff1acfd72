# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""service_remove: what goes, given what is there and how much stays; and how containers end."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang.ending import end_containers
from ansible.module_utils.qianjiang.engine import EngineError
from ansible.module_utils.qianjiang.service_state import Owned, State, read_state, write_state

from fake_engine import REFERENCE, Host
from running import ModuleFailedError, run
from support import NEW
from support import container as listed

Loader = Callable[[str], ModuleType]
IMAGE = f"{REFERENCE}@{NEW}"


def container(release: int, status: str = "running", *, replica: int = 0, **more: Any) -> Owned:
    name = f"{more.get('service', 'webui')}.{replica}.r{release}"
    return listed(release, "a", status, **{"container": name, "id": name, "replica": replica} | more)


def gone(name: str, before: str) -> dict[str, Any]:
    return {"name": name, "before": before, "after": None}


FIRST, SECOND, THIRD = (container(3, replica=number) for number in range(3))
KEPT = container(2, "exited")
KEPT_THIRD = container(2, "exited", replica=2)
WEIRD = container(1, "exited", replica=-1)
REPORT = container(4, service="report", image_id="image of report")


@pytest.mark.parametrize(
    ("wanted", "containers", "others", "expected"),
    [
        pytest.param(
            {"webui": 0},
            [KEPT, FIRST],
            [],
            [
                gone("webui.0.r2", "exited"),
                gone("webui.0.r3", "running"),
                gone("image2", "present"),
                gone("image3", "present"),
            ],
            id="a whole service, with what it kept",
        ),
        pytest.param({"webui": 0}, [], [], [], id="nothing is left"),
        pytest.param({"webui": 0}, [REPORT], ["another"], [], id="not the services of others"),
        pytest.param({}, [FIRST, REPORT], [], [], id="nothing is named"),
        pytest.param(
            {"webui": 0, "report": 0},
            [REPORT, FIRST],
            [],
            [
                gone("report.0.r4", "running"),
                gone("webui.0.r3", "running"),
                gone("image of report", "present"),
                gone("image3", "present"),
            ],
            id="two services",
        ),
        pytest.param(
            {"webui": 1},
            [KEPT, FIRST, SECOND, KEPT_THIRD, THIRD],
            [],
            [gone("webui.1.r3", "running"), gone("webui.2.r2", "exited"), gone("webui.2.r3", "running")],
            id="too many replicas, with what they kept; the images are those of the first",
        ),
        pytest.param({"webui": 3}, [KEPT, FIRST, SECOND, THIRD], [], [], id="as many as shall stay"),
        pytest.param({"webui": 4}, [FIRST], [], [], id="fewer than shall stay"),
        pytest.param(
            {"webui": 1},
            [FIRST, KEPT_THIRD],
            [],
            [gone("webui.2.r2", "exited"), gone("image2", "present")],
            id="the image of an old release goes with the last that was kept",
        ),
        pytest.param(
            {"webui": 1},
            [FIRST, WEIRD],
            [],
            [gone("webui.-1.r1", "exited"), gone("image1", "present")],
            id="what is in no replica is too much",
        ),
        pytest.param(
            {"webui": 0},
            [FIRST],
            ["image3"],
            [gone("webui.0.r3", "running")],
            id="an image that a stranger uses stays",
        ),
        pytest.param(
            {"webui": 0},
            [FIRST, container(4, service="report", image_id="image3")],
            [],
            [gone("webui.0.r3", "running")],
            id="an image that another service uses stays",
        ),
    ],
)
def test_plan(
    load_module: Loader, wanted: dict[str, int], containers: list[Owned], others: list[str], expected: list[Any]
) -> None:
    services = [{"service": name, "replicas": number} for name, number in wanted.items()]
    assert load_module("service_remove").plan(services, containers, others) == expected


@pytest.mark.parametrize(
    ("current", "replicas", "expected"),
    [
        pytest.param({"0": "webui.0.r3", "1": "webui.1.r3"}, 0, {}, id="all"),
        pytest.param({"0": "webui.0.r3", "1": "webui.1.r3"}, 1, {"0": "webui.0.r3"}, id="one stays"),
        pytest.param({"0": "webui.0.r3", "10": "webui.10.r3"}, 2, {"0": "webui.0.r3"}, id="numbers, not letters"),
        pytest.param({"0": "webui.0.r3"}, 1, {"0": "webui.0.r3"}, id="nothing goes"),
        pytest.param({}, 0, {}, id="nothing there"),
    ],
)
def test_the_record_loses_what_is_gone_and_keeps_the_fence(
    load_module: Loader, current: dict[str, str], replicas: int, expected: dict[str, str]
) -> None:
    state: State = {"highest_release": 3, "current": current}
    found = load_module("service_remove").forgotten(state, replicas)
    assert found == {"highest_release": 3, "current": expected}


class Removing:
    """The module on a host where two replicas of the WebUI run, one kept its release before, beside a stranger."""

    def __init__(self, module: ModuleType, capsys: pytest.CaptureFixture[str], path: Path) -> None:
        self.module, self.capsys, self.path = module, capsys, str(path)
        self.host = Host().add(2, "b", "exited").add(3, "a").add(3, "a", replica=1).stranger("nginx", 80)
        write_state(self.path, "webui", {"highest_release": 3, "current": {"0": "webui.0.r3", "1": "webui.1.r3"}})

    def recorded(self) -> State:
        return read_state(self.path, "webui")

    def remove(self, *services: dict[str, Any], check: bool = False) -> dict[str, Any]:
        options = {"services": list(services), "state_path": self.path}
        return run(self.module, self.capsys, options, check=check)


@pytest.fixture
def node(
    load_module: Loader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Removing:
    module = load_module("service_remove")
    found = Removing(module, capsys, tmp_path)
    monkeypatch.setattr(module, "Engine", lambda: found.host)
    return found


ALL = ["webui.0.r2", "webui.0.r3", "webui.1.r3"]
# Shown by their ids; the engine removes them by their reference
BOTH_IMAGES = ["image of r2", "image of r3"]


def test_a_whole_service_goes_and_nothing_else(node: Removing) -> None:
    found = node.remove({"service": "webui"})
    assert (found["changed"], found["removed"]) == (True, ALL)
    assert found["diff"] == {
        "before": dict.fromkeys(ALL, "running") | {"webui.0.r2": "exited"} | dict.fromkeys(BOTH_IMAGES, "present"),
        "after": dict.fromkeys([*ALL, *BOTH_IMAGES]),
    }
    assert [(one["container"], one["killed"], one["exit_code"]) for one in found["stopped"]] == [
        ("webui.0.r3", False, 0),
        ("webui.1.r3", False, 0),
    ]
    assert found["images_removed"] == [IMAGE, IMAGE]
    assert (node.host.there, [one["Id"] for one in node.host.strangers]) == ({}, ["nginx"])
    assert node.recorded() == {"highest_release": 3, "current": {}}


def test_again_changes_nothing(node: Removing) -> None:
    node.remove({"service": "webui"})
    calls = list(node.host.calls)
    assert node.remove({"service": "webui"}) | {"invocation": None} == {
        "changed": False,
        "diff": {"before": {}, "after": {}},
        "removed": [],
        "invocation": None,
    }
    assert node.host.calls == calls


def test_replicas_too_many_go_and_the_images_that_others_use_stay(node: Removing) -> None:
    found = node.remove({"service": "webui", "replicas": 1})
    assert (found["removed"], found["images_removed"]) == (["webui.1.r3"], [])
    assert node.host.calls == ["stop webui.1.r3 within 30", "remove webui.1.r3"]
    assert sorted(node.host.there) == ["webui.0.r2", "webui.0.r3"]
    assert node.recorded() == {"highest_release": 3, "current": {"0": "webui.0.r3"}}


def test_an_image_that_a_stranger_uses_stays(node: Removing) -> None:
    node.host.strangers[0]["ImageID"] = "image of r3"
    assert node.remove({"service": "webui"})["images_removed"] == [IMAGE]
    assert [call for call in node.host.calls if "image" in call] == [f"remove image {IMAGE}"]


def test_images_go_after_the_last_container(node: Removing) -> None:
    node.remove({"service": "webui"})
    assert [call.split()[1] == "image" for call in node.host.calls] == [False] * 5 + [True] * 2


def test_check_mode_says_the_same_and_does_nothing(node: Removing) -> None:
    checked = node.remove({"service": "webui"}, check=True)
    assert (checked["changed"], checked["removed"]) == (True, ALL)
    assert "stopped" not in checked
    assert (node.host.calls, node.recorded()["current"]) == ([], {"0": "webui.0.r3", "1": "webui.1.r3"})
    assert node.remove({"service": "webui"})["diff"] == checked["diff"]


def test_another_service_and_an_unknown_one_stay_as_they_are(node: Removing) -> None:
    assert node.remove({"service": "report"}, {"service": "web"})["changed"] is False
    assert (node.host.calls, node.recorded()["current"]) == ([], {"0": "webui.0.r3", "1": "webui.1.r3"})


def test_the_record_comes_before_the_first_stop(node: Removing, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[State] = []
    monkeypatch.setattr(node.host, "stop", lambda _name, _timeout: seen.append(node.recorded()))
    node.remove({"service": "webui", "replicas": 1})
    assert seen == [{"highest_release": 3, "current": {"0": "webui.0.r3"}}]


def test_a_damaged_record_stops_it_before_anything_goes(node: Removing) -> None:
    file = Path(node.path) / "webui.json"
    file.write_text("{}")
    with pytest.raises(ModuleFailedError) as caught:
        node.remove({"service": "webui"})
    assert str(caught.value) == (
        f"service_remove: {file} is damaged ('highest_release'); move it away and roll the service out again: what "
        "runs keeps running until the new release is proven"
    )
    assert node.host.calls == []


def test_what_the_engine_refuses_is_said_and_the_next_run_ends_it(
    node: Removing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, _timeout: int) -> None:
        raise EngineError(f"stop {name}: it does not want to")

    with monkeypatch.context() as patched:
        patched.setattr(node.host, "stop", refuse)
        with pytest.raises(ModuleFailedError) as caught:
            node.remove({"service": "webui", "replicas": 1})
    assert str(caught.value) == "service_remove: stop webui.1.r3: it does not want to"
    assert node.remove({"service": "webui", "replicas": 1})["removed"] == ["webui.1.r3"]


def ending(name: str = "webui.0.r3", before: str = "running", after: str | None = None) -> Any:
    return {"name": name, "before": before, "after": after}


class Ending(Host):
    """Containers end with `code`; with None somebody removes them meanwhile. What was read before stays as it was."""

    code: int | None = 0

    def inspect(self, container: str) -> dict[str, Any] | None:
        return deepcopy(super().inspect(container))

    def stop(self, container: str, timeout: int) -> None:
        super().stop(container, timeout)
        self.there[container]["State"]["ExitCode"] = self.code
        if self.code is None:
            del self.there[container]


STOP, REMOVE = "stop webui.0.r3 within 30", "remove webui.0.r3"


@pytest.mark.parametrize(
    ("change", "code", "state", "stopped", "calls"),
    [
        pytest.param(ending(), 0, {}, [(False, 0)], [STOP, REMOVE], id="it hears SIGTERM"),
        pytest.param(ending(), 143, {}, [(False, 143)], [STOP, REMOVE], id="SIGTERM was enough"),
        pytest.param(ending(), 137, {}, [(True, 137)], [STOP, REMOVE], id="it was killed"),
        pytest.param(ending(), 137, {"OOMKilled": True}, [(False, 137)], [STOP, REMOVE], id="killed, but not by us"),
        pytest.param(ending(before="restarting"), 1, {}, [(False, 1)], [STOP, REMOVE], id="between two starts"),
        pytest.param(ending(before="paused"), 0, {}, [(False, 0)], [STOP, REMOVE], id="paused"),
        pytest.param(ending(after="stopped"), 0, {}, [(False, 0)], [STOP], id="it is kept"),
        pytest.param(ending(before="exited"), 0, {}, [], [REMOVE], id="it has ended"),
        pytest.param(ending(before="created"), 0, {}, [], [REMOVE], id="it never ran"),
        pytest.param(ending(), None, {}, [(False, 0)], [STOP, REMOVE], id="somebody removes it meanwhile"),
        pytest.param(ending("webui.0.r9"), 0, {}, [], ["remove webui.0.r9"], id="somebody removed it before"),
    ],
)
def test_how_containers_end(
    change: Any, code: int | None, state: dict[str, Any], stopped: list[tuple[bool, int]], calls: list[str]
) -> None:
    engine: Any = Ending().add(3, "a", **state)
    engine.code = code
    found = end_containers(engine, [change], {})
    assert [(one["killed"], one["exit_code"]) for one in found["stopped"]] == stopped
    assert (found["images_removed"], engine.calls) == ([], calls)


@pytest.mark.parametrize(
    ("own", "timeout"),
    [
        pytest.param(None, 10, id="the engine's default"),
        pytest.param(0, 0, id="at once"),
        pytest.param(90, 90, id="its own"),
    ],
)
def test_the_time_to_end_is_that_of_the_container(own: int | None, timeout: int) -> None:
    host = Host().add(3, "a")
    host.there["webui.0.r3"]["Config"]["StopTimeout"] = own
    engine: Any = host
    end_containers(engine, [ending()], {})
    assert host.calls[0] == f"stop webui.0.r3 within {timeout}"


@pytest.mark.parametrize(
    ("removable", "images", "asked", "expected"),
    [
        pytest.param(True, {"image3": IMAGE}, IMAGE, [IMAGE], id="by its reference"),
        pytest.param(True, {}, "image3", ["image3"], id="without one by its id"),
        pytest.param(False, {"image3": IMAGE}, IMAGE, [], id="in use after all"),
    ],
)
def test_how_images_go(removable: bool, images: dict[str, str], asked: str, expected: list[str]) -> None:
    class Using(Host):
        def remove_image(self, image: str) -> bool:
            return super().remove_image(image) and removable

    engine: Any = Using().add(3, "a")
    found = end_containers(engine, [ending("image3", "present")], images)
    assert (found, engine.calls) == ({"stopped": [], "images_removed": expected}, [f"remove image {asked}"])
