"""What a node remembers of a service, and which container of a replica is the one that serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.qianjiang.service_state import (
    Owned,
    State,
    StateError,
    claim,
    fence,
    owned,
    proven,
    read_state,
    record_serving,
    replica_view,
    update_state,
    write_state,
)

from support import container


def test_a_node_that_never_saw_the_service(tmp_path: Path) -> None:
    assert read_state(str(tmp_path / "none"), "webui") == {"highest_release": 0, "current": {}}


def test_what_is_written_is_read_and_nothing_else_is_left(tmp_path: Path) -> None:
    directory = tmp_path / "services"
    write_state(str(directory), "webui", {"highest_release": 7, "current": {"0": "webui.0.r7"}})
    assert read_state(str(directory), "webui") == {"highest_release": 7, "current": {"0": "webui.0.r7"}}
    assert json.loads((directory / "webui.json").read_text()) == {"highest_release": 7, "current": {"0": "webui.0.r7"}}
    assert [path.name for path in directory.iterdir()] == ["webui.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"highest_release": "7"}', '{"highest_release": 7, "current": []}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "webui.json").write_text(text)
    with pytest.raises(
        StateError, match=rf"^{tmp_path}/webui\.json is damaged .*; move it away and roll the service out again"
    ):
        read_state(str(tmp_path), "webui")


def test_a_name_cannot_leave_the_directory(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"^not a service name: \"\.\./passwd\"$"):
        read_state(str(tmp_path), "../passwd")


OLD, NEW, KEPT = container(6, "a"), container(7, "b"), container(5, "b", "exited")


@pytest.mark.parametrize(
    ("containers", "recorded", "current", "extra", "free_slot"),
    [
        pytest.param([], None, None, [], "a", id="nothing there"),
        pytest.param([OLD, KEPT], "webui.0.r6", 6, [], "b", id="at rest"),
        pytest.param([NEW, KEPT], "webui.0.r7", 7, [], "a", id="at rest in the other slot"),
        pytest.param([OLD, NEW], "webui.0.r6", 6, [7], "b", id="killed after the candidate started"),
        pytest.param([OLD, NEW], "webui.0.r7", 7, [6], "a", id="killed before the old one stopped"),
        pytest.param([NEW], None, None, [7], "a", id="killed in the first rollout: nobody proved it"),
        pytest.param([OLD], None, None, [6], "b", id="record lost: the one that may serve keeps its slot"),
        pytest.param([OLD, NEW], None, None, [6, 7], "b", id="record lost, both run: the newer one gives way"),
        pytest.param([container(6, "a", "exited"), NEW], "webui.0.r6", 6, [7], "b", id="the current one stopped"),
        pytest.param([NEW], "webui.0.r6", None, [7], "a", id="the current one is gone"),
        pytest.param(
            [OLD, container(7, "b", "restarting")], "webui.0.r6", 6, [7], "b", id="a candidate in a crash loop"
        ),
        pytest.param(
            [OLD, container(7, "b", "created")], "webui.0.r6", 6, [], "b", id="a candidate that never started"
        ),
    ],
)
def test_which_one_serves(
    containers: list[Owned], recorded: str | None, current: int | None, extra: list[int], free_slot: str
) -> None:
    view = replica_view(containers, recorded)
    assert (view["current"]["release"] if view["current"] else None) == current
    assert [item["release"] for item in view["extra"]] == extra
    assert view["free_slot"] == free_slot


def test_containers_are_read_from_the_engines_list() -> None:
    entry: dict[str, Any] = {
        "Id": "abc",
        "Names": ["/webui.1.r7"],
        "ImageID": "sha256:i",
        "State": "running",
        "Labels": {
            "io.qianjiang.service": "webui",
            "io.qianjiang.replica": "1",
            "io.qianjiang.release": "7",
            "io.qianjiang.slot": "b",
            "io.qianjiang.digest": "sha256:d",
            "io.qianjiang.configuration": "c",
        },
    }
    foreign = {"Id": "x", "Names": ["/x"], "ImageID": "i", "State": "running", "Labels": {"io.qianjiang.service": "x"}}
    assert owned([foreign, entry]) == [
        {
            "container": "webui.1.r7",
            "id": "abc",
            "service": "webui",
            "replica": 1,
            "release": 7,
            "slot": "b",
            "digest": "sha256:d",
            "configuration": "c",
            "status": "running",
            "image_id": "sha256:i",
        },
        {
            "container": "x",
            "id": "x",
            "service": "x",
            "replica": -1,
            "release": 0,
            "slot": "",
            "digest": "",
            "configuration": "",
            "status": "running",
            "image_id": "i",
        },
    ]


@pytest.mark.parametrize(
    ("release", "message"),
    [
        (8, None),
        (7, None),
        (
            6,
            "release 6 of webui is refused: this node has seen release 7. Another rollout took over, or the release "
            "number was not taken from the lock; start the rollout again, it gets a new number",
        ),
    ],
)
def test_the_fence(release: int, message: str | None) -> None:
    assert fence({"highest_release": 7, "current": {}}, "webui", release) == message


def kept_in(path: Path) -> tuple[int, dict[str, str]]:
    state = read_state(str(path), "webui")
    return state["highest_release"], state["current"]


def test_who_serves_is_recorded_for_each_replica(tmp_path: Path) -> None:
    record_serving(str(tmp_path), "webui", 0, "webui.0.r7")
    assert kept_in(tmp_path) == (0, {"0": "webui.0.r7"})
    claim(str(tmp_path), "webui", 8)
    record_serving(str(tmp_path), "webui", 1, "webui.1.r8")
    assert kept_in(tmp_path) == (8, {"0": "webui.0.r7", "1": "webui.1.r8"})
    record_serving(str(tmp_path), "webui", 0, "webui.0.r8")
    assert kept_in(tmp_path) == (8, {"0": "webui.0.r8", "1": "webui.1.r8"})


def test_what_is_on_record_already_is_not_written_again(tmp_path: Path) -> None:
    record_serving(str(tmp_path), "webui", 0, "webui.0.r7")
    before = (tmp_path / "webui.json").stat().st_ino
    record_serving(str(tmp_path), "webui", 0, "webui.0.r7")
    assert (tmp_path / "webui.json").stat().st_ino == before


def test_the_fence_only_rises(tmp_path: Path) -> None:
    for release in (7, 7, 8):
        claim(str(tmp_path), "webui", release)
    with pytest.raises(StateError, match=r"^release 7 of webui is refused: this node has seen release 8\."):
        claim(str(tmp_path), "webui", 7)
    assert kept_in(tmp_path) == (8, {})


def test_a_change_that_fails_changes_nothing_and_frees_the_lock(tmp_path: Path) -> None:
    write_state(str(tmp_path), "webui", {"highest_release": 7, "current": {"0": "webui.0.r7"}})

    def fails(state: State) -> State:
        state["current"]["0"] = "webui.0.r8"
        raise StateError("no")

    with pytest.raises(StateError, match=r"^no$"):
        update_state(str(tmp_path), "webui", fails)
    record_serving(str(tmp_path), "webui", 1, "webui.1.r7")
    assert kept_in(tmp_path) == (7, {"0": "webui.0.r7", "1": "webui.1.r7"})


@pytest.mark.parametrize(
    ("status", "policy", "expected"),
    [
        ("running", "unless-stopped", True),
        ("exited", "unless-stopped", True),
        ("running", "no", False),
        ("exited", "", False),
        ("created", "unless-stopped", False),
        ("dead", "unless-stopped", False),
    ],
)
def test_which_one_was_proven(status: str, policy: str, expected: bool) -> None:
    assert proven({"State": {"Status": status}, "HostConfig": {"RestartPolicy": {"Name": policy}}}) is expected


def test_one_that_is_gone_proves_nothing() -> None:
    assert proven(None) is False
    assert proven({"State": {"Status": "exited"}, "HostConfig": {"RestartPolicy": None}}) is False
