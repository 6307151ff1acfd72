"""What a user asked for: containers that are limited, harmless, and reachable; and a second run that costs nothing."""

from __future__ import annotations

import lab
from engines import NODES, SCENARIO, Engine

Engines = list[Engine]


def test_a_right_node_takes_few_tasks() -> None:
    done = lab.play(SCENARIO / "converge.yml")

    assert lab.changes(done) == dict.fromkeys(NODES, 0)
    assert lab.most_tasks(done) <= 4


def test_a_container_cannot_fill_the_disk_or_gain_rights(engines: Engines) -> None:
    for engine in engines:
        with engine.container() as identity:
            log = engine.host.check_output(f"docker inspect --format '{{{{json .HostConfig.LogConfig}}}}' {identity}")
            status = engine.host.check_output(f"docker exec {identity} cat /proc/self/status")
            files = engine.host.check_output(f"docker exec {identity} sh -c 'ulimit -Hn'")

        assert '"max-file":"3","max-size":"10m"' in log
        assert "NoNewPrivs:\t1" in status
        assert int(files) == lab.variable(engine.name, "docker_engine_daemon['default-ulimits']['nofile']['Hard']")


def test_networks_come_from_the_pool_and_the_default_bridge_isolates(engines: Engines) -> None:
    for engine in engines:
        bridge = engine.host.check_output("docker network inspect bridge --format '{{json .}}'")

        assert '"Subnet":"10.187.0.0/24"' in bridge
        assert '"com.docker.network.bridge.enable_icc":"false"' in bridge


def test_a_published_port_answers_without_a_proxy_process(engines: Engines) -> None:
    for engine in engines:
        address = engine.host.check_output("hostname -I").split()[0]
        with engine.container("--publish 18999:8000", "python3 -m http.server 8000"):
            assert engine.ask(f"http://{address}:18999/") == "200"
            assert engine.host.run("pgrep docker-proxy").rc == 1


def test_the_modules_find_their_python_sdk_and_the_engine_comes_back_by_itself(engines: Engines) -> None:
    for engine in engines:
        code = "import docker; print(docker.from_env().ping())"
        assert engine.host.check_output(f"/usr/bin/python3 -c '{code}'") == "True"
        assert engine.host.check_output("systemctl is-enabled docker.service") == "enabled"
