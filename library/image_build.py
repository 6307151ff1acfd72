#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_build
short_description: Build an image from a Dockerfile, once for each content
description:
  - Names an image by a hash of all that decides what is built, and builds only when neither the engine nor the registry
    has a whole image of that name. A context that did not change is recognised without the engine receiving it.
  - The hash covers each file that Docker would send (C(.dockerignore) honoured; path, executable bit, content, target
    of a symbolic link), the Dockerfile, O(target), O(build_args) (but for the predefined proxies), O(labels), the base
    images' digests and the platform. Times, owners and other mode bits do not count; files are sent as 0644 or 0755.
  - Everything the build takes from elsewhere must be pinned. An image (C(FROM), C(COPY --from),
    C(RUN --mount=from=)) or frontend (C(# syntax=), C(BUILDKIT_SYNTAX)) that is not named by digest, and C(ADD) of
    a URL without C(--checksum=sha256:…), are errors.
  - On a host, one builds or pushes an image of a repository at a time. What another run is building is waited for, at
    most an hour, and not built again.
  - BuildKit builds where the Docker client and the engine have it (Docker 23 and later need the buildx plugin for
    that), else the classic builder.
attributes:
  check_mode:
    description: Says whether it would build; nothing is sent or built.
    support: full
  diff_mode:
    description: Shows the image that is (or would be) built.
    support: full
options:
  name:
    description:
      - The image's repository, without registry and tag. The tag is the identity.
    type: str
    required: true
  path:
    description:
      - Folder of the build context, on the host where the module runs. A build works on a copy beside it.
    type: path
    required: true
  dockerfile:
    description:
      - The Dockerfile, relative to O(path) and inside of it.
    type: str
    default: Dockerfile
  target:
    description:
      - The stage to build; the last one by default.
    type: str
  build_args:
    description:
      - Values for the Dockerfile's C(ARG). One that it does not declare is an error.
      - They end up in the image's history. For secrets there is O(secrets).
      - Values reach the Docker client in its environment, but for variables that it reads itself, such as E(PATH).
        These stand on its command line, and C(user:password@) in one is an error.
    type: dict
    default: {}
  labels:
    description:
      - Labels for the image. They count for the identity, but for those below C(org.opencontainers.image), which say
        where an image comes from.
      - They stand on the Docker client's command line, and C(user:password@) in one is an error.
    type: dict
    default: {}
  registry:
    description:
      - The registry that the image is meant for, C(host[:port]). It is asked for the image before one is built, and it
        is part of the image's name.
    type: str
  network:
    description:
      - The network of C(RUN) instructions. V(none) keeps a build hermetic.
    type: str
    default: none
  platform:
    description:
      - The platform to build for, such as V(linux/arm64); the engine's own by default.
    type: str
  secrets:
    description:
      - Secrets for C(RUN --mount=type=secret,id=…), by id. They count for nothing, and reach the build in files that
        only this user can read, for as long as it takes. BuildKit only.
    type: dict
    default: {}
  extra_ca:
    description:
      - File with certificates of CAs that the build needs to trust, offered to C(RUN --mount=type=secret,id=extra-ca).
        It reaches no layer. BuildKit only.
    type: path
  revision:
    description:
      - The source's revision, for the label C(org.opencontainers.image.revision) of an image that is built.
    type: str
  source:
    description:
      - The source's address, for the label C(org.opencontainers.image.source). A login in it is left out.
    type: str
extends_documentation_fragment:
  - registry_client
author:
  - Qianjiangyuan Deploy contributors
"""

EXAMPLES = r"""
- name: Build the WebUI
  image_build:
    name: webui
    path: /srv/build/webui
    registry: registry.hangzhou.lab:5000
    username: "{{ registry_username }}"
    password: "{{ registry_password }}"
    build_args:
      BASE_IMAGE: "registry.hangzhou.lab:5000/base@sha256:{{ base_digest }}"
    revision: "{{ source_revision }}"
  register: webui

- name: Build with a secret and a company's CA, the network on
  image_build:
    name: tools
    path: /srv/build/tools
    network: default
    secrets:
      index_token: "{{ vault_index_token }}"
    extra_ca: /usr/local/share/ca-certificates/company.crt
"""

RETURN = r"""
identity:
  description: The hash of all inputs (sha256, hexadecimal). The image has it as label C(io.qianjiang.context).
  returned: success
  type: str
image:
  description: The image's reference, by its identity tag.
  returned: success
  type: str
  sample: registry.hangzhou.lab:5000/webui:ctx-0123456789abcdef
digest:
  description: The manifest's digest, where the image is in the registry (or was pushed from this engine); else null.
  returned: success
  type: str
built:
  description: Whether the image was (in check mode, would be) built.
  returned: success
  type: bool
"""

import re
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.arguments import (
    LOGIN_TOGETHER,
    REGISTRY_CLIENT,
    check_numbers,
    logins,
    registry_client,
)
from ansible.module_utils.qianjiang.build_context import ContextError, entries, identity, tag
from ansible.module_utils.qianjiang.change import Change, difference
from ansible.module_utils.qianjiang.docker_cli import DockerCli, DockerCliError, Request, check_command_line
from ansible.module_utils.qianjiang.dockerfile import PROXIES, Dockerfile, DockerfileError
from ansible.module_utils.qianjiang.engine import EngineError, EngineNotFoundError, connect, translated
from ansible.module_utils.qianjiang.host_lock import PATIENCE, HostLockError, host_lock
from ansible.module_utils.qianjiang.image_reference import ImageReferenceError, check_registry, parse
from ansible.module_utils.qianjiang.registry import RegistryError, is_complete

LABEL = "io.qianjiang.context"
ERRORS = (
    ContextError,
    DockerCliError,
    DockerfileError,
    EngineError,
    HostLockError,
    ImageReferenceError,
    RegistryError,
)
OCI = "org.opencontainers.image."

ARGUMENTS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "path": {"type": "path", "required": True},
    "dockerfile": {"type": "str", "default": "Dockerfile"},
    "target": {"type": "str"},
    "build_args": {"type": "dict", "default": {}},
    "labels": {"type": "dict", "default": {}},
    "registry": {"type": "str"},
    "network": {"type": "str", "default": "none"},
    "platform": {"type": "str"},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "extra_ca": {"type": "path"},
    "revision": {"type": "str"},
    "source": {"type": "str"},
    **REGISTRY_CLIENT,
}


def texts(option: str, values: Mapping[str, Any]) -> dict[str, str]:
    """A dictionary option with each value as the text that Docker gets; only plain values have one."""
    for name, value in values.items():
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            hint = "quote it to say which spelling you mean" if isinstance(value, bool) else "expected a text"
            raise ContextError(f"{option}.{name}: {hint}, got {type(value).__name__}")
    return {name: str(value) for name, value in values.items()}


def inputs(params: Mapping[str, Any], dockerfile: str, bases: list[str], platform: str) -> dict[str, object]:
    """What counts for the identity beside the context."""
    return {
        "dockerfile": dockerfile,
        "bases": bases,
        "platform": platform,
        "target": params["target"],
        "build_args": {name: value for name, value in params["build_args"].items() if name not in PROXIES},
        "labels": {name: value for name, value in params["labels"].items() if not name.startswith(OCI)},
    }


def all_labels(params: Mapping[str, Any], context: str, now: datetime) -> dict[str, str]:
    """All labels of an image that is built."""
    labels = dict(params["labels"])
    labels[LABEL] = context
    labels[f"{OCI}created"] = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    if params["revision"]:
        labels[f"{OCI}revision"] = params["revision"]
    if params["source"]:
        labels[f"{OCI}source"] = re.sub(r"(?<=://)[^/@]*@", "", params["source"])
    return labels


def plan(desired: Mapping[str, Any], current: Mapping[str, Any]) -> list[Change]:
    """Build unless the engine has the image with its label, or the registry has it."""
    if current["engine"] or current["registry"]:
        return []
    return [Change(name=desired["image"], before=None, after=f"{LABEL}={desired['context']}")]


class ImageBuild:
    """One build: `read` finds out what there is, `apply` builds."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = dict(module.params)
        for option in ("build_args", "labels", "secrets"):
            self.params[option] = texts(option, self.params[option])
        if self.params["registry"]:
            check_registry("registry", self.params["registry"])
        check_command_line(self.params["build_args"], self.params["labels"])
        self.folder = Path(self.params["path"])
        self.engine = connect()
        self.found = entries(self.folder, self.params["dockerfile"])
        # Not read_text, which would make a line's end of each carriage return
        text = (self.folder / self.params["dockerfile"]).read_bytes().decode(errors="replace")
        self.dockerfile = Dockerfile(text, self.params["dockerfile"])
        self.dockerfile.check(self.params["build_args"], self.params["target"])
        self.bases = self.dockerfile.bases(self.params["build_args"])
        facts = inputs(self.params, text, self.bases, self.params["platform"] or self._engine_platform())
        self.context: str = identity(self.found, facts)
        registry = f"{self.params['registry']}/" if self.params["registry"] else ""
        self.image = parse(f"{registry}{self.params['name']}:{tag(self.context)}")

    def read(self) -> dict[str, Any]:
        """Whether the engine or the registry has the image, and its digest."""
        try:
            with translated(f"look for {self.image}"):
                found = self.engine.inspect_image(str(self.image))
        except EngineNotFoundError:
            found = None
        if found and (found["Config"].get("Labels") or {}).get(LABEL) == self.context:
            prefix = f"{self.image.name}@"
            digests = [name.removeprefix(prefix) for name in found.get("RepoDigests") or [] if name.startswith(prefix)]
            return {"engine": True, "registry": False, "digest": digests[0] if digests else None}
        digest = None
        if self.image.registry:
            client = registry_client(self.params, self.image.registry)
            digest = client.head_manifest(self.image.repository, self.image.tag)
            if digest and not is_complete(client, self.image.repository, digest):
                digest = None  # built again, so that it can be pushed again
        return {"engine": False, "registry": digest is not None, "digest": digest}

    def apply(self) -> None:
        """Build, from a copy that holds exactly what was hashed."""
        binary = self.module.get_bin_path("docker")
        if binary is None:
            raise DockerCliError("the Docker client is missing on this host. On Debian: docker.io, or docker-cli")

        def run(argv: list[str], environ: dict[str, str]) -> tuple[int, str, str]:
            # What is built has to be what was hashed: `$HOME` in a label is no variable of this host
            code, out, err = self.module.run_command(argv, environ_update=environ, expand_user_and_vars=False)
            return code, out, err

        params = self.params
        for base in self.bases:
            self._fetch(base)
        DockerCli(run, binary, self.module.tmpdir).build(
            Request(
                image=str(self.image),
                folder=self.folder,
                found=self.found,
                dockerfile=self.dockerfile,
                network=params["network"],
                target=params["target"],
                platform=params["platform"],
                build_args=params["build_args"],
                labels=all_labels(params, self.context, datetime.now(timezone.utc)),
                secrets=params["secrets"],
                extra_ca=params["extra_ca"],
                logins=logins(params, params["registry"]) if params["registry"] and params["password"] else {},
            )
        )
        if not self.read()["engine"]:
            hint = "Is it Docker's own client, and does it use this host's engine?"
            raise DockerCliError(f"{binary} said it built {self.image}, but the engine has no such image. {hint}")

    def _fetch(self, base: str) -> None:
        """Have a base image in the engine before the build.

        The BuildKit of Docker 20.10 reads /etc/docker/certs.d when the engine starts, and never again: it does not
        trust a registry whose CA came later, but takes an image that is there unasked. Can go with Debian 12.
        """
        params = self.params
        try:
            with translated(f"look for the base image {base}"):
                self.engine.inspect_image(base)
        except EngineNotFoundError:
            image = parse(base)
            own = params["password"] and image.registry == params["registry"]
            login = {"username": params["username"], "password": params["password"]} if own else None
            with translated(f"pull the base image {base}"):
                events = self.engine.pull(
                    image.name, image.digest, stream=True, decode=True, auth_config=login, platform=params["platform"]
                )
                for event in events:
                    if "error" in event:
                        raise EngineError(f"pull the base image {base}: {event['error']}") from None

    def _engine_platform(self) -> str:
        with translated("ask the Docker Engine for its platform"):
            version = self.engine.version()
        return f"{version['Os']}/{version['Arch']}"


def main() -> None:
    """Build one image."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, required_together=LOGIN_TOGETHER)
    check_numbers(module)
    try:
        build = ImageBuild(module)
        with nullcontext() if module.check_mode else host_lock(build.image.name, PATIENCE):
            current = build.read()
            changes = plan({"image": str(build.image), "context": build.context}, current)
            if changes and not module.check_mode:
                build.apply()
    except ERRORS as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(changes),
        diff=difference(changes),
        identity=build.context,
        image=str(build.image),
        digest=current["digest"],
        built=bool(changes),
    )


if __name__ == "__main__":
    main()
