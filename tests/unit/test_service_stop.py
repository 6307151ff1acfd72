"""service_stop: what it stops, keeps and removes, given what is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible.module_utils.qianjiang import observation
from ansible.module_utils.qianjiang.ending import unused_images
from ansible.module_utils.qianjiang.service_state import Owned, State, read_state, write_state

from fake_engine import REFERENCE, WEBUI, Host
from running import ModuleFailedError, run
from support import ROOT
from support import container as listed

Loader = Callable[[str], ModuleType]


def container(release: int, status: str = "exited", image: str = "", **more: Any) -> Owned:
    given = {"image_id": image} if image else {}
    return listed(release, "ab"[release % 2], status, **given, **more)


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
                change("webui.0.r5", "exited", None),
                change("image5", "present", None),
                change("webui.0.r6", "running", "stopped"),
            ],
            id="killed before the stop; one too many is kept",
        ),
        pytest.param(
            [container(5, image="shared"), OLD, NEW],
            [container(1, image="shared")],
            [],
            STATE,
            1,
            [RECORD, change("webui.0.r5", "exited", None), change("webui.0.r6", "running", "stopped")],
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
                change("webui.0.r9", "created", None),
                change("webui.0.r8", "exited", None),
                change("webui.0.r5", "exited", None),
                change("image5", "present", None),
                change("image8", "present", None),
                change("image9", "present", None),
                change("webui.0.r6", "running", "stopped"),
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
            [container(4), container(5, "running"), container(6), NEW],
            [],
            [],
            {"highest_release": 6, "current": {"0": "webui.0.r5"}},
            2,
            [
                change("current", "webui.0.r5", "webui.0.r7"),
                change("highest_release", 6, 7),
                change("webui.0.r6", "exited", None),
                change("image6", "present", None),
                change("webui.0.r5", "running", "stopped"),
            ],
            id="what was rolled back is not kept in place of what served",
        ),
        pytest.param(
            [container(5, "running"), container(6), NEW],
            [],
            [],
            DONE,
            1,
            [
                change("webui.0.r6", "exited", None),
                change("image6", "present", None),
                change("webui.0.r5", "running", "stopped"),
            ],
            id="nor where a run was killed once the record was written",
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


@pytest.mark.parametrize("keep", ["webui.0.r6", "webui.0.r7"])
def test_a_rollout_that_slept_stops_nothing_of_the_next_one(load_module: Loader, keep: str) -> None:
    """It was number 7, and keeps what is on record: before its switch, or after it."""
    state: State = {"highest_release": 8, "current": {"0": keep}}
    desired = {"replica": 0, "keep": keep, "number": 7, "keep_releases": 2}
    with pytest.raises(ValueError, match=r"^release 7 of webui is refused: this node has seen release 8\."):
        load_module("service_stop").plan(
            desired, [container(6, "running"), NEW, container(8, "running")], [], state, lambda _: True
        )


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


TWIN = container(6, "exited", "image6", container="webui.0.r6.0123456789ab", id="twin")


@pytest.mark.parametrize(
    ("containers", "state", "more", "expected"),
    [
        pytest.param(
            [container(6, "running"), NEW],
            STATE,
            {"keep": "webui.0.r6", "drop": "webui.0.r7", "number": 7},
            [change("webui.0.r7", "running", None), change("image7", "present", None)],
            id="a candidate that failed is not kept, though it was proven",
        ),
        pytest.param(
            [container(6, "running"), TWIN, NEW],
            {"highest_release": 8, "current": {"0": "webui.0.r7"}},
            {"keep": "webui.0.r6", "number": 8},
            [
                change("current", "webui.0.r7", "webui.0.r6"),
                change("webui.0.r6.0123456789ab", "exited", None),
                change("webui.0.r7", "running", "stopped"),
            ],
            id="moved to the other slot: its twin goes, its image stays",
        ),
        pytest.param(
            [KEPT, TWIN, container(6), NEW],
            DONE,
            {},
            [change("webui.0.r6", "exited", None)],
            id="of two of a release one is kept",
        ),
        pytest.param(
            [KEPT, container(6, "running"), NEW],
            {"highest_release": 8, "current": {"0": "webui.0.r7"}},
            {"keep": "webui.0.r6", "number": 9},
            [
                change("current", "webui.0.r7", "webui.0.r6"),
                change("highest_release", 8, 9),
                change("webui.0.r7", "running", "stopped"),
            ],
            id="after a rollback the fence has its number",
        ),
    ],
)
def test_plan_after_a_failure_or_a_rollback(
    load_module: Loader, containers: list[Owned], state: State, more: dict[str, Any], expected: list[Any]
) -> None:
    desired = {"replica": 0, "keep": "webui.0.r7", "keep_releases": 2} | more
    assert load_module("service_stop").plan(desired, containers, [], state, lambda _: True) == expected


@pytest.mark.parametrize(
    ("containers", "unproven", "keep_releases"),
    [
        pytest.param([KEPT, OLD, NEW], [], 1, id="an older one goes, what served is stopped"),
        pytest.param([KEPT, OLD, NEW], [], 0, id="nothing is kept"),
        pytest.param([KEPT, container(6, "running", "image5"), NEW], [6], 0, id="they share an image"),
        pytest.param([container(4), container(5, "running"), container(6), NEW], [], 1, id="one was rolled back"),
    ],
)
def test_killed_anywhere_it_leaves_work_that_shows(
    load_module: Loader, containers: list[Owned], unproven: list[int], keep_releases: int
) -> None:
    """As long as a container has to go, one runs beside the one that serves, so that the next run plans a step."""
    desired = {"replica": 0, "keep": "webui.0.r7", "keep_releases": keep_releases}

    def changes(there: list[Owned]) -> list[Any]:
        found: list[Any] = load_module("service_stop").plan(
            desired, there, [], DONE, lambda item: item["release"] not in unproven
        )
        return found

    todo = changes(containers)
    there = {item["container"]: item for item in containers}
    for one in (item for item in todo if item["before"] != "present"):
        assert any(item["status"] == "running" for item in there.values() if item != NEW), one
        if one["after"] is None:
            there.pop(one["name"], None)
        else:
            there[one["name"]] = {**there[one["name"]], "status": "exited"}
    assert changes(list(there.values())) == []


class Stopping:
    """The module on a host where release 7 has come beside 6, and 5 was kept."""

    def __init__(self, module: ModuleType, capsys: pytest.CaptureFixture[str], path: Path) -> None:
        self.module, self.capsys, self.path = module, capsys, str(path)
        self.host = Host().add(5, "b", "exited").add(6, "a").add(7, "b")
        self.record("webui.0.r6", 7)

    def record(self, name: str, highest: int) -> None:
        write_state(self.path, "webui", {"highest_release": highest, "current": {"0": name}})

    def recorded(self) -> State:
        return read_state(self.path, "webui")

    def stop(self, *replicas: dict[str, Any], check: bool = False, **more: Any) -> dict[str, Any]:
        common = {"service": WEBUI, "keep": "webui.0.r7", "number": 7}
        options = {"replicas": [common | one for one in replicas], "services": [WEBUI], "state_path": self.path}
        return run(self.module, self.capsys, options | more, check=check)


@pytest.fixture
def node(
    load_module: Loader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Stopping:
    module = load_module("service_stop")
    found = Stopping(module, capsys, tmp_path)
    monkeypatch.setattr(module, "Engine", lambda: found.host)
    monkeypatch.setattr(observation, "port_holder", lambda _port, _entries: None)
    return found


def test_it_ends_with_a_look_at_the_node(node: Stopping) -> None:
    found = node.stop({})
    assert found["diff"]["after"] == {"current": "webui.0.r7", "webui.0.r6": "stopped"}
    assert [(one["container"], one["killed"]) for one in found["stopped"]] == [("webui.0.r6", False)]
    seen = found["services"]["webui"]
    assert (seen["replicas"][0]["current"]["container"], seen["replicas"][0]["extra"]) == ("webui.0.r7", [])
    assert [one["container"] for one in seen["kept"]] == ["webui.0.r6", "webui.0.r5"]
    assert (found["orphans"], node.recorded()) == ([], {"highest_release": 7, "current": {"0": "webui.0.r7"}})
    again = node.stop({})
    assert (again["changed"], again["services"]) == (False, found["services"])
    assert node.host.calls == ["stop webui.0.r6 within 30"]


def test_the_look_waits_for_the_engines_verdict(node: Stopping, monkeypatch: pytest.MonkeyPatch) -> None:
    state = node.host.there["webui.0.r7"]["State"]
    state["Health"] = {"Status": "starting"}
    monkeypatch.setattr(node.module.time, "sleep", lambda _: state.update({"Health": {"Status": "healthy"}}))
    assert node.stop({})["services"]["webui"]["replicas"][0]["current"]["health"] == "healthy"


def test_the_look_does_not_wait_longer_than_a_check_takes(node: Stopping, monkeypatch: pytest.MonkeyPatch) -> None:
    node.host.there["webui.0.r7"]["State"]["Health"] = {"Status": "starting"}
    now = [100.0]
    monkeypatch.setattr(node.module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(node.module.time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    assert node.stop({})["services"]["webui"]["replicas"][0]["current"]["health"] == "starting"
    assert now == [pytest.approx(104, abs=0.3)], "an interval and a timeout, 2 s each"


def test_check_mode_says_the_same_does_nothing_and_shows_what_runs_now(node: Stopping) -> None:
    found = node.stop({}, check=True)
    assert (found["changed"], found["diff"]["after"]) == (True, {"current": "webui.0.r7", "webui.0.r6": "stopped"})
    assert found["services"]["webui"]["replicas"][0]["current"]["container"] == "webui.0.r6"
    assert (node.host.calls, node.recorded()["current"]) == ([], {"0": "webui.0.r6"})


def test_the_record_comes_before_the_first_stop(node: Stopping, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(node.host, "stop", lambda _name, _timeout: seen.append(node.recorded()["current"]))
    node.stop({})
    assert seen == [{"0": "webui.0.r7"}]


def test_several_replicas_and_none(node: Stopping) -> None:
    node.host.add(6, "a", replica=1).add(7, "b", replica=1)
    found = node.stop({}, {"replica": 1, "keep": "webui.1.r7"})
    assert sorted(one["container"] for one in found["stopped"]) == ["webui.0.r6", "webui.1.r6"]
    assert node.recorded()["current"] == {"0": "webui.0.r7", "1": "webui.1.r7"}
    assert node.stop()["changed"] is False


def test_an_image_goes_when_the_last_replica_no_longer_needs_it(node: Stopping) -> None:
    node.host.add(5, "b", "exited", replica=1).add(7, "b", replica=1)
    second = {"replica": 1, "keep": "webui.1.r7"}
    services = [{"service": WEBUI | {"keep_releases": 1}}, {"service": WEBUI | {"keep_releases": 0}} | second]
    found = node.stop(*services)
    assert sorted(found["removed"]) == ["webui.0.r5", "webui.1.r5"]
    assert found["diff"]["after"]["image of r5"] is None
    assert found["images_removed"]


def test_what_failed_goes_with_its_image_and_the_old_one_stays(node: Stopping) -> None:
    found = node.stop({"keep": "webui.0.r6", "drop": "webui.0.r7"})
    assert (found["removed"], len(found["images_removed"])) == (["webui.0.r7"], 1)
    assert [one["container"] for one in found["services"]["webui"]["kept"]] == ["webui.0.r5"]


def test_one_that_does_not_hear_is_killed(node: Stopping) -> None:
    node.host.sick = {"webui.0.r6"}
    assert node.stop({})["stopped"][0]["killed"] is True


@pytest.mark.parametrize(
    ("keep", "number", "message"),
    [
        (
            "webui.0.r8",
            8,
            "service_stop: webui.0.r8 is not there, so nothing is stopped; running: webui.0.r6, webui.0.r7",
        ),
        (
            "webui.0.r5",
            7,
            "service_stop: webui.0.r5 is exited, so nothing is stopped; start it first (service_start)",
        ),
        (
            "webui.0.r7",
            6,
            "service_stop: release 6 of webui is refused: this node has seen release 7. Another rollout took over, or "
            "the release number was not taken from the lock; start the rollout again, it gets a new number",
        ),
    ],
)
def test_refused_nothing_is_touched(node: Stopping, keep: str, number: int, message: str) -> None:
    with pytest.raises(ModuleFailedError) as caught:
        node.stop({"keep": keep, "number": number})
    assert str(caught.value) == message
    assert (node.host.calls, node.recorded()["current"]) == ([], {"0": "webui.0.r6"})


D, E = "sha256:" + "d" * 64, "sha256:" + "e" * 64
FAILED = f"{REFERENCE}@{D}"


def used_by(image_id: str, reference: str = "nginx") -> dict[str, Any]:
    """A container of whomever, as the engine lists it."""
    return {"Id": "c", "ImageID": image_id, "Image": reference, "Labels": None, "State": "exited"}


@pytest.mark.parametrize(
    ("image", "entries", "keep", "expected"),
    [
        pytest.param({}, [], [E], [FAILED], id="nobody uses it"),
        pytest.param({}, [used_by("other")], [], [FAILED], id="what runs uses another"),
        pytest.param({}, [used_by("id")], [], [], id="a container uses it"),
        pytest.param({}, [used_by("index", FAILED)], [], [], id="by its name"),
        pytest.param({}, [], [D], [], id="it is to stay"),
        pytest.param({"RepoTags": ["<none>:<none>"]}, [], [], [FAILED], id="no tag, as older engines say it"),
        pytest.param({"RepoTags": [f"{REFERENCE}:ctx-1"]}, [], [], [], id="a builder's"),
        pytest.param({"RepoDigests": None}, [], [], [], id="without a name"),
        pytest.param({"RepoDigests": [f"my-{FAILED}"]}, [], [], [], id="of another registry"),
        pytest.param({"RepoDigests": [FAILED.replace("webui", "my-webui")]}, [], [], [], id="of another repository"),
        pytest.param({"RepoDigests": [f"ghcr.io/webui@{D}", f"webui@{D}", FAILED]}, [], [], [FAILED], id="some are"),
    ],
)
def test_which_images_nobody_needs(
    image: dict[str, Any], entries: list[dict[str, Any]], keep: list[str], expected: list[str]
) -> None:
    listed = {"Id": "id", "RepoTags": [], "RepoDigests": [FAILED]} | image
    found = unused_images([listed], entries, {REFERENCE}, keep)
    assert found == [change(name, "present", None) for name in expected]


UNUSED = {"unused_images": {"registries": [REFERENCE.partition("/")[0]], "keep": [E]}}


def test_an_image_that_failed_goes_when_all_is_done(node: Stopping) -> None:
    wanted = f"{REFERENCE}@{E}"
    node.host.images = {FAILED, wanted, f"{REFERENCE.replace('webui', 'base')}@{D}"}
    assert FAILED not in node.stop({}, check=True)["diff"]["after"], "nobody asked for it"
    planned = node.stop({}, check=True, **UNUSED)
    assert node.host.calls == []
    done = node.stop({}, **UNUSED)
    assert done["diff"] == planned["diff"]
    assert (done["diff"]["after"][FAILED], done["images_removed"], done["removed"]) == (None, [FAILED], [])
    assert node.host.calls == ["stop webui.0.r6 within 30", f"remove image {FAILED}"]
    assert wanted in node.host.images
    assert node.stop({}, **UNUSED)["changed"] is False


def test_an_image_that_the_engine_does_not_give_up(node: Stopping, monkeypatch: pytest.MonkeyPatch) -> None:
    node.host.images = {FAILED}
    monkeypatch.setattr(node.host, "remove_image", lambda _: False)
    done = node.stop({}, **UNUSED)
    assert (done["images_removed"], len(done["stopped"])) == ([], 1)


def test_a_rollout_that_slept_removes_no_image(node: Stopping) -> None:
    node.host.images = {FAILED}
    with pytest.raises(ModuleFailedError, match="release 6 of webui is refused"):
        node.stop({"number": 6}, **UNUSED)
    assert node.host.images == {FAILED}


@pytest.mark.parametrize(("file", "asked"), [("settle", True), ("forward", False)])
def test_images_go_only_when_nothing_else_is_to_start(file: str, asked: bool) -> None:
    tasks = yaml.safe_load((ROOT / f"roles/service/tasks/{file}.yml").read_text(encoding="utf-8"))
    flat = [inner for task in tasks for inner in task.get("block", [task])]
    given = [task["service_stop"] for task in flat if "service_stop" in task]
    assert [one.get("unused_images", {}).keys() for one in given] == [{"registries", "keep"} if asked else set()]
