"""The benchmarks' own arithmetic, and that what they compare is alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.qianjiang.catalogue import normalise

from support import ROOT, load

figures = load("bench/figures.py")
larger_lab = load("bench/larger_lab.py")

OUTPUT = """
PLAY RECAP *********************************************************************
hangzhou-node1             : ok=8    changed=2    unreachable=0    failed=0    skipped=3    rescued=0    ignored=0
shanghai-edge              : ok=11   changed=1    unreachable=0    failed=0    skipped=0    rescued=0    ignored=0

service  datacenter  release
webui    hangzhou    r3
7.4 s, at most 11 tasks on any host
"""


def test_the_recap_and_the_closing_line_are_read() -> None:
    assert figures.tasks_by_host(OUTPUT) == {"hangzhou-node1": 8, "shanghai-edge": 11}
    assert figures.changes(OUTPUT) == 3
    assert figures.most_tasks(OUTPUT) == 11


def test_output_without_the_report_is_an_error() -> None:
    with pytest.raises(ValueError, match="callbacks_enabled"):
        figures.most_tasks("PLAY RECAP")


@pytest.mark.parametrize(
    ("samples", "unit", "text"),
    [
        ([], "s", ""),
        ([7.41], "s", "7.4 s"),
        ([9.0, 7.0, 8.0], "s", "8.0 s (7.0 s to 9.0 s)"),
        ([8, 8, 8], "tasks", "8"),
        ([1.0004, 1.0021], "ratio", "1.001 (1.000 to 1.002)"),
    ],
)
def test_a_cell_has_the_median_and_the_spread(samples: list[float], unit: str, text: str) -> None:
    assert figures.cell(samples, unit) == text


@pytest.mark.parametrize(
    ("usual", "ours", "text"), [([20.0, 22.0, 18.0], [8.0, 9.0, 7.0], "0.40"), ([], [3.0], ""), ([3.0], [], "")]
)
def test_the_ratio_is_that_of_the_medians(usual: list[float], ours: list[float], text: str) -> None:
    assert figures.ratio(usual, ours) == text


def test_each_added_node_is_counted_against_the_next_smaller_number() -> None:
    assert figures.growth({8: [14.0], 4: [10.0, 9.0, 11.0], 16: [30.0]}) == {8: 1.0, 16: 2.0}


def test_tables_are_markdown() -> None:
    row = figures.Row("rollout", [20.0], [9.0], "s", "≤ half")
    assert figures.table([row]).splitlines()[1:] == [
        "| --- | --- | --- | --- | --- |",
        "| rollout | 20.0 s | 9.0 s | 0.45 | ≤ half |",
    ]
    lines = figures.growth_table({4: [20.0], 8: [40.0]}, {4: [8.0], 8: [10.0]}).splitlines()
    assert lines[2:] == ["| 4 | 20.0 s | 8.0 s | 0.40 |  |  |", "| 8 | 40.0 s | 10.0 s | 0.25 | 5.00 s | 0.50 s |"]


def test_figures_go_between_the_markers(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text("a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n")
    for _ in range(2):
        figures.write(file, "x", "new")
        assert file.read_text() == "a\n<!-- x: begin -->\nnew\n<!-- x: end -->\nb\n"
    with pytest.raises(ValueError, match="<!-- y: begin -->"):
        figures.write(file, "y", "new")


@pytest.mark.parametrize("name", ["rollout", "nodes"])
def test_the_readme_has_a_place_for_the_figures(name: str, tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text((ROOT / "bench/README.md").read_text())
    figures.write(file, name, "new")
    assert f"<!-- {name}: begin -->\nnew\n<!-- {name}: end -->" in file.read_text()


def test_the_larger_lab_is_another_lab_with_more_nodes(tmp_path: Path) -> None:
    files = larger_lab.write(ROOT / "inventories/lab", tmp_path, [4, 16])
    written = "".join(file.read_text() for file in tmp_path.rglob("*.yml"))
    assert "qianjiang-lab" not in written
    assert "172.30.1." not in written
    assert "172.30.2." not in written
    groups = yaml.safe_load(files[16].read_text())["all"]["children"]
    shanghai = groups["datacenters"]["children"]["shanghai"]["hosts"]
    assert len(groups["nodes"]["hosts"]) == 16
    assert shanghai["shanghai-edge"] == {"ansible_host": "172.30.6.10"}
    assert shanghai["shanghai-node8"] == {"ansible_host": "172.30.6.18"}
    assert list(yaml.safe_load(files[4].read_text())["all"]["children"]["nodes"]["hosts"]) == [
        "hangzhou-node1",
        "hangzhou-node2",
        "shanghai-node1",
        "shanghai-node2",
    ]


def test_nodes_that_cannot_be_shared_out_are_an_error() -> None:
    hosts = yaml.safe_load((ROOT / "inventories/lab/hosts.yml").read_text())
    with pytest.raises(ValueError, match="5 nodes cannot be shared out evenly over 2 datacenters"):
        larger_lab.with_nodes(hosts, 5)


def test_the_usual_container_has_the_limits_of_ours() -> None:
    services = yaml.safe_load((ROOT / "inventories/lab/group_vars/all/services.yml").read_text())["services"]
    ours: dict[str, Any] = normalise(services, {"hangzhou": ["a", "b"], "shanghai": ["c", "d"]})["webui"]
    tasks = yaml.safe_load((ROOT / "bench/usual/rollout.yml").read_text())[0]["tasks"]
    usual = tasks[-1]["community.docker.docker_container"]
    health = ours["health"]
    assert (usual["memory"], usual["cpus"], usual["pids_limit"]) == tuple(ours["limits"].values())
    assert [usual["healthcheck"][key] for key in ("interval", "timeout")] == [
        f"{health[key]}s" for key in ("interval", "timeout")
    ]
    assert usual["healthcheck"]["retries"] == health["retries"]
    assert usual["read_only"] is ours["hardening"]["read_only"]
    assert usual["stop_timeout"] == ours["stop_timeout"]
    assert usual["volumes"] == [f"{mount['source']}:{mount['target']}:ro" for mount in ours["mounts"]]
    assert usual["log_options"] == {"max-size": ours["log"]["max_size"], "max-file": str(ours["log"]["max_file"])}
