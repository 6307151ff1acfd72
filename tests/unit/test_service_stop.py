"""service_stop: what it stops, keeps and removes, given what is there."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang.service_state import Owned, State

Loader = Callable[[str], ModuleType]


def container(release: int, status: str = "exited", image: str = "") -> Owned:
    return {
        "container": f"webui.0.r{release}",
        "id": f"id{release}",
        "service": "webui",
        "replica": 0,
        "release": release,
        "slot": "ab"[release % 2],
        "digest": "sha256:x",
        "configuration": "c",
        "status": status,
        "image_id": image or f"image{release}",
    }


def change(name: str, before: Any, after: Any) -> dict[str, Any]:
    return {"name": name, "before": before, "after": after}


KEPT, OLD, NEW = container(5), container(6, "running"), container(7, "running")
STATE: State = {"highest_release": 7, "current": {"0": "webui.0.r6"}}
DONE: State = {"highest_release": 7, "current": {"0": "webui.0.r7"}}
RECORD = change("current", "webui.0.r6", "webui.0.r7")


@pytest.mark.parametrize(
    ("containers", "others", "unproven", "state", "keep_releases", "expected"),
    [
        pytest.param([KEPT, container(6), NEW], [], [], DONE, 2, [], id="nothing to do"),
        pytest.param(
            [KEPT, OLD, NEW],
            [],
            [],
            STATE,
            2,
            [RECORD, change("webui.0.r6", "running", "stopped")],
            id="after a switch",
        ),
        pytest.param(
            [NEW], [], [], {"highest_release": 7, "current": {}}, 2, [change("current", None, "webui.0.r7")], id="first"
        ),
        pytest.param(
            [KEPT, OLD, NEW],
            [],
            [],
            DONE,
            1,
            [
                change("webui.0.r6", "running", "stopped"),
                change("webui.0.r5", "exited", None),
                change("image5", "present", None),
            ],
            id="killed before the stop; one too many is kept",
        ),
        pytest.param(
            [container(5, image="shared"), OLD, NEW],
            [container(1, image="shared")],
            [],
            STATE,
            1,
            [RECORD, change("webui.0.r6", "running", "stopped"), change("webui.0.r5", "exited", None)],
            id="an image that another container uses stays",
        ),
        pytest.param(
            [OLD, NEW],
            [],
            [],
            STATE,
            0,
            [RECORD, change("webui.0.r6", "running", None), change("image6", "present", None)],
            id="nothing is kept",
        ),
        pytest.param(
            [KEPT, OLD, container(8, "exited"), container(9, "created"), container(7, "running")],
            [],
            [8, 9],
            DONE,
            1,
            [
                change("webui.0.r6", "running", "stopped"),
                change("webui.0.r9", "created", None),
                change("webui.0.r8", "exited", None),
                change("webui.0.r5", "exited", None),
                change("image5", "present", None),
                change("image8", "present", None),
                change("image9", "present", None),
            ],
            id="unproven left-overs go, and count for nothing",
        ),
        pytest.param(
            [OLD, container(7, "running")],
            [],
            [6],
            DONE,
            2,
            [change("webui.0.r6", "running", None), change("image6", "present", None)],
            id="an unproven one that runs is not kept",
        ),
        pytest.param(
            [OLD, NEW],
            [],
            [],
            {"highest_release": 3, "current": {"0": "webui.0.r7"}},
            2,
            [change("highest_release", 3, 7), change("webui.0.r6", "running", "stopped")],
            id="the fence follows",
        ),
    ],
)
def test_plan(  # noqa: PLR0917 — one per column of the table
    load_module: Loader,
    containers: list[Owned],
    others: list[Owned],
    unproven: list[int],
    state: State,
    keep_releases: int,
    expected: list[Any],
) -> None:
    module = load_module("service_stop")
    desired = {"replica": 0, "keep": "webui.0.r7", "keep_releases": keep_releases}
    images = [item["image_id"] for item in others]
    found = module.plan(desired, containers, images, state, lambda item: item["release"] not in unproven)
    assert found == expected


@pytest.mark.parametrize(
    ("containers", "state", "message"),
    [
        (
            [OLD],
            STATE,
            "webui.0.r7 is not there, so nothing is stopped; running: webui.0.r6",
        ),
        (
            [OLD, container(7, "exited")],
            STATE,
            "webui.0.r7 is exited, so nothing is stopped; start it first (service_start)",
        ),
        (
            [OLD, NEW],
            {"highest_release": 8, "current": {"0": "webui.0.r6"}},
            "release 7 of webui is refused: this node has seen release 8. Another rollout took over, or the release "
            "number was not taken from the lock; start the rollout again, it gets a new number",
        ),
    ],
)
def test_refused(load_module: Loader, containers: list[Owned], state: State, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 — the whole message is compared
        load_module("service_stop").plan(
            {"replica": 0, "keep": "webui.0.r7", "keep_releases": 2}, containers, [], state, lambda _: True
        )
    assert str(caught.value) == message


def test_the_current_one_may_be_kept_though_a_later_candidate_failed(load_module: Loader) -> None:
    state: State = {"highest_release": 9, "current": {"0": "webui.0.r7"}}
    module = load_module("service_stop")
    desired = {"replica": 0, "keep": "webui.0.r7", "keep_releases": 2}
    assert module.plan(desired, [NEW, container(9, "running")], [], state, lambda _: False) == [
        change("webui.0.r9", "running", None),
        change("image9", "present", None),
    ]


def test_in_check_mode_the_candidate_is_taken_for_running(load_module: Loader) -> None:
    desired = {"replica": 0, "keep": "webui.0.r7", "keep_releases": 2, "assume": True}
    assert load_module("service_stop").plan(desired, [OLD], [], STATE, lambda _: True) == [
        RECORD,
        change("webui.0.r6", "running", "stopped"),
    ]
