"""Which release a service goes to, as tables: what runs and was kept → the release, and the number of the rollout."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.qianjiang.release import configuration_hash
from ansible.module_utils.qianjiang.target import (
    PlanError,
    Platform,
    Target,
    kept_releases,
    newest_target,
    restart_target,
    rollback_target,
    scale_target,
    short,
)

from support import DATACENTERS, NEW, OLD, catalogue, kept, left_over, node, replica, running

SERVICES = catalogue()
CONFIGURATION = configuration_hash(SERVICES["webui"])


def platform(digests: dict[str, str] | None = None, **nodes: dict[str, Any]) -> Platform:
    return Platform(SERVICES, DATACENTERS, {"webui": NEW} if digests is None else digests, nodes, {})


def target(number: int, release: int, digest: str = NEW, configuration: str = CONFIGURATION) -> Target:
    return Target(number=number, release=release, digest=digest, configuration=configuration, changed=False)


def on(release: int, highest: int | None = None, digest: str = NEW, **more: Any) -> dict[str, Any]:
    """A node that runs this release."""
    return node(replica(running(release, digest=digest)), highest=release if highest is None else highest, **more)


def drifted(name: str) -> dict[str, Any]:
    """A node whose container differs in this from what it shall be."""
    change = {"name": name, "before": "x", "after": "y"}
    return node(replica(running(3), differences=[change]), highest=3)


BARE = node(replica(), highest=0)
IMAGE = {"name": "image", "before": OLD, "after": NEW}
USER = {"name": "user", "before": "10001", "after": "10002"}


@pytest.mark.parametrize(
    ("nodes", "release"),
    [
        pytest.param({"h1": on(3), "h2": on(3)}, 3, id="idempotent"),
        pytest.param({}, 1, id="no node answered"),
        pytest.param({"h1": BARE, "h2": BARE}, 1, id="first release"),
        pytest.param({"h1": on(2, digest=OLD), "h2": on(2, digest=OLD)}, 3, id="next release"),
        pytest.param({"h1": on(3), "h2": on(2, digest=OLD)}, 3, id="resumed under the same number"),
        pytest.param({"h1": on(2, 3, OLD), "h2": on(2, digest=OLD)}, 4, id="a used number is not reused"),
        pytest.param({"h1": on(2, 4), "h2": on(2, 4)}, 5, id="after a rollback: its number is used too"),
        pytest.param({"h1": on(3, 4), "h2": on(2, 4, OLD)}, 5, id="begun under a number before the highest"),
        pytest.param(
            {"h1": node(replica(running(3, configuration="other")), highest=3)}, 4, id="another configuration"
        ),
        pytest.param({"h1": on(3), "h2": BARE}, 3, id="a new node joins under the same number"),
        pytest.param({"h1": node(replica(), replica(running(3), number=1), highest=3)}, 3, id="one of two replicas"),
        pytest.param(
            {"h1": node(replica(running(2, digest=OLD), extra=[left_over(3)]), highest=3)},
            4,
            id="a candidate that serves nobody gives no number",
        ),
        pytest.param({"h1": on(3), "h2": drifted("ports")}, 4, id="a container that is not as it was made"),
        pytest.param({"h1": on(3), "h2": drifted("running")}, 3, id="one that has ended is started again"),
        pytest.param({"h1": on(3), "h2": on(3, digest=OLD)}, 4, id="a number that names two things"),
    ],
)
def test_newest(nodes: dict[str, Any], release: int) -> None:
    assert newest_target("webui", platform(**nodes)) == target(release, release)


def test_a_restart_has_a_number_of_its_own() -> None:
    assert restart_target("webui", platform(h1=on(3), h2=on(3))) == target(4, 4)
    assert restart_target("webui", platform(h1=on(2, 6, OLD))) == target(7, 7)


@pytest.mark.parametrize(
    ("replicas", "kept_there", "releases"),
    [
        pytest.param([replica()], [], [], id="nothing"),
        pytest.param([replica(running(4))], [kept(3), kept(2)], [2, 3, 4], id="what serves, and what was kept"),
        pytest.param([replica(running(4), extra=[left_over(3)])], [], [3, 4], id="and what runs beside it"),
        pytest.param(
            [replica(running(4)), replica(running(4, number=1), 1)],
            [kept(3), kept(3, number=1), kept(2)],
            [3, 4],
            id="every replica must have it",
        ),
        pytest.param(
            [replica(running(4)), replica(None, 1)], [kept(4, number=1), kept(3)], [4], id="each in its own way"
        ),
    ],
)
def test_what_a_node_can_go_to(replicas: list[Any], kept_there: list[Any], releases: list[int]) -> None:
    found = kept_releases("webui", {"h1": node(*replicas, highest=4, kept=kept_there)})
    assert found == {release: ["h1"] for release in releases}


def went(kept_there: list[int], serving: int, highest: int | None = None) -> dict[str, Any]:
    return on(serving, highest, f"sha256:{serving}", kept=[kept(one, digest=f"sha256:{one}") for one in kept_there])


def parted(release: int, serving: int, *others: int) -> dict[str, dict[str, Any]]:
    """Two datacenters that got different images under one number, by --limit."""
    digests = {"h1": OLD, "s1": NEW}
    return {
        name: on(serving, 8, "sha256:serves", kept=[kept(release, digest=digest), *map(kept, others)])
        for name, digest in digests.items()
    }


@pytest.mark.parametrize(
    ("nodes", "to", "number", "release"),
    [
        pytest.param({"h1": went([3, 2], 4), "h2": went([3, 2], 4)}, "", 5, 3, id="the newest from before"),
        pytest.param({"h1": went([3, 2], 4), "h2": went([3, 2], 4)}, "r2", 5, 2, id="the one that is named"),
        pytest.param({"h1": went([3, 2], 4), "h2": went([3, 2], 4)}, "2", 5, 2, id="by its number"),
        pytest.param({"h1": went([3, 4], 2, 5), "h2": went([3, 4], 2, 5)}, "r4", 6, 4, id="forward again"),
        pytest.param({"h1": went([3, 4], 2, 5)}, "r2", 6, 2, id="idempotent: where it is already"),
        pytest.param({"h1": went([2], 4), "h2": went([4, 2], 3)}, "", 5, 2, id="one that every node has"),
        pytest.param({"h1": went([3], 4), "h2": went([4], 3)}, "", 5, 3, id="half way back already"),
        pytest.param({"h1": went([4], 3, 5), "h2": went([3], 4, 4)}, "r3", 6, 3, id="killed, and named again"),
        pytest.param({"h1": went([4, 2], 3, 5), "h2": went([4, 2], 3, 5)}, "", 6, 3, id="again: no further back"),
        pytest.param({"h1": went([4, 3], 2, 6)}, "", 7, 2, id="again, after one was named"),
        pytest.param(
            {"h1": went([8, 6], 7, 8), "h2": went([6], 7, 8)}, "", 9, 6, id="after a rollout that failed half way"
        ),
        pytest.param(
            {"h1": node(replica(running(4), extra=[left_over(3, digest=OLD)]), highest=5, kept=[kept(2)])},
            "",
            6,
            3,
            id="killed before its switch: the same one again",
        ),
        pytest.param(parted(7, 8, 6), "", 9, 6, id="a number that means two images is skipped"),
        pytest.param(parted(7, 6, 5), "", 9, 6, id="again, after it was skipped"),
        pytest.param(parted(7, 8, 6), "r6", 9, 6, id="past it, by name"),
        pytest.param({"h1": parted(7, 8)["h1"]}, "r7", 9, 7, id="by --limit to those of one image"),
        pytest.param(
            {name: on(4, kept=[kept(3, configuration=name)]) for name in ("h1", "s1")},
            "r3",
            5,
            3,
            id="an environment of each node's own",
        ),
    ],
)
def test_back(nodes: dict[str, Any], to: str, number: int, release: int) -> None:
    found = rollback_target("webui", platform({}, **nodes), to)
    assert (found["number"], found["release"]) == (number, release)


def test_what_was_kept_says_what_comes_back() -> None:
    there = on(4, kept=[kept(3, digest="sha256:kept", configuration="before")])
    assert rollback_target("webui", platform({}, h1=there), "") == target(5, 3, "sha256:kept", "before")


@pytest.mark.parametrize(
    ("nodes", "to", "message"),
    [
        pytest.param(
            {"h1": went([], 4)},
            "",
            "webui: no earlier release was kept on every node; there are r4 on h1",
            id="nothing kept",
        ),
        pytest.param(
            {"h1": BARE}, "", "webui: no earlier release was kept on every node; there are none", id="nothing runs"
        ),
        pytest.param(
            {"h1": went([3], 4), "h2": went([2, 3], 4)},
            "r2",
            "webui: h1 did not keep r2; there are r2 on h2; r3 on h1, h2; r4 on h1, h2",
            id="not kept somewhere",
        ),
        pytest.param(
            {"h1": went([3], 4), "h2": BARE, "s1": BARE},
            "",
            "webui: no earlier release was kept on every node; there are r3 on h1; r4 on h1",
            id="new nodes have kept nothing",
        ),
        pytest.param(
            {"h1": node(replica(running(4)), replica(running(4, number=1), 1), highest=4, kept=[kept(3)])},
            "r3",
            "webui: h1 did not keep r3; there are r4 on h1",
            id="only one of its replicas has",
        ),
        pytest.param(
            {"h1": {**BARE, "services": {}}}, "r3", "webui: it is placed on none of these nodes", id="not placed here"
        ),
        pytest.param(
            {"h1": went([3], 4)},
            "last",
            'to: expected a release such as r3, got "last"; webui has r3 on h1; r4 on h1',
            id="no release",
        ),
        pytest.param(
            parted(7, 8),
            "r7",
            "webui: r7 is not one image: 000000000000 on h1; 111111111111 on s1; "
            "name another release, or --limit to the nodes of one of them",
            id="two images",
        ),
        pytest.param(
            parted(7, 8),
            "",
            "webui: no earlier release was kept on every node; "
            "there are r7 (000000000000) on h1; r7 (111111111111) on s1; r8 on h1, s1",
            id="nothing but two images",
        ),
        pytest.param(
            {
                name: on(5, 8, digest, kept=[kept(6), kept(7)])
                for name, digest in (("h1", OLD), ("h2", OLD), ("s1", NEW))
            },
            "",
            "webui: r5 is not one image: 000000000000 on h1, h2; 111111111111 on s1; "
            "name another release, or --limit to the nodes of one of them",
            id="two images serve, and what was kept came later",
        ),
    ],
)
def test_there_is_no_way_back(nodes: dict[str, Any], to: str, message: str) -> None:
    with pytest.raises(PlanError) as error:
        rollback_target("webui", platform({}, **nodes), to)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("nodes", "number", "release", "digest"),
    [
        pytest.param({"h1": on(3), "h2": on(3)}, 3, 3, NEW, id="idempotent"),
        pytest.param({"h1": on(3), "h2": BARE}, 3, 3, NEW, id="a new node gets what the others run"),
        pytest.param(
            {"h1": on(2, 4, OLD), "h2": on(3, 4)}, 4, 2, OLD, id="the oldest that serves, under no new number"
        ),
    ],
)
def test_scale(nodes: dict[str, Any], number: int, release: int, digest: str) -> None:
    assert scale_target("webui", platform(**nodes)) == target(number, release, digest)


def test_a_catalogue_that_names_what_the_image_says_already_is_scaled() -> None:
    node1 = node(replica(running(3, configuration="other"), differences=[IMAGE]), highest=3)
    assert scale_target("webui", platform(h1=node1)) == target(3, 3, configuration="other")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"h1": BARE}, "webui: nothing runs that could be scaled; roll it out first (playbooks/rollout.yml)"),
        (
            {"h1": on(2, 4, OLD), "h2": on(3, 4), "s1": BARE},
            "webui: r2 and r3 serve, so that it is open which one a new replica is of; roll it out everywhere first "
            "(playbooks/rollout.yml), or back",
        ),
        (
            {"h1": node(replica(running(3, configuration="other"), differences=[IMAGE, USER]), highest=3)},
            "webui: the catalogue has another configuration than r3, which serves; "
            "roll it out first (playbooks/rollout.yml --check --diff says what differs)",
        ),
    ],
)
def test_nothing_to_scale(nodes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError) as error:
        scale_target("webui", platform(**nodes))
    assert str(error.value) == message


def test_short() -> None:
    assert (short("sha256:0123456789abcdef"), short(None)) == ("0123456789ab", "nothing")
