"""A change does what it needs and no more: running containers never notice."""

from __future__ import annotations

from engines import Engine, apply, changes, containers, message, with_settings

Engines = list[Engine]
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
AUTHORITY = "/etc/docker/certs.d/test.lab:5000/ca.crt"
PROXY = {"http": "http://me:pa55word@proxy.lab:3128", "no_proxy": ".lab"}


def test_what_the_engine_takes_over_while_running_needs_no_restart(restored: Engines) -> None:
    before = [engine.pid() for engine in restored]

    assert changes(**with_settings(**{"max-concurrent-downloads": 7, "labels": ["rack=a"]})) == {1}

    assert [engine.pid() for engine in restored] == before
    assert [engine.info()["Labels"] for engine in restored] == [["rack=a"]] * 2


def test_a_restart_leaves_containers_running_and_a_merged_entry_beside_its_defaults(restored: Engines) -> None:
    before = [engine.pid() for engine in restored]
    with containers(restored) as running:
        assert changes(**with_settings(**{"log-opts": {"max-size": "1m"}, "icc": None})) == {1}

        for engine, (identity, alive) in running.items():
            assert engine.pid() not in before
            assert engine.alive(identity) == alive
    for engine in restored:
        assert '"max-file": "3"' in engine.file()
        assert '"max-size": "1m"' in engine.file()
        assert "icc" not in engine.file()


def test_containers_run_on_where_the_engine_had_no_live_restore(restored: Engines) -> None:
    assert changes(**with_settings(**{"live-restore": False})) == {1}
    assert [engine.info()["LiveRestoreEnabled"] for engine in restored] == [False] * 2
    with containers(restored) as running:
        assert changes(**with_settings(icc=None)) == {1}

        for engine, (identity, alive) in running.items():
            assert engine.alive(identity) == alive


def test_a_registrys_authority_is_trusted_at_once(engines: Engines) -> None:
    before = [engine.pid() for engine in engines]

    assert changes(docker_engine_registry_cas={"test.lab:5000": CERTIFICATE}) == {1}
    assert [engine.host.check_output(f"cat {AUTHORITY}") for engine in engines] == [CERTIFICATE] * 2
    assert changes(docker_engine_registry_cas={"test.lab:5000": ""}) == {1}

    assert [engine.host.run(f"test -e {AUTHORITY}").rc for engine in engines] == [1, 1]
    assert [engine.pid() for engine in engines] == before


def test_the_proxy_reaches_the_engine_and_its_password_no_output(restored: Engines) -> None:
    done = apply("--diff", "-vvv", docker_engine_proxy=PROXY)

    assert done.returncode == 0, message(done)
    assert "pa55word" not in done.stdout.split("TASK [docker_engine : Configure the engine]")[1]
    for engine in restored:
        assert "proxy.lab:3128" in engine.info()["HttpProxy"]
        assert engine.info()["NoProxy"] == ".lab"
        drop_in = "/etc/systemd/system/docker.service.d/http-proxy.conf"
        assert engine.host.check_output(f"stat --format %a {drop_in}") == "600"


def test_a_user_joins_the_group_and_a_stranger_is_not_created(engines: Engines) -> None:
    for engine in engines:
        engine.host.check_output("id tester || useradd tester")
    try:
        assert changes(docker_engine_users=["tester"]) == {1}
        for engine in engines:
            assert "docker" in engine.host.check_output("id -nG tester").split()

        assert apply(docker_engine_users=["tester", "stranger"]).returncode != 0
        assert [engine.host.run("id stranger").rc for engine in engines] == [1, 1]
    finally:
        for engine in engines:
            engine.host.run("userdel tester")


def test_an_engine_upgraded_under_its_feet_is_restarted(engines: Engines) -> None:
    before = [engine.pid() for engine in engines]
    for engine in engines:
        dockerd = engine.host.check_output("readlink -f $(command -v dockerd)")
        engine.host.check_output(f"cp --preserve {dockerd} {dockerd}.new && mv {dockerd}.new {dockerd}")

    assert changes() == {1}

    assert not {engine.pid() for engine in engines} & set(before)
    assert changes() == {0}


def test_a_version_is_held_and_released(engines: Engines) -> None:
    assert changes(docker_engine_hold=True) == {1}
    for engine in engines:
        assert "docker.io" in engine.host.check_output("apt-mark showhold").split()

    assert changes() == {1}
    assert [engine.host.check_output("apt-mark showhold") for engine in engines] == ["", ""]


def test_the_check_says_what_the_run_would_do_and_touches_nothing(engines: Engines) -> None:
    before = [(engine.pid(), engine.file()) for engine in engines]

    done = apply("--check", "--diff", **with_settings(icc=None, labels=["rack=b"]))

    assert done.returncode == 0, message(done)
    shown = message(done).replace('"', "")  # the diff is YAML or JSON, as ansible.cfg says
    assert "- daemon.json icc: false" in shown
    assert "rack=b" in shown
    assert [(engine.pid(), engine.file()) for engine in engines] == before
