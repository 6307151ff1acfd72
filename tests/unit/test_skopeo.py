from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.module_utils.qianjiang import skopeo
from ansible.module_utils.qianjiang.skopeo import Skopeo, SkopeoError, find_skopeo
from ansible.module_utils.qianjiang.watched import STALLED

LOGINS = {"a.lab": ("u", "pass-word"), "b.lab": ("u", "pass-word")}
SOURCE, DESTINATION = "docker://a.lab/x@sha256:1", "docker://b.lab/x@sha256:1"


class Recorder:
    """Stands for the command; keeps what it was given, and what lay in its files."""

    def __init__(self, help_text: str, code: int = 0, err: str = "") -> None:
        self.help_text, self.code, self.err = help_text, code, err
        self.argv: list[str] = []
        self.login: dict[str, object] = {}
        self.modes: tuple[int, int] = (0, 0)
        self.file = Path()

    def __call__(self, argv: list[str]) -> tuple[int, str, str]:
        if argv[1:] == ["copy", "--help"]:
            return 0, self.help_text, ""
        self.argv = argv
        self.file = Path(argv[argv.index("--authfile") + 1])
        self.login = json.loads(self.file.read_text())
        self.modes = (self.file.stat().st_mode & 0o777, self.file.parent.stat().st_mode & 0o777)
        return self.code, "", self.err


def test_the_password_is_in_a_private_file_for_as_long_as_it_takes(tmp_path: Path) -> None:
    run = Recorder("--preserve-digests")
    Skopeo(run, "skopeo", str(tmp_path)).copy(SOURCE, DESTINATION, LOGINS)
    assert run.argv == [
        "skopeo", "copy", "--quiet", "--authfile", str(run.file), "--preserve-digests", SOURCE, DESTINATION,
    ]  # fmt: skip
    assert run.login == {"auths": {"a.lab": {"auth": "dTpwYXNzLXdvcmQ="}, "b.lab": {"auth": "dTpwYXNzLXdvcmQ="}}}
    assert run.modes == (0o600, 0o700)
    assert list(tmp_path.iterdir()) == []


def test_what_an_older_skopeo_does_not_know_is_left_out(tmp_path: Path) -> None:
    run = Recorder("--all")
    Skopeo(run, "skopeo", str(tmp_path)).copy(SOURCE, DESTINATION, LOGINS, retries=3, seconds=60, whole=True)
    assert run.argv[:4] == ["skopeo", "--command-timeout", "60s", "copy"]
    assert run.argv[-3:] == ["--all", SOURCE, DESTINATION]
    assert not {"--preserve-digests", "--retry-times"} & set(run.argv)


def test_an_archive_and_a_ca_of_choice(tmp_path: Path) -> None:
    run = Recorder("--preserve-digests --retry-times")
    Skopeo(run, "skopeo", str(tmp_path), "/etc/ca.pem").copy("docker-archive:/x.tar", DESTINATION, LOGINS, retries=2)
    assert "--preserve-digests" not in run.argv  # an archive's layers are compressed on the way
    assert run.argv[run.argv.index("--retry-times") + 1] == "2"
    assert run.argv[run.argv.index("--dest-cert-dir") + 1] == str(run.file.parent)
    assert "--src-cert-dir" not in run.argv


def test_skopeo_own_words(tmp_path: Path) -> None:
    err = (
        "Getting image source signatures\n"
        'time="2026-11-24T07:48:26Z" level=fatal msg="writing blob: Patch '
        '\\"https://b.lab/v2/x/blobs/uploads/1?_state=abc%3D\\": connection reset by peer"\n'
    )
    with pytest.raises(SkopeoError) as error:
        Skopeo(Recorder("", 1, err), "skopeo", str(tmp_path)).copy(SOURCE, DESTINATION, LOGINS)
    assert str(error.value) == (
        f'skopeo copy {SOURCE} {DESTINATION} failed: writing blob: Patch "https://b.lab/v2/x/blobs/uploads/1": '
        "connection reset by peer. Run it again when the cause is mended: what arrived whole is not sent again."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_registry_that_is_read_only(tmp_path: Path) -> None:
    err = (
        'time="2026-11-28T11:42:23Z" level=fatal msg="writing blob: initiating layer upload to /v2/x/blobs/uploads/ '
        'in b.lab: StatusCode: 405, Method not allowed\\n"\n'
    )
    with pytest.raises(SkopeoError) as error:
        Skopeo(Recorder("", 1, err), "skopeo", str(tmp_path)).copy(SOURCE, DESTINATION, LOGINS)
    assert (
        "in b.lab: StatusCode: 405, Method not allowed (the registry is read-only, probably while "
        "docker-registry-collect runs: run this again later). Run it again when"
    ) in str(error.value)


@pytest.mark.parametrize(
    ("codes", "retries", "seconds", "limits", "waits"),
    [
        pytest.param([STALLED, STALLED, 0], 3, 3600, ["3600s", "3479s", "3357s"], [1, 2], id="until it gets through"),
        pytest.param([STALLED] * 3, 2, 0, ["copy"] * 3, [1, 2], id="no more often than it may"),
        pytest.param([STALLED] * 2, 9, 242, ["242s", "121s"], [1], id="no longer than it may"),
        pytest.param([1], 3, 3600, ["3600s"], [], id="what skopeo gave up is its own affair"),
    ],
)
def test_a_copy_that_stands_still_is_tried_again(  # noqa: PLR0917 — one per column of the table
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    codes: list[int],
    retries: int,
    seconds: int,
    limits: list[str],
    waits: list[int],
) -> None:
    """A stall takes two minutes until it is seen."""
    now, slept, seen, rest = [0.0], [], [], iter(codes)

    def run(argv: list[str]) -> tuple[int, str, str]:
        if argv[1:] == ["copy", "--help"]:
            return 0, "", ""
        seen.append(argv[2] if "--command-timeout" in argv else argv[1])
        now[0] += 120
        return next(rest), "", "not a byte moved"

    def sleep(wait: float) -> None:
        slept.append(wait)
        now[0] += wait

    monkeypatch.setattr(skopeo, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    failed = False
    try:
        Skopeo(run, "skopeo", str(tmp_path)).copy(SOURCE, DESTINATION, LOGINS, retries=retries, seconds=seconds)
    except SkopeoError:
        failed = True
    assert (seen, slept, failed) == (limits, waits, codes[-1] != 0)
    assert next(rest, None) is None


def test_a_configuration_that_cannot_be_read() -> None:
    broken = Skopeo(lambda _: (1, "", "no such file"), "skopeo", "/tmp")
    with pytest.raises(SkopeoError, match="skopeo inspect oci-archive:/x failed: no such file"):
        broken.config_digest("oci-archive:/x")


def test_a_host_without_skopeo() -> None:
    with pytest.raises(SkopeoError) as error:
        find_skopeo(SimpleNamespace(get_bin_path=lambda _: None))
    assert str(error.value) == "skopeo is missing on this host. On Debian: skopeo"
