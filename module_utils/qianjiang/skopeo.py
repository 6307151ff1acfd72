# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copying images with skopeo: from an archive into a registry, and from registry to registry."""

from __future__ import annotations

import json
import math
import re
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.arguments import write_private
from ansible.module_utils.qianjiang.registry import credentials, digest_of, explained
from ansible.module_utils.qianjiang.watched import STALLED, run_watched

Run = Callable[[list[str]], tuple[int, str, str]]
Logins = Mapping[str, tuple[str | None, str | None]]


class SkopeoError(Exception):
    """skopeo failed; the message holds its own words."""


class Skopeo:
    """The skopeo of this host. Passwords reach it in a file (0600) that lives as long as the command."""

    def __init__(self, run: Run, binary: str, folder: str, ca_path: str | None = None) -> None:
        self._run = run
        self._binary = binary
        self._folder = folder
        self._ca_path = ca_path

    def copy(
        self, source: str, destination: str, logins: Logins, *, whole: bool = False, retries: int = 0, seconds: int = 0
    ) -> None:
        """Copy `source` to `destination` (in skopeo's notation); `whole` takes every image of an index.

        All tries together take at most `seconds`; 0: any time.
        """
        known = self._run([self._binary, "copy", "--help"])[1]
        with self._files(logins) as folder:
            argv = ["copy", "--quiet", "--authfile", str(folder / "auth.json")]
            # Digests are the point: a skopeo that has the option must not recompress or convert
            if "--preserve-digests" in known and source.startswith("docker://"):
                argv.append("--preserve-digests")
            if "--retry-times" in known and retries:
                argv += ["--retry-times", str(retries)]
            if whole:
                argv.append("--all")
            if self._ca_path is not None:
                argv += ["--src-cert-dir", str(folder)] if source.startswith("docker://") else []
                argv += ["--dest-cert-dir", str(folder)]
            code, out, err = self._repeated([*argv, source, destination], retries, seconds)
        if code != 0:
            hint = "Run it again when the cause is mended: what arrived whole is not sent again."
            raise SkopeoError(f"skopeo copy {source} {destination} failed: {explained(_reason(err or out))}. {hint}")

    def _repeated(self, argv: list[str], retries: int, seconds: int) -> tuple[int, str, str]:
        """Run skopeo, and again where it stood still: what it tries again by itself ended with it."""
        end = time.monotonic() + seconds
        waits = [2**number for number in range(retries)]
        while True:
            limit = ["--command-timeout", f"{max(1, math.ceil(end - time.monotonic()))}s"] if seconds else []
            done = self._run([self._binary, *limit, *argv])
            if done[0] != STALLED or not waits or (seconds and time.monotonic() + waits[0] >= end):
                return done
            time.sleep(waits.pop(0))

    def config_digest(self, archive: str) -> str:
        """The digest of the configuration of an archive's image: its id, whatever compresses its layers."""
        code, out, err = self._run([self._binary, "inspect", "--raw", "--config", archive])
        if code != 0:
            raise SkopeoError(f"skopeo inspect {archive} failed: {_reason(err or out)}")
        return str(digest_of(out.encode()))

    @contextmanager
    def _files(self, logins: Logins) -> Iterator[Path]:
        with TemporaryDirectory(dir=self._folder, prefix="skopeo-") as name:
            folder = Path(name)
            write_private(folder / "auth.json", json.dumps(credentials(logins)))
            if self._ca_path is not None:
                (folder / "ca.crt").symlink_to(self._ca_path)
            yield folder


def find_skopeo(module: AnsibleModule) -> Skopeo:
    """The skopeo of the module's host, as its options say."""
    binary = module.get_bin_path("skopeo")
    if binary is None:
        raise SkopeoError("skopeo is missing on this host. On Debian: skopeo")
    run = partial(run_watched, stall_timeout=module.params["stall_timeout"])
    return Skopeo(run, binary, module.tmpdir, module.params["ca_path"])


def archive_source(path: Path) -> str:
    """An archive in skopeo's notation: what `docker save` writes, or an OCI archive."""
    try:
        with tarfile.open(path) as archive:
            names = {name.removeprefix("./") for name in archive.getnames()}
    except (OSError, tarfile.TarError) as error:
        raise SkopeoError(f"archive: cannot read {path}: {error}") from error
    if "manifest.json" in names:  # first: newer engines save both in one
        return f"docker-archive:{path}"
    if "oci-layout" in names:
        return f"oci-archive:{path}"
    raise SkopeoError(f"archive: {path} is no image: neither `docker save` nor an OCI archive wrote it")


def _reason(text: str) -> str:
    """skopeo's last line, out of its log format."""
    lines = [line for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    last = re.sub(r"\?_state=[^\"\s\\]*", "", last)  # the registry's own notes in an upload's address: long, and no use
    _, found, message = last.partition('msg="')
    return message.removesuffix('"').removesuffix("\\n").replace('\\"', '"') if found else last
