"""image_build with each builder: BuildKit in engine 20.10, the classic one in 26.1, and there the buildx plugin."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

import lab
from engines import NAMES, SCENARIO, Engine

FOLDER = "/srv/build-test"
# Alone in an image of its own, a shell whose commands are built in
SHELL = "busybox-static"
HEAD = "FROM scratch\nCOPY shell /bin/sh\n"
GOOD = f"""{HEAD}COPY . /context/
ARG GREETING
RUN echo "$GREETING" > /greeting
# A network has routes below the heading
RUN lines=0; while read line; do lines=$((lines + 1)); done < /proc/net/route; test "$lines" -le 1
"""
FAILING = f"{HEAD}\nRUN echo about to fail; \\\n    exit 7\n"
# Its length only: what an instruction says is in the image
SECRET = f'{HEAD}RUN --mount=type=secret,id=token read token < /run/secrets/token && test "${{#token}}" = 8\n'


class Builder(NamedTuple):
    engine: Engine
    buildkit: bool

    def write(self, dockerfile: str) -> None:
        files = {
            "Dockerfile": dockerfile,
            ".dockerignore": "ignored.txt\n",
            "kept.txt": "kept",
            "ignored.txt": "ignored",
        }
        writes = [f"printf %s {shlex.quote(text)} > {FOLDER}/{name}" for name, text in files.items()]
        self.engine.host.check_output(
            " && ".join([f"mkdir -p {FOLDER}", *writes, f"cp /usr/bin/busybox {FOLDER}/shell"])
        )

    def build(self, *arguments: str, **options: Any) -> dict[str, Any]:
        """What image_build returned."""
        text = json.dumps({"name": "build-test", "path": FOLDER, **options})
        found = lab.run_ansible(
            "ansible", self.engine.name, "--one-line", "-b", "-m", "image_build", "-a", text, *arguments
        )
        _, told, result = re.split(r" \| | => ", found.stdout.strip(), maxsplit=2)
        return {"failed": told.startswith("FAILED"), **json.loads(result)}

    def run(self, image: str, command: str) -> str:
        output: str = self.engine.host.check_output(
            f"docker run --rm --network none {image} /bin/sh -c {shlex.quote(command)}"
        )
        return output

    def left_over(self) -> str:
        output: str = self.engine.host.check_output(
            "docker ps --all --quiet; find / /tmp -xdev -name '*image-build-*' -not -path '/proc/*'"
        )
        return output


def install(name: str, *packages: str) -> None:
    extra = json.dumps({"docker_engine_extra_packages": packages})
    lab.changes(lab.play(SCENARIO / "converge.yml", f"--limit={name}", "--extra-vars", extra))


@pytest.fixture(scope="module", params=["BuildKit in the engine", "the classic builder", "buildx"])
def builder(request: pytest.FixtureRequest) -> Iterator[Builder]:
    name = NAMES[0] if request.param == "BuildKit in the engine" else NAMES[-1]
    engine = Engine(name, lab.connect(name))
    engine.host.check_output("apt-get purge --yes docker-buildx 2>&1 || true")
    install(name, SHELL, *(["docker-buildx"] if request.param == "buildx" else []))
    yield Builder(engine, buildkit=request.param != "the classic builder")
    engine.host.check_output("apt-get purge --yes docker-buildx 2>&1 || true")
    engine.host.check_output("docker image ls --quiet build-test | xargs --no-run-if-empty docker rmi --force")


def test_what_it_builds(builder: Builder) -> None:
    builder.write(GOOD)
    before = builder.left_over()
    planned = builder.build("--check", build_args={"GREETING": "hello"})
    built = builder.build(build_args={"GREETING": "hello"}, labels={"team": "web"}, revision="abc")
    again = builder.build(build_args={"GREETING": "hello"}, labels={"team": "web"}, revision="abc")
    assert (planned["changed"], built["changed"], again["changed"]) == (True, True, False), (planned, built, again)
    assert again["image"] == built["image"]
    assert (
        builder.run(built["image"], "read text < /greeting; echo $text; cd /context; echo *")
        == "hello\nDockerfile kept.txt shell"
    )
    labels = json.loads(
        builder.engine.host.check_output(f"docker inspect --format '{{{{json .Config.Labels}}}}' {built['image']}")
    )
    assert labels["io.qianjiang.context"] == built["identity"]
    assert (labels["team"], labels["org.opencontainers.image.revision"]) == ("web", "abc")
    history = builder.engine.host.check_output(f"docker history --format '{{{{.Comment}}}}' {built['image']}")
    assert ("buildkit" in history) == builder.buildkit, history
    assert builder.left_over() == before


def test_a_step_that_fails_is_named_with_what_it_wrote(builder: Builder) -> None:
    builder.write(FAILING)
    before = builder.left_over()
    failed = builder.build()
    assert failed["failed"]
    assert "failed at Dockerfile line 4: RUN echo about to fail" in failed["msg"], failed["msg"]
    assert "The last lines of that step:\n  about to fail" in failed["msg"], failed["msg"]
    assert "exit code: 7" in failed["msg"] or "returned a non-zero code: 7" in failed["msg"], failed["msg"]
    assert builder.left_over() == before


def test_a_secret_reaches_the_step_and_no_layer(builder: Builder) -> None:
    builder.write(SECRET)
    built = builder.build(secrets={"token": "pa55word\n"})
    if not builder.buildkit:
        assert built["failed"]
        assert "secrets: they need BuildKit" in built["msg"]
        assert "docker-buildx" in built["msg"]
        return
    assert not built["failed"], built
    save = f"docker save {built['image']} | tar --extract --to-stdout --wildcards '*'"
    assert builder.engine.host.run(f"{save} | grep --text --quiet pa55word").rc == 1
    assert builder.engine.host.run(f"{save} | grep --text --quiet io.qianjiang.context").rc == 0


def test_the_same_context_is_the_same_everywhere() -> None:
    builders = [Builder(Engine(name, lab.connect(name)), buildkit=True) for name in NAMES]
    for each in builders:
        each.engine.host.check_output(
            f"rm -rf {FOLDER} && mkdir {FOLDER} && printf 'FROM scratch\\nCOPY . /\\n' > {FOLDER}/Dockerfile"
        )
    assert len({each.build("--check")["identity"] for each in builders}) == 1
