"""Changes arrive, once, and a run that was killed is made good."""

from __future__ import annotations

from lab import changes
from registries import NAMES, apply, registry

# The lab's certificates have fewer days than these would be renewed at
LONGER = "certificate_authority_server_validity_days=900 certificate_authority_renew_before=800"


def serials() -> set[int]:
    return {registry(name).serial() for name in NAMES}


def test_a_certificate_that_is_missing_or_due_is_issued_and_served() -> None:
    seen = serials()
    for name in NAMES:
        registry(name).host.check_output("rm /etc/qianjiang/tls/server.crt")
    for arguments in ([], ["--extra-vars", LONGER]):
        assert all(changes(apply(*arguments)).values())
        assert not serials() & seen
        seen |= serials()
    assert not any(changes(apply()).values())


def test_a_new_password_works_at_once_and_the_old_one_no_more() -> None:
    users = '{"registry_users": [{"name": "deploy", "password": "another-one"}]}'
    before = {name: registry(name) for name in NAMES}
    assert all(changes(apply("--extra-vars", users)).values())
    for seen in before.values():
        assert seen.status("deploy:another-one") == 200
        assert seen.status(seen.credentials) == 401
    assert all(changes(apply()).values())
    for seen in before.values():
        assert seen.status(seen.credentials) == 200


def test_a_run_that_was_killed_before_its_handlers_is_made_good() -> None:
    """The file is as it should be, but the registry that runs has not read it."""
    for name in NAMES:
        registry(name).host.check_output("touch /etc/docker/registry/config.yml")
    assert all(changes(apply("--check")).values())
    assert all(changes(apply()).values())
    assert not any(changes(apply()).values())


def test_a_registry_that_somebody_else_runs_keeps_its_configuration_and_its_accounts() -> None:
    configuration, kept = "/etc/docker/registry/config.yml", "/root/config.yml.kept"
    users = '{"registry_users": [{"name": "deploy", "password": "another-one"}]}'
    before = {name: registry(name) for name in NAMES}
    for seen in before.values():
        seen.host.check_output(
            f"cp --preserve {configuration} {kept} && sed --in-place '/Managed by/d' {configuration}"
        )
    try:
        play = apply("--extra-vars", users)
        assert play.returncode != 0
        said = f"{configuration}: somebody else's, and docker-registry.service runs with it; nothing was changed"
        assert (play.stdout + play.stderr).count(said) >= len(NAMES)
        assert [seen.status(seen.credentials) for seen in before.values()] == [200] * len(NAMES)
    finally:
        for seen in before.values():
            seen.host.check_output(f"mv {kept} {configuration}")
        apply()
    assert not any(changes(apply("--check")).values())


def test_images_are_not_left_behind_by_another_storage() -> None:
    for arguments in (["--check"], []):
        play = apply(*arguments, "--extra-vars", "registry_storage_directory=/srv/registry")
        assert play.returncode != 0
        said = "/srv/registry would leave behind the images in /var/lib/docker-registry"
        assert (play.stdout + play.stderr).count(said) >= len(NAMES)
    assert not any(changes(apply("--check")).values())


def test_a_wrong_variable_is_named_before_anything_is_touched() -> None:
    wrong = (
        ("registry_address", '"0.0.0.0 x"', "registry_address "),
        ("registry_address", '"::1"', "registry_address "),
        ("registry_users", "[]", "registry_users "),
        ("registry_port", "5001", "registry_port "),
        ("registry_collect_schedule", '"dialy"', "registry_collect_schedule: expected a systemd calendar expression"),
    )
    for name, value, said in wrong:
        play = apply("--extra-vars", f'{{"{name}": {value}}}')
        assert play.returncode != 0
        assert said in play.stdout + play.stderr
    assert not any(changes(apply("--check")).values())
