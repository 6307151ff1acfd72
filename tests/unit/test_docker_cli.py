"""The outputs are those of Docker 20.10.24 (both builders) and, where said, of buildx."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible.module_utils.qianjiang.docker_cli import Build, DockerCliError, command, environment, explain, probe
from ansible.module_utils.qianjiang.dockerfile import Dockerfile


def answer(client: str, api: str | None = "1.41", buildx: int = 1) -> object:
    server = None if api is None else {"ApiVersion": api}

    def run(argv: list[str], environ: dict[str, str]) -> tuple[int, str, str]:
        if argv[1:] == ["buildx", "version"]:
            return buildx, "", ""
        document = json.dumps({"Client": {"Version": client}, "Server": server})
        return (0 if server else 1), document, "" if server else "Cannot connect to the Docker daemon"

    return run


@pytest.mark.parametrize(
    ("run", "buildkit"),
    [
        (answer("20.10.24+dfsg1"), True),
        (answer("20.10.24+dfsg1", api="1.38"), False),
        (answer("17.06.0-ce"), False),
        (answer("28.2.2", buildx=1), False),
        (answer("26.1.5+dfsg1", buildx=0), True),
    ],
)
def test_buildkit_where_there_is_one(run: object, buildkit: bool) -> None:
    assert probe(run, "docker") is buildkit  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            (0, "hello", ""),
            "/opt/docker does not answer like a Docker client ('hello'): is it one? "
            "Put Docker's own client first in PATH.",
        ),
        (
            (127, "", "exec format error"),
            "/opt/docker does not answer like a Docker client ('exec format error'): is it one? "
            "Put Docker's own client first in PATH.",
        ),
        (
            (1, '{"Client":{"Version":"20.10.24"},"Server":null}', "Cannot connect to the Docker daemon at X."),
            "the Docker Engine does not answer its client: Cannot connect to the Docker daemon at X.",
        ),
        (
            (0, '{"Client":{"Version":"new"},"Server":{"ApiVersion":"1.41"}}', ""),
            "/opt/docker does not answer like a Docker client (version 'new', API '1.41'): is it one? "
            "Put Docker's own client first in PATH.",
        ),
    ],
)
def test_garbage_is_named(result: tuple[int, str, str], message: str) -> None:
    with pytest.raises(DockerCliError) as error:
        probe(lambda *_: result, "/opt/docker")
    assert str(error.value) == message


BUILD = Build(
    image="r.lab:5000/webui:ctx-1",
    context=Path("/stage/context"),
    dockerfile="docker/Dockerfile",
    network="none",
    target=None,
    platform=None,
    build_args={},
    labels={},
    secrets={},
)


def test_the_plain_command() -> None:
    assert command("docker", BUILD, buildkit=False) == [
        "docker", "build", "--tag", "r.lab:5000/webui:ctx-1", "--file", "/stage/context/docker/Dockerfile",
        "--network", "none", "--force-rm", "/stage/context",
    ]  # fmt: skip


def test_the_full_command_holds_no_value_that_may_be_secret() -> None:
    build = BUILD._replace(
        target="app",
        platform="linux/arm64",
        build_args={"B": "2", "A": "one", "PATH": "/x", "BUILDKIT_INLINE_CACHE": "1"},
        labels={"k": "v"},
        secrets={"token": Path("/stage/secrets/token")},
    )
    assert command("docker", build, buildkit=True)[2:-1] == [
        "--tag", "r.lab:5000/webui:ctx-1", "--file", "/stage/context/docker/Dockerfile", "--network", "none",
        "--progress", "plain", "--target", "app", "--platform", "linux/arm64", "--label", "k=v",
        "--build-arg", "A", "--build-arg", "B", "--build-arg", "BUILDKIT_INLINE_CACHE=1", "--build-arg", "PATH=/x",
        "--secret", "id=token,src=/stage/secrets/token",
    ]  # fmt: skip
    assert environment(build, buildkit=True, configuration=Path("/stage/config")) == {
        "A": "one",
        "B": "2",
        "BUILDX_GIT_INFO": "0",
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
        "DOCKER_BUILDKIT": "1",
        "DOCKER_CONFIG": "/stage/config",
        "NO_COLOR": "1",
    }
    assert environment(BUILD, buildkit=False, configuration=None)["DOCKER_BUILDKIT"] == "0"
    assert "DOCKER_CONFIG" not in environment(BUILD, buildkit=False, configuration=None)


def test_only_the_variables_that_the_client_reads_are_on_the_command_line() -> None:
    own = {"DOCKER_HOST": "x", "GODEBUG": "x", "SSL_CERT_FILE": "x", "LD_PRELOAD": "x", "NO_COLOR": "0"}
    others = {
        "GOOGLE_MAPS_KEY": "very-secret",
        "GOPROXY": "https://user:very-secret@go.lab",
        "DOCKER_PASSWORD": "very-secret",
        "SSL_KEY_PASSWORD": "very-secret",
        "LD_SDK_KEY": "very-secret",
    }
    build = BUILD._replace(build_args={**own, **others})
    argv = command("docker", build, buildkit=True)
    assert [word for word in argv if "very-secret" in word] == []
    assert [name for name in others if name not in argv] == []
    assert [name for name, value in own.items() if f"{name}={value}" not in argv] == []
    variables = environment(build, buildkit=True, configuration=None)
    assert {name: variables.get(name) for name in others} == others
    assert (variables["NO_COLOR"], set(own) & set(variables)) == ("1", {"NO_COLOR"})


TEXT = """ARG BASE=b@sha256:0
FROM $BASE AS one
WORKDIR /w
COPY f /w/f
RUN echo hello && \\
    exit 3
FROM one
RUN echo never
"""
CLASSIC = """Sending build context to Docker daemon  3.072kB
Step 1/5 : ARG BASE=b@sha256:0
Step 2/5 : FROM $BASE AS one
 ---> 9c4c12d67af0
Step 5/5 : RUN echo hello &&     exit 3
 ---> Running in 0eeb03883c24
\x1b[91mhello
\x1b[0mRemoving intermediate container 0eeb03883c24
"""
BUILDKIT = """#4 [one 1/4] FROM b@sha256:0
#4 sha256:cdccb73bd7e7c233b1a8e42d7645cc9a4401ac0ebe9e1790bcc5ba38da6bd951
#4 DONE 0.0s

#8 [one 4/4] RUN echo hello &&     exit 3
#8 sha256:5dfb5301ed6bdf2d225598cec31d9eef0b27b90b97a81144868b8d093c750659
#8 0.052 hello
#8 ERROR: executor failed running [/bin/sh -c echo hello &&     exit 3]: exit code: 3
------
 > [one 4/4] RUN echo hello &&     exit 3:
------
executor failed running [/bin/sh -c echo hello &&     exit 3]: exit code: 3
"""
BUILDX = """#7 [linux/amd64 one 2/4] WORKDIR /w
#7 CANCELED
#8 [linux/amd64 one 4/4] RUN echo hello &&     exit 3
#8 0.052 hello
#8 ERROR: process "/bin/sh -c echo hello &&     exit 3" did not complete successfully: exit code: 3
------
 > [one 4/4] RUN echo hello &&     exit 3:
0.052 hello
------
Dockerfile:5
--------------------
   4 |     COPY f /w/f
   5 | >>> RUN echo hello && \\
--------------------
ERROR: failed to solve: process "/bin/sh -c echo hello &&     exit 3" did not complete successfully: exit code: 3
"""
FAILED = "failed at Dockerfile line 5: RUN echo hello && exit 3\n{}\nThe last lines of that step:\n  hello"


@pytest.mark.parametrize(
    ("out", "err", "message"),
    [
        (
            CLASSIC,
            "DEPRECATED: The legacy builder is deprecated\n\nThe command '/bin/sh -c echo hello &&     exit 3' "
            "returned a non-zero code: 3\n",
            FAILED.format("The command '/bin/sh -c echo hello &&     exit 3' returned a non-zero code: 3"),
        ),
        ("", BUILDKIT, FAILED.format("executor failed running [/bin/sh -c echo hello &&     exit 3]: exit code: 3")),
        (
            "",
            BUILDX,
            FAILED.format('process "/bin/sh -c echo hello &&     exit 3" did not complete successfully: exit code: 3'),
        ),
        (
            "Sending build context to Docker daemon  4.096kB\n",
            "Error response from daemon: dockerfile parse error line 4: unknown instruction: COPI",
            "failed at Dockerfile line 4: COPY f /w/f\n"
            "Error response from daemon: dockerfile parse error line 4: unknown instruction: COPI",
        ),
        (
            "",
            '#6 [one 3/4] COPY f /w/f\n#6 ERROR: "/f" not found: not found\n------\n'
            'failed to compute cache key: "/f" not found: not found\n',
            'failed at Dockerfile line 4: COPY f /w/f\n"/f" not found: not found',
        ),
        (
            "",
            "#3 [internal] load metadata for b@sha256:0\n#3 ERROR: pulling from host b failed with status code 401\n",
            "failed\npulling from host b failed with status code 401",
        ),
        ("", "segmentation fault", "failed\nsegmentation fault"),
        ("", "", "failed\nthe Docker client said nothing"),
    ],
)
def test_a_failure_names_line_text_and_output(out: str, err: str, message: str) -> None:
    assert explain(out, err, Dockerfile(TEXT)) == message


def test_only_the_last_lines_are_shown() -> None:
    output = "".join(f"#8 0.{n} line {n}\n" for n in range(100))
    err = BUILDKIT.replace("#8 0.052 hello\n", output)
    shown = explain("", err, Dockerfile(TEXT)).split("The last lines of that step:\n")[1].splitlines()
    assert (len(shown), shown[0], shown[-1]) == (30, "  line 70", "  line 99")
