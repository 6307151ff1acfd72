"""An engine on a node: what it says about itself, and the role brought to bear on it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import lab

SCENARIO = Path(__file__).resolve().parents[1]
NODES = lab.group("nodes")
# One engine of each version; the other nodes are the same
NAMES = (NODES[0], NODES[-1])
IMAGE = "docker-engine-test"
# No image can be pulled without a registry: the container borrows the host's programs
BORROWED = "--volume /usr:/usr:ro --volume /etc/ssl:/etc/ssl:ro"


def apply(*arguments: str, **variables: Any) -> CompletedProcess[str]:
    """Bring the role to the engines under test, both in one run."""
    extra = f"--extra-vars={json.dumps(variables)}"
    return lab.play(SCENARIO / "converge.yml", f"--limit={','.join(NAMES)}", extra, *arguments)


def changes(**variables: Any) -> set[int]:
    """How many tasks changed something; one number where that is the same on both."""
    return set(lab.changes(apply(**variables)).values())


def with_settings(**settings: Any) -> dict[str, Any]:
    """The inventory's settings and these, as the role's variable."""
    given = lab.variable(NAMES[0], "docker_engine_daemon | default({})")
    return {"docker_engine_daemon": {**given, **settings}}


@dataclass(frozen=True)
class Engine:
    """The engine of one node."""

    name: str
    host: Any

    def info(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.host.check_output("docker info --format '{{json .}}'"))
        return answer

    def pid(self) -> str:
        pid: str = self.host.check_output("systemctl show docker.service --property=MainPID --value")
        return pid

    def file(self) -> str:
        text: str = self.host.check_output("cat /etc/docker/daemon.json")
        return text

    def leftovers(self) -> str:
        found: str = self.host.check_output(
            "find /etc/docker /etc/systemd/system/docker.service.d -name '*.previous' || true"
        )
        return found

    @cached_property
    def major(self) -> int:
        return int(self.host.check_output("docker version --format '{{.Server.Version}}'").split(".")[0])

    @contextmanager
    def container(self, options: str = "", command: str = "sleep 1000") -> Iterator[str]:
        """A running container; its id."""
        if self.host.run(f"docker image inspect {IMAGE}").rc != 0:
            self.host.check_output(f"tar -C / -c bin lib lib64 sbin | docker import - {IMAGE}")
        run = f"docker run --detach {BORROWED} {options} {IMAGE} {command}"
        identity = self.host.check_output(run).strip()
        try:
            yield identity
        finally:
            self.host.run(f"docker rm --force {identity}")

    def alive(self, identity: str) -> tuple[str, str]:
        """Process and start of the container: both change if it was restarted."""
        state = self.host.check_output(
            f"docker inspect --format '{{{{.State.Pid}}}} {{{{.State.StartedAt}}}}' {identity}"
        )
        pid, started = state.split()
        return pid, started

    def ask(self, url: str) -> str:
        """GET from the node itself, several times: the server in the container needs a moment."""
        code = (
            "import sys, time, urllib.request\n"
            "for attempt in range(50):\n"
            "    try:\n"
            "        print(urllib.request.urlopen(sys.argv[1], timeout=2).status)\n"
            "        break\n"
            "    except OSError as error:\n"
            "        time.sleep(0.2)\n"
        )
        answer: str = self.host.check_output(f"python3 -c {shlex.quote(code)} {url}")
        return answer


def message(done: CompletedProcess[str]) -> str:
    """The output in one line: YAML breaks messages where it likes."""
    return re.sub(r"\s+", " ", done.stdout + done.stderr).replace("''", "'")


@contextmanager
def containers(engines: list[Engine]) -> Iterator[dict[Engine, tuple[str, tuple[str, str]]]]:
    """A running container on each engine: its id, and what `alive` says."""
    with ExitStack() as stack:
        running = {engine: stack.enter_context(engine.container()) for engine in engines}
        yield {engine: (identity, engine.alive(identity)) for engine, identity in running.items()}
