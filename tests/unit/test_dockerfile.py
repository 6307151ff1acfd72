from __future__ import annotations

import pytest
from ansible.module_utils.qianjiang.dockerfile import Dockerfile, DockerfileError, Instruction

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
PIN = "name it by digest, <repository>@sha256:<64 hex digits>; image_resolve gives the digest of a tag"


def test_instructions_have_their_first_line() -> None:
    text = '# comment\nFROM scratch\n\nRUN one \\\n  # inside\n  && two\n# end\nCMD ["x"]\n'
    assert Dockerfile(text).instructions == [
        Instruction(2, "FROM", "scratch"),
        Instruction(4, "RUN", "one && two"),
        Instruction(8, "CMD", '["x"]'),
    ]


def test_escape_directive_and_heredoc() -> None:
    text = "# escape=`\nFROM scratch\nRUN a `\n b\nCOPY <<EOF /x\nFROM nothing\nEOF\nUSER 1\n"
    assert [(i.line, i.keyword) for i in Dockerfile(text).instructions] == [
        (2, "FROM"), (3, "RUN"), (5, "COPY"), (8, "USER"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "build_args", "bases"),
    [
        (f"FROM r.lab:5000/base@{A}", {}, [f"r.lab:5000/base@{A}"]),
        (f"FROM base:1@{A} AS one\nFROM one\nFROM scratch", {}, [f"base:1@{A}"]),
        (f"from base@{A} as One\nFROM ONE", {}, [f"base@{A}"]),
        (f"ARG BASE=base@{A}\nFROM $BASE", {}, [f"base@{A}"]),
        (f"ARG BASE=base@{A}\nFROM ${{BASE}}", {"BASE": f"base@{B}"}, [f"base@{B}"]),
        (f'ARG BASE="base@{A}"\nFROM "$BASE"', {}, [f"base@{A}"]),
        ("ARG R=r.lab\nARG D\nFROM ${R}/base@${D:-x}", {"D": A}, [f"r.lab/base@{A}"]),
        (f"ARG V\nFROM base${{V:+-$V}}@{A}", {"V": "2"}, [f"base-2@{A}"]),
        (f"ARG A=base B={A}\nFROM $A@$B", {}, [f"base@{A}"]),
        (f"FROM --platform=$BUILDPLATFORM base@{A} AS b\nFROM b", {}, [f"base@{A}"]),
        (f"FROM base@{A}\nFROM base@{A}", {}, [f"base@{A}"]),
        (f"FROM scratch\nFROM scratch\nCOPY --from=tools@{A} /x /x\nCOPY --from=0 /x /x", {}, [f"tools@{A}"]),
        (f"FROM scratch\nRUN --mount=type=bind,from=tools@{A},target=/t x", {}, [f"tools@{A}"]),
        (f"# syntax=docker/dockerfile@{A}\nFROM scratch", {}, [f"docker/dockerfile@{A}"]),
        (
            "# syntax=docker/dockerfile:1\nFROM scratch",
            {"BUILDKIT_SYNTAX": f"docker/dockerfile@{A}"},
            [f"docker/dockerfile@{A}"],
        ),
        (f"FROM\tbase@{A}", {}, [f"base@{A}"]),
        (f"ARG\tB=base@{A}\nFROM $B", {}, [f"base@{A}"]),
        (f"FROM base@{A}\r\nRUN one \\\r\n  two\r\n", {}, [f"base@{A}"]),
        (f"FROM scratch\nRUN --mount=type=bind,\\\nfrom=tools@{A} x", {}, [f"tools@{A}"]),
        (f"FROM scratch\nADD --chown=1 --checksum={A} https://x.lab/a.tar /", {}, []),
        (f"FROM scratch\nARG SUM={A}\nADD --checksum=${{SUM}} https://x.lab/a.tar /", {}, []),
        ("FROM scratch\nARG SUM\nADD --checksum=$SUM https://x.lab/a.tar /", {"SUM": A}, []),
        (f"ARG SUM={A}\nFROM scratch\nARG SUM\nADD --checksum=$SUM https://x.lab/a.tar /", {}, []),
        (f"# not a directive\n# syntax=docker/dockerfile:1\nFROM base@{A}", {}, [f"base@{A}"]),
    ],
)
def test_bases(text: str, build_args: dict[str, str], bases: list[str]) -> None:
    dockerfile = Dockerfile(text)
    dockerfile.check(build_args, None)
    assert dockerfile.bases(build_args) == bases


@pytest.mark.parametrize(
    ("text", "build_args", "target", "message"),
    [
        ("FROM debian:12", {}, None, f"Dockerfile line 1: FROM debian:12 is not pinned: {PIN}"),
        ("FROM debian", {}, None, f"Dockerfile line 1: FROM debian is not pinned: {PIN}"),
        (
            "ARG BASE=debian:12\nFROM ${BASE}",
            {},
            None,
            f"Dockerfile line 2: FROM ${{BASE}} (debian:12) is not pinned: {PIN}",
        ),
        (
            "ARG BASE\n\nFROM ${BASE}",
            {},
            None,
            "Dockerfile line 3: FROM ${BASE}: no value for BASE: give it in build_args, or a default in `ARG BASE=…`",
        ),
        (
            "FROM $X",
            {},
            None,
            "Dockerfile line 1: FROM $X: no value for X: "
            "declare `ARG X` before the first FROM, with a default or in build_args",
        ),
        ("FROM one AS one", {}, None, f"Dockerfile line 1: FROM one is not pinned: {PIN}"),
        (
            f"FROM Base@{A}",
            {},
            None,
            f"Dockerfile line 1: not an image reference: 'Base@{A}' (a repository is lower case: 'Base')",
        ),
        (
            "FROM scratch\nCOPY --from=nginx:1 /x /x",
            {},
            None,
            f"Dockerfile line 2: --from=nginx:1 is not pinned: {PIN}",
        ),
        (
            "FROM scratch\nCOPY --from=3 /x /x",
            {},
            None,
            "Dockerfile line 2: --from=3: there is no such stage before it",
        ),
        (
            "FROM scratch\nRUN --mount=from=nginx,target=/t x",
            {},
            None,
            f"Dockerfile line 2: --mount from=nginx is not pinned: {PIN}",
        ),
        (
            "# syntax=docker/dockerfile:1\nFROM scratch",
            {},
            None,
            f"Dockerfile line 1: syntax=docker/dockerfile:1 is not pinned: {PIN}",
        ),
        (
            "FROM scratch\nADD https://x.lab/a.tar /",
            {},
            None,
            "Dockerfile line 2: ADD https://x.lab/a.tar is not pinned: put the file into the context, "
            "or add --checksum=sha256:<64 hex digits>",
        ),
        (
            'FROM scratch\nRUN --mount=type=bind,"from=nginx",target=/t x',
            {},
            None,
            f"Dockerfile line 2: --mount from=nginx is not pinned: {PIN}",
        ),
        (
            "FROM scratch\nONBUILD COPY --from=nginx:1 /x /x",
            {},
            None,
            f"Dockerfile line 2: --from=nginx:1 is not pinned: {PIN}",
        ),
        (
            "#!/usr/bin/env builder\n# syntax=docker/dockerfile:1\nFROM scratch",
            {},
            None,
            f"Dockerfile line 2: syntax=docker/dockerfile:1 is not pinned: {PIN}",
        ),
        (
            f"# syntax=docker/dockerfile@{A}\nFROM scratch",
            {"BUILDKIT_SYNTAX": "docker/dockerfile:1"},
            None,
            f"build_args.BUILDKIT_SYNTAX: docker/dockerfile:1 is not pinned: {PIN}",
        ),
        *(
            (text, {}, None, f"Dockerfile line 2: {what} is not pinned: {PIN}")
            for text, what in (
                (f"FROM base@{A}\nFROM\talpine:3", "FROM alpine:3"),
                ("FROM scratch\nRUN\t--mount=from=alpine:3 x", "--mount from=alpine:3"),
                ("FROM scratch\nRUN\r--mount=from=alpine:3 x", "--mount from=alpine:3"),
                ("FROM scratch\nRUN \f--mount=from=alpine:3 x", "--mount from=alpine:3"),
                ("FROM scratch\nRUN --mount=type=bind,FROM=alpine:3 x", "--mount from=alpine:3"),
                ("FROM scratch\nRUN --mount=type=bind,\\\nfrom=alpine:3 x", "--mount from=alpine:3"),
                ("FROM scratch\nRUN --mount=type=bind,\\ \t\nfrom=alpine:3 x", "--mount from=alpine:3"),
                ("FROM scratch\nCOPY\t--from=alpine:3 /x /x", "--from=alpine:3"),
                ("FROM scratch\nONBUILD\tCOPY --from=alpine:3 /x /x", "--from=alpine:3"),
                ("FROM scratch\nONBUILD COPY\t--from=alpine:3 /x /x", "--from=alpine:3"),
            )
        ),
        (
            "# check2=x y\n# syntax=docker/dockerfile:1 or so\nFROM scratch",
            {},
            None,
            f"Dockerfile line 2: syntax=docker/dockerfile:1 is not pinned: {PIN}",
        ),
        (
            "FROM scratch\nRUN one \\\\\nFROM alpine:3",
            {},
            None,
            "Dockerfile line 2 ends in two \\: builders disagree whether the next line belongs to it; end it in one",
        ),
        *(
            (
                text,
                build_args,
                None,
                f"Dockerfile line {line}: ADD https://x.lab/a.tar is not pinned: put the file into the context, "
                "or add --checksum=sha256:<64 hex digits>",
            )
            for line, text, build_args in (
                (3, "FROM scratch\nARG U=https://x.lab/a.tar\nADD ${U} /", {}),
                (4, "ARG H=x.lab\nFROM scratch\nARG H\nADD https://$H/a.tar /", {}),
                (3, "FROM scratch\nARG U\nADD $U /", {"U": "https://x.lab/a.tar"}),
                (4, "FROM scratch\nARG H=x.lab\nENV U=https://$H/a.tar\nADD $U /", {}),
                (2, "FROM scratch\nONBUILD ADD https://x.lab/a.tar /", {}),
                (3, "FROM scratch\nONBUILD ENV U=https://x.lab/a.tar\nONBUILD ADD $U /", {}),
                (2, "FROM scratch\nADD\thttps://x.lab/a.tar /", {}),
                (3, "FROM scratch\nENV U https://x.lab/a.tar\nADD $U /", {}),
                (2, "FROM scratch\nADD --checksum=$NOTHING https://x.lab/a.tar /", {}),
                (2, "FROM scratch\nADD --checksum=sha256:1 https://x.lab/a.tar /", {}),
                (2, f"FROM scratch\nADD https://x.lab/a.tar --checksum={A} /", {}),
                (3, f"FROM scratch\nARG F=--checksum={A}\nADD $F https://x.lab/a.tar /", {}),
                (3, f"ARG SUM={A}\nFROM scratch\nADD --checksum=$SUM https://x.lab/a.tar /", {}),
                (5, f"FROM scratch\nARG SUM={A}\nFROM scratch\nARG SUM\nADD --checksum=$SUM https://x.lab/a.tar /", {}),
            )
        ),
        (
            "FROM scratch\nADD https://x.lab/a.tar?--checksum=x /",
            {},
            None,
            "Dockerfile line 2: ADD https://x.lab/a.tar?--checksum=x is not pinned: put the file into the context, "
            "or add --checksum=sha256:<64 hex digits>",
        ),
        ("RUN x", {}, None, "Dockerfile line 1: RUN before the first FROM"),
        ("# nothing", {}, None, "Dockerfile has no FROM"),
        (
            "FROM scratch",
            {"VERSION": "1"},
            None,
            "build_args.VERSION: Dockerfile declares no ARG VERSION (it declares none)",
        ),
        (
            "FROM scratch\nARG B\nARG A",
            {"VERSION": "1"},
            None,
            "build_args.VERSION: Dockerfile declares no ARG VERSION (it declares A, B)",
        ),
        (
            "FROM scratch AS one\nFROM scratch AS two",
            {},
            "three",
            "target: Dockerfile has no stage 'three' (its stages: one, two)",
        ),
    ],
)
def test_what_is_refused(text: str, build_args: dict[str, str], target: str | None, message: str) -> None:
    with pytest.raises(DockerfileError) as error:
        Dockerfile(text).check(build_args, target)
    assert str(error.value) == message


def test_all_errors_come_at_once() -> None:
    with pytest.raises(DockerfileError) as error:
        Dockerfile("FROM one\nFROM two").check({}, None)
    assert str(error.value).count("is not pinned") == 2


def test_a_trigger_counts_the_stages_of_the_dockerfile_that_has_it() -> None:
    Dockerfile("FROM scratch\nONBUILD COPY --from=3 /x /x").check({}, None)


def test_proxies_need_no_declaration() -> None:
    Dockerfile("FROM scratch").check({"HTTP_PROXY": "http://p", "no_proxy": "x", "BUILDKIT_INLINE_CACHE": "1"}, None)


STAGES = f"""ARG BASE=base@{A}
FROM $BASE AS build
ENV X=1
RUN one
WORKDIR /w
RUN two \\
  three

FROM scratch
COPY --from=build /w /w
FROM build
RUN last
"""


@pytest.mark.parametrize(
    ("stage", "step", "line"),
    [("build", 1, 2), ("build", 2, 4), ("build", 3, 5), ("build", 4, 6), ("stage-1", 1, 10), ("stage-2", 1, 12)],
)
def test_the_line_of_a_buildkit_step(stage: str, step: int, line: int) -> None:
    found = Dockerfile(STAGES).buildkit_step(stage, step)
    assert found is not None
    assert found.line == line


def test_the_line_of_a_classic_step() -> None:
    dockerfile = Dockerfile(STAGES)
    assert [dockerfile.classic_step(n).line for n in (1, 2, 4, 6)] == [1, 2, 4, 6]  # type: ignore[union-attr]
    assert dockerfile.classic_step(99) is None
    assert dockerfile.buildkit_step("build", 99) is None
    assert dockerfile.buildkit_step("nowhere", 1) is None
