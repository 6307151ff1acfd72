"""What a user asked for: a private place for images, that keeps them."""

from __future__ import annotations

from registries import Registry


def test_only_those_who_know_a_password_get_in(registry: Registry) -> None:
    assert registry.status() == 401
    assert registry.status(f"{registry.username}:wrong") == 401
    assert registry.status(f"nobody:{registry.password}") == 401
    assert registry.status(registry.credentials) == 200


def test_a_client_that_trusts_another_authority_refuses_the_registry(registry: Registry) -> None:
    directory, _ = registry.make(1000)
    refused = registry.push(directory, "v1", trusting="/var/no-authorities")
    assert refused.rc != 0
    assert "x509: certificate signed by unknown authority" in refused.stderr


def test_a_pushed_image_is_pulled_by_digest_also_after_a_restart(registry: Registry) -> None:
    directory, digest = registry.make(3_000_000)
    assert registry.push(directory, "kept").rc == 0
    assert registry.pull(digest).rc == 0
    registry.host.check_output("systemctl restart docker-registry.service")
    registry.wait()
    assert registry.pull(digest).rc == 0


def test_the_secrets_stay_secret(registry: Registry) -> None:
    """Neither the journal nor the registry's files hold the password; the private key is root's and the registry's."""
    assert registry.status(registry.credentials) == 200
    written = registry.host.check_output("journalctl --unit docker-registry --output cat; cat /etc/docker/registry/*")
    assert "http.request" in written
    assert registry.password not in written
    keys = registry.host.check_output(
        "stat --format '%a %U' /etc/qianjiang/tls/server.key /run/docker-registry/server.key"
    )
    assert keys.split("\n") == ["600 root", "400 docker-registry"]
    assert "BEGIN PRIVATE KEY" not in registry.host.check_output(
        "cat /etc/qianjiang/tls/server.crt /etc/docker/registry/*"
    )
