#!/usr/bin/env python3
"""Machines with a kernel that has NFS: User Mode Linux guests, and a file server beside them.

The kernel of a build machine or a container often has no NFS client. User Mode Linux runs a whole Debian 12 as a few
processes, with the modules it needs, and reaches SSH in about 15 s. Guests and server live in a network namespace,
joined to the host by one veth pair, so that taking the namespace away takes everything with it.

    guests.py build                     the guests' disk (cached)
    guests.py up NAME=OCTET ...         boot guests at 10.213.0.OCTET and wait for SSH
    guests.py crash NAME                kill a guest as a power cut would
    guests.py serve | kill-server       the file server, exporting /export
    guests.py mute | unmute             drop what the server is sent, or no longer: a dead server answers nothing
    guests.py down                      stop everything that this lab started, and nothing else
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
RUN = PROJECT / ".lab/nfs"
NAMESPACE = "qianjiang-nfs"
VETH = "qjnfs0"
NETWORK = "10.213.0"
SERVER, CONTROLLER = f"{NETWORK}.1", f"{NETWORK}.254"
SUITE = "bookworm"
PACKAGES = (
    "ca-certificates,dbus,iproute2,kmod,netbase,openssh-server,procps,python3,python3-apt,systemd-sysv,udev,"
    # What nfs-common depends on: a guest takes most of a minute to unpack it
    "keyutils,libevent-core-2.1-7,libnfsidmap1,rpcbind,ucf"
)
# Installed by the role under test: kept in the guest as a repository, so that guests need no way out
LATER = "nfs-common"
MASKED = (
    "apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer "
    "getty@tty1.service serial-getty@.service systemd-timesyncd.service systemd-udev-trigger.service"
)
MEMORY = "256M"
NO_DOCS = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]


class LabError(Exception):
    """The lab cannot go on; the message says what to do."""


def run(*command: str | Path, **options: str) -> str:
    """Run a command; a failure shows what it printed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise LabError(
            f"{' '.join(map(str, command))}: exit code {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}"
        )
    output: str = done.stdout
    return output


def inside(*command: str | Path) -> str:
    return run("ip", "netns", "exec", NAMESPACE, *command)


def wait_for(what: str, check: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.1)


# --- the guests' disk ---------------------------------------------------------------------------------------------


def image() -> Path:
    """Folder of the disk for this version of the recipe: image, key, known host key."""
    recipe = hashlib.sha256(f"{SUITE}{PACKAGES}{LATER}{MASKED}{NO_DOCS}{inspect.getsource(build)}".encode())
    for file in sorted(file for file in (HERE / "guest").rglob("*") if file.is_file()):
        recipe.update(file.read_bytes())
    return PROJECT / ".cache/nfs" / recipe.hexdigest()[:16]


def build() -> None:
    folder = image()
    if folder.exists():
        return
    for tool, package in {"mmdebstrap": "mmdebstrap", "linux.uml": "user-mode-linux", "mke2fs": "e2fsprogs"}.items():
        if not shutil.which(tool):
            raise LabError(f"{tool} is missing. On Debian: apt-get install {package}")
    print("==> disk of the NFS guests (about a minute)", flush=True)
    work = folder.with_suffix(".building")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    root = work / "root"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", work / "id_ed25519")
    hooks = [
        f'install -d -m 700 "$1/root/.ssh" && cp {work}/id_ed25519.pub "$1/root/.ssh/authorized_keys"',
        f'cp -r {HERE}/guest/. "$1/" && chroot "$1" systemctl enable lab-network.service',
        f'chroot "$1" systemctl mask {MASKED}',
        'mkdir -p "$1/lib/modules" && cp -r /usr/lib/uml/modules/. "$1/lib/modules/"',
        'chroot "$1" apt-get clean',
        f'chroot "$1" apt-get -qq -y --no-install-recommends --download-only install {LATER}',
        'mkdir -p "$1/srv/apt" && mv "$1"/var/cache/apt/archives/*.deb "$1/srv/apt/"',
        'cd "$1/srv/apt" && dpkg-scanpackages -m . > Packages 2>/dev/null',
        'rm -rf "$1"/etc/apt/sources.list* "$1"/var/lib/apt/lists/*',
        'echo "deb [trusted=yes] file:/srv/apt ./" > "$1/etc/apt/sources.list"; : > "$1/etc/machine-id"',
    ]
    run(
        *("mmdebstrap", "--mode=root", "--variant=minbase", f"--include={PACKAGES}", *NO_DOCS, "--skip=cleanup/apt"),
        *(f"--customize-hook={hook}" for hook in hooks),
        *(SUITE, root),
    )
    run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m0", "-d", root, work / "disk.img", "1500M")
    host_key = " ".join((root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2])
    (work / "known_hosts").write_text(f"{NETWORK}.* {host_key}\n")
    shutil.rmtree(root)
    work.rename(folder)


# --- the network --------------------------------------------------------------------------------------------------


def network() -> None:
    """A bridge in the namespace for guests and server, and a cable to the host."""
    if (Path("/run/netns") / NAMESPACE).exists():
        return
    run("ip", "netns", "add", NAMESPACE)
    run("ip", "link", "add", VETH, "type", "veth", "peer", "name", "uplink", "netns", NAMESPACE)
    run("ip", "address", "add", f"{CONTROLLER}/24", "dev", VETH)
    run("ip", "link", "set", VETH, "up")
    for command in (
        "link set lo up",
        "link add bridge type bridge forward_delay 0",
        f"address add {SERVER}/24 dev bridge",
        "link set uplink master bridge up",
        "link set bridge up",
    ):
        inside("ip", *command.split())


# --- guests -------------------------------------------------------------------------------------------------------


def processes(mark: str) -> Iterator[int]:
    """Processes of this lab: those whose command line holds `mark`, which holds a path of the lab."""
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark in (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode():
                yield int(folder.name)
        except (OSError, UnicodeDecodeError):
            continue


def guest_mark(name: str) -> str:
    return f"uml_dir={RUN / name}/"


def power_on(name: str, octet: int) -> None:
    """One guest, restarted whenever it reboots: UML's own reboot keeps the old tap open and fails."""
    if any(processes(guest_mark(name))):
        raise LabError(f"{name} is already running: take the lab down first")
    home = RUN / name
    home.mkdir(parents=True, exist_ok=True)
    (home / "disk.cow").unlink(missing_ok=True)
    tap = f"tap{octet}"
    inside("ip", "tuntap", "add", "dev", tap, "mode", "tap")
    inside("ip", "link", "set", tap, "master", "bridge", "up")
    guest = [
        *("linux.uml", f"umid={name}", guest_mark(name), f"mem={MEMORY}", f"ubda={home}/disk.cow,{image()}/disk.img"),
        *("root=/dev/ubda", "rw", "noreboot", f"vec0:transport=tap,ifname={tap},depth=64,gro=1"),
        *(f"lab.name={name}", f"lab.address={NETWORK}.{octet}/24", "con=null", "con0=null,fd:1", "con1=null,fd:1"),
        *("quiet", "systemd.show_status=0"),
    ]
    loop = (
        f'while :; do "$@" </dev/null >{home}/console 2>&1; grep -q "Restarting system" {home}/console || break; done'
    )
    subprocess.Popen(
        ["ip", "netns", "exec", NAMESPACE, "sh", "-c", loop, "sh", *guest],
        # The guest's memory is a file in TMPDIR
        env={**os.environ, "TMPDIR": "/dev/shm", "HOME": str(home)},  # noqa: S108
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def ssh(address: str, command: str) -> subprocess.CompletedProcess[str]:
    options = (
        f"-i {image()}/id_ed25519 -o UserKnownHostsFile={image()}/known_hosts -o BatchMode=yes -o ConnectTimeout=3"
    )
    return subprocess.run(
        ["ssh", *options.split(), f"root@{address}", command], capture_output=True, text=True, check=False
    )


def up(guests: dict[str, int]) -> None:
    build()
    network()
    RUN.mkdir(parents=True, exist_ok=True)
    for name in ("id_ed25519", "known_hosts"):  # where inventories find them
        (RUN / name).unlink(missing_ok=True)
        (RUN / name).symlink_to(image() / name)
    for name, octet in guests.items():
        power_on(name, octet)
    for name, octet in guests.items():
        wait_for(f"SSH to {name}", lambda octet=octet: ssh(f"{NETWORK}.{octet}", "true").returncode == 0, 120)  # type: ignore[misc]


def kill(mark: str) -> None:
    """End processes of this lab by their ids. A guest is a session of its own and would outlive the shell around it."""

    def gone() -> bool:
        for process in processes(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return not any(processes(mark))

    wait_for(f"end of {mark}", gone, 10)


# --- the file server ----------------------------------------------------------------------------------------------

GANESHA = """\
# Short leases: with the default of 90 s every restart of the server stalls its clients; at 5 s healthy ones lose theirs
NFS_CORE_PARAM {{ Protocols = 4; Bind_addr = {server}; Enable_NLM = false; Enable_RQUOTA = false; }}
NFSv4 {{ Grace_Period = 20; Lease_Lifetime = 20; RecoveryBackend = fs; Minor_Versions = 1, 2; }}
EXPORT {{
  Export_Id = 1; Path = {run}/export; Pseudo = /export; Access_Type = RW; Squash = No_Root_Squash; SecType = sys;
  Protocols = 4; Transports = TCP; FSAL {{ Name = VFS; }}
}}
"""


def server_mark() -> str:
    return f"ganesha.nfsd -F -f {RUN}/ganesha.conf"


def serve() -> None:
    network()
    if any(processes(server_mark())):
        return
    (RUN / "export").mkdir(parents=True, exist_ok=True)
    (RUN / "export").chmod(0o1777)
    Path("/var/lib/nfs/ganesha").mkdir(parents=True, exist_ok=True)
    (RUN / "ganesha.conf").write_text(GANESHA.format(server=SERVER, run=RUN))
    command = [*server_mark().split(), "-L", f"{RUN}/ganesha.log", "-p", f"{RUN}/ganesha.pid", "-N", "NIV_EVENT"]
    subprocess.Popen(
        ["ip", "netns", "exec", NAMESPACE, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for("the file server's port", lambda: ":2049 " in inside("ss", "-ltn"), 20)


def mute(on: bool) -> None:
    """Dropped packets, not a stopped process: the kernel would still acknowledge for that one."""
    inside("iptables", "-I" if on else "-D", "INPUT", "-p", "tcp", "--dport", "2049", "-j", "DROP")


def down() -> None:
    kill(f"uml_dir={RUN}/")
    kill(server_mark())
    if (Path("/sys/class/net") / VETH).exists():  # before the namespace, which the kernel takes away some time later
        run("ip", "link", "delete", VETH)
    if (Path("/run/netns") / NAMESPACE).exists():
        run("ip", "netns", "delete", NAMESPACE)
    shutil.rmtree(RUN, ignore_errors=True)


def main(arguments: list[str]) -> None:
    command, *rest = arguments or ["help"]
    if command == "up":
        up({name: int(octet) for name, _, octet in (word.partition("=") for word in rest)})
    elif command == "crash":
        kill(guest_mark(rest[0]))
    elif command in {"mute", "unmute"}:
        mute(command == "mute")
    elif command in {"build", "serve", "kill-server", "down"}:
        {"build": build, "serve": serve, "kill-server": lambda: kill(server_mark()), "down": down}[command]()
    else:
        raise LabError(str(__doc__))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LabError as error:
        sys.exit(f"nfs lab: {error}")
