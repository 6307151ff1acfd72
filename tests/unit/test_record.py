"""Records are kept whole, once, and make one history."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.qianjiang import durable
from ansible.module_utils.qianjiang.record import RecordError, append, history_rows, merge, read

from support import load

FILTERS = load("plugins/filter/record.py").FilterModule().filters()


def rollout(run: str, minute: int = 5, **more: Any) -> dict[str, Any]:
    return {
        "kind": "rollout",
        "id": run,
        "verb": "rollout",
        "user": "ops",
        "controller": "control-1",
        "started_at": f"2026-11-24T10:{minute:02}:11Z",
        "finished_at": f"2026-11-24T10:{minute:02}:45Z",
        "seconds": 34.04,
        "result": "succeeded",
        "services": {"webui": {"from": [6], "to": 7, "digest": "sha256:x"}},
        "datacenters": ["hangzhou", "shanghai"],
        "reasons": [],
        "cut": 0,
        **more,
    }


def node(run: str, name: str = "h1", minute: int = 5, **more: Any) -> dict[str, Any]:
    return {
        "kind": "node",
        "id": run,
        "datacenter": "hangzhou",
        "node": name,
        "service": "webui",
        "replica": 0,
        "from_release": 6,
        "from_digest": "sha256:w",
        "to_release": 7,
        "to_digest": "sha256:x",
        "started_at": f"2026-11-24T10:{minute:02}:12Z",
        "seconds": 12.0,
        "result": "succeeded",
        "reason": "",
        **more,
    }


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "records/rollouts.jsonl")


def test_nothing_yet(path: str) -> None:
    assert read(path) == {"records": [], "damaged": 0}
    assert append(path, []) == 0
    assert not Path(path).exists()


def test_what_is_appended_is_read_once(path: str) -> None:
    first = [rollout("1", reasons=["二号机房: no\nspace\u2028"]), node("1"), node("1", "h2")]
    assert append(path, first) == 3
    assert append(path, first) == 0
    assert append(path, [*first[1:], node("1", "h2", replica=1), rollout("2"), rollout("2", result="failed")]) == 2
    assert read(path) == {"records": [*first, node("1", "h2", replica=1), rollout("2")], "damaged": 0}
    assert len(Path(path).read_bytes().split(b"\n")) == 6
    assert "二号机房" in Path(path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "torn", [b'{"kind": "rollout", "id": "1", "sta', b"\xff\xfe", b"\0\0\0", b"7", b'{"kind": "x"}']
)
def test_what_a_crash_tore_harms_nobody(path: str, torn: bytes) -> None:
    append(path, [rollout("0")])
    with Path(path).open("ab") as stream:
        stream.write(torn)
    assert read(path) == {"records": [rollout("0")], "damaged": 1}
    assert append(path, [rollout("1")]) == 1
    assert read(path) == {"records": [rollout("0"), rollout("1")], "damaged": 1}
    assert append(path, [rollout("0"), rollout("1")]) == 0


def test_a_whole_last_line_without_its_end_counts(path: str) -> None:
    append(path, [rollout("0")])
    Path(path).write_bytes(Path(path).read_bytes()[:-1])
    assert append(path, [rollout("0"), rollout("1")]) == 1
    assert read(path) == {"records": [rollout("0"), rollout("1")], "damaged": 0}


def test_a_full_disk_leaves_the_file_as_it_was(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    append(path, [rollout("0")])
    before, write, calls = Path(path).read_bytes(), os.write, []

    def short(handle: int, data: Any) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data[:10])

    monkeypatch.setattr(durable.os, "write", short)
    with pytest.raises(RecordError, match=rf"^cannot write {path}: No space left on device; is there space, "):
        append(path, [rollout("1")])
    monkeypatch.undo()
    assert len(calls) == 2
    assert Path(path).read_bytes() == before


def test_a_write_that_takes_two_goes(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(durable.os, "write", lambda handle, data: write(handle, data[:10]))
    append(path, [rollout("1"), node("1")])
    assert read(path)["records"] == [rollout("1"), node("1")]


def test_records_are_on_the_disk(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(
        durable.os, "fsync", lambda handle: synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
    )
    append(path, [rollout("1")])
    assert synced == [path, str(Path(path).parent)]
    append(path, [rollout("2")])
    assert synced[2:] == [path]


def _append(path: str, run: str) -> None:
    for index in range(20):
        append(path, [node(run, f"h{index}"), rollout("same")])


def test_many_at_once(path: str) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append, args=(path, str(number))) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = read(path)
    assert (len(found["records"]), found["damaged"]) == (4 * 20 + 1, 0)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"kind": "rolout", "id": "1"}, r"records\[1\]\.kind: expected rollout, node, lock, got 'rolout'"),
        ({**rollout("1"), "id": ""}, r"records\[1\]\.id: expected a text, got ''"),
        ({**rollout("1"), "started_at": 7}, r"records\[1\]\.started_at: expected a text, got 7"),
        ([], r"records\[1\]: expected a dictionary, got \[\]"),
    ],
)
def test_what_is_no_record_is_named_and_nothing_written(path: str, record: Any, message: str) -> None:
    with pytest.raises(RecordError, match=f"^{message}$"):
        append(path, [rollout("0"), record])
    assert not Path(path).exists()


@pytest.mark.parametrize(("limit", "runs"), [(0, "0123"), (1, "3"), (2, "23"), (9, "0123")])
def test_the_newest_runs_are_read_whole(path: str, limit: int, runs: str) -> None:
    for run in "0123":
        append(path, [rollout(run), node(run), node(run, "h2")])
    assert [record["id"] for record in read(path, limit)["records"]] == [run for run in runs for _ in range(3)]


def test_a_path_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    path = f"{tmp_path}/taken/rollouts.jsonl"
    with pytest.raises(RecordError, match=rf"^cannot write {path}: "):
        append(path, [rollout("1")])
    with pytest.raises(RecordError, match=rf"^cannot read {path}: Not a directory$"):
        read(path)


def test_one_history_of_several() -> None:
    hangzhou = [rollout("1", 5), node("1", "h1", 5), rollout("3", 9)]
    shanghai = [rollout("1", 5), node("1", "s1", 5), rollout("2", 7)]
    expected = [rollout("1", 5), node("1", "h1", 5), node("1", "s1", 5), rollout("2", 7), rollout("3", 9)]
    assert merge([hangzhou, shanghai, []]) == expected
    assert FILTERS["merge_records"]([shanghai, hangzhou, hangzhou])[3:] == expected[3:]
    assert merge([]) == []


def test_a_run_comes_before_its_nodes() -> None:
    records = [node("1", started_at="2026-11-24T10:05:11Z"), rollout("1")]
    assert [record["kind"] for record in merge([records])] == ["rollout", "node"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        pytest.param({}, "rollout webui r6→r7", id="from one to another"),
        pytest.param({"services": {"webui": {"from": [5, 6], "to": 7}}}, "rollout webui r5,r6→r7", id="from several"),
        pytest.param({"services": {"webui": {"from": [], "to": 1}}}, "rollout webui r1", id="the first one"),
        pytest.param(
            {"verb": "restart", "services": {"webui": {"from": [7], "to": 7}}}, "restart webui r7", id="the same"
        ),
        pytest.param(
            {"verb": "retire", "services": {"webui": {"from": [7], "to": None}}}, "retire webui r7", id="to nothing"
        ),
        pytest.param({"verb": "drain", "services": {"webui": {}}}, "drain webui", id="no release at all"),
        pytest.param({"services": {}}, "rollout", id="no service"),
        pytest.param(
            {"verb": "rollback", "services": {"webui": {"from": [7], "to": 8}, "api": {"from": [2], "to": 3}}},
            "rollback webui r7→r8, api r2→r3",
            id="two services",
        ),
    ],
)
def test_what_was_done(change: dict[str, Any], what: str) -> None:
    rows = history_rows([rollout("1", **change)])["rows"]
    assert rows == [["2026-11-24T10:05:11Z", "ops@control-1", what, "hangzhou, shanghai", "34.0", "succeeded"]]


def test_reasons_are_notes() -> None:
    records = [
        rollout("1", 5, result="failed", reasons=["h1: port 18081 answers 500"], cut=2),
        node("1", "h1", 5, result="failed", reason="port 18081 answers 500"),
        node("1", "h2", 5, result="failed", reason="image is not there"),
        rollout("2", 7, cut=1),
    ]
    assert history_rows(records)["notes"] == [
        "2026-11-24T10:05:11Z h1: port 18081 answers 500",
        "2026-11-24T10:05:11Z h2: image is not there",
        "2026-11-24T10:05:11Z 2 sessions were cut",
        "2026-11-24T10:07:11Z 1 session was cut",
    ]


def test_nodes_of_a_run_that_nobody_recorded_are_not_hidden() -> None:
    records = [
        rollout("2", 9),
        node("1", "h1", 5),
        node("1", "h2", 6, from_release=5),
        node("1", "s1", 6, datacenter="shanghai", from_release=None, reason="killed"),
    ]
    found = history_rows(records)
    assert found["rows"][0] == [
        "2026-11-24T10:05:12Z",
        "-",
        "- webui r6,r5→r7",
        "hangzhou, shanghai",
        "-",
        "unknown",
    ]
    assert len(found["rows"]) == 2
    assert found["notes"] == ["2026-11-24T10:05:12Z s1: killed"]


LOCK = {
    "kind": "lock",
    "id": "1",
    "datacenter": "shanghai",
    "user": "ops",
    "controller": "control-1",
    "started_at": "2026-11-24T10:05:13Z",
    "reason": "rollout of webui, api",
    "why": "its process is gone",
}


def test_a_run_that_left_nothing_but_its_locks_was_interrupted() -> None:
    earlier = LOCK | {"datacenter": "hangzhou", "started_at": "2026-11-24T10:05:12Z"}
    found = history_rows([LOCK, earlier, rollout("2", 9)])
    assert found["rows"][0] == [
        "2026-11-24T10:05:12Z",
        "ops@control-1",
        "rollout webui, api",
        "shanghai, hangzhou",
        "-",
        "interrupted",
    ]
    assert (len(found["rows"]), found["notes"]) == (2, ["2026-11-24T10:05:12Z its process is gone"])
    assert [len(history_rows([LOCK], [name])["rows"]) for name in ("api", "store")] == [1, 0]


def test_what_a_run_says_of_itself_counts_more_than_its_lock() -> None:
    rows = history_rows([LOCK, rollout("1@2026-11-24T10:05:11Z", result="failed")])["rows"]
    assert [row[-1] for row in rows] == ["failed"]


API = {"services": {"api": {"from": [1], "to": 2}}}


@pytest.mark.parametrize(
    ("services", "limit", "minutes"),
    [((), 0, [5, 6, 7]), ((), 2, [6, 7]), (("webui",), 0, [5, 7]), (("webui",), 1, [7]), (("api", "webui"), 2, [6, 7])],
)
def test_services_are_chosen_before_they_are_counted(services: tuple[str, ...], limit: int, minutes: list[int]) -> None:
    records = [rollout("3", 7), rollout("2", 6, **API), rollout("1", 5)]
    rows = history_rows(records, services, limit)["rows"]
    assert [row[0] for row in rows] == [f"2026-11-24T10:{minute:02}:11Z" for minute in minutes]


def test_the_report() -> None:
    found = {
        "h-edge": {"records": [rollout("1", 5), rollout("2", 6, **API)], "damaged": 2},
        "localhost": {"records": [rollout("1", 5), rollout("3", 7)], "damaged": 1},
    }
    places = {"hangzhou": "h-edge", "shanghai": "s-edge", "the controller": "localhost"}
    report = FILTERS["history_report"](found, places, " webui,", "1")
    assert [row[0] for row in report["rows"]] == ["2026-11-24T10:07:11Z"]
    assert (report["title"], report["columns"][0]) == ("", "started")
    assert report["notes"] == [
        "hangzhou: 2 damaged lines left out",
        "the controller: 1 damaged line left out",
        "shanghai could not be asked; what only it has on record is missing here",
    ]
    assert FILTERS["history_report"](found, places, "store")["title"] == "No rollout of store is on record"
    assert FILTERS["history_report"]({}, {})["title"] == "No rollout is on record"
    json.dumps(report)
