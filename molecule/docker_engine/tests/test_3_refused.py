"""Settings that the engine refuses cost nobody anything, and the engine's own words are in the error."""

from __future__ import annotations

from typing import Any

import pytest

from engines import Engine, apply, changes, containers, message, with_settings

Engines = list[Engine]
WRONG: dict[str, Any] = {
    "docker_engine_source": "docker",
    "docker_engine_daemon": {"insecure-registries": ["registry.lab:5000"]},
    "docker_engine_registry_cas": {"https://registry.lab": "x"},
    "docker_engine_proxy": {"http": "proxy.lab:3128"},
    "docker_engine_timeout": 0,
}
WORDS = (
    "docker_engine_source: docker would replace the host's docker.io",
    "docker_engine_daemon.insecure-registries: not allowed",
    "docker_engine_registry_cas: each key is host or host:port, got https://registry.lab",
    "docker_engine_registry_cas: each value is the text of a PEM certificate",
    "docker_engine_proxy: expected URLs",
    "docker_engine_timeout: expected seconds, got 0",
)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param({"no-such-key": 1}, "don't match any configuration option: no-such-key", id="an unknown key"),
        pytest.param({"seccomp-profile": "/nosuch"}, "opening seccomp profile", id="only found while starting"),
        pytest.param({"registry-mirrors": ["not a url"]}, "invalid mirror", id="only found while reloading"),
    ],
)
def test_the_old_file_is_back_and_containers_run_on(engines: Engines, settings: dict[str, Any], words: str) -> None:
    files, pids = [engine.file() for engine in engines], [engine.pid() for engine in engines]
    with containers(engines) as running:
        done = apply(**with_settings(**settings))

        assert done.returncode != 0
        assert message(done).count(words) >= 2, "both engines say why"
        assert [engine.file() for engine in engines] == files
        assert [engine.leftovers() for engine in engines] == ["", ""]
        for engine, (identity, alive) in running.items():
            assert engine.alive(identity) == alive
    if "no-such-key" in settings:
        untouched = [pid == engine.pid() for pid, engine in zip(pids, engines, strict=True)]
        assert untouched == [engine.major >= 23 for engine in engines], "dockerd validates first where it can"
    assert changes() == {0}


def test_the_data_is_not_left_behind(engines: Engines) -> None:
    pids = [engine.pid() for engine in engines]
    with containers(engines):
        done = apply("--check", **with_settings(**{"data-root": "/srv/docker"}))

    assert done.returncode != 0
    assert message(done).count("/srv/docker would leave behind what the engine has in /var/lib/docker") >= 2
    assert [engine.pid() for engine in engines] == pids


def test_a_drop_in_of_somebody_else_is_neither_removed_nor_overwritten(engines: Engines) -> None:
    drop_in = "/etc/systemd/system/docker.service.d/http-proxy.conf"
    for engine in engines:
        engine.host.check_output(f"mkdir -p $(dirname {drop_in}) && echo '[Service]' > {drop_in}")
    try:
        assert changes() == {0}
        done = apply(docker_engine_proxy={"http": "http://proxy.lab:3128"})

        assert done.returncode != 0
        assert message(done).count("http-proxy.conf is not ours") >= 2
        assert [engine.host.check_output(f"cat {drop_in}") for engine in engines] == ["[Service]"] * 2
    finally:
        for engine in engines:
            engine.host.check_output(f"rm {drop_in} && systemctl daemon-reload")


def test_a_run_killed_before_the_engine_had_come_up_is_made_good(engines: Engines) -> None:
    """New file written, engine not yet restarted: the file alone would say that all is well."""
    files, pids = [engine.file() for engine in engines], {engine.pid() for engine in engines}
    for engine in engines:
        engine.host.check_output("cp /etc/docker/daemon.json /etc/docker/daemon.json.previous")

    assert changes() == {1}

    assert not {engine.pid() for engine in engines} & pids
    assert [engine.leftovers() for engine in engines] == ["", ""]
    assert [engine.file() for engine in engines] == files


def test_every_wrong_variable_is_named_before_anything_is_touched(engines: Engines) -> None:
    before = [(engine.pid(), engine.file()) for engine in engines]

    done = apply(**WRONG)

    assert done.returncode != 0
    for words in WORDS:
        assert words in message(done)
    assert [(engine.pid(), engine.file()) for engine in engines] == before
