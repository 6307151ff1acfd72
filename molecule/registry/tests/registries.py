"""The lab's registries, as their users and operators see them. Clients run on the other datacenter's registry host."""

from __future__ import annotations

import base64
import functools
import shlex
import socket
import ssl
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import lab

SCENARIO = Path(__file__).resolve().parents[1]
WORK = "/root/registry-test"
STORAGE = "/var/lib/docker-registry"
NAMES = lab.group("registries")


def apply(*arguments: str) -> CompletedProcess[str]:
    """Run the scenario's roles."""
    return lab.play(SCENARIO / "converge.yml", *arguments)


@dataclass(frozen=True)
class Registry:
    """A registry (`host`), and a client of it somewhere else."""

    address: str
    username: str
    password: str
    authority: str
    host: Any
    client: Any

    @property
    def credentials(self) -> str:
        return f"{self.username}:{self.password}"

    def status(self, credentials: str = "") -> int:
        """What the registry answers to `user:password`, or to nobody."""
        request = urllib.request.Request(f"https://{self.address}/v2/")
        if credentials:
            request.add_header("Authorization", "Basic " + base64.b64encode(credentials.encode()).decode())
        context = ssl.create_default_context(cadata=self.authority)
        try:
            with urllib.request.urlopen(request, context=context, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def serial(self) -> int:
        """The serial number of the certificate that the registry shows."""
        host, _, port = self.address.rpartition(":")
        context = ssl.create_default_context(cadata=self.authority)
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            return int(str((secure.getpeercert() or {})["serialNumber"]), 16)

    def make(self, size: int) -> tuple[str, str]:
        """A new image at the client: its directory and its digest."""
        directory = f"{WORK}/{uuid.uuid4().hex}"
        return directory, self.client.check_output(f"python3 {WORK}/make_image.py {directory} {size}")

    def skopeo(self, command: str) -> Any:
        return self.client.run(f"skopeo {command}")

    def push(self, directory: str, tag: str, trusting: str = f"{WORK}/trusted") -> Any:
        options = f"--quiet --dest-cert-dir={trusting} --dest-creds={shlex.quote(self.credentials)}"
        return self.skopeo(f"copy {options} oci:{directory} docker://{self.address}/test:{tag}")

    def pull(self, digest: str) -> Any:
        """Pull by digest, and see that it is what was asked for."""
        target = f"{WORK}/{uuid.uuid4().hex}"
        options = f"--quiet --src-cert-dir={WORK}/trusted --src-creds={shlex.quote(self.credentials)}"
        source = f"docker://{self.address}/test@{digest}"
        return self.client.run(
            f"skopeo copy {options} {source} dir:{target} && sha256sum < {target}/manifest.json | grep -q ^{digest[7:]}"
        )

    def delete(self, digest: str) -> Any:
        options = f"--cert-dir={WORK}/trusted --creds={shlex.quote(self.credentials)}"
        return self.skopeo(f"delete {options} docker://{self.address}/test@{digest}")

    def used(self) -> int:
        return int(self.host.check_output(f"du --summarize --bytes {STORAGE}").split()[0])

    def be_quiet(self) -> None:
        """As if nothing had been written or collected for hours: systemd starts a unit five times in ten seconds."""
        self.host.run("systemctl reset-failed docker-registry-collect.service")
        self.host.check_output(f"find {STORAGE} -type f -exec touch --date='2 hours ago' {{}} +")

    def collect(self) -> None:
        self.host.check_output("systemctl start docker-registry-collect.service")
        self.wait()

    def wait(self) -> None:
        """Until the registry answers again."""
        end = time.monotonic() + 20
        while True:
            try:
                self.status()
                return
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)


@functools.cache
def registry(name: str) -> Registry:
    other = NAMES[(NAMES.index(name) + 1) % len(NAMES)]
    address, username, password, directory = lab.variable(
        name,
        "[node_address | default(ansible_host) ~ ':5000', registry_username, registry_password,"
        " certificate_authority_directory]",
    )
    authority = (Path(directory) / "ca.crt").read_text(encoding="ascii")
    return Registry(address, username, password, authority, lab.connect(name), lab.connect(other))
