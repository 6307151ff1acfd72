"""Loading a module file of library/ (or a plugin) as Python, and one sample platform that the tests share."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from ansible.module_utils.qianjiang.catalogue import normalise
from ansible.module_utils.qianjiang.release import configuration_hash
from ansible.module_utils.qianjiang.service_state import Owned
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).resolve().parents[2]


def load(path: str) -> ModuleType:
    """Import the Python file at `path`, relative to the project's root."""
    file = ROOT / path
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python file: {file}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rendered(role: str, text: str, facts: dict[str, Any], **variables: Any) -> Any:
    """What a template of the role is on a host with these facts."""
    known: dict[str, Any] = {"ansible_facts": facts}
    for file in ("defaults/main.yml", "vars/main.yml"):
        known |= DataLoader().load_from_file(str(ROOT / "roles" / role / file), trusted_as_template=True)
    return Templar(loader=DataLoader(), variables=known | variables).template(trust_as_template(text))


NODES = {"hangzhou": ["h1", "h2"], "shanghai": ["s1"]}
DATACENTERS = {name: {"registry": f"registry.{name}.lab:5000", "nodes": nodes} for name, nodes in NODES.items()}
OLD, NEW = "sha256:" + "0" * 64, "sha256:" + "1" * 64
_CATALOGUE: dict[str, dict[str, Any]] = {
    "webui": {
        "build": {},
        "port": 8080,
        "slots_port": 18080,
        "gateway": {"port": 80},
        "env": {"TITLE": "Qianjiangyuan"},
        "depends_on": ["store"],
    },
    "store": {"image": "etcd:3.5", "port": 2379, "slots_port": 18090, "placement": {"datacenters": ["hangzhou"]}},
}


def catalogue(**changes: Mapping[str, Any]) -> dict[str, Any]:
    """The sample catalogue, normalised: a WebUI everywhere, the store it needs in Hangzhou; changed as said."""
    services = {name: {**service, **changes.get(name, {})} for name, service in _CATALOGUE.items()}
    return dict(normalise(services, NODES))


def container(release: int, slot: str = "a", status: str = "running", **more: Any) -> Owned:
    """A container of the WebUI as the engine lists it, read by `owned`."""
    found: dict[str, Any] = {
        "container": f"webui.0.r{release}",
        "id": f"id{release}",
        "service": "webui",
        "replica": 0,
        "release": release,
        "slot": slot,
        "digest": NEW,
        "configuration": "c",
        "status": status,
        "image_id": f"image{release}",
    }
    return cast(Owned, found | more)


def running(release: int, slot: str = "a", *, service: str = "webui", number: int = 0, **more: Any) -> dict[str, Any]:
    """A container that runs, as service_compare returns it."""
    found = {
        "container": f"{service}.{number}.r{release}",
        "release": release,
        "digest": NEW,
        "configuration": configuration_hash(catalogue()[service]),
        "slot": slot,
        "running": True,
        "health": "healthy",
    }
    return found | more


def replica(current: Mapping[str, Any] | None = None, number: int = 0, **more: Any) -> dict[str, Any]:
    """A replica as service_compare returns it."""
    found = {
        "replica": number,
        "recorded": current["container"] if current else None,
        "current": current,
        "free_slot": "b" if current and current["slot"] == "a" else "a",
        "differences": [],
        "extra": [],
        "port_holder": None,
    }
    return found | more


def left_over(release: int, slot: str = "b", *, proven: bool = True, **more: Any) -> dict[str, Any]:
    """Another container of a replica that runs."""
    return running(release, slot, **more) | {"proven": proven, "differences": []}


def kept(release: int, slot: str = "b", number: int = 0, **more: Any) -> dict[str, Any]:
    """A stopped container that a node kept for rollback."""
    found = running(release, slot, number=number) | {"replica": number, "digest": OLD, "differences": []} | more
    return {key: value for key, value in found.items() if key not in ("running", "health")}


def node(
    *replicas: Mapping[str, Any], highest: int, kept: Iterable[Mapping[str, Any]] = (), **more: Any
) -> dict[str, Any]:
    """What service_compare returned on a node that runs only the WebUI."""
    service = {"replicas": list(replicas), "highest_release": highest, "kept": list(kept)}
    return {"services": {"webui": service}, "orphans": []} | more


def gateway(**slots: str) -> dict[str, dict[str, dict[str, Any]]]:
    """A gateway's tables: `h1="a"` is a WebUI that gets requests in slot a, `h1=""` one that was drained.

    The slots that get none are in drain.
    """
    servers = {
        f"{name}.0.{slot}": {
            "admin": "ready" if slot in admitted else "drain",
            "serves": slot in admitted,
            "sessions": 0,
        }
        for name, admitted in slots.items()
        for slot in "ab"
    }
    return {"webui": servers}
